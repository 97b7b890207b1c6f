//! Ends by itself what ends by itself: the mode when its time comes or the organisation ends it, and, a
//! minute after the user was told so, the use of an allowance that is used up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::board::Board;

/// Often enough that a clock that was set is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Looks at every change and whenever something is due, until the agent stops.
pub async fn watch(board: Arc<Board>) {
    let (mut news, mut policy) = (board.personal.news(), board.policy());
    loop {
        news.borrow_and_update();
        policy.borrow_and_update();
        let next = board.personal.look(&board.offer());
        board.settle_personal();
        let wait_s = next.map_or(u64::MAX, |at| at.0.saturating_sub(board.clock.now().0).max(1));
        let wait = Duration::from_secs(wait_s).min(LOOK_EVERY);
        // Either way it is time to look.
        let _ = timeout(wait, async {
            tokio::select! {
                _ = news.changed() => {}
                _ = policy.changed() => {}
            }
        })
        .await;
    }
}
