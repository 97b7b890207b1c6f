//! What the backend tells a device: one signed, versioned document. The device applies
//! the newest that verifies against the key it pinned at enrolment, never an older one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::personal::Perks;
use crate::{DeviceId, UnixSeconds};

/// The document before it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Grows by one at every change; an older one is never applied.
    pub version: u64,
    /// The only device it is for.
    pub device: DeviceId,
    /// When the backend made it, by the backend's clock.
    pub issued_at: UnixSeconds,
    /// After this the block lapses (fail open); a lock holds until lifted.
    pub valid_until: UnixSeconds,
    /// An administrator's lock.
    pub lock: Option<Lock>,
    /// A block, for example because a hard cap was passed.
    pub block: Option<Block>,
    /// Feature flags, for example `FF_BUDGET_HARD_CAPS`.
    pub flags: BTreeMap<String, bool>,
    /// The budgets that apply to the device, the one with least left first. For display, and for
    /// the device's own count while it cannot reach the backend.
    #[serde(default)]
    pub budgets: Vec<Budget>,
    /// The highest event of the device that `budgets` count; what the device recorded beyond, it adds itself.
    #[serde(default)]
    pub counted: u64,
    /// A device certificate that began before this is to be renewed now and not when its time comes.
    #[serde(default)]
    pub renew_before: Option<UnixSeconds>,
    /// What the device's user may use personally; absent: personal mode is not theirs to turn on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perks: Option<Perks>,
}

/// Name of the flag without which no budget blocks anything.
pub const FF_BUDGET_HARD_CAPS: &str = "FF_BUDGET_HARD_CAPS";
/// Name of the flag without which nobody has personal mode.
pub const FF_TOKEN_PERKS: &str = "FF_TOKEN_PERKS";

/// An administrator's lock: every provider is blocked until it is lifted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// What to tell the user.
    pub message: String,
}

/// A block of all providers or of some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Why.
    pub reason: BlockReason,
    /// What to tell the user.
    pub message: String,
    /// Providers' identifiers in the catalogue; empty means every provider.
    pub providers: Vec<String>,
    /// When it ends by itself, by the backend's clock: of a budget, the end of its period.
    #[serde(default)]
    pub until: Option<UnixSeconds>,
    /// The budget whose cap was passed, by its identifier.
    #[serde(default)]
    pub budget: Option<String>,
}

/// Why a connection is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockReason {
    /// A hard cap was passed.
    Budget,
    /// An administrator's lock.
    Lock,
    /// An administrator blocked the provider.
    Provider,
}

/// What a device says when it asks for its directive: the query of the long poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectivePoll {
    /// Wait for a version beyond this; absent or 0: answer at once.
    #[serde(default)]
    pub after: u64,
    /// The version that it runs.
    #[serde(default)]
    pub applied: Option<u64>,
}

impl DirectivePoll {
    /// As the query of a URI.
    pub fn query(&self) -> String {
        let applied = self.applied.map(|applied| format!("&applied={applied}")).unwrap_or_default();
        format!("after={}{applied}", self.after)
    }
}

/// The document as it travels: the exact bytes that were signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDirective {
    /// JSON of a [`Directive`], as text so that the signed bytes are kept.
    pub payload: String,
    /// Ed25519 signature (RFC 8032) over [`SIGNING_CONTEXT`] and `payload`, base64.
    pub signature: String,
}

/// Put before the payload when signing, so that no other signature of the key can pass for one.
pub const SIGNING_CONTEXT: &[u8] = b"toktra directive v1\0";

/// Largest payload that a device reads, in bytes.
pub const PAYLOAD_LIMIT: usize = 64 * 1024;

impl SignedDirective {
    /// The bytes that the signature covers.
    pub fn signed_bytes(&self) -> Vec<u8> {
        [SIGNING_CONTEXT, self.payload.as_bytes()].concat()
    }

    /// Reads the document. Says nothing of the signature: verify first.
    pub fn document(&self) -> Result<Directive, serde_json::Error> {
        serde_json::from_str(&self.payload)
    }
}
