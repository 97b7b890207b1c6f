//! Who wants to hear of every change: the menus. The status is made once for all of them, at
//! most once a second, and at once when a directive comes; nothing is done while nobody watches.
//!
//! Invariants: a slow watcher misses what was in between, never the newest; no user can take
//! the places of others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use toktra_protocol::local::{self, Answer, Status};

use crate::board::Board;

/// Watchers at once.
pub const LIMIT: usize = 32;
/// Watchers of one user at once: a menu in each of a few sessions.
const USER_LIMIT: usize = 4;
/// How often the status is looked at.
const PACE: Duration = Duration::from_secs(1);
/// Within which a watcher must take a status.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The watchers.
#[derive(Debug)]
pub struct Watchers {
    board: Arc<Board>,
    news: watch::Sender<Box<Status>>,
    arrival: Notify,
    places: Mutex<BTreeMap<u32, usize>>,
}

/// A watcher's place, given back when it is dropped.
struct Place<'a> {
    watchers: &'a Watchers,
    uid: u32,
}

impl Watchers {
    /// No watchers yet.
    pub fn new(board: Arc<Board>) -> Self {
        let news = watch::Sender::new(Box::default());
        Self { board, news, arrival: Notify::new(), places: Mutex::default() }
    }

    /// Looks for news for as long as someone watches; never ends.
    pub async fn look(&self) {
        let mut policy = self.board.policy();
        loop {
            if self.news.receiver_count() == 0 {
                self.arrival.notified().await;
            }
            self.refresh();
            tokio::select! {
                _ = policy.changed() => {}
                () = sleep(PACE) => {}
            }
        }
    }

    fn refresh(&self) {
        self.news.send_if_modified(|last| {
            let status = Box::new(self.board.status(None));
            let changed = *last != status;
            *last = status;
            changed
        });
    }

    /// Serves a watcher until it goes. Refuses it with a reason where there is no place.
    pub async fn serve(&self, mut stream: UnixStream) -> anyhow::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let Some(_place) = self.take_place(uid) else {
            let reason = "too many menus watch this agent already".to_owned();
            return write(&mut stream, &Answer::Refused { reason }).await;
        };
        let mut news = self.news.subscribe();
        self.refresh();
        self.arrival.notify_one();
        let mut personal = self.board.personal.news();
        loop {
            let mut status = news.borrow_and_update().clone();
            personal.borrow_and_update();
            // Each is told of their own ledger alone.
            status.personal = Some(self.board.personal.status(Some(uid), &self.board.offer()));
            write(&mut stream, &Answer::Status(status)).await?;
            tokio::select! {
                changed = news.changed() => changed?,
                changed = personal.changed() => changed?,
                // It has nothing to say: bytes or an end are the end.
                _ = stream.read_u8() => return Ok(()),
            }
        }
    }

    fn take_place(&self, uid: u32) -> Option<Place<'_>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let own = places.get(&uid).copied().unwrap_or(0);
        if own >= USER_LIMIT || places.values().sum::<usize>() >= LIMIT {
            return None;
        }
        places.insert(uid, own + 1);
        Some(Place { watchers: self, uid })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.watchers.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = places.get_mut(&self.uid) {
            *own -= 1;
        }
        places.retain(|_, own| *own > 0);
    }
}

async fn write(stream: &mut UnixStream, answer: &Answer) -> anyhow::Result<()> {
    timeout(WRITE_TIMEOUT, stream.write_all(&local::encode(answer)?)).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use toktra_protocol::local::{Frames, Health};

    use super::*;
    use crate::clock::Clock;

    async fn hear(stream: &mut UnixStream, frames: &mut Frames) -> Answer {
        let mut buffer = [0; 4096];
        loop {
            if let Some(answer) = frames.take().unwrap() {
                return answer;
            }
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the agent went away");
            frames.push(&buffer[..read]);
        }
    }

    fn flows_seen(answer: &Answer) -> Option<u64> {
        let Answer::Status(status) = answer else { panic!("no status: {answer:?}") };
        status.health.as_ref().map(|health| health.flows_seen)
    }

    #[tokio::test]
    async fn a_watcher_hears_what_is_true_at_once_and_every_change_after_it() {
        let board = Arc::new(Board::new(Clock::System, None));
        board.count_extension(1);
        let watchers = Watchers::new(Arc::clone(&board));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let watch = async {
            let mut frames = Frames::default();
            assert_eq!(flows_seen(&hear(&mut theirs, &mut frames).await), None);
            board.set_health(Health { flows_seen: 7, ..Health::default() });
            assert_eq!(flows_seen(&hear(&mut theirs, &mut frames).await), Some(7));
            drop(theirs);
        };
        tokio::select! {
            () = watchers.look() => unreachable!(),
            (served, ()) = async { tokio::join!(watchers.serve(ours), watch) } => served.unwrap(),
        }
        assert!(watchers.places.lock().unwrap().is_empty(), "the place is free again");
    }

    #[tokio::test]
    async fn one_user_cannot_take_every_place() {
        let watchers = Watchers::new(Arc::new(Board::new(Clock::System, None)));
        let mine: Vec<_> = (0..USER_LIMIT).map(|_| watchers.take_place(1000).unwrap()).collect();
        assert!(watchers.take_place(1000).is_none());
        let others: Vec<_> = (0..LIMIT - USER_LIMIT)
            .map(|number| watchers.take_place(2000 + number as u32).unwrap())
            .collect();
        assert!(watchers.take_place(1).is_none(), "all are taken");
        drop((mine, others));
        assert!(watchers.take_place(1000).is_some());
    }
}
