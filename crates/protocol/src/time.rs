//! The two times that cross the wire: whole minutes for usage, seconds for the
//! validity of certificates and directives.

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z. For validity and server clocks, never for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The minute that this second lies in.
    pub fn minute(self) -> Minute {
        Minute(self.0 / 60)
    }

    /// This time plus `seconds`, saturating.
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// Minutes since 1970-01-01T00:00Z: the finest time that leaves a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minute(pub u64);

impl Minute {
    /// The first second of this minute.
    pub fn start(self) -> UnixSeconds {
        UnixSeconds(self.0.saturating_mul(60))
    }
}
