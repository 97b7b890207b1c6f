//! The end of a month: its sums are made and its totals taken no more; later its totals are deleted.
//!
//! Invariants: closing is one transaction, so that no total comes between the sums and the close; a
//! month is closed once, and what is told of it never changes. A month's totals stay while something
//! may be carried over from them, and no longer.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::personal::Month;

use crate::sums::{self, Share, Sum};
use crate::{VaultError, VaultStore, column, number};

/// Closes every month of an organisation before this one that has totals. Returns how many.
pub async fn close(vault: &VaultStore, organisation: &str, before: Month) -> Result<usize, VaultError> {
    let mut transaction = vault.begin().await?;
    let months: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT m.month FROM monthly_members m
         LEFT JOIN closed_months c ON c.organisation_id = m.organisation_id AND c.month = m.month
         WHERE m.organisation_id = $1 AND m.month < $2 AND c.month IS NULL",
    )
    .bind(organisation)
    .bind(before.to_string())
    .fetch_all(&mut *transaction)
    .await?;
    for month in &months {
        close_month(&mut transaction, organisation, month).await?;
    }
    transaction.commit().await?;
    Ok(months.len())
}

/// Deletes the totals of an organisation's closed months before this one.
pub async fn forget(vault: &VaultStore, organisation: &str, before: Month) -> Result<(), VaultError> {
    let mut transaction = vault.begin().await?;
    for table in [
        "DELETE FROM monthly_totals WHERE organisation_id = $1 AND month < $2
            AND month IN (SELECT month FROM closed_months WHERE organisation_id = $1)",
        "DELETE FROM monthly_members WHERE organisation_id = $1 AND month < $2
            AND month IN (SELECT month FROM closed_months WHERE organisation_id = $1)",
    ] {
        sqlx::query(table).bind(organisation).bind(before.to_string()).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Every sum of an organisation that may be told, by month.
pub async fn told(vault: &VaultStore, organisation: &str) -> Result<Vec<(Month, Sum)>, VaultError> {
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
        "SELECT month, tier_id, others, tokens FROM month_sums WHERE organisation_id = $1
         ORDER BY month, tier_id",
    )
    .bind(organisation)
    .fetch_all(vault.reader())
    .await?;
    rows.into_iter()
        .map(|(month, tier, others, tokens)| {
            let month = month.parse().map_err(|_| VaultError::Corrupt("month_sums.month"))?;
            let tokens = number(tokens, "month_sums.tokens")?;
            let tier = Some(tier).filter(|tier| !tier.is_empty());
            Ok((month, Sum { tier, others: others != 0, tokens }))
        })
        .collect()
}

pub(crate) async fn is_closed(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    month: Month,
) -> Result<bool, VaultError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM closed_months WHERE organisation_id = $1 AND month = $2")
            .bind(organisation)
            .bind(month.to_string())
            .fetch_optional(&mut **transaction)
            .await?;
    Ok(found.is_some())
}

async fn close_month(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    month: &str,
) -> Result<(), VaultError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT m.tier_id, m.person, CAST(COALESCE(SUM(t.tokens), 0) AS BIGINT) FROM monthly_members m
         LEFT JOIN monthly_totals t
            ON t.organisation_id = m.organisation_id AND t.month = m.month AND t.member = m.member
         WHERE m.organisation_id = $1 AND m.month = $2 GROUP BY m.member, m.tier_id, m.person",
    )
    .bind(organisation)
    .bind(month)
    .fetch_all(&mut **transaction)
    .await?;
    let shares: Vec<_> = rows
        .into_iter()
        .map(|(tier, person, tokens)| {
            let tokens = number(tokens, "monthly_totals.tokens")?;
            Ok(Share { tier, is_person: person != 0, tokens })
        })
        .collect::<Result<_, VaultError>>()?;
    for sum in sums::of(&shares) {
        sqlx::query(
            "INSERT INTO month_sums (organisation_id, month, tier_id, others, tokens) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(organisation)
        .bind(month)
        .bind(sum.tier.unwrap_or_default())
        .bind(i64::from(sum.others))
        .bind(column(sum.tokens))
        .execute(&mut **transaction)
        .await?;
    }
    sqlx::query("INSERT INTO closed_months (organisation_id, month) VALUES ($1, $2)")
        .bind(organisation)
        .bind(month)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
