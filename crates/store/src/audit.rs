//! The audit trail: who did what to whom, when. Rows are only ever added.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;

use crate::{Store, StoreError, column};

/// A row to add.
#[derive(Clone, Debug)]
pub struct Deed<'a> {
    /// The organisation concerned, if one is known.
    pub organisation: Option<&'a str>,
    /// An administrator's name, a device's identifier, an address or `cli`.
    pub actor: &'a str,
    /// For example `enrol`, `enrol_refused`, `revoke`, `block`.
    pub action: &'a str,
    /// What it was done to.
    pub subject: &'a str,
    /// In words. Never a secret.
    pub detail: &'a str,
}

/// A row as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AuditRow {
    /// 1, 2, 3…
    pub id: i64,
    /// Unix seconds.
    pub at: i64,
    /// The organisation concerned.
    pub organisation_id: Option<String>,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To whom.
    pub subject: String,
    /// In words.
    pub detail: String,
}

/// Adds a row in the transaction of the deed itself.
pub async fn record(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    deed: Deed<'_>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit (id, at, organisation_id, actor, action, subject, detail)
         SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4, $5, $6 FROM audit",
    )
    .bind(column(now.0))
    .bind(deed.organisation)
    .bind(deed.actor)
    .bind(deed.action)
    .bind(deed.subject)
    .bind(deed.detail)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Adds a row on its own, for a deed that changed nothing else, such as a refusal.
pub async fn record_alone(store: &Store, now: UnixSeconds, deed: Deed<'_>) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// The newest rows, newest first.
pub async fn newest(store: &Store, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT id, at, organisation_id, actor, action, subject, detail FROM audit ORDER BY id DESC LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(store.reader())
    .await?;
    Ok(rows)
}
