//! Where the device's identity stands, and what the backend last made of its certificate. Outlives sessions.

use std::sync::{MutexGuard, PoisonError};

use toktra_protocol::local::IdentityPhase;
use toktra_protocol::{Code, UnixSeconds};

use super::{Board, Uplink};

/// By the backend's time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) phase: IdentityPhase,
    pub(super) renews_at: Option<UnixSeconds>,
    pub(super) refused: Option<Code>,
    word: Option<Result<(), Code>>,
}

impl Board {
    /// What the backend made of the certificate in a request of the uplink or for a directive.
    pub fn note_identity(&self, word: Result<(), Code>) {
        self.identity().word = Some(word);
        let mut facts = self.facts();
        if word.is_ok() && matches!(facts.uplink, Uplink::Refused(_)) {
            facts.uplink = Uplink::Well;
            self.accepted.notify_waiters();
        }
    }

    /// What was noted last since this was asked last.
    pub fn take_word(&self) -> Option<Result<(), Code>> {
        self.identity().word.take()
    }

    /// Until the backend takes a certificate that it refused before.
    pub async fn accepted(&self) {
        self.accepted.notified().await;
    }

    /// Where the device's identity stands.
    pub fn set_identity(&self, phase: IdentityPhase, renews_at: Option<UnixSeconds>, refused: Option<Code>) {
        let mut identity = self.identity();
        (identity.phase, identity.renews_at, identity.refused) = (phase, renews_at, refused);
    }

    pub(super) fn identity(&self) -> MutexGuard<'_, Standing> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
