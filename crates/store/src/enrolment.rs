//! What a token buys: a device with its certificate, at once or after an administrator's approval.
//!
//! Invariants: a one-time token is consumed in the transaction that inserts the device and its
//! certificate, so that of any number that come with one token at once, exactly one is enrolled;
//! a reusable one counts who waits and who is enrolled by it in the transaction that lets one more
//! wait. A device that asks again with the same key gets the same certificate until it first used
//! it. A machine that says it is one that is enrolled already is enrolled as another, and both
//! are flagged: no device takes another's place.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::{DeviceId, UnixSeconds};
use uuid::Uuid;

use crate::approvals::{APPROVED, WAITS, lapsed_until};
use crate::audit::{Deed, record};
use crate::certificates::{self, Purpose};
use crate::tokens::{self, Use};
use crate::{Store, StoreError, column, devices};

pub use crate::certificates::NewCertificate;
pub use crate::tokens::Grant;

/// Most devices of an organisation that wait for approval at once.
pub const WAITING_LIMIT: i64 = 1000;
/// Most devices of the same hardware that an audit row names.
const NAMED_CLONES: i64 = 3;

/// What `issue` may fail with.
pub type IssueError = Box<dyn std::error::Error + Send + Sync>;

/// A device that wants to enrol.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// SHA-256 of its token, hexadecimal.
    pub token_hash: &'a str,
    /// SHA-256 of its key's SubjectPublicKeyInfo, hexadecimal.
    pub public_key: &'a str,
    /// What it says of itself.
    pub description: &'a DeviceDescription,
    /// From where it asks.
    pub address: &'a str,
    /// The identifier that it gets if it is new.
    pub device: DeviceId,
}

/// What a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The organisation's identifier.
    pub organisation_id: String,
    /// Its name.
    pub organisation: String,
    /// The department's identifier.
    pub department_id: Option<String>,
    /// Its name.
    pub department: Option<String>,
    /// The user's identifier.
    pub user_id: Option<String>,
}

/// A device that is enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Its identifier: the one of the attempt, or of the first that was alike.
    pub device: DeviceId,
    /// To whom it belongs.
    pub bound: Bound,
    /// Leaf and intermediate, PEM.
    pub chain_pem: String,
}

/// Why nothing was enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No token has this hash.
    #[error("the enrolment token is not known")]
    TokenUnknown,
    /// It was used before.
    #[error("the enrolment token was used before")]
    TokenUsed,
    /// It was withdrawn, or has as many devices as it may.
    #[error("the enrolment token takes no more devices")]
    TokenClosed,
    /// Its time is over.
    #[error("the enrolment token has expired")]
    TokenExpired,
    /// The key was certified, or waits, otherwise.
    #[error("the key was certified before")]
    KeyUsed,
    /// An administrator has yet to decide.
    #[error("the device awaits approval")]
    Pending,
    /// An administrator refused the device.
    #[error("the device was not approved")]
    Denied,
    /// [`WAITING_LIMIT`] devices wait already.
    #[error("too many devices await approval")]
    WaitingFull,
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[source] IssueError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EnrolError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Stores the hash of a one-time token (SHA-256, hexadecimal).
pub async fn create_token(
    store: &Store,
    hash: &str,
    grant: Grant<'_>,
    valid_until: UnixSeconds,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    tokens::create(store, hash, (grant, Use::Once, ""), valid_until, actor, now).await
}

/// Enrols a device with the certificate that `issue` makes for the organisation that the token is
/// bound to, or gives it again. All of it or nothing; [`EnrolError::Pending`] alone may leave a
/// request behind.
pub async fn enrol(
    store: &Store,
    attempt: &Attempt<'_>,
    now: UnixSeconds,
    issue: impl FnOnce(&Bound, DeviceId) -> Result<NewCertificate, IssueError> + Send,
) -> Result<Enrolled, EnrolError> {
    let mut transaction = store.begin().await?;
    let token = token(&mut transaction, attempt.token_hash, now).await?.ok_or(EnrolError::TokenUnknown)?;
    match judge(&mut transaction, attempt, &token, now).await? {
        Step::Again(enrolled) => Ok(enrolled),
        Step::Wait => {
            insert_request(&mut transaction, attempt, &token, now).await?;
            transaction.commit().await?;
            Err(EnrolError::Pending)
        }
        Step::Issue => {
            let certificate = issue(&token.bound(), attempt.device).map_err(EnrolError::Certificate)?;
            admit(&mut transaction, attempt, &token, &certificate, now).await?;
            transaction.commit().await?;
            let chain_pem = certificate.chain_pem;
            Ok(Enrolled { device: attempt.device, bound: token.bound(), chain_pem })
        }
    }
}

/// Flags a living device and those of its organisation that say they are the same machine.
pub(crate) async fn flag_clones(
    transaction: &mut Transaction<'static, Sqlite>,
    device: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let others: Vec<(String, String)> = sqlx::query_as(
        "SELECT o.id, o.organisation_id FROM devices o
         INNER JOIN devices d ON d.organisation_id = o.organisation_id AND d.hardware = o.hardware
         WHERE d.id = $1 AND o.id <> $1 AND o.state = 'enrolled' ORDER BY o.enrolled_at DESC, o.id LIMIT $2",
    )
    .bind(device)
    .bind(NAMED_CLONES)
    .fetch_all(&mut **transaction)
    .await?;
    let Some((_, organisation)) = others.first() else { return Ok(()) };
    sqlx::query(
        "UPDATE devices SET flag = 'cloned_hardware'
         WHERE flag IS NULL AND state = 'enrolled' AND organisation_id = $2
            AND hardware = (SELECT hardware FROM devices WHERE id = $1)",
    )
    .bind(device)
    .bind(organisation)
    .execute(&mut **transaction)
    .await?;
    let named: Vec<_> = others.iter().map(|(id, _)| id.as_str()).collect();
    let deed = Deed {
        organisation: Some(organisation),
        actor: device,
        action: "hardware_shared",
        subject: device,
        detail: &named.join(" "),
    };
    record(transaction, now, deed).await
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    organisation_id: String,
    organisation: String,
    department_id: Option<String>,
    department: Option<String>,
    user_id: Option<String>,
    expires_at: i64,
    used_by: Option<String>,
    used_at: Option<i64>,
    reusable: i64,
    device_limit: i64,
    devices: i64,
    withdrawn_at: Option<i64>,
}

impl TokenRow {
    fn bound(&self) -> Bound {
        Bound {
            organisation_id: self.organisation_id.clone(),
            organisation: self.organisation.clone(),
            department_id: self.department_id.clone(),
            department: self.department.clone(),
            user_id: self.user_id.clone(),
        }
    }

    /// Whether it takes another device.
    fn is_open(&self, now: UnixSeconds) -> Result<(), EnrolError> {
        if self.withdrawn_at.is_some() || self.devices >= self.device_limit {
            Err(EnrolError::TokenClosed)
        } else if self.expires_at <= column(now.0) {
            Err(EnrolError::TokenExpired)
        } else {
            Ok(())
        }
    }
}

async fn token(
    transaction: &mut Transaction<'static, Sqlite>,
    hash: &str,
    now: UnixSeconds,
) -> Result<Option<TokenRow>, StoreError> {
    let devices = tokens::devices();
    let sql = format!(
        "SELECT t.organisation_id, o.name AS organisation, t.department_id, d.name AS department,
            t.user_id, t.expires_at, t.used_by, t.used_at, t.reusable, t.device_limit,
            {devices} AS devices, t.withdrawn_at
         FROM enrolment_tokens t
         INNER JOIN organisations o ON o.id = t.organisation_id
         LEFT JOIN departments d ON d.id = t.department_id
         WHERE t.hash = $1"
    );
    let token = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(hash).bind(lapsed_until(now));
    Ok(token.fetch_optional(&mut **transaction).await?)
}

/// What is to be done for an attempt.
enum Step {
    Issue,
    Again(Enrolled),
    Wait,
}

async fn judge(
    transaction: &mut Transaction<'static, Sqlite>,
    attempt: &Attempt<'_>,
    token: &TokenRow,
    now: UnixSeconds,
) -> Result<Step, EnrolError> {
    let certified = certificates::of_key(transaction, attempt.public_key).await?;
    let again = |by: Option<&str>| {
        let certified = certified.as_ref().filter(|row| by == Some(&row.device_id))?;
        let chain_pem = certified.again(now)?.to_owned();
        let device = certified.device_id.parse().ok()?;
        Some(Step::Again(Enrolled { device, bound: token.bound(), chain_pem }))
    };
    if let Some(request) = request(transaction, attempt.public_key, now).await? {
        if request.token_hash != attempt.token_hash {
            return Err(EnrolError::KeyUsed);
        }
        return match request.state.as_str() {
            "pending" => Err(EnrolError::Pending),
            "approved" => Ok(Step::Issue),
            "enrolled" => again(request.device_id.as_deref()).ok_or(EnrolError::KeyUsed),
            _ => Err(EnrolError::Denied),
        };
    }
    if token.used_at.is_some() && token.reusable == 0 {
        return again(token.used_by.as_deref()).ok_or(EnrolError::TokenUsed);
    }
    token.is_open(now)?;
    if certified.is_some() {
        return Err(EnrolError::KeyUsed);
    }
    if token.reusable == 0 {
        return Ok(Step::Issue);
    }
    if waiting(transaction, &token.organisation_id, now).await? >= WAITING_LIMIT {
        return Err(EnrolError::WaitingFull);
    }
    Ok(Step::Wait)
}

#[derive(sqlx::FromRow)]
struct RequestRow {
    token_hash: String,
    state: String,
    device_id: Option<String>,
}

/// The request of a key, unless it has lapsed.
async fn request(
    transaction: &mut Transaction<'static, Sqlite>,
    public_key: &str,
    now: UnixSeconds,
) -> Result<Option<RequestRow>, StoreError> {
    let sql = format!(
        "SELECT r.token_hash, r.state, r.device_id FROM enrolment_requests r
         WHERE r.public_key = $1 AND ({WAITS} OR {APPROVED} OR r.state IN ('denied', 'enrolled'))"
    );
    let request = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(public_key).bind(lapsed_until(now));
    Ok(request.fetch_optional(&mut **transaction).await?)
}

async fn waiting(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    now: UnixSeconds,
) -> Result<i64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM enrolment_requests r WHERE r.organisation_id = $1 AND {WAITS}");
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(organisation).bind(lapsed_until(now));
    Ok(count.fetch_one(&mut **transaction).await?)
}

async fn insert_request(
    transaction: &mut Transaction<'static, Sqlite>,
    attempt: &Attempt<'_>,
    token: &TokenRow,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let id = Uuid::new_v4().to_string();
    let description = attempt.description;
    // One that has lapsed, or else the key could not wait.
    sqlx::query("DELETE FROM enrolment_requests WHERE public_key = $1")
        .bind(attempt.public_key)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO enrolment_requests (id, organisation_id, token_hash, public_key, hostname, platform,
            agent_version, hardware, address, state, requested_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10)",
    )
    .bind(&id)
    .bind(&token.organisation_id)
    .bind(attempt.token_hash)
    .bind(attempt.public_key)
    .bind(&description.hostname)
    .bind(&description.platform)
    .bind(&description.agent_version)
    .bind(&description.hardware)
    .bind(attempt.address)
    .bind(column(now.0))
    .execute(&mut **transaction)
    .await?;
    let deed = Deed {
        organisation: Some(&token.organisation_id),
        actor: attempt.address,
        action: "enrol_pending",
        subject: &id,
        detail: &description.hostname,
    };
    record(transaction, now, deed).await
}

/// Inserts the device and its certificate, and spends what it came by.
async fn admit(
    transaction: &mut Transaction<'static, Sqlite>,
    attempt: &Attempt<'_>,
    token: &TokenRow,
    certificate: &NewCertificate,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let id = attempt.device.to_string();
    insert_device(transaction, &id, token, attempt.description, now).await?;
    certificates::insert(transaction, &id, certificate, Purpose::Enrol, now).await?;
    sqlx::query("UPDATE enrolment_requests SET state = 'enrolled', device_id = $2 WHERE public_key = $1")
        .bind(attempt.public_key)
        .bind(&id)
        .execute(&mut **transaction)
        .await?;
    sqlx::query("UPDATE enrolment_tokens SET used_at = $2, used_by = $3 WHERE hash = $1")
        .bind(attempt.token_hash)
        .bind(column(now.0))
        .bind(&id)
        .execute(&mut **transaction)
        .await?;
    let deed = Deed {
        organisation: Some(&token.organisation_id),
        actor: &id,
        action: "enrol",
        subject: &id,
        detail: &certificate.serial,
    };
    record(transaction, now, deed).await?;
    flag_clones(transaction, &id, now).await
}

async fn insert_device(
    transaction: &mut Transaction<'static, Sqlite>,
    id: &str,
    token: &TokenRow,
    description: &DeviceDescription,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO devices (id, organisation_id, department_id, user_id, hostname, platform,
            agent_version, hardware, state, enrolled_at, acknowledged_sequence, directive_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'enrolled', $9, 0, 1)",
    )
    .bind(id)
    .bind(&token.organisation_id)
    .bind(&token.department_id)
    .bind(&token.user_id)
    .bind(&description.hostname)
    .bind(&description.platform)
    .bind(&description.agent_version)
    .bind(&description.hardware)
    .bind(column(now.0))
    .execute(&mut **transaction)
    .await?;
    devices::take_over_block(transaction, id).await
}
