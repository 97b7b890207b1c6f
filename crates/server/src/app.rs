//! What every request shares: the database, the authority, the devices' state and the clock.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use toktra_pki::Authority;
use toktra_protocol::{ToktraDomain, UnixSeconds};
use toktra_store::{Ledger, Store};

/// The state of a running server; handlers take it as `State<Arc<App>>`.
#[derive(Debug)]
pub struct App {
    /// The database.
    pub store: Store,
    /// Where batches are booked.
    pub ledger: Ledger,
    /// Issues certificates and signs directives.
    pub authority: Authority,
    /// The domain that the three hosts live under.
    pub domain: ToktraDomain,
    /// The only source of time.
    pub clock: Clock,
}

/// How handlers name the state.
pub type SharedApp = Arc<App>;

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
