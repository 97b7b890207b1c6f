//! Devices as the backend knows them, and what an administrator does to them. Every
//! change grows the device's `directive_version`, so that its directive is made anew.

use sqlx::{Sqlite, SqliteConnection, Transaction};
use toktra_protocol::{Block, BlockReason, DeviceId, UnixSeconds};

use crate::audit::{Deed, record};
use crate::directory::{Department, Organisation, User};
use crate::{Store, StoreError, certificates, column, note_change};

/// A device's row.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Device {
    /// UUID as text.
    pub id: String,
    /// Its organisation.
    pub organisation_id: String,
    /// Its department.
    pub department_id: Option<String>,
    /// Its user.
    pub user_id: Option<String>,
    /// As the device said at enrolment.
    pub hostname: String,
    /// As the device said at enrolment.
    pub platform: String,
    /// As the device said at enrolment.
    pub agent_version: String,
    /// `enrolled` or `revoked`.
    pub state: String,
    /// Unix seconds.
    pub enrolled_at: i64,
    /// Unix seconds.
    pub last_seen_at: Option<i64>,
    /// Highest contiguous sequence number stored.
    pub acknowledged_sequence: i64,
    /// Grows with every change of what follows.
    pub directive_version: i64,
    /// The version that the device says it runs.
    pub directive_applied: Option<i64>,
    /// A lock is in force when there is a message.
    pub lock_message: Option<String>,
    /// `budget` or `provider`; a block is in force when there is a reason.
    pub block_reason: Option<String>,
    /// What to tell the user.
    pub block_message: Option<String>,
    /// Identifiers joined by commas; empty: every provider.
    pub block_providers: Option<String>,
    /// `cloned_hardware`, `superseded_certificate`, or nothing.
    pub flag: Option<String>,
    /// The newest certificate that was used, hexadecimal.
    pub certificate_serial: Option<String>,
}

const COLUMNS: &str = "SELECT id, organisation_id, department_id, user_id, hostname, platform, agent_version,
    state, enrolled_at, last_seen_at, acknowledged_sequence, directive_version, directive_applied,
    lock_message, block_reason, block_message, block_providers, flag, certificate_serial FROM devices";

impl Device {
    /// Its identifier.
    pub fn device_id(&self) -> Result<DeviceId, StoreError> {
        self.id.parse().map_err(|_| StoreError::Corrupt("devices.id"))
    }

    /// Whether its certificate was withdrawn.
    pub fn is_revoked(&self) -> bool {
        self.state != "enrolled"
    }

    /// The block in force.
    pub fn block(&self) -> Option<Block> {
        let reason = match self.block_reason.as_deref()? {
            "budget" => BlockReason::Budget,
            _ => BlockReason::Provider,
        };
        let providers = self.block_providers.as_deref().unwrap_or_default();
        Some(Block {
            reason,
            message: self.block_message.clone().unwrap_or_default(),
            providers: providers.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
            until: None,
            budget: None,
        })
    }
}

/// Every device of every organisation.
pub async fn all(store: &Store) -> Result<Vec<Device>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY hostname, id"));
    Ok(sqlx::query_as(sql).fetch_all(store.reader()).await?)
}

/// Every device of every organisation, in the caller's transaction.
pub(crate) async fn all_in(connection: &mut SqliteConnection) -> Result<Vec<Device>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} ORDER BY hostname, id"));
    Ok(sqlx::query_as(sql).fetch_all(connection).await?)
}

/// The devices of an organisation.
pub async fn of_organisation(store: &Store, organisation: &str) -> Result<Vec<Device>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE organisation_id = $1 ORDER BY hostname, id"));
    Ok(sqlx::query_as(sql).bind(organisation).fetch_all(store.reader()).await?)
}

/// One device.
pub async fn find(store: &Store, id: DeviceId) -> Result<Option<Device>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = $1"));
    Ok(sqlx::query_as(sql).bind(id.to_string()).fetch_optional(store.reader()).await?)
}

/// Withdraws a device's certificates for good.
pub async fn revoke(store: &Store, id: DeviceId, actor: &str, now: UnixSeconds) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let changed = sqlx::query(
        "UPDATE devices SET state = 'revoked', revoked_at = COALESCE(revoked_at, $2),
            directive_version = directive_version + 1 WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(column(now.0))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    certificates::revoke_all(&mut transaction, &id.to_string(), now).await?;
    finish(transaction, id, changed, actor, "revoke", "", now).await
}

/// Takes a device's flag away, once somebody has looked into it.
pub async fn clear_flag(
    store: &Store,
    id: DeviceId,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let changed = sqlx::query("UPDATE devices SET flag = NULL WHERE id = $1")
        .bind(id.to_string())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    finish(transaction, id, changed, actor, "clear_flag", "", now).await
}

/// Gives a device to a department and a user of its organisation, each or none. It takes over the
/// department's block as if it enrolled now; what was booked stays where it was.
pub async fn move_to(
    store: &Store,
    organisation: &Organisation,
    id: DeviceId,
    (department, user): (Option<&Department>, Option<&User>),
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let changed = sqlx::query(
        "UPDATE devices SET department_id = $3, user_id = $4, directive_version = directive_version + 1
         WHERE id = $1 AND organisation_id = $2",
    )
    .bind(id.to_string())
    .bind(&organisation.id)
    .bind(department.map(|department| &department.id))
    .bind(user.map(|user| &user.id))
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    take_over_block(&mut transaction, &id.to_string()).await?;
    let named = |name: Option<&String>| name.map_or("none", String::as_str).to_owned();
    let (department, user) = (department.map(|of| &of.name), user.map(|of| &of.email));
    let detail = format!("department {}, user {}", named(department), named(user));
    finish(transaction, id, changed, actor, "device_move", &detail, now).await
}

/// Puts the block of its department in force on a device, or none.
pub(crate) async fn take_over_block(
    transaction: &mut Transaction<'static, Sqlite>,
    id: &str,
) -> Result<(), StoreError> {
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

/// Puts a lock in force, or lifts it with `None`.
pub async fn set_lock(
    store: &Store,
    id: DeviceId,
    message: Option<&str>,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let changed = sqlx::query(
        "UPDATE devices SET lock_message = $2, directive_version = directive_version + 1 WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(message)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    let action = if message.is_some() { "lock" } else { "unlock" };
    finish(transaction, id, changed, actor, action, message.unwrap_or_default(), now).await
}

/// Blocks every device of a department, or lifts the block with `None`. Returns how many.
pub async fn set_department_block(
    store: &Store,
    department: &Department,
    block: Option<&Block>,
    actor: &str,
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    let reason = block.map(|block| match block.reason {
        BlockReason::Budget => "budget",
        BlockReason::Lock | BlockReason::Provider => "provider",
    });
    let message = block.map(|block| block.message.as_str());
    let providers = block.map(|block| block.providers.join(","));
    let mut transaction = store.begin().await?;
    sqlx::query(
        "UPDATE departments SET block_reason = $2, block_message = $3, block_providers = $4 WHERE id = $1",
    )
    .bind(&department.id)
    .bind(reason)
    .bind(message)
    .bind(&providers)
    .execute(&mut *transaction)
    .await?;
    let devices = sqlx::query(
        "UPDATE devices SET block_reason = $2, block_message = $3, block_providers = $4,
            directive_version = directive_version + 1 WHERE department_id = $1",
    )
    .bind(&department.id)
    .bind(reason)
    .bind(message)
    .bind(&providers)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    note_change(&mut transaction).await?;
    let deed = Deed {
        organisation: Some(&department.organisation_id),
        actor,
        action: if block.is_some() { "block" } else { "unblock" },
        subject: &department.name,
        detail: message.unwrap_or_default(),
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(devices)
}

async fn finish(
    mut transaction: Transaction<'static, Sqlite>,
    id: DeviceId,
    changed: u64,
    actor: &str,
    action: &str,
    detail: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let subject = id.to_string();
    if changed == 0 {
        return Err(StoreError::NotFound { kind: "device", name: subject });
    }
    let organisation: String = sqlx::query_scalar("SELECT organisation_id FROM devices WHERE id = $1")
        .bind(&subject)
        .fetch_one(&mut *transaction)
        .await?;
    note_change(&mut transaction).await?;
    let deed = Deed { organisation: Some(&organisation), actor, action, subject: &subject, detail };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}
