//! Sealed records: taken in order, once each, and given back in the order in which they came.
//!
//! Limits: [`MEMBER_RECORDS`] records and [`MEMBER_BYTES`] bytes of a member.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::{Sqlite, Transaction};
use toktra_protocol::personal::wire::RECORDS_LIMIT;
use toktra_protocol::personal::{Month, PersonalPage, Sealed, Slot, StoredRecord};

use crate::members::{self, MemberRow, Newcomer, SLOTS_LIMIT, slot_of, slot_text};
use crate::{Pseudonym, VaultError, VaultStore, column, number};

/// Most sealed records of a member.
pub const MEMBER_RECORDS: i64 = 100_000;
/// Most bytes of a member's sealed records, in base64, as they are stored.
pub const MEMBER_BYTES: i64 = 256 * 1024 * 1024;

/// Records of one slot, in order and without a gap.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Which of the member's devices.
    pub slot: Slot,
    /// Number of the first.
    pub first: u64,
    /// The records.
    pub records: &'a [Sealed],
}

/// Stores what is new of a run, which came in this month. Returns the highest number of the slot that
/// is stored with all before it, once that is durable.
pub async fn append(
    vault: &VaultStore,
    organisation: &str,
    member: &Pseudonym,
    run: Run<'_>,
    month: Month,
    newcomer: impl FnOnce() -> Newcomer,
) -> Result<u64, VaultError> {
    let slot = slot_text(run.slot);
    let mut transaction = vault.begin().await?;
    let known = acknowledged(&mut transaction, organisation, member, &slot).await?;
    let stored = number(known.unwrap_or_default(), "vault_slots.acknowledged")?;
    if run.first > stored + 1 {
        return Err(VaultError::Gap { acknowledged: stored });
    }
    let already = usize::try_from(stored + 1 - run.first).unwrap_or(usize::MAX);
    let fresh = run.records.get(already..).unwrap_or_default();
    if fresh.is_empty() {
        return Ok(stored);
    }
    let row = members::find_or_make(&mut transaction, organisation, member, newcomer).await?;
    if known.is_none() && slots(&mut transaction, organisation, member).await? >= SLOTS_LIMIT {
        return Err(VaultError::Full);
    }
    let row = grown(row, fresh)?;
    let first_place = row.last_place - column(fresh.len() as u64) + 1;
    for (sealed, offset) in fresh.iter().zip(0..) {
        sqlx::query(
            "INSERT INTO sealed_records (organisation_id, member, place, slot, number, month, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(organisation)
        .bind(member.as_str())
        .bind(first_place + offset)
        .bind(&slot)
        .bind(column(stored + 1) + offset)
        .bind(month.to_string())
        .bind(STANDARD.encode(sealed.bytes()))
        .execute(&mut *transaction)
        .await?;
    }
    let stored = stored + fresh.len() as u64;
    note(&mut transaction, organisation, member, row, &slot, stored).await?;
    transaction.commit().await?;
    Ok(stored)
}

/// Some of a member's records beyond a place.
pub async fn page(
    vault: &VaultStore,
    organisation: &str,
    member: &Pseudonym,
    after: u64,
) -> Result<PersonalPage, VaultError> {
    let rows: Vec<(i64, String, i64, String)> = sqlx::query_as(
        "SELECT place, slot, number, sealed FROM sealed_records
         WHERE organisation_id = $1 AND member = $2 AND place > $3 ORDER BY place LIMIT $4",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(column(after))
    .bind(RECORDS_LIMIT as i64 + 1)
    .fetch_all(vault.reader())
    .await?;
    let more = rows.len() > RECORDS_LIMIT;
    let records: Vec<_> =
        rows.into_iter().take(RECORDS_LIMIT).map(stored_record).collect::<Result<_, _>>()?;
    Ok(PersonalPage { next: records.last().map_or(after, |last| last.place), records, more })
}

fn stored_record(
    (place, slot, of_slot, sealed): (i64, String, i64, String),
) -> Result<StoredRecord, VaultError> {
    let sealed = STANDARD.decode(sealed).ok().and_then(|bytes| Sealed::new(bytes).ok());
    Ok(StoredRecord {
        place: number(place, "sealed_records.place")?,
        slot: slot_of(&slot).ok_or(VaultError::Corrupt("sealed_records.slot"))?,
        number: number(of_slot, "sealed_records.number")?,
        sealed: sealed.ok_or(VaultError::Corrupt("sealed_records.sealed"))?,
    })
}

async fn acknowledged(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    member: &Pseudonym,
    slot: &str,
) -> Result<Option<i64>, VaultError> {
    Ok(sqlx::query_scalar(
        "SELECT acknowledged FROM vault_slots WHERE organisation_id = $1 AND member = $2 AND slot = $3",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(slot)
    .fetch_optional(&mut **transaction)
    .await?)
}

async fn slots(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    member: &Pseudonym,
) -> Result<i64, VaultError> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM vault_slots WHERE organisation_id = $1 AND member = $2")
        .bind(organisation)
        .bind(member.as_str())
        .fetch_one(&mut **transaction)
        .await?)
}

/// The member with these records too, if they have room.
fn grown(row: MemberRow, fresh: &[Sealed]) -> Result<MemberRow, VaultError> {
    let count = column(fresh.len() as u64);
    let bytes: usize = fresh.iter().map(|sealed| sealed.bytes().len().div_ceil(3) * 4).sum();
    let row = MemberRow {
        last_place: row.last_place + count,
        records: row.records + count,
        bytes: row.bytes + column(bytes as u64),
        ..row
    };
    if row.records > MEMBER_RECORDS || row.bytes > MEMBER_BYTES { Err(VaultError::Full) } else { Ok(row) }
}

async fn note(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    member: &Pseudonym,
    row: MemberRow,
    slot: &str,
    acknowledged: u64,
) -> Result<(), VaultError> {
    sqlx::query(
        "UPDATE vault_members SET last_place = $3, records = $4, bytes = $5
         WHERE organisation_id = $1 AND member = $2",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(row.last_place)
    .bind(row.records)
    .bind(row.bytes)
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "INSERT INTO vault_slots (organisation_id, member, slot, acknowledged) VALUES ($1, $2, $3, $4)
         ON CONFLICT (organisation_id, member, slot) DO UPDATE SET acknowledged = excluded.acknowledged",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(slot)
    .bind(column(acknowledged))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
