//! How many connections there may be, and how long one lives that nobody uses.
//!
//! Devices keep a connection each for their long poll. Whoever shows no device's certificate
//! shares [`STRANGERS`] places, so that strangers cannot keep the devices out.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::peer::Who;

/// Connections at once.
const ALL: usize = 16 * 1024;
/// Connections at once without a device's certificate.
const STRANGERS: usize = 4 * 1024;

/// The places for connections.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Places {
    /// Waits for a place, known or not who will take it.
    pub async fn any(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// What a connection holds beside its place once it is known whose it is, if there is one left.
    pub fn of(&self, who: &Who) -> Option<Option<OwnedSemaphorePermit>> {
        match who {
            Who::Device(_) => Some(None),
            Who::Anonymous | Who::Stranger => Arc::clone(&self.strangers).try_acquire_owned().ok().map(Some),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), strangers: Arc::new(Semaphore::new(STRANGERS)) }
    }
}

/// The requests under way on one connection. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    requests: watch::Sender<usize>,
}

/// A request under way, until dropped.
#[derive(Debug)]
pub struct UnderWay(watch::Sender<usize>);

impl Activity {
    /// Counts a request until the answer is dropped.
    pub fn request(&self) -> UnderWay {
        self.requests.send_modify(|requests| *requests += 1);
        UnderWay(self.requests.clone())
    }

    /// Returns once no request was under way for so long.
    pub async fn ceased(&self, limit: Duration) {
        let mut requests = self.requests.subscribe();
        loop {
            let none = requests.wait_for(|requests| *requests == 0).await;
            drop(none);
            // Whatever begins is a change, even if it has ended by the time that we look.
            if timeout(limit, requests.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_run_out_of_places_before_devices_do() {
        let places = Places { all: Arc::new(Semaphore::new(9)), strangers: Arc::new(Semaphore::new(2)) };
        let device = toktra_pki::DeviceIdentity {
            organisation: uuid::Uuid::nil(),
            device: uuid::Uuid::nil(),
            serial: String::new(),
            issuer: String::new(),
            not_before: toktra_protocol::UnixSeconds(0),
            not_after: toktra_protocol::UnixSeconds(1),
        };
        let held = (places.of(&Who::Anonymous), places.of(&Who::Stranger));
        assert!(held.0.is_some() && held.1.is_some());
        assert!(places.of(&Who::Anonymous).is_none());
        assert!(places.of(&Who::Device(Arc::new(device))).is_some());
        drop(held);
        assert!(places.of(&Who::Anonymous).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ceases_only_when_nothing_is_under_way() {
        let (activity, limit) = (Activity::default(), Duration::from_secs(90));
        let request = activity.request();
        assert!(timeout(limit * 10, activity.ceased(limit)).await.is_err(), "a long request is no silence");
        drop(request);
        let ceasing = tokio::spawn({
            let activity = activity.clone();
            async move { activity.ceased(limit).await }
        });
        for _ in 0..10 {
            tokio::time::advance(limit / 2).await;
            drop(activity.request());
            tokio::task::yield_now().await;
        }
        assert!(!ceasing.is_finished(), "short requests count as well");
        ceasing.await.unwrap();
    }
}
