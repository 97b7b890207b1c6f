//! What every request shares: the database, the authority, the devices' standing, the clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::watch;
use toktra_pki::{Authority, PassphraseFile};
use toktra_protocol::{ToktraDomain, UnixSeconds};
use toktra_store::{Ledger, Store};

use crate::authority::Edition;
use crate::budgets::BudgetBook;
use crate::config::Config;
use crate::crl::Lists;
use crate::metrics::Metrics;
use crate::prices::CatalogPrices;
use crate::refusals::Refusals;
use crate::roster::Roster;

/// The state of a running server; handlers take it as `State<Arc<App>>`.
#[derive(Debug)]
pub struct App {
    /// The database.
    pub store: Store,
    /// Where batches are booked.
    pub ledger: Ledger,
    /// Issues certificates and signs directives; another takes its place when a rotation goes on.
    authority: ArcSwap<Authority>,
    /// Of which edition of its state the authority was at the start.
    pub(crate) edition: Option<Edition>,
    data: PathBuf,
    passphrase: PassphraseFile,
    /// The domain that the three hosts live under.
    pub domain: ToktraDomain,
    /// The devices' standing in memory.
    pub roster: Roster,
    /// What directives say of budgets, flags and locks of persons.
    pub budgets: BudgetBook,
    /// Who was refused an enrolment lately.
    pub refusals: Refusals,
    /// Revocation lists that were signed.
    pub lists: Lists,
    /// What this process counts.
    pub metrics: Metrics,
    /// The only source of time.
    pub clock: Clock,
    /// Becomes true when the server is to stop.
    pub stop: watch::Sender<bool>,
}

/// How handlers name the state.
pub type SharedApp = Arc<App>;

impl App {
    /// Opens an initialised data directory.
    pub async fn open(data: &Path, passphrase: &PassphraseFile, clock: Clock) -> anyhow::Result<SharedApp> {
        let domain = Config::read(data)?.domain;
        // Before it is read, so that no step goes unnoticed.
        let edition = Edition::of(&Authority::state_file(data));
        let authority = Authority::open(data, passphrase).context("the authority could not be opened")?;
        for key in authority.plain_keys() {
            tracing::warn!(file = %key.display(), "A key lies in the clear; run `toktra-server ca encrypt`.");
        }
        let store = Store::open(&data.join(DATABASE)).await?;
        let budgets = BudgetBook::open(&store, clock.now()).await?;
        let (ledger, _task) = Ledger::start(store.clone(), Box::new(CatalogPrices), move || clock.now());
        Ok(Arc::new(Self {
            store,
            ledger,
            authority: ArcSwap::from_pointee(authority),
            edition,
            data: data.to_owned(),
            passphrase: passphrase.clone(),
            domain,
            roster: Roster::default(),
            budgets,
            refusals: Refusals::default(),
            lists: Lists::default(),
            metrics: Metrics::default(),
            clock,
            stop: watch::Sender::new(false),
        }))
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The authority of this moment; take it once for what belongs together.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// The file that is replaced whenever another authority is in force.
    pub fn authority_file(&self) -> PathBuf {
        Authority::state_file(&self.data)
    }

    /// Opens the authority anew and has it take the place of the old one.
    pub async fn reopen_authority(&self) -> anyhow::Result<()> {
        let (data, passphrase) = (self.data.clone(), self.passphrase.clone());
        // Deriving the keys' keys takes a moment.
        let opened = tokio::task::spawn_blocking(move || Authority::open(&data, &passphrase)).await?;
        self.authority.store(Arc::new(opened?));
        Ok(())
    }
}

/// The database's file in the data directory.
pub const DATABASE: &str = "toktra.db";

/// A source of time; tests set their own.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Always this.
    Fixed(UnixSeconds),
    /// What is set here, in Unix seconds: virtual time.
    Set(&'static AtomicU64),
}

impl Clock {
    /// Seconds since 1970 by this clock.
    pub fn now(self) -> UnixSeconds {
        match self {
            Self::Fixed(at) => at,
            Self::Set(time) => UnixSeconds(time.load(Ordering::Relaxed)),
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixSeconds(since.as_secs())
            }
        }
    }
}
