//! A member who leaves: sealed records are deleted, and each month's total becomes nobody's, under a
//! random name of its own, so that neither a person nor another month follows from it.
//!
//! Invariants: done in small transactions, the member itself last, so that a leave which was broken
//! off is done again by asking again. Somebody who is not known leaves as well as anybody else.

use crate::retention::{self, ROWS};
use crate::{Pseudonym, VaultError, VaultStore, column};

/// Forgets a member.
pub async fn leave(vault: &VaultStore, organisation: &str, member: &Pseudonym) -> Result<(), VaultError> {
    loop {
        let mut transaction = vault.begin().await?;
        let taken = retention::take_of_member(&mut transaction, organisation, member).await?;
        if taken >= ROWS {
            transaction.commit().await?;
            continue;
        }
        for table in [
            "DELETE FROM vault_slots WHERE organisation_id = $1 AND member = $2",
            "DELETE FROM vault_members WHERE organisation_id = $1 AND member = $2",
        ] {
            sqlx::query(table).bind(organisation).bind(member.as_str()).execute(&mut *transaction).await?;
        }
        let months: Vec<(String, i64)> = sqlx::query_as(
            "SELECT month, CAST(SUM(tokens) AS BIGINT) FROM monthly_totals
             WHERE organisation_id = $1 AND member = $2 GROUP BY month",
        )
        .bind(organisation)
        .bind(member.as_str())
        .fetch_all(&mut *transaction)
        .await?;
        for (month, tokens) in months {
            let nobody = Pseudonym::random()?;
            sqlx::query(
                "DELETE FROM monthly_totals WHERE organisation_id = $1 AND member = $2 AND month = $3",
            )
            .bind(organisation)
            .bind(member.as_str())
            .bind(&month)
            .execute(&mut *transaction)
            .await?;
            sqlx::query(
                "INSERT INTO monthly_totals (organisation_id, month, member, slot, tokens)
                 VALUES ($1, $2, $3, '', $4)",
            )
            .bind(organisation)
            .bind(&month)
            .bind(nobody.as_str())
            .bind(column(u64::try_from(tokens).unwrap_or_default()))
            .execute(&mut *transaction)
            .await?;
            sqlx::query(
                "UPDATE monthly_members SET member = $4
                 WHERE organisation_id = $1 AND month = $3 AND member = $2",
            )
            .bind(organisation)
            .bind(member.as_str())
            .bind(&month)
            .bind(nobody.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        return Ok(());
    }
}
