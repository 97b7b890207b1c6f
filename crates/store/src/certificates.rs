//! Certificates as they were issued, and which of a device's is in use.
//!
//! A device's certificates are numbered in the order of their issue, their *generation*. Several
//! may be good at once, since the answer that carries a new one may be lost; the first use of
//! one supersedes those of lower generations, and none of those is good again.
//!
//! Invariants: a key is certified once (the database has a unique index); the first use is
//! durable before the request is served, so that what was superseded stays so after a crash.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::{DeviceId, UnixSeconds};

use crate::audit::{Deed, record};
use crate::{Store, StoreError, column};

/// A certificate to store.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    /// Hexadecimal.
    pub serial: String,
    /// Key identifier of the issuer, hexadecimal.
    pub issuer: String,
    /// Key identifier of the newest root that the device is told of with it, hexadecimal.
    pub root: String,
    /// Start of its validity.
    pub not_before: UnixSeconds,
    /// End of its validity.
    pub not_after: UnixSeconds,
    /// DER in base64.
    pub der: String,
    /// Leaf and intermediate, PEM: what the device gets, and gets again if it asks again.
    pub chain_pem: String,
    /// SHA-256 of the SubjectPublicKeyInfo, hexadecimal.
    pub public_key: String,
}

/// A certificate as a device shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The device that it names.
    pub device: DeviceId,
    /// Hexadecimal.
    pub serial: String,
    /// Key identifier of the issuer, hexadecimal.
    pub issuer: String,
    /// Start of its validity.
    pub not_before: UnixSeconds,
    /// End of its validity.
    pub not_after: UnixSeconds,
}

/// What a certificate is worth, its time apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It is the newest of its device that was used, from now on.
    InUse,
    /// A newer one was used.
    Superseded,
    /// It, or its device, was revoked.
    Revoked,
    /// There is no such device.
    UnknownDevice,
}

/// An entry of a revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Hexadecimal.
    pub serial: String,
    /// Since when it is not to be believed.
    pub at: UnixSeconds,
    /// End of its validity.
    pub not_after: UnixSeconds,
}

/// What a certificate was issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Enrol,
    Renew,
    Recover,
}

impl Purpose {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enrol => "enrol",
            Self::Renew => "renew",
            Self::Recover => "recover",
        }
    }
}

/// A certificate's row, as far as a decision needs it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Row {
    pub serial: String,
    pub device_id: String,
    pub generation: i64,
    pub not_after: i64,
    pub chain_pem: Option<String>,
    pub first_used_at: Option<i64>,
    pub superseded_at: Option<i64>,
    pub revoked_at: Option<i64>,
}

impl Row {
    /// The chain, if it may be given once more: the certificate was never used and still may be.
    pub(crate) fn again(&self, now: UnixSeconds) -> Option<&str> {
        let spent = self.first_used_at.or(self.superseded_at).or(self.revoked_at).is_some();
        self.chain_pem.as_deref().filter(|_| !spent && self.not_after > column(now.0))
    }
}

const COLUMNS: &str = "SELECT serial, device_id, generation, not_after, chain_pem, first_used_at,
    superseded_at, revoked_at FROM certificates";

/// What a certificate is worth, as far as it can be told without writing; `None` means that it may
/// be its first use, which is to be noted through [`crate::Ledger::certificate_used`].
pub async fn worth(store: &Store, shown: &Shown) -> Result<Option<Worth>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE serial = $1"));
    let row: Option<Row> = sqlx::query_as(sql).bind(&shown.serial).fetch_optional(store.reader()).await?;
    Ok(row.and_then(|row| ended(&row, shown.device)))
}

/// The revoked certificates of an issuer (its key identifier, hexadecimal), for its revocation list.
pub async fn revoked(store: &Store, issuer: &str) -> Result<Vec<RevokedCertificate>, StoreError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT serial, revoked_at, not_after FROM certificates
         WHERE issuer = $1 AND revoked_at IS NOT NULL ORDER BY revoked_at, serial",
    )
    .bind(issuer)
    .fetch_all(store.reader())
    .await?;
    let time = |column: i64| UnixSeconds(u64::try_from(column).unwrap_or_default());
    Ok(rows
        .into_iter()
        .map(|(serial, at, not_after)| RevokedCertificate {
            serial,
            at: time(at),
            not_after: time(not_after),
        })
        .collect())
}

/// Withdraws every certificate of a device.
pub(crate) async fn revoke_all(
    transaction: &mut Transaction<'static, Sqlite>,
    device: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE certificates SET revoked_at = $2 WHERE device_id = $1 AND revoked_at IS NULL")
        .bind(device)
        .bind(column(now.0))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The certificate of a key.
pub(crate) async fn of_key(
    transaction: &mut Transaction<'static, Sqlite>,
    public_key: &str,
) -> Result<Option<Row>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE public_key = $1"));
    Ok(sqlx::query_as(sql).bind(public_key).fetch_optional(&mut **transaction).await?)
}

/// Stores a new certificate of a device, as the last of its generations.
pub(crate) async fn insert(
    transaction: &mut Transaction<'static, Sqlite>,
    device: &str,
    certificate: &NewCertificate,
    purpose: Purpose,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificates (serial, device_id, issuer, not_before, not_after, der, chain_pem,
            public_key, purpose, issued_at, root, generation)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, COALESCE(MAX(generation) + 1, 0)
         FROM certificates WHERE device_id = $2",
    )
    .bind(&certificate.serial)
    .bind(device)
    .bind(&certificate.issuer)
    .bind(column(certificate.not_before.0))
    .bind(column(certificate.not_after.0))
    .bind(&certificate.der)
    .bind(&certificate.chain_pem)
    .bind(&certificate.public_key)
    .bind(purpose.name())
    .bind(column(now.0))
    .bind(&certificate.root)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Notes that a certificate is used, and says what it is worth. Does nothing for one in use.
pub(crate) async fn note_use(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    shown: &Shown,
) -> Result<Worth, StoreError> {
    let device = shown.device.to_string();
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM devices WHERE id = $1")
        .bind(&device)
        .fetch_optional(&mut **transaction)
        .await?;
    match state.as_deref() {
        None => return Ok(Worth::UnknownDevice),
        Some("enrolled") => {}
        Some(_) => return Ok(Worth::Revoked),
    }
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE serial = $1"));
    let row: Option<Row> = sqlx::query_as(sql).bind(&shown.serial).fetch_optional(&mut **transaction).await?;
    let generation = match row {
        Some(row) => match ended(&row, shown.device) {
            Some(worth) => return Ok(worth),
            None => row.generation,
        },
        None => match adopt(transaction, now, shown, &device).await? {
            Some(generation) => generation,
            None => return Ok(Worth::Superseded),
        },
    };
    supersede(transaction, now, shown, &device, generation).await?;
    Ok(Worth::InUse)
}

/// What there is to say of a row that cannot become the one in use.
fn ended(row: &Row, device: DeviceId) -> Option<Worth> {
    if row.revoked_at.is_some() {
        return Some(Worth::Revoked);
    }
    (row.superseded_at.is_some() || row.device_id != device.to_string()).then_some(Worth::Superseded)
}

/// Takes over a certificate that our intermediate signed but this database does not have, which is
/// so after an older one was restored. One that began before those that are known was superseded.
async fn adopt(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    shown: &Shown,
    device: &str,
) -> Result<Option<i64>, StoreError> {
    let (newest, generation): (Option<i64>, i64) = sqlx::query_as(
        "SELECT MAX(not_before), COALESCE(MAX(generation) + 1, 0) FROM certificates WHERE device_id = $1",
    )
    .bind(device)
    .fetch_one(&mut **transaction)
    .await?;
    if newest.is_some_and(|newest| newest > column(shown.not_before.0)) {
        return Ok(None);
    }
    sqlx::query(
        "INSERT INTO certificates (serial, device_id, issuer, not_before, not_after, der, issued_at, generation)
         VALUES ($1, $2, $3, $4, $5, '', $4, $6)",
    )
    .bind(&shown.serial)
    .bind(device)
    .bind(&shown.issuer)
    .bind(column(shown.not_before.0))
    .bind(column(shown.not_after.0))
    .bind(generation)
    .execute(&mut **transaction)
    .await?;
    let organisation: String = sqlx::query_scalar("SELECT organisation_id FROM devices WHERE id = $1")
        .bind(device)
        .fetch_one(&mut **transaction)
        .await?;
    let deed = Deed {
        organisation: Some(&organisation),
        actor: device,
        action: "certificate_adopted",
        subject: device,
        detail: &shown.serial,
    };
    record(transaction, now, deed).await?;
    Ok(Some(generation))
}

async fn supersede(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    shown: &Shown,
    device: &str,
    generation: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE certificates SET first_used_at = COALESCE(first_used_at, $2) WHERE serial = $1")
        .bind(&shown.serial)
        .bind(column(now.0))
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "UPDATE certificates SET superseded_at = $3
         WHERE device_id = $1 AND generation < $2 AND superseded_at IS NULL",
    )
    .bind(device)
    .bind(generation)
    .bind(column(now.0))
    .execute(&mut **transaction)
    .await?;
    sqlx::query("UPDATE devices SET certificate_serial = $2 WHERE id = $1")
        .bind(device)
        .bind(&shown.serial)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
