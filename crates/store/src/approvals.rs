//! Devices that came with a reusable token and wait for an administrator, and the decision.
//!
//! Invariant: nobody waits for ever. A request *lapses* [`LAPSES_AFTER_S`] after it was made, or after it
//! was approved and not taken up. Whoever asks looks at the time; no job has to run for it.

use toktra_protocol::UnixSeconds;

use crate::audit::{Deed, record};
use crate::{Store, StoreError, column};

/// A request that nobody decided on, or that the device did not come back for, lapses so long after
/// it was made or approved, in seconds.
pub const LAPSES_AFTER_S: u64 = 30 * 24 * 60 * 60;

/// Whether a request `r` waits, or is approved and not taken up; `$2` is [`lapsed_until`].
pub(crate) const WAITS: &str = "(r.state = 'pending' AND r.requested_at > $2)";
pub(crate) const APPROVED: &str = "(r.state = 'approved' AND r.decided_at > $2)";

/// What was made or approved by then has lapsed.
pub(crate) fn lapsed_until(now: UnixSeconds) -> i64 {
    column(now.0.saturating_sub(LAPSES_AFTER_S))
}

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
pub async fn waiting(
    store: &Store,
    organisation: &str,
    now: UnixSeconds,
) -> Result<Vec<Waiting>, StoreError> {
    let sql = format!(
        "SELECT r.id, r.hostname, r.platform, r.agent_version, r.hardware, r.address, r.requested_at, t.label,
            (SELECT COUNT(*) FROM devices d WHERE d.organisation_id = r.organisation_id
                AND d.hardware = r.hardware AND d.state = 'enrolled') AS clones
         FROM enrolment_requests r INNER JOIN enrolment_tokens t ON t.hash = r.token_hash
         WHERE r.organisation_id = $1 AND {WAITS} ORDER BY r.requested_at, r.id"
    );
    let waiting = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(organisation).bind(lapsed_until(now));
    Ok(waiting.fetch_all(store.reader()).await?)
}

/// Lets a waiting device enrol, or refuses it. A decision can be turned round until the device
/// has its certificate. With an organisation, only a device of that one.
pub async fn decide(
    store: &Store,
    organisation: Option<&str>,
    id: &str,
    approve: bool,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let sql = format!(
        "SELECT r.organisation_id, r.state, r.hostname FROM enrolment_requests r
         WHERE r.id = $1 AND ({WAITS} OR {APPROVED} OR r.state = 'denied')
            AND ($3 IS NULL OR r.organisation_id = $3)"
    );
    let request: Option<(String, String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .bind(lapsed_until(now))
        .bind(organisation)
        .fetch_optional(&mut *transaction)
        .await?;
    let Some((organisation, before, hostname)) = request else {
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
    let deed = Deed { organisation: Some(&organisation), actor, action, subject: id, detail: &hostname };
    record(&mut transaction, now, deed).await?;
    Ok(transaction.commit().await?)
}
