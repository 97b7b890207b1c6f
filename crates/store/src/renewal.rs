//! A further certificate for an enrolled device, authorised by one that it has: a *renewal* while
//! that is within its time, a *recovery* afterwards.
//!
//! Invariants: always for a new key; asked again with the same key, the same certificate, until
//! it was used. The certificate that authorises stays good until the new one is used
//! ([`crate::certificates`]). Limits: [`ISSUED_A_DAY`] certificates of a device in a day,
//! [`RECOVERIES_A_YEAR`] recoveries in a year, none after [`RECOVERABLE_S`].

use sqlx::{Sqlite, Transaction};
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::{DeviceId, UnixSeconds};

use crate::audit::{Deed, record};
use crate::certificates::{self, NewCertificate, Purpose, Shown, Worth};
use crate::enrolment::{IssueError, flag_clones};
use crate::{Store, StoreError, column};

/// Certificates that a device gets in any 24 hours.
pub const ISSUED_A_DAY: i64 = 10;
/// Recoveries that a device has in any 365 days.
pub const RECOVERIES_A_YEAR: i64 = 3;
/// How long after its end a certificate still recovers its device, in seconds.
pub const RECOVERABLE_S: u64 = 180 * DAY_S;
/// How long a connection with the old certificate may outlive the first use of the new one before
/// that is taken for a second machine, in seconds.
const OVERLAP_S: u64 = 5 * 60;
const DAY_S: u64 = 24 * 60 * 60;

/// A device that wants to go on with a new key.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The certificate that it shows; the handshake has proved its key.
    pub shown: &'a Shown,
    /// SHA-256 of the new key's SubjectPublicKeyInfo, hexadecimal.
    pub public_key: &'a str,
    /// What it says of itself, if it says anything.
    pub description: Option<&'a DeviceDescription>,
}

/// Whom a renewed certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Holder {
    /// The organisation's identifier.
    pub organisation_id: String,
    /// Its name.
    pub organisation: String,
    /// The department's name.
    pub department: Option<String>,
}

/// A renewed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// Whom it is for.
    pub holder: Holder,
    /// Leaf and intermediate, PEM.
    pub chain_pem: String,
}

/// Why nothing was renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// There is no such device.
    #[error("the device is not known")]
    UnknownDevice,
    /// It, or the certificate, was revoked.
    #[error("the device was revoked")]
    Revoked,
    /// A newer certificate of the device was used.
    #[error("the certificate was superseded")]
    Superseded,
    /// The key was certified before.
    #[error("the key was certified before")]
    KeyUsed,
    /// It expired more than [`RECOVERABLE_S`] ago.
    #[error("the certificate expired over 180 days ago")]
    RecoveryTooLate,
    /// The device recovered [`RECOVERIES_A_YEAR`] times within a year.
    #[error("the device recovered {RECOVERIES_A_YEAR} times within a year")]
    RecoveredTooOften,
    /// The device got [`ISSUED_A_DAY`] certificates within a day.
    #[error("the device got {ISSUED_A_DAY} certificates within a day")]
    TooMany,
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[source] IssueError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RenewError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Gives a device the certificate that `issue` makes for it, or the one that it got for this key.
pub async fn renew(
    store: &Store,
    attempt: &Attempt<'_>,
    now: UnixSeconds,
    issue: impl FnOnce(&Holder) -> Result<NewCertificate, IssueError> + Send,
) -> Result<Renewed, RenewError> {
    let mut transaction = store.begin().await?;
    let device = attempt.shown.device.to_string();
    match certificates::note_use(&mut transaction, now, attempt.shown).await? {
        Worth::InUse => {}
        Worth::Superseded => return Err(RenewError::Superseded),
        Worth::Revoked => return Err(RenewError::Revoked),
        Worth::UnknownDevice => return Err(RenewError::UnknownDevice),
    }
    let holder = holder(&mut transaction, &device).await?.ok_or(RenewError::UnknownDevice)?;
    let overdue_s = now.0.saturating_sub(attempt.shown.not_after.0);
    if overdue_s > RECOVERABLE_S {
        return Err(RenewError::RecoveryTooLate);
    }
    if let Some(row) = certificates::of_key(&mut transaction, attempt.public_key).await? {
        let again = row.again(now).filter(|_| row.device_id == device && row.serial != attempt.shown.serial);
        let chain_pem = again.ok_or(RenewError::KeyUsed)?.to_owned();
        transaction.commit().await?;
        return Ok(Renewed { holder, chain_pem });
    }
    let purpose = if overdue_s > 0 { Purpose::Recover } else { Purpose::Renew };
    check_limits(&mut transaction, attempt, purpose, now).await?;
    let certificate = issue(&holder).map_err(RenewError::Certificate)?;
    certificates::insert(&mut transaction, &device, &certificate, purpose, now).await?;
    let deed = Deed {
        organisation: Some(&holder.organisation_id),
        actor: &device,
        action: purpose.name(),
        subject: &device,
        detail: &certificate.serial,
    };
    record(&mut transaction, now, deed).await?;
    if let Some(description) = attempt.description {
        describe(&mut transaction, &device, description, now).await?;
    }
    transaction.commit().await?;
    Ok(Renewed { holder, chain_pem: certificate.chain_pem })
}

/// Flags a device whose old certificate came back, unless it was superseded just now: a request
/// that was under way then is no sign of a second machine. Whether it was flagged, and audited.
pub async fn flag_superseded(
    store: &Store,
    device: DeviceId,
    serial: &str,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let mut transaction = store.begin().await?;
    let id = device.to_string();
    let flagged: Option<String> = sqlx::query_scalar(
        "UPDATE devices SET flag = 'superseded_certificate'
         WHERE id = $1 AND COALESCE(flag, '') <> 'superseded_certificate'
            AND NOT EXISTS (SELECT 1 FROM certificates WHERE serial = $2 AND superseded_at > $3)
         RETURNING organisation_id",
    )
    .bind(&id)
    .bind(serial)
    .bind(column(now.0.saturating_sub(OVERLAP_S)))
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(organisation) = flagged else { return Ok(false) };
    let deed = Deed {
        organisation: Some(&organisation),
        actor: &id,
        action: "superseded_certificate",
        subject: &id,
        detail: serial,
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn holder(
    transaction: &mut Transaction<'static, Sqlite>,
    device: &str,
) -> Result<Option<Holder>, StoreError> {
    let holder = sqlx::query_as(
        "SELECT d.organisation_id, o.name AS organisation, g.name AS department
         FROM devices d INNER JOIN organisations o ON o.id = d.organisation_id
         LEFT JOIN departments g ON g.id = d.department_id WHERE d.id = $1",
    )
    .bind(device)
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(holder)
}

async fn check_limits(
    transaction: &mut Transaction<'static, Sqlite>,
    attempt: &Attempt<'_>,
    purpose: Purpose,
    now: UnixSeconds,
) -> Result<(), RenewError> {
    let since = |seconds: u64| column(now.0.saturating_sub(seconds));
    let asked: Option<i64> =
        sqlx::query_scalar("SELECT requested_at FROM enrolment_requests WHERE public_key = $1")
            .bind(attempt.public_key)
            .fetch_optional(&mut **transaction)
            .await?;
    if asked.is_some() {
        return Err(RenewError::KeyUsed);
    }
    let (issued, recoveries): (i64, i64) = sqlx::query_as(
        "SELECT COUNT(CASE WHEN issued_at > $2 THEN 1 END),
                COUNT(CASE WHEN issued_at > $3 AND purpose = 'recover' THEN 1 END)
         FROM certificates WHERE device_id = $1",
    )
    .bind(attempt.shown.device.to_string())
    .bind(since(DAY_S))
    .bind(since(365 * DAY_S))
    .fetch_one(&mut **transaction)
    .await?;
    if purpose == Purpose::Recover && recoveries >= RECOVERIES_A_YEAR {
        return Err(RenewError::RecoveredTooOften);
    }
    if issued >= ISSUED_A_DAY {
        return Err(RenewError::TooMany);
    }
    Ok(())
}

/// Notes what the device says of itself now. A machine that has become another one is looked at
/// like a new one.
async fn describe(
    transaction: &mut Transaction<'static, Sqlite>,
    device: &str,
    description: &DeviceDescription,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let before: Option<String> = sqlx::query_scalar("SELECT hardware FROM devices WHERE id = $1")
        .bind(device)
        .fetch_one(&mut **transaction)
        .await?;
    sqlx::query(
        "UPDATE devices SET hostname = $2, platform = $3, agent_version = $4,
            hardware = COALESCE($5, hardware) WHERE id = $1",
    )
    .bind(device)
    .bind(&description.hostname)
    .bind(&description.platform)
    .bind(&description.agent_version)
    .bind(&description.hardware)
    .execute(&mut **transaction)
    .await?;
    if description.hardware.is_some() && description.hardware != before {
        flag_clones(transaction, device, now).await?;
    }
    Ok(())
}
