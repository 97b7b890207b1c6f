//! What a user's command line and menu ask the agent about personal mode, and what it answers. Local:
//! none of it leaves the device.
//!
//! Invariants: no message holds the user's key. Who is not the user that opted in is told no more than
//! what the organisation offers.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Month;
use super::local::PersonalEstimate;
use super::wire::{Member, Perks, PersonalPage, Sealed, named};
use crate::UnixSeconds;

/// What a user asks about personal mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalAsk {
    /// Opt in. Who sits at the machine, root no more than anybody.
    OptIn {
        /// What records are sealed to.
        recipient: Recipient,
        /// Under what the backend files them.
        member: Member,
        /// What is to happen when the allowance is used up.
        when_exhausted: WhenExhausted,
    },
    /// Turn it on. This and what follows: who opted in.
    On {
        /// Until then, by the device's clock.
        until: Option<UnixSeconds>,
    },
    /// Turn it off.
    Off,
    /// Choose anew.
    WhenExhausted {
        /// What is to happen when the allowance is used up.
        choice: WhenExhausted,
    },
    /// Sealed records that the backend does not have yet.
    Waiting {
        /// Only those beyond this place.
        after: u64,
    },
    /// Sealed records that the backend has. Whoever knows the member.
    Stored {
        /// Whose.
        member: Member,
        /// Only those beyond this place.
        after: u64,
    },
    /// Have the backend forget everything, then this device.
    OptOut {
        /// Whether the backend is left alone.
        here_only: bool,
    },
}

/// What the agent answers where it is records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonalAnswer {
    /// To [`PersonalAsk::Stored`].
    Stored(PersonalPage),
    /// To [`PersonalAsk::Waiting`].
    Waiting {
        /// In order.
        records: Vec<Sealed>,
        /// Where the next page begins.
        next: u64,
        /// Whether there is a next page now.
        more: bool,
    },
}

/// What is to happen when the allowance is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenExhausted {
    /// Providers are blocked for the user, until there is more or the mode is turned off.
    #[default]
    Block,
    /// Use counts for the organisation again, for the rest of the month.
    Corporate,
}

/// The user's public key (X25519). As text, base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// Of its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient")
    }
}

impl Serialize for Recipient {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Recipient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        named(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What is true of personal mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalStatus {
    /// With whom the device is enrolled, in the form from which a key makes the member.
    pub organisation: Option<String>,
    /// What the organisation offers; none while it has the mode off, or no administrator has enrolled the
    /// device's user.
    pub perks: Option<Perks>,
    /// Told to nobody but who opted in.
    pub ledger: Option<PersonalLedger>,
    /// Why it is not known who opted in, if so: the mode is off until somebody opts in anew.
    pub unreadable: Option<String>,
}

/// Where a user's own ledger stands on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalLedger {
    /// Where use goes.
    pub mode: Mode,
    /// When the mode ends by itself, by the device's clock.
    pub until: Option<UnixSeconds>,
    /// Whether the extension has taken the mode up as it is.
    pub taken_up: bool,
    /// What is to happen when the allowance is used up.
    pub when_exhausted: WhenExhausted,
    /// The month that the figures are of.
    pub month: Option<Month>,
    /// Tokens that the month has.
    pub allowance: u64,
    /// Tokens of this device in the month.
    pub used: PersonalEstimate,
    /// Tokens of the user's other devices in the month, as far as the backend has said.
    pub others: u64,
    /// Sealed records that the backend does not have yet.
    pub waiting: u64,
    /// With whom the user opted in, where the device is enrolled with somebody else by now: what waits is for
    /// that vault, which the device does not reach.
    #[serde(default)]
    pub elsewhere: Option<String>,
    /// Records that a limit dropped since opt-in.
    pub dropped: u64,
    /// When the backend last took records or a total.
    pub last_sent: Option<UnixSeconds>,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

/// Where a user's use goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// To the organisation's ledger: the user wants no other.
    Off,
    /// To the user's own ledger.
    On,
    /// Nowhere: the allowance is used up, and the user would rather stop.
    Stopped,
    /// Nowhere yet: the allowance is used up, and use counts for the organisation from then on.
    Closing {
        /// By the device's clock.
        until: UnixSeconds,
    },
    /// To the organisation's ledger, until the month ends: the allowance is used up.
    Exhausted,
    /// To the organisation's ledger: the organisation has ended personal mode for this user.
    Ended,
}

impl PersonalLedger {
    /// Tokens that are left, by what counts: the best guess.
    pub fn left(&self) -> u64 {
        self.allowance.saturating_sub(self.used.point.saturating_add(self.others))
    }
}

impl Mode {
    /// Whether the user's use is kept from the organisation.
    pub fn is_personal(self) -> bool {
        matches!(self, Self::On | Self::Stopped | Self::Closing { .. })
    }
}
