//! The sweep: a minute after the server has started, and then every hour, what has passed its time ends.
//! What ends when is `toktra_store::retention`'s.
//!
//! Invariants: it writes in small transactions with a pause after each, so that the ledger never
//! waits long; it may be broken off at any moment and be done by several servers at once.

use std::time::Duration;

use toktra_store::retention::{self, Swept};

use crate::app::SharedApp;

/// From the start to the first sweep: a server that starts has other things to do.
const FIRST_AFTER: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(60 * 60);
/// After each transaction; with it some thousand rows a second end.
const PAUSE: Duration = Duration::from_millis(50);

/// Sweeps once an hour, until it is aborted.
pub(crate) async fn keep_sweeping(app: SharedApp) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        match retention::sweep(&app.store, app.clock.now(), PAUSE).await {
            Ok(swept) if swept.is_empty() => {}
            Ok(Swept { events, hours, days, rollups, others }) => {
                tracing::info!(events, hours, days, rollups, others, "What has passed its time was ended.");
            }
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::error!(cause, "What has passed its time could not be ended; it is tried again.");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
