//! The only source of wall-clock time in the agent. It is read anew for every decision, so
//! that a sleep of the machine needs no notice; a suspend-aware timer will live here too.

use std::time::{SystemTime, UNIX_EPOCH};

use toktra_protocol::UnixSeconds;

/// A source of time; tests set their own.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Always this.
    Fixed(UnixSeconds),
}

impl Clock {
    /// Seconds since 1970 by this clock.
    pub fn now(self) -> UnixSeconds {
        match self {
            Self::Fixed(at) => at,
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixSeconds(since.as_secs())
            }
        }
    }
}
