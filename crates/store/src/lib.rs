//! The backend's database. Every SQL statement of Toktra is in this room, but for those of personal mode's vault.
//!
//! SQLite with a write-ahead log and `synchronous = FULL`: what was committed survives a
//! crash of the process and of the machine. One connection writes, several read. The
//! statements are portable (`$1` placeholders but for one long `INSERT`, `ON CONFLICT`), so that PostgreSQL can take
//! the same text; what only SQLite knows is in this file alone.
//!
//! Invariants: a batch is booked by [`Ledger`] alone, many of them in one transaction, and
//! its events and hourly sums become durable together or not at all. A token, a password
//! or a session is stored as a hash only. Every administrative change writes an audit row
//! in its own transaction.

pub mod accounts;
pub mod alerts;
pub mod allowances;
pub mod approvals;
pub mod audit;
pub mod book;
pub mod budgets;
pub mod certificates;
pub mod devices;
pub mod dictionary;
pub mod directory;
pub mod enrolment;
pub mod events;
pub mod exemptions;
pub mod flags;
pub mod fleet;
pub mod issuers;
pub mod ledger;
pub mod locks;
pub mod period;
pub mod perks;
pub mod price_mix;
pub mod renewal;
pub mod retention;
pub mod roles;
pub mod spend;
pub mod terms;
pub mod tokens;
pub mod usage;

mod booking;
#[cfg(test)]
mod house;
mod rollup;
mod sums;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use ledger::Ledger;

/// Connections that only read.
const READERS: u32 = 8;
/// Connections that read for the console's reports.
const REPORTERS: u32 = 4;
/// How long a statement waits for another process's transaction, for example a command's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// The migrations could not be applied.
    #[error("the database could not be brought to this version's schema")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// There is no such row.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// By which name or identifier.
        name: String,
    },
    /// There is such a row already.
    #[error("there is already the {kind} `{name}`")]
    Exists {
        /// What was to be made.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The departments would not be a tree any more.
    #[error("{0}")]
    Tree(&'static str),
    /// Nobody could change the organisation's accounts any more.
    #[error("`{0}` is the last owner who can sign in; make another account an owner first")]
    LastOwner(String),
    /// The file is damaged.
    #[error("the database's file is damaged: {0}")]
    Damaged(String),
    /// A stored value cannot be read.
    #[error("the database holds a value in `{0}` that cannot be read")]
    Corrupt(&'static str),
}

/// An open database. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Store {
    reader: SqlitePool,
    reporter: SqlitePool,
    writer: SqlitePool,
}

impl Store {
    /// Opens the file, makes it if it is missing, and brings it to this version's schema.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("wal_autocheckpoint", "4000")
            .pragma("cache_size", "-32768")
            // What has passed its time is overwritten, not only unlinked.
            .pragma("secure_delete", "ON");
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&writer).await?;
        let reading = |connections| SqlitePoolOptions::new().max_connections(connections);
        let options = options.read_only(true);
        let reader = reading(READERS).connect_with(options.clone()).await?;
        let reporter = reading(REPORTERS).connect_lazy_with(options);
        let store = Self { reader, reporter, writer };
        audit::begin_chain(&store).await?;
        Ok(store)
    }

    /// Connections that can only read; they never wait for the writer.
    pub fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// Connections for the console's reports, which may read for seconds: with their own, they
    /// never keep a device's request or a revocation waiting.
    pub(crate) fn reporter(&self) -> &SqlitePool {
        &self.reporter
    }

    /// Begins a transaction that may write. Waits for the one writing connection, then for
    /// other processes, so that a transaction never fails halfway for want of the lock.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// The counter of administrative changes.
    pub async fn changes(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("SELECT counter FROM changes WHERE id = 1").fetch_one(&self.reader).await?)
    }

    /// Writes a copy of this moment's database to a file that does not exist yet, while others go on
    /// reading and writing. What was deleted is not in it.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = path.to_str().ok_or(StoreError::Corrupt("the path of a copy, which is not UTF-8"))?;
        sqlx::query("VACUUM INTO $1").bind(path).execute(&self.reporter).await?;
        Ok(())
    }

    /// Reads every page and index, and fails with the first thing that is wrong.
    pub async fn check_pages(&self) -> Result<(), StoreError> {
        let found: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_all(&self.reporter).await?;
        if found == ["ok"] { Ok(()) } else { Err(StoreError::Damaged(found.join("; "))) }
    }

    /// Bytes of the database, without its log.
    pub async fn size_bytes(&self) -> Result<i64, StoreError> {
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&self.reporter).await?;
        let page: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&self.reporter).await?;
        Ok(pages.saturating_mul(page))
    }

    /// Waits until what is under way is done, then closes every connection.
    pub async fn close(&self) {
        self.reporter.close().await;
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Tells running servers to read their devices anew.
async fn note_change(transaction: &mut Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    sqlx::query("UPDATE changes SET counter = counter + 1 WHERE id = 1").execute(&mut **transaction).await?;
    Ok(())
}

/// Unsigned numbers are checked at the door to fit; this is the last resort.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use toktra_protocol::UnixSeconds;

    use super::*;
    use crate::spend::SpendBalance;

    type Row = (String, String, i64, i64, i64, i64, i64, i64);

    /// What a server of before budgets left behind.
    async fn before_budgets(path: &Path) {
        let mut early = sqlx::migrate!("./migrations");
        early.migrations = early.migrations.iter().take(2).cloned().collect();
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        early.run(&pool).await.unwrap();
        let rows = [
            "INSERT INTO organisations VALUES ('o', 'Acme', 0)",
            "INSERT INTO departments (id, organisation_id, name, created_at) VALUES ('g', 'o', 'Research', 0)",
            "INSERT INTO users VALUES ('u', 'o', 'g', 'ada@acme', 0)",
            "INSERT INTO devices (id, organisation_id, department_id, user_id, hostname, platform,
                agent_version, state, enrolled_at, acknowledged_sequence, directive_version)
             VALUES ('adas', 'o', 'g', 'u', 'h', 'linux', '1', 'enrolled', 0, 3, 1),
                ('nobodys', 'o', NULL, NULL, 'h', 'linux', '1', 'enrolled', 0, 1, 1)",
            // Two days, two applications, and one sum that is as large as one can be.
            "INSERT INTO usage_hourly VALUES
                ('o', 'g', 'adas', '', 'node', 'p', 's', 480000, 1, 0, 1, 1, 1, 1, 2, 3, 10, 20, 30, 4, 5, 6, 7),
                ('o', 'g', 'adas', '', 'curl', 'p', 's', 480023, 1, 0, 1, 1, 1, 1, 2, 3, 10, 20, 30, 4, 5, 6, 0),
                ('o', 'g', 'adas', '', 'curl', 'p', 's', 480024, 1, 0, 1, 1, 1, 1, 2, 3, 10, 20, 30, 4, 5, 6, 0),
                ('o', '', 'nobodys', '', '', 'p', 's', 480024, 1, 0, 1, 1, 1, 0, 100, 200, 0, 0, 0, 1, 1, 1, 0)",
        ];
        for row in rows {
            sqlx::query(row).execute(&pool).await.unwrap();
        }
        pool.close().await;
    }

    #[tokio::test]
    async fn what_was_spent_before_there_were_budgets_counts_by_utc_day() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("toktra.db");
        before_budgets(&path).await;
        let store = Store::open(&path).await.unwrap();
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT scope, scope_id, day, tokens_low, tokens_point, tokens_high, micros_point, tokens_unpriced
             FROM spend_daily ORDER BY scope, day",
        )
        .fetch_all(store.reader())
        .await
        .unwrap();
        let row = |scope: &str, id: &str, day, low, point, high, micros, unpriced| {
            (scope.to_owned(), id.to_owned(), day, low, point, high, micros, unpriced)
        };
        assert_eq!(
            rows,
            [
                row("department", "g", 20000, 22, 44, 66, 10, 7),
                row("department", "g", 20001, 11, 22, 33, 5, 0),
                row("organisation", "o", 20000, 22, 44, 66, 10, 7),
                row("organisation", "o", 20001, 11, 122, 233, 6, 0),
                row("user", "u", 20000, 22, 44, 66, 10, 7),
                row("user", "u", 20001, 11, 22, 33, 5, 0),
            ]
        );
        let zone = period::Zone::UTC;
        assert_eq!(zone.day(UnixSeconds(480_024 * 3600)).0, 20001, "the day that a budget asks for");
        assert!(spend::balances(&store).await.unwrap().iter().all(SpendBalance::is_even));
    }
}
