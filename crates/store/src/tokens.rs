//! Enrolment tokens: whom they are for and how often they are good. A token is stored as its
//! hash alone; the first characters of the hash name it in lists and commands.
//!
//! A *one-time* token enrols one device at once. A *reusable* one, which lies in an image or a
//! profile that many people can read, only lets devices ask; an administrator approves each
//! ([`crate::approvals`]).

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;

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
    /// How many are.
    pub devices: i64,
    /// Unix seconds.
    pub expires_at: i64,
    /// Unix seconds.
    pub used_at: Option<i64>,
    /// Unix seconds.
    pub withdrawn_at: Option<i64>,
}

impl Token {
    /// What it is named by.
    pub fn name(&self) -> &str {
        self.hash.get(..NAME_LENGTH).unwrap_or(&self.hash)
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
    let detail = match (uses, grant.user) {
        (Use::Reusable { devices }, _) => format!("reusable for {devices} devices"),
        (Use::Once, Some(user)) => user.email.clone(),
        (Use::Once, None) => String::new(),
    };
    let deed = Deed {
        organisation: Some(&grant.organisation.id),
        actor,
        action: "token_create",
        subject: grant.department.map_or(&grant.organisation.name, |department| &department.name),
        detail: &detail,
    };
    record(&mut transaction, now, deed).await?;
    Ok(transaction.commit().await?)
}

/// The tokens of an organisation, newest first.
pub async fn of_organisation(store: &Store, organisation: &str) -> Result<Vec<Token>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT t.hash, t.label, d.name AS department, u.email AS \"user\", t.reusable, t.device_limit,
            t.devices, t.expires_at, t.used_at, t.withdrawn_at
         FROM enrolment_tokens t
         LEFT JOIN departments d ON d.id = t.department_id
         LEFT JOIN users u ON u.id = t.user_id
         WHERE t.organisation_id = $1 ORDER BY t.created_at DESC, t.hash",
    )
    .bind(organisation)
    .fetch_all(store.reader())
    .await?;
    Ok(rows)
}

/// Ends a token by its name. Who waits by it already still waits for a decision.
pub async fn withdraw(
    store: &Store,
    organisation: &str,
    name: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let hash = find(&mut transaction, organisation, name).await?;
    sqlx::query("UPDATE enrolment_tokens SET withdrawn_at = COALESCE(withdrawn_at, $2) WHERE hash = $1")
        .bind(&hash)
        .bind(column(now.0))
        .execute(&mut *transaction)
        .await?;
    let subject = hash.get(..NAME_LENGTH).unwrap_or(&hash);
    let deed =
        Deed { organisation: Some(organisation), actor, action: "token_withdraw", subject, detail: "" };
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
