//! Exemptions: a device's user asks, an administrator grants for a time, and at its end it is over
//! by itself. While it lasts, the budget's cap does not block the user's devices, or the one
//! device that has no user.
//!
//! Invariants: a budget has one open request of a device at most; asking again changes nothing.
//! Every step is audited, and what changes a directive grows its version.

use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};
use toktra_protocol::budget::REASON_LIMIT;
use toktra_protocol::{DeviceId, UnixSeconds};
use uuid::Uuid;

use crate::audit::{Deed, record};
use crate::directory::Organisation;
use crate::terms::Terms;
use crate::{Store, StoreError, column, note_change};

/// Requests of a device within a day, over all budgets.
pub const REQUESTS_PER_DAY: i64 = 16;
const DAY_S: i64 = 24 * 60 * 60;

/// Why nothing was requested or decided.
#[derive(Debug, thiserror::Error)]
pub enum ExemptionError {
    /// The reason is empty, too long or has control characters.
    #[error("a reason has 1 to {REASON_LIMIT} bytes and no control characters")]
    Reason,
    /// No such budget, or not one of this device.
    #[error("no budget of this identifier applies to the device")]
    NotApplying,
    /// Too many requests.
    #[error("the device asked {REQUESTS_PER_DAY} times within a day")]
    TooMany,
    /// It was decided before, or is over.
    #[error("the exemption is {0} already")]
    State(String),
    /// The database failed, or there is no such exemption.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ExemptionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What an administrator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not blocked until then; also puts off the end of one that was granted.
    GrantUntil(UnixSeconds),
    /// Not granted.
    Deny,
    /// A granted one is over now.
    End,
}

/// An exemption as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Exemption {
    /// UUID as text.
    pub id: String,
    /// The budget.
    pub budget_id: String,
    /// The budget's name.
    pub budget: String,
    /// Who asked.
    pub device_id: String,
    /// That device's host name.
    pub hostname: String,
    /// Whose devices it covers; none: the one device.
    pub user: Option<String>,
    /// In the user's words.
    pub reason: String,
    /// `requested`, `granted`, `denied`, `withdrawn`.
    pub state: String,
    /// Unix seconds.
    pub requested_at: i64,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When it ends, or ended, Unix seconds.
    pub until: Option<i64>,
}

/// One that was granted and is not over.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Granted {
    pub budget_id: String,
    pub device_id: String,
    pub user_id: Option<String>,
    pub until: i64,
}

impl Granted {
    /// Whether it covers this device.
    pub(crate) fn covers(&self, device: &str, user: Option<&str>) -> bool {
        match &self.user_id {
            Some(whose) => user == Some(whose),
            None => self.device_id == device,
        }
    }
}

/// Asks for an exemption from a budget that applies to the device.
pub async fn request(
    store: &Store,
    device: DeviceId,
    budget: &str,
    reason: &str,
    now: UnixSeconds,
) -> Result<(), ExemptionError> {
    let reason = reason.trim();
    if !(1..=REASON_LIMIT).contains(&reason.len()) || reason.contains(char::is_control) {
        return Err(ExemptionError::Reason);
    }
    let device = device.to_string();
    let mut transaction = store.begin().await?;
    let (organisation, department, user): (String, Option<String>, Option<String>) =
        sqlx::query_as("SELECT organisation_id, department_id, user_id FROM devices WHERE id = $1")
            .bind(&device)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or_else(|| StoreError::NotFound { kind: "device", name: device.clone() })?;
    let terms = Terms::read(&mut transaction).await?;
    let applying = terms.applying(&organisation, department.as_deref(), user.as_deref());
    let budget = applying.into_iter().find(|row| row.id == budget).ok_or(ExemptionError::NotApplying)?;
    let (open, lately): (i64, i64) = sqlx::query_as(
        "SELECT COUNT(CASE WHEN budget_id = $2 AND state = 'requested' THEN 1 END),
            COUNT(CASE WHEN requested_at > $3 THEN 1 END) FROM exemptions WHERE device_id = $1",
    )
    .bind(&device)
    .bind(&budget.id)
    .bind(column(now.0) - DAY_S)
    .fetch_one(&mut *transaction)
    .await?;
    if open > 0 {
        return Ok(());
    }
    if lately >= REQUESTS_PER_DAY {
        return Err(ExemptionError::TooMany);
    }
    sqlx::query(
        "INSERT INTO exemptions (id, organisation_id, budget_id, device_id, user_id, reason, state, requested_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'requested', $7)",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(&organisation)
    .bind(&budget.id)
    .bind(&device)
    .bind(&user)
    .bind(reason)
    .bind(column(now.0))
    .execute(&mut *transaction)
    .await?;
    let deed = Deed {
        organisation: Some(&organisation),
        actor: &device,
        action: "exemption_request",
        subject: &budget.name,
        detail: reason,
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// Decides about an exemption of an organisation.
pub async fn decide(
    store: &Store,
    organisation: &Organisation,
    id: &str,
    decision: Decision,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), ExemptionError> {
    let mut transaction = store.begin().await?;
    let (budget, before, granted) = find(&mut transaction, organisation, id).await?;
    let (state, until, action) = match (decision, before.as_str()) {
        (Decision::GrantUntil(until), "requested" | "granted") => ("granted", Some(until), "exemption_grant"),
        (Decision::Deny, "requested") => ("denied", None, "exemption_deny"),
        (Decision::End, "granted") => ("withdrawn", Some(now), "exemption_end"),
        _ => return Err(ExemptionError::State(before)),
    };
    sqlx::query(
        "UPDATE exemptions SET state = $2, until = $3, decided_at = $4, decided_by = $5 WHERE id = $1",
    )
    .bind(id)
    .bind(state)
    .bind(until.map(|until| column(until.0)))
    .bind(column(now.0))
    .bind(actor)
    .execute(&mut *transaction)
    .await?;
    let detail = until.map(|until| format!("{id} until {}", until.0)).unwrap_or_else(|| id.to_owned());
    let organisation = Some(organisation.id.as_str());
    record(&mut transaction, now, Deed { organisation, actor, action, subject: &budget, detail: &detail })
        .await?;
    if decision != Decision::Deny {
        grow(&mut transaction, &granted).await?;
        note_change(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn find(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &Organisation,
    id: &str,
) -> Result<(String, String, Granted), StoreError> {
    let row: Option<(String, String, String, String, Option<String>)> = sqlx::query_as(
        "SELECT b.name, e.state, e.budget_id, e.device_id, e.user_id FROM exemptions e
         INNER JOIN budgets b ON b.id = e.budget_id WHERE e.id = $1 AND e.organisation_id = $2",
    )
    .bind(id)
    .bind(&organisation.id)
    .fetch_optional(&mut **transaction)
    .await?;
    let (budget, state, budget_id, device_id, user_id) =
        row.ok_or_else(|| StoreError::NotFound { kind: "exemption", name: id.into() })?;
    Ok((budget, state, Granted { budget_id, device_id, user_id, until: 0 }))
}

/// The exemptions of an organisation, the newest first; only what waits or is in force, or all.
pub async fn of_organisation(
    store: &Store,
    organisation: &Organisation,
    all: bool,
    now: UnixSeconds,
) -> Result<Vec<Exemption>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT e.id, e.budget_id, b.name AS budget, e.device_id, d.hostname, u.email AS \"user\", e.reason, e.state,
            e.requested_at, e.decided_by, e.until
         FROM exemptions e
         INNER JOIN budgets b ON b.id = e.budget_id
         INNER JOIN devices d ON d.id = e.device_id
         LEFT JOIN users u ON u.id = e.user_id
         WHERE e.organisation_id = $1
            AND ($2 <> 0 OR e.state = 'requested' OR (e.state = 'granted' AND e.until > $3))
         ORDER BY e.requested_at DESC, e.id DESC LIMIT 1000",
    )
    .bind(&organisation.id)
    .bind(i64::from(all))
    .bind(column(now.0))
    .fetch_all(store.reader())
    .await?)
}

/// What is in force.
pub(crate) async fn in_force(
    connection: &mut SqliteConnection,
    now: UnixSeconds,
) -> Result<Vec<Granted>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT budget_id, device_id, user_id, until FROM exemptions WHERE state = 'granted' AND until > $1",
    )
    .bind(column(now.0))
    .fetch_all(connection)
    .await?)
}

/// What ended after `since` and up to `now`.
pub(crate) async fn ended(
    connection: &mut SqliteConnection,
    since: UnixSeconds,
    now: UnixSeconds,
) -> Result<Vec<Granted>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT budget_id, device_id, user_id, until FROM exemptions
         WHERE state = 'granted' AND until > $1 AND until <= $2",
    )
    .bind(column(since.0))
    .bind(column(now.0))
    .fetch_all(connection)
    .await?)
}

/// Grows the directives of the devices that it covers.
pub(crate) async fn grow(
    transaction: &mut Transaction<'static, Sqlite>,
    granted: &Granted,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET directive_version = directive_version + 1 WHERE id = $1 OR user_id = $2")
        .bind(&granted.device_id)
        .bind(&granted.user_id)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
