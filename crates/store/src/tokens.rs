//! Enrolment tokens: whom they are for and how often they are good. A token is stored as its
//! hash alone; the first characters of the hash name it in lists and commands.
//!
//! A *one-time* token enrols one device at once. A *reusable* one, which lies in an image or a
//! profile that many people can read, only lets devices ask; an administrator approves each
//! ([`crate::approvals`]).

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;

use crate::approvals::{APPROVED, WAITS, lapsed_until};
use crate::audit::{Deed, record};
use crate::directory::{Department, Organisation, User};
use crate::{Store, StoreError, column};

/// Characters of the hash that name a token.
const NAME_LENGTH: usize = 12;

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

/// How often a new token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// For one device, at once.
    Once,
    /// For so many devices, each after an administrator's approval.
    Reusable {
        /// Devices that may be enrolled or wait by it.
        devices: u32,
    },
}

/// A token as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Token {
    /// SHA-256 of the token, hexadecimal.
    pub hash: String,
    /// What the administrator called it.
    pub label: String,
    /// Department's name.
    pub department: Option<String>,
    /// User's address.
    pub user: Option<String>,
    /// 1: devices wait for approval.
    pub reusable: i64,
    /// How many may be enrolled or wait by it.
    pub device_limit: i64,
    /// How many are; a denied one and one whose request has lapsed are not.
    pub devices: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds.
    pub used_at: Option<i64>,
    /// Unix seconds.
    pub withdrawn_at: Option<i64>,
}

/// What the token of this hash is named by.
pub fn name(hash: &str) -> &str {
    hash.get(..NAME_LENGTH).unwrap_or(hash)
}

impl Token {
    /// What it is named by.
    pub fn name(&self) -> &str {
        name(&self.hash)
    }

    /// `open`, or why it takes no device.
    pub fn state(&self, now: UnixSeconds) -> &'static str {
        if self.withdrawn_at.is_some() {
            "withdrawn"
        } else if self.used_at.is_some() && self.reusable == 0 {
            "used"
        } else if self.expires_at <= column(now.0) {
            "expired"
        } else if self.reusable != 0 && self.devices >= self.device_limit {
            "full"
        } else {
            "open"
        }
    }
}

/// Stores a token's hash (SHA-256, hexadecimal).
pub async fn create(
    store: &Store,
    hash: &str,
    (grant, uses, label): (Grant<'_>, Use, &str),
    valid_until: UnixSeconds,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let (reusable, limit) = match uses {
        Use::Once => (0, 1),
        Use::Reusable { devices } => (1, i64::from(devices)),
    };
    let mut transaction = store.begin().await?;
    sqlx::query(
        "INSERT INTO enrolment_tokens (hash, organisation_id, department_id, user_id, created_at, expires_at,
            label, reusable, device_limit)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(hash)
    .bind(&grant.organisation.id)
    .bind(grant.department.map(|department| &department.id))
    .bind(grant.user.map(|user| &user.id))
    .bind(column(now.0))
    .bind(column(valid_until.0))
    .bind(label)
    .bind(reusable)
    .bind(limit)
    .execute(&mut *transaction)
    .await?;
    let holder = match (grant.user, grant.department) {
        (Some(user), _) => &user.email,
        (None, Some(department)) => &department.name,
        (None, None) => &grant.organisation.name,
    };
    let detail = match uses {
        Use::Reusable { devices } => format!("for {devices} devices of {holder}"),
        Use::Once => format!("for a device of {holder}"),
    };
    let deed = Deed {
        organisation: Some(&grant.organisation.id),
        actor,
        action: "token_create",
        subject: name(hash),
        detail: &detail,
    };
    record(&mut transaction, now, deed).await?;
    Ok(transaction.commit().await?)
}

/// The tokens of an organisation, newest first.
pub async fn of_organisation(
    store: &Store,
    organisation: &str,
    now: UnixSeconds,
) -> Result<Vec<Token>, StoreError> {
    let devices = devices();
    let sql = format!(
        "SELECT t.hash, t.label, d.name AS department, u.email AS \"user\", t.reusable, t.device_limit,
            {devices} AS devices, t.expires_at, t.used_at, t.withdrawn_at
         FROM enrolment_tokens t
         LEFT JOIN departments d ON d.id = t.department_id
         LEFT JOIN users u ON u.id = t.user_id
         WHERE t.organisation_id = $1 ORDER BY t.created_at DESC, t.hash"
    );
    let tokens = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(organisation).bind(lapsed_until(now));
    Ok(tokens.fetch_all(store.reader()).await?)
}

/// How many devices are enrolled or wait by a token `t`, as SQL; `$2` is [`lapsed_until`].
pub(crate) fn devices() -> String {
    format!(
        "CASE WHEN t.reusable = 0 THEN t.used_at IS NOT NULL ELSE (
            SELECT COUNT(*) FROM enrolment_requests r
            WHERE r.token_hash = t.hash AND (r.state = 'enrolled' OR {WAITS} OR {APPROVED})) END"
    )
}

/// The organisation (its identifier) that a token was issued for, by the token's hash.
pub async fn issuer(store: &Store, hash: &str) -> Result<Option<String>, StoreError> {
    let organisation = sqlx::query_scalar("SELECT organisation_id FROM enrolment_tokens WHERE hash = $1")
        .bind(hash)
        .fetch_optional(store.reader())
        .await?;
    Ok(organisation)
}

/// Ends a token by its name. Who waits by it already still waits for a decision.
pub async fn withdraw(
    store: &Store,
    organisation: &str,
    named: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let hash = find(&mut transaction, organisation, named).await?;
    sqlx::query("UPDATE enrolment_tokens SET withdrawn_at = COALESCE(withdrawn_at, $2) WHERE hash = $1")
        .bind(&hash)
        .bind(column(now.0))
        .execute(&mut *transaction)
        .await?;
    let deed = Deed {
        organisation: Some(organisation),
        actor,
        action: "token_withdraw",
        subject: name(&hash),
        detail: "",
    };
    record(&mut transaction, now, deed).await?;
    Ok(transaction.commit().await?)
}

/// The hash of the one token whose hash begins so.
async fn find(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    name: &str,
) -> Result<String, StoreError> {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT hash FROM enrolment_tokens WHERE organisation_id = $1 AND SUBSTR(hash, 1, LENGTH($2)) = $2
         LIMIT 2",
    )
    .bind(organisation)
    .bind(name)
    .fetch_all(&mut **transaction)
    .await?;
    match <[String; 1]>::try_from(rows) {
        Ok([hash]) if !name.is_empty() => Ok(hash),
        _ => Err(StoreError::NotFound { kind: "token", name: name.to_owned() }),
    }
}
