//! The audit trail: who did what to whom, when. Rows are only ever added, and each is chained
//! to the one before it.
//!
//! A row's hash is SHA-256 over these bytes: the context `toktra-audit-1` and a zero byte; the
//! hash of the row before as text (empty for the first); `id` and `at`, each as eight bytes,
//! signed, most significant first; one byte 0 if there is no organisation, or 1 and the
//! organisation; then actor, action, subject and detail. Every text is its length in bytes, as
//! eight bytes, most significant first, followed by its UTF-8.
//!
//! Invariants: identifiers are 1, 2, 3… without a gap; a row is written in the transaction of
//! the deed, which holds the database's one write lock, so that two processes cannot chain to
//! the same row. Whoever can write the database can also write a new chain: against that, and
//! against rows cut off the end, only a head that was noted elsewhere helps ([`verify`]).

use ring::digest::{Context, SHA256};
use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;

use crate::{Store, StoreError, column};

const CONTEXT: &[u8] = b"toktra-audit-1\0";
/// Rows that are read at once when the chain is walked.
const PAGE: i64 = 1000;

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

/// A row's place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The row.
    pub id: i64,
    /// Its hash, hexadecimal.
    pub hash: String,
}

/// What is wrong with the chain, at its first bad row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The row is not there, but later ones are.
    #[error("row {0} is missing")]
    Missing(i64),
    /// The row, or its hash, is not what was written.
    #[error("row {0} was changed, put in or moved")]
    Changed(i64),
    /// The chain is in order, but not the one of which this row was noted.
    #[error("row {0} is not the one that was noted: the chain was cut off or written anew")]
    NotAsNoted(i64),
}

/// What walking the chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Rows that are in order.
    pub rows: i64,
    /// The newest of these.
    pub head: Option<Link>,
    /// What is wrong.
    pub fault: Option<Fault>,
}

#[derive(sqlx::FromRow)]
struct Chained {
    #[sqlx(flatten)]
    row: AuditRow,
    hash: Option<String>,
}

/// Adds a row in the transaction of the deed itself.
pub async fn record(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    deed: Deed<'_>,
) -> Result<(), StoreError> {
    let newest: Option<(i64, Option<String>)> =
        sqlx::query_as("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1")
            .fetch_optional(&mut **transaction)
            .await?;
    let (newest, previous) = newest.unwrap_or_default();
    let row = AuditRow {
        id: newest.saturating_add(1),
        at: column(now.0),
        organisation_id: deed.organisation.map(str::to_owned),
        actor: deed.actor.to_owned(),
        action: deed.action.to_owned(),
        subject: deed.subject.to_owned(),
        detail: deed.detail.to_owned(),
    };
    let hash = hash(&previous.unwrap_or_default(), &row);
    sqlx::query(
        "INSERT INTO audit (id, at, organisation_id, actor, action, subject, detail, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(row.id)
    .bind(row.at)
    .bind(row.organisation_id)
    .bind(row.actor)
    .bind(row.action)
    .bind(row.subject)
    .bind(row.detail)
    .bind(hash)
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

/// Walks the chain from its first row. With `noted`, the chain must also hold that link.
pub async fn verify(store: &Store, noted: Option<&Link>) -> Result<Walk, StoreError> {
    let mut walk = Walk { rows: 0, head: None, fault: None };
    let mut as_noted = noted.is_none();
    loop {
        let rows: Vec<Chained> = sqlx::query_as(
            "SELECT id, at, organisation_id, actor, action, subject, detail, hash FROM audit
             WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(walk.rows)
        .bind(PAGE)
        .fetch_all(store.reader())
        .await?;
        if rows.is_empty() {
            walk.fault = walk.fault.or(noted.filter(|_| !as_noted).map(|noted| Fault::NotAsNoted(noted.id)));
            return Ok(walk);
        }
        for Chained { row, hash } in rows {
            let link = match follow(&walk, &row, hash) {
                Ok(link) => link,
                Err(fault) => return Ok(Walk { fault: Some(fault), ..walk }),
            };
            as_noted |= noted == Some(&link);
            walk.rows = link.id;
            walk.head = Some(link);
        }
    }
}

/// Chains the rows of a database from before the chain. Done once, when it is opened.
pub(crate) async fn begin_chain(store: &Store) -> Result<(), StoreError> {
    if !is_unchained(store).await? {
        return Ok(());
    }
    let mut transaction = store.begin().await?;
    let rows: Vec<AuditRow> = sqlx::query_as(
        "SELECT id, at, organisation_id, actor, action, subject, detail FROM audit ORDER BY id",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut previous = String::new();
    for row in &rows {
        previous = hash(&previous, row);
        sqlx::query("UPDATE audit SET hash = $2 WHERE id = $1")
            .bind(row.id)
            .bind(&previous)
            .execute(&mut *transaction)
            .await?;
    }
    let at = rows.last().and_then(|row| u64::try_from(row.at).ok()).unwrap_or_default();
    let detail = format!("{} rows from before the chain", rows.len());
    let deed =
        Deed { organisation: None, actor: "store", action: "audit_chain", subject: "", detail: &detail };
    record(&mut transaction, UnixSeconds(at), deed).await?;
    Ok(transaction.commit().await?)
}

/// Whether there are rows, and none of them has a hash.
async fn is_unchained(store: &Store) -> Result<bool, StoreError> {
    let (rows, hashed): (i64, i64) = sqlx::query_as(
        "SELECT COUNT(*), COUNT(hash) FROM (SELECT hash FROM audit ORDER BY id LIMIT 1) AS first",
    )
    .fetch_one(store.reader())
    .await?;
    if rows == 0 || hashed > 0 {
        return Ok(false);
    }
    let any: Option<i64> = sqlx::query_scalar("SELECT id FROM audit WHERE hash IS NOT NULL LIMIT 1")
        .fetch_optional(store.reader())
        .await?;
    Ok(any.is_none())
}

fn follow(walk: &Walk, row: &AuditRow, stored: Option<String>) -> Result<Link, Fault> {
    let expected = walk.rows.saturating_add(1);
    if row.id != expected {
        return Err(Fault::Missing(expected));
    }
    let previous = walk.head.as_ref().map_or("", |head| &head.hash);
    match stored {
        Some(stored) if stored == hash(previous, row) => Ok(Link { id: row.id, hash: stored }),
        _ => Err(Fault::Changed(row.id)),
    }
}

fn hash(previous: &str, row: &AuditRow) -> String {
    let mut digest = Context::new(&SHA256);
    let text = |digest: &mut Context, text: &str| {
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    digest.update(CONTEXT);
    text(&mut digest, previous);
    digest.update(&row.id.to_be_bytes());
    digest.update(&row.at.to_be_bytes());
    match &row.organisation_id {
        None => digest.update(&[0]),
        Some(organisation) => {
            digest.update(&[1]);
            text(&mut digest, organisation);
        }
    }
    for field in [&row.actor, &row.action, &row.subject, &row.detail] {
        text(&mut digest, field);
    }
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::{House, house};

    async fn trail() -> House {
        let house = house().await;
        for number in 1..=9_u64 {
            let subject = number.to_string();
            let deed = Deed {
                organisation: (number % 2 == 0).then_some("o1"),
                actor: "ada",
                action: "lock",
                subject: &subject,
                detail: "because",
            };
            record_alone(&house.store, UnixSeconds(1000 + number), deed).await.unwrap();
        }
        house
    }

    async fn fault(house: &House) -> Option<Fault> {
        verify(&house.store, None).await.unwrap().fault
    }

    #[tokio::test]
    async fn an_untouched_chain_is_in_order_and_names_its_head() {
        let house = trail().await;
        let walk = verify(&house.store, None).await.unwrap();
        assert_eq!((walk.rows, walk.fault), (9, None));
        let head = walk.head.unwrap();
        assert_eq!((head.id, head.hash.len()), (9, 64));
        assert_eq!(verify(&house.store, Some(&head)).await.unwrap().fault, None);
        let fresh = crate::house::house().await;
        assert_eq!(verify(&fresh.store, None).await.unwrap(), Walk { rows: 0, head: None, fault: None });
    }

    #[tokio::test]
    async fn a_changed_row_is_found_whatever_was_changed() {
        for change in [
            "UPDATE audit SET at = at + 1 WHERE id = 5",
            "UPDATE audit SET organisation_id = 'o1' WHERE id = 5",
            "UPDATE audit SET actor = 'eve' WHERE id = 5",
            "UPDATE audit SET action = 'unlock' WHERE id = 5",
            "UPDATE audit SET subject = '55' WHERE id = 5",
            "UPDATE audit SET detail = '' WHERE id = 5",
            "UPDATE audit SET hash = NULL WHERE id = 5",
            "UPDATE audit SET hash = (SELECT hash FROM audit WHERE id = 4) WHERE id = 5",
            // Across the border of two fields.
            "UPDATE audit SET actor = 'adal', action = 'ock' WHERE id = 5",
        ] {
            let house = trail().await;
            house.write(change, &[]).await;
            assert_eq!(fault(&house).await, Some(Fault::Changed(5)), "{change}");
        }
    }

    #[tokio::test]
    async fn a_removed_row_is_found() {
        for (removal, row) in [("DELETE FROM audit WHERE id = 5", 5), ("DELETE FROM audit WHERE id = 1", 1)] {
            let house = trail().await;
            house.write(removal, &[]).await;
            assert_eq!(fault(&house).await, Some(Fault::Missing(row)));
        }
        let house = trail().await;
        house.write("DELETE FROM audit WHERE id = 5", &[]).await;
        house.write("UPDATE audit SET id = id - 1 WHERE id > 5", &[]).await;
        assert_eq!(fault(&house).await, Some(Fault::Changed(5)), "and closing the gap does not hide it");
    }

    #[tokio::test]
    async fn an_inserted_row_is_found() {
        let house = trail().await;
        house.write("UPDATE audit SET id = -id WHERE id >= 5", &[]).await;
        house.write("UPDATE audit SET id = 1 - id WHERE id < 0", &[]).await;
        let row = "INSERT INTO audit SELECT 5, at, organisation_id, actor, action, subject, detail, hash
                   FROM audit WHERE id = 4";
        house.write(row, &[]).await;
        assert_eq!(fault(&house).await, Some(Fault::Changed(5)));
    }

    #[tokio::test]
    async fn reordered_rows_are_found() {
        let house = trail().await;
        house.write("UPDATE audit SET id = 100 WHERE id = 5", &[]).await;
        house.write("UPDATE audit SET id = 5 WHERE id = 6", &[]).await;
        house.write("UPDATE audit SET id = 6 WHERE id = 100", &[]).await;
        assert_eq!(fault(&house).await, Some(Fault::Changed(5)));
    }

    #[tokio::test]
    async fn rows_cut_off_the_end_are_found_by_a_head_that_was_noted() {
        let house = trail().await;
        let head = verify(&house.store, None).await.unwrap().head.unwrap();
        house.write("DELETE FROM audit WHERE id > 7", &[]).await;
        assert_eq!(fault(&house).await, None);
        let walk = verify(&house.store, Some(&head)).await.unwrap();
        assert_eq!(walk.fault, Some(Fault::NotAsNoted(9)));
    }

    #[tokio::test]
    async fn rows_from_before_the_chain_are_chained_once() {
        let house = trail().await;
        house.write("UPDATE audit SET hash = NULL", &[]).await;
        begin_chain(&house.store).await.unwrap();
        begin_chain(&house.store).await.unwrap();
        let walk = verify(&house.store, None).await.unwrap();
        assert_eq!((walk.rows, walk.fault), (10, None));
        let newest = newest(&house.store, 1).await.unwrap();
        assert_eq!(newest[0].action, "audit_chain");
        house.write("UPDATE audit SET hash = NULL WHERE id < 4", &[]).await;
        begin_chain(&house.store).await.unwrap();
        assert_eq!(fault(&house).await, Some(Fault::Changed(1)), "a damaged chain is not mended");
    }

    #[tokio::test]
    async fn parallel_writers_chain_without_a_gap() {
        let house = house().await;
        let other = Store::open(&house.path()).await.unwrap();
        let writers: Vec<_> = (0..40_u64)
            .map(|number| {
                let store = if number % 2 == 0 { house.store.clone() } else { other.clone() };
                tokio::spawn(async move {
                    let deed =
                        Deed { organisation: None, actor: "a", action: "b", subject: "c", detail: "d" };
                    record_alone(&store, UnixSeconds(number), deed).await
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap().unwrap();
        }
        let walk = verify(&house.store, None).await.unwrap();
        assert_eq!((walk.rows, walk.fault), (40, None));
    }
}
