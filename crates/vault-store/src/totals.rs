//! Each member's tokens of a month, by device: the highest that the device has said.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::personal::{Month, Slot};

use crate::members::{self, Newcomer, SLOTS_LIMIT, slot_text};
use crate::{Pseudonym, VaultError, VaultStore, column, number};

/// What a device says of its month.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Which of the member's devices.
    pub slot: Slot,
    /// The month.
    pub month: Month,
    /// Its tokens in that month so far.
    pub tokens: u64,
    /// The tier's identifier; `None` if fewer than five people are enrolled in it, so that it says
    /// little of whose this is.
    pub tier: Option<&'a str>,
}

/// What the vault knows of a member's month beside the device's own claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Tokens of the member's other devices in that month.
    pub others: u64,
    /// Tokens of all of them in the month before; `None`: no device said anything.
    pub before: Option<u64>,
}

/// Keeps the highest that a device has said, durably.
pub async fn note(
    vault: &VaultStore,
    organisation: &str,
    member: &Pseudonym,
    claim: Claim<'_>,
    newcomer: impl FnOnce() -> Newcomer,
) -> Result<Standing, VaultError> {
    let (slot, month) = (slot_text(claim.slot), claim.month.to_string());
    let mut transaction = vault.begin().await?;
    if crate::closing::is_closed(&mut transaction, organisation, claim.month).await? {
        return Err(VaultError::Closed);
    }
    let person = members::find_or_make(&mut transaction, organisation, member, newcomer).await?.person;
    let others = sum(&mut transaction, organisation, member, &month, &slot).await?;
    if others.slots >= SLOTS_LIMIT {
        return Err(VaultError::Full);
    }
    sqlx::query(
        "INSERT INTO monthly_totals (organisation_id, month, member, slot, tokens) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (organisation_id, month, member, slot) DO UPDATE SET tokens =
            CASE WHEN excluded.tokens > monthly_totals.tokens THEN excluded.tokens ELSE monthly_totals.tokens END",
    )
    .bind(organisation)
    .bind(&month)
    .bind(member.as_str())
    .bind(&slot)
    .bind(column(claim.tokens))
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO monthly_members (organisation_id, month, member, tier_id, person)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (organisation_id, month, member) DO UPDATE SET tier_id = excluded.tier_id",
    )
    .bind(organisation)
    .bind(&month)
    .bind(member.as_str())
    .bind(claim.tier.unwrap_or_default())
    .bind(person)
    .execute(&mut *transaction)
    .await?;
    let before = match claim.month.plus(-1) {
        Some(before) => sum(&mut transaction, organisation, member, &before.to_string(), "").await?,
        None => Total { slots: 0, tokens: 0 },
    };
    transaction.commit().await?;
    Ok(Standing {
        others: number(others.tokens, "monthly_totals.tokens")?,
        before: match before.slots {
            0 => None,
            _ => Some(number(before.tokens, "monthly_totals.tokens")?),
        },
    })
}

#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Total {
    slots: i64,
    tokens: i64,
}

/// The tokens of a member's month but for one slot.
async fn sum(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    member: &Pseudonym,
    month: &str,
    but_slot: &str,
) -> Result<Total, VaultError> {
    Ok(sqlx::query_as(
        "SELECT COUNT(*) AS slots, CAST(COALESCE(SUM(tokens), 0) AS BIGINT) AS tokens FROM monthly_totals
         WHERE organisation_id = $1 AND member = $2 AND month = $3 AND slot <> $4",
    )
    .bind(organisation)
    .bind(member.as_str())
    .bind(month)
    .bind(but_slot)
    .fetch_one(&mut **transaction)
    .await?)
}
