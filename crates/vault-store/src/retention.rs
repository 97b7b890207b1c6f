//! The end of sealed records that have passed their time.
//!
//! Invariants: a transaction takes at most [`ROWS`] records, so that nobody waits long; a sweep may be
//! broken off, repeated, and run by several servers at once.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::personal::Month;

use crate::{Pseudonym, VaultError, VaultStore};

/// Most records that one transaction takes.
pub const ROWS: usize = 500;

#[derive(Debug, sqlx::FromRow)]
struct Taken {
    member: String,
    place: i64,
    length: i64,
}

/// Deletes an organisation's records that came before this month; a pause after each transaction.
/// Returns how many there were.
pub async fn sweep(
    vault: &VaultStore,
    organisation: &str,
    before: Month,
    pause: impl AsyncFn(),
) -> Result<u64, VaultError> {
    let mut deleted = 0;
    loop {
        let mut transaction = vault.begin().await?;
        let rows: Vec<Taken> = sqlx::query_as(
            "SELECT member, place, LENGTH(sealed) AS length FROM sealed_records
             WHERE organisation_id = $1 AND month < $2 LIMIT $3",
        )
        .bind(organisation)
        .bind(before.to_string())
        .bind(ROWS as i64)
        .fetch_all(&mut *transaction)
        .await?;
        delete(&mut transaction, organisation, &rows).await?;
        transaction.commit().await?;
        deleted += rows.len() as u64;
        if rows.len() < ROWS {
            return Ok(deleted);
        }
        pause().await;
    }
}

/// Deletes some of a member's records. Returns how many; fewer than [`ROWS`]: there are no more.
pub(crate) async fn take_of_member(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    member: &Pseudonym,
) -> Result<usize, VaultError> {
    let rows: Vec<Taken> = sqlx::query_as(
        "SELECT member, place, LENGTH(sealed) AS length FROM sealed_records
         WHERE organisation_id = $1 AND member = $2 LIMIT $3",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(ROWS as i64)
    .fetch_all(&mut **transaction)
    .await?;
    delete(transaction, organisation, &rows).await?;
    Ok(rows.len())
}

async fn delete(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    rows: &[Taken],
) -> Result<(), VaultError> {
    for row in rows {
        sqlx::query("DELETE FROM sealed_records WHERE organisation_id = $1 AND member = $2 AND place = $3")
            .bind(organisation)
            .bind(&row.member)
            .bind(row.place)
            .execute(&mut **transaction)
            .await?;
        sqlx::query(
            "UPDATE vault_members SET records = records - 1, bytes = bytes - $3
             WHERE organisation_id = $1 AND member = $2",
        )
        .bind(organisation)
        .bind(&row.member)
        .bind(row.length)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}
