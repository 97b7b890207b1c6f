//! One-time tokens and what they buy. A token is stored as its hash; it is consumed in
//! the transaction that inserts the device and its certificate, so that of two devices
//! that come with one token, exactly one is enrolled.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::{DeviceId, UnixSeconds};

use crate::audit::{Deed, record};
use crate::directory::{Department, Organisation, User};
use crate::{Store, StoreError, column};

/// Whom a new token is for.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// The organisation.
    pub organisation: &'a Organisation,
    /// The department that the device will belong to.
    pub department: Option<&'a Department>,
    /// The person whose device it will be.
    pub user: Option<&'a User>,
}

/// A certificate as the database keeps it.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    /// Hexadecimal.
    pub serial: String,
    /// Key identifier of the issuer, hexadecimal.
    pub issuer: String,
    /// Start of its validity.
    pub not_before: UnixSeconds,
    /// End of its validity.
    pub not_after: UnixSeconds,
    /// DER in base64.
    pub der: String,
}

/// What a token that may be used is bound to.
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

/// Why nothing was enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No token has this hash.
    #[error("the enrolment token is not known")]
    TokenUnknown,
    /// It was used before.
    #[error("the enrolment token was used before")]
    TokenUsed,
    /// Its time is over.
    #[error("the enrolment token has expired")]
    TokenExpired,
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EnrolError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Stores a token's hash (SHA-256, hexadecimal).
pub async fn create_token(
    store: &Store,
    hash: &str,
    grant: Grant<'_>,
    valid_until: UnixSeconds,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    sqlx::query(
        "INSERT INTO enrolment_tokens (hash, organisation_id, department_id, user_id, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(hash)
    .bind(&grant.organisation.id)
    .bind(grant.department.map(|department| &department.id))
    .bind(grant.user.map(|user| &user.id))
    .bind(column(now.0))
    .bind(column(valid_until.0))
    .execute(&mut *transaction)
    .await?;
    let deed = Deed {
        organisation: Some(&grant.organisation.id),
        actor,
        action: "token_create",
        subject: grant.department.map_or(&grant.organisation.name, |department| &department.name),
        detail: grant.user.map_or("", |user| &user.email),
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// Consumes the token and inserts the device with the certificate that `issue` makes for
/// the organisation that the token is bound to. All of it or nothing.
pub async fn enrol(
    store: &Store,
    hash: &str,
    device: DeviceId,
    description: &DeviceDescription,
    now: UnixSeconds,
    issue: impl FnOnce(&Bound) -> Result<NewCertificate, Box<dyn std::error::Error + Send + Sync>> + Send,
) -> Result<Bound, EnrolError> {
    let mut transaction = store.begin().await?;
    let bound = usable(&mut transaction, hash, now).await?;
    let certificate = issue(&bound).map_err(EnrolError::Certificate)?;
    let id = device.to_string();
    insert_device(&mut transaction, &id, &bound, description, now).await?;
    insert_certificate(&mut transaction, &id, &certificate).await?;
    sqlx::query("UPDATE enrolment_tokens SET used_at = $2, used_by = $3 WHERE hash = $1")
        .bind(hash)
        .bind(column(now.0))
        .bind(&id)
        .execute(&mut *transaction)
        .await?;
    let deed = Deed {
        organisation: Some(&bound.organisation_id),
        actor: &id,
        action: "enrol",
        subject: &id,
        detail: &certificate.serial,
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(bound)
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    organisation_id: String,
    organisation: String,
    department_id: Option<String>,
    department: Option<String>,
    user_id: Option<String>,
    expires_at: i64,
    used_at: Option<i64>,
}

async fn usable(
    transaction: &mut Transaction<'static, Sqlite>,
    hash: &str,
    now: UnixSeconds,
) -> Result<Bound, EnrolError> {
    let row: Option<TokenRow> = sqlx::query_as(
        "SELECT t.organisation_id, o.name AS organisation, t.department_id, d.name AS department,
            t.user_id, t.expires_at, t.used_at
         FROM enrolment_tokens t
         INNER JOIN organisations o ON o.id = t.organisation_id
         LEFT JOIN departments d ON d.id = t.department_id
         WHERE t.hash = $1",
    )
    .bind(hash)
    .fetch_optional(&mut **transaction)
    .await?;
    let row = row.ok_or(EnrolError::TokenUnknown)?;
    if row.used_at.is_some() {
        return Err(EnrolError::TokenUsed);
    }
    if row.expires_at <= column(now.0) {
        return Err(EnrolError::TokenExpired);
    }
    Ok(Bound {
        organisation_id: row.organisation_id,
        organisation: row.organisation,
        department_id: row.department_id,
        department: row.department,
        user_id: row.user_id,
    })
}

async fn insert_device(
    transaction: &mut Transaction<'static, Sqlite>,
    id: &str,
    bound: &Bound,
    description: &DeviceDescription,
    now: UnixSeconds,
) -> Result<(), EnrolError> {
    sqlx::query(
        "INSERT INTO devices (id, organisation_id, department_id, user_id, hostname, platform,
            agent_version, state, enrolled_at, acknowledged_sequence, directive_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'enrolled', $8, 0, 1)",
    )
    .bind(id)
    .bind(&bound.organisation_id)
    .bind(&bound.department_id)
    .bind(&bound.user_id)
    .bind(&description.hostname)
    .bind(&description.platform)
    .bind(&description.agent_version)
    .bind(column(now.0))
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "UPDATE devices SET
            block_reason = (SELECT block_reason FROM departments d WHERE d.id = devices.department_id),
            block_message = (SELECT block_message FROM departments d WHERE d.id = devices.department_id),
            block_providers = (SELECT block_providers FROM departments d WHERE d.id = devices.department_id)
         WHERE id = $1",
    )
    .bind(id)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_certificate(
    transaction: &mut Transaction<'static, Sqlite>,
    device: &str,
    certificate: &NewCertificate,
) -> Result<(), EnrolError> {
    sqlx::query(
        "INSERT INTO certificates (serial, device_id, issuer, not_before, not_after, der)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&certificate.serial)
    .bind(device)
    .bind(&certificate.issuer)
    .bind(column(certificate.not_before.0))
    .bind(column(certificate.not_after.0))
    .bind(&certificate.der)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
