//! The database of personal mode: sealed records that the backend cannot read, and each member's total
//! of the month. A file of its own beside the ledger's; its SQL is here and nowhere else.
//!
//! SQLite as the ledger has it (write-ahead log, `synchronous = FULL`, `secure_delete`), and portable
//! statements, so that PostgreSQL can take the same text; what only SQLite knows is in this file alone.
//!
//! Invariants: nothing in it names a person, an account or a device, nor a time finer than the month;
//! whose a row is, a hash says ([`Pseudonym`]). What was acknowledged is durable. A month's sums are
//! made once, over at least [`sums::PEOPLE`] people each, and never change ([`closing`]). Only the
//! server's vault module may open it (`tests/tests/architecture.rs`).

pub mod closing;
pub mod dictionary;
pub mod leaving;
pub mod records;
pub mod retention;
pub mod sums;
pub mod totals;

mod members;
mod pseudonym;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use members::Newcomer;
pub use pseudonym::Pseudonym;

/// Connections that only read.
const READERS: u32 = 4;
/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the vault did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The database failed.
    #[error("the vault's database failed")]
    Database(#[from] sqlx::Error),
    /// The migrations could not be applied.
    #[error("the vault's database could not be brought to this version's schema")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The records do not follow on what is stored.
    #[error("the records leave a gap after number {acknowledged}, the last that is stored")]
    Gap {
        /// Highest number of the slot that is stored.
        acknowledged: u64,
    },
    /// The member has as many records, bytes or devices as there may be.
    #[error("the member has as many records or devices as the vault keeps for one")]
    Full,
    /// A new member who may not become one.
    #[error("there may be no further new member")]
    NoNewcomer,
    /// The month's sums were made.
    #[error("the month takes no totals any more")]
    Closed,
    /// The operating system gave no randomness; without it nobody is anonymous.
    #[error("the operating system gave no randomness")]
    Randomness,
    /// A page or an index is not as it must be.
    #[error("the vault's database is damaged; restore another backup")]
    Damaged,
    /// A stored value cannot be read.
    #[error("the vault's database holds a value in `{0}` that cannot be read")]
    Corrupt(&'static str),
}

impl VaultError {
    /// Whether it is worth to try again soon.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::PoolTimedOut))
    }
}

/// An open vault. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct VaultStore {
    reader: SqlitePool,
    writer: SqlitePool,
}

impl VaultStore {
    /// Opens the file, makes it if it is missing, and brings it to this version's schema.
    pub async fn open(path: &Path) -> Result<Self, VaultError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            // What a member had deleted is overwritten, not only unlinked.
            .pragma("secure_delete", "ON");
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&writer).await?;
        let reader =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { reader, writer })
    }

    /// Writes a copy of this moment's database to a file that does not exist yet, while others go on
    /// reading and writing. What was deleted is not in it.
    pub async fn copy_to(&self, path: &Path) -> Result<(), VaultError> {
        let path = path.to_str().ok_or(VaultError::Corrupt("the path of a copy, which is not UTF-8"))?;
        sqlx::query("VACUUM INTO $1").bind(path).execute(self.reader()).await?;
        Ok(())
    }

    /// Reads every page and index, and fails if one is damaged.
    pub async fn check_pages(&self) -> Result<(), VaultError> {
        let found: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_all(self.reader()).await?;
        if found == ["ok"] { Ok(()) } else { Err(VaultError::Damaged) }
    }

    /// Waits until what is under way is done, then closes every connection.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, VaultError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Numbers are checked at the door to fit; this is the last resort.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(column: i64, place: &'static str) -> Result<u64, VaultError> {
    u64::try_from(column).map_err(|_| VaultError::Corrupt(place))
}
