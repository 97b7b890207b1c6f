//! Seals what the extension says before it is written anywhere. What is sealed is a [`LedgerEntry`]; the
//! user's command reads it again.

use std::io;

use serde::{Deserialize, Serialize};
use toktra_protocol::Minute;
use toktra_protocol::personal::Sealed;
use toktra_protocol::personal::local::{PersonalRecord, PersonalUsage};
use toktra_vault::{Recipient, SealError};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Offer;
use super::membership::Membership;
use super::queue::{self, Incoming};

/// What is sealed: a record of the user's own ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Tells it from every other, so that one that comes twice is shown once.
    pub id: Uuid,
    /// The minute in which it was made.
    pub minute: Minute,
    /// What happened.
    pub usage: PersonalUsage,
}

/// Why records were not taken in. None of them was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum TakeInError {
    /// The disk.
    #[error("personal records cannot be stored: {0}")]
    Store(#[from] io::Error),
    /// They could not be sealed.
    #[error("personal records cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// The system gave none.
    #[error("the system's random number generator failed")]
    Randomness,
    /// A record cannot be written as JSON.
    #[error("a personal record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Seals a record to the user who opted in.
pub fn sealed(
    record: &PersonalRecord,
    membership: &Membership,
    offer: &Offer,
) -> Result<Incoming, TakeInError> {
    let PersonalRecord { number, minute, lost, ref usage } = *record;
    let entry = LedgerEntry { id: Uuid::new_v4(), minute, usage: usage.clone() };
    let json = Zeroizing::new(serde_json::to_vec(&entry)?);
    let mut entropy = Zeroizing::new([0; 32]);
    getrandom::fill(&mut entropy[..]).map_err(|_| TakeInError::Randomness)?;
    let recipient = Recipient::new(*membership.recipient.bytes());
    let sealed = toktra_vault::seal(&recipient, &json, entropy)?;
    let sealed = Sealed::new(sealed).map_err(|_| SealError::TooLarge(json.len()))?;
    Ok(Incoming {
        number,
        month: offer.month_of(minute),
        tokens: queue::sum(usage.tokens_in, usage.tokens_out),
        lost,
        sealed,
    })
}
