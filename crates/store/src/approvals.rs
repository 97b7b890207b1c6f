//! Devices that came with a reusable token and wait for an administrator, and the decision.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;

use crate::audit::{Deed, record};
use crate::{Store, StoreError, column};

/// A device that waits.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// Of the request, UUID: what a decision names.
    pub id: String,
    /// As the device says.
    pub hostname: String,
    /// As the device says.
    pub platform: String,
    /// As the device says.
    pub agent_version: String,
    /// SHA-256 of the machine's own identifier, as the device says.
    pub hardware: Option<String>,
    /// From where it asked first.
    pub address: String,
    /// Unix seconds.
    pub requested_at: i64,
    /// What its token is called.
    pub label: String,
    /// Devices of the organisation that say they are the same machine.
    pub clones: i64,
}

/// The devices of an organisation that wait, oldest first.
pub async fn waiting(store: &Store, organisation: &str) -> Result<Vec<Waiting>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT r.id, r.hostname, r.platform, r.agent_version, r.hardware, r.address, r.requested_at, t.label,
            (SELECT COUNT(*) FROM devices d WHERE d.organisation_id = r.organisation_id
                AND d.hardware = r.hardware AND d.state = 'enrolled') AS clones
         FROM enrolment_requests r INNER JOIN enrolment_tokens t ON t.hash = r.token_hash
         WHERE r.organisation_id = $1 AND r.state = 'pending' ORDER BY r.requested_at, r.id",
    )
    .bind(organisation)
    .fetch_all(store.reader())
    .await?;
    Ok(rows)
}

/// Lets a waiting device enrol, or refuses it. A decision can be turned round until the device
/// has its certificate.
pub async fn decide(
    store: &Store,
    id: &str,
    approve: bool,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let request: Option<(String, String, String, String)> = sqlx::query_as(
        "SELECT organisation_id, token_hash, state, hostname FROM enrolment_requests
         WHERE id = $1 AND state <> 'enrolled'",
    )
    .bind(id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((organisation, token, before, hostname)) = request else {
        return Err(StoreError::NotFound { kind: "waiting device", name: id.to_owned() });
    };
    let (state, action) = if approve { ("approved", "approve") } else { ("denied", "deny") };
    if before == state {
        return Ok(());
    }
    sqlx::query("UPDATE enrolment_requests SET state = $2, decided_at = $3, decided_by = $4 WHERE id = $1")
        .bind(id)
        .bind(state)
        .bind(column(now.0))
        .bind(actor)
        .execute(&mut *transaction)
        .await?;
    count(&mut transaction, &token, before == "denied", state == "denied").await?;
    let deed = Deed { organisation: Some(&organisation), actor, action, subject: id, detail: &hostname };
    record(&mut transaction, now, deed).await?;
    Ok(transaction.commit().await?)
}

/// A denied device no longer takes one of the token's places.
async fn count(
    transaction: &mut Transaction<'static, Sqlite>,
    token: &str,
    was_denied: bool,
    is_denied: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE enrolment_tokens SET devices = devices + $2 WHERE hash = $1")
        .bind(token)
        .bind(i64::from(was_denied) - i64::from(is_denied))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
