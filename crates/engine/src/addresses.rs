//! Whose an address is, as learned from hellos, and flows older than the capture that wait
//! to hear it. Short-lived and bounded. An address at which two names were seen, or one
//! that is nobody's, is shared and attributes nothing; names seen there before the first
//! provider's are not known, so what is learned here is marked as such (`NameSource::Address`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use toktra_catalog::Service;

use crate::FlowId;

/// What is learned of an address is forgotten after this.
const LEARNED_MS: u64 = 10 * 60 * 1000;
/// A flow that waits is given up after this.
const WAITING_MS: u64 = 60 * 60 * 1000;
/// Most addresses, and most waiting flows.
const LIMIT: usize = 1024;

/// What was learned, and who waits.
#[derive(Default)]
pub(crate) struct Addresses {
    learned: HashMap<SocketAddr, Learned>,
    waiting: HashMap<FlowId, Waiting>,
}

/// A provider's name at an address.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) service: &'static Service,
    pub(crate) host: Arc<str>,
}

struct Learned {
    /// `None`: more than one name.
    owner: Option<Owner>,
    at_ms: u64,
}

/// A flow older than the capture.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) remote: SocketAddr,
    pub(crate) user_account: Option<Arc<str>>,
    pub(crate) application: Option<Arc<str>>,
    pub(crate) is_udp: bool,
    pub(crate) since_ms: u64,
}

impl Addresses {
    /// A provider's name was seen at an address; gives the flows that waited for it.
    pub(crate) fn learn(&mut self, now_ms: u64, remote: SocketAddr, owner: Owner) -> Vec<(FlowId, Waiting)> {
        let full = self.learned.len() >= LIMIT;
        let learned = match self.learned.get_mut(&remote) {
            Some(learned) => learned,
            None if full => return Vec::new(),
            None => {
                self.learned.entry(remote).or_insert(Learned { owner: Some(owner.clone()), at_ms: now_ms })
            }
        };
        learned.at_ms = now_ms;
        if learned.owner.as_ref().is_none_or(|known| known.host != owner.host) {
            learned.owner = None;
            return Vec::new();
        }
        let ids: Vec<FlowId> =
            self.waiting.iter().filter(|(_, waiting)| waiting.remote == remote).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.waiting.remove_entry(&id)).collect()
    }

    /// Another name, nobody's, was seen at an address. Leaves no trace unless a provider's was.
    pub(crate) fn mark_shared(&mut self, remote: SocketAddr) {
        if let Some(learned) = self.learned.get_mut(&remote) {
            learned.owner = None;
        }
    }

    /// Whose an address is.
    pub(crate) fn owner(&self, now_ms: u64, remote: SocketAddr) -> Option<Owner> {
        let learned = self.learned.get(&remote)?;
        learned.owner.clone().filter(|_| now_ms.saturating_sub(learned.at_ms) < LEARNED_MS)
    }

    /// A flow older than the capture will wait, if there is room.
    pub(crate) fn wait(&mut self, flow: FlowId, waiting: Waiting) -> bool {
        let room = self.waiting.len() < LIMIT;
        if room {
            self.waiting.insert(flow, waiting);
        }
        room
    }

    /// It waits no more.
    pub(crate) fn forget(&mut self, flow: FlowId) {
        self.waiting.remove(&flow);
    }

    /// Forgets what is too old.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        self.learned.retain(|_, learned| now_ms.saturating_sub(learned.at_ms) < LEARNED_MS);
        self.waiting.retain(|_, waiting| now_ms.saturating_sub(waiting.since_ms) < WAITING_MS);
    }
}
