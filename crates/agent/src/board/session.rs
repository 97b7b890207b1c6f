//! What a session lends to those who ask something of it, from its beginning to its end.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Board;
use crate::dial::Host;
use crate::exemption::ExemptionAsk;
use crate::spooler::Spooler;

/// Someone who waits until what is in the spool was sent, or could not be.
pub type FlushAsk = oneshot::Sender<()>;

/// Its handles; none without a session.
#[derive(Debug, Default)]
pub(super) struct Session {
    flush: Option<mpsc::Sender<FlushAsk>>,
    exemptions: Option<mpsc::Sender<ExemptionAsk>>,
    spooler: Option<Spooler>,
    vault: Option<Arc<tokio::sync::Mutex<Host>>>,
}

impl Session {
    /// One that has begun.
    pub(super) fn new(flush: mpsc::Sender<FlushAsk>) -> Self {
        Self { flush: Some(flush), ..Self::default() }
    }
}

impl Board {
    /// Where to ask for a flush; none when there is nobody to send to.
    pub fn flush(&self) -> Option<mpsc::Sender<FlushAsk>> {
        self.facts().session.flush.clone()
    }

    /// Where records wait, in this session.
    pub fn set_spooler(&self, spooler: Spooler) {
        self.facts().session.spooler = Some(spooler);
    }

    /// Where records wait; none without a session.
    pub fn spooler(&self) -> Option<Spooler> {
        self.facts().session.spooler.clone()
    }

    /// How a user's asks reach the vault, in this session.
    pub fn set_vault(&self, vault: Host) {
        self.facts().session.vault = Some(Arc::new(tokio::sync::Mutex::new(vault)));
    }

    /// How a user's asks reach the vault; not at all without a session.
    pub fn vault(&self) -> Option<Arc<tokio::sync::Mutex<Host>>> {
        self.facts().session.vault.clone()
    }

    /// Who passes requests for more on, in this session.
    pub fn set_exemptions(&self, exemptions: mpsc::Sender<ExemptionAsk>) {
        self.facts().session.exemptions = Some(exemptions);
    }

    /// Where to ask for more; none when there is nobody to ask.
    pub fn exemptions(&self) -> Option<mpsc::Sender<ExemptionAsk>> {
        self.facts().session.exemptions.clone()
    }
}
