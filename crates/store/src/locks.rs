//! Locks of persons: every device of theirs, those that enrol later included, because the lock is
//! the person's own and is joined to their devices when it is read. A device's own lock is in
//! [`crate::devices`].

use std::collections::HashMap;

use sqlx::SqliteConnection;
use toktra_protocol::UnixSeconds;
use toktra_protocol::budget::Scope;

use crate::audit::{Deed, record};
use crate::directory::User;
use crate::spend::ScopeKey;
use crate::{Store, StoreError, budgets, note_change};

/// Puts a person's lock in force, or lifts it with `None`. Returns how many devices they have.
pub async fn set(
    store: &Store,
    user: &User,
    message: Option<&str>,
    actor: &str,
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    let mut transaction = store.begin().await?;
    sqlx::query("UPDATE users SET lock_message = $2 WHERE id = $1")
        .bind(&user.id)
        .bind(message)
        .execute(&mut *transaction)
        .await?;
    let devices: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM devices WHERE user_id = $1")
        .bind(&user.id)
        .fetch_one(&mut *transaction)
        .await?;
    let scope = ScopeKey {
        organisation: user.organisation_id.as_str().into(),
        scope: Scope::User,
        id: user.id.as_str().into(),
    };
    budgets::grow(&mut transaction, &scope).await?;
    note_change(&mut transaction).await?;
    let deed = Deed {
        organisation: Some(&user.organisation_id),
        actor,
        action: if message.is_some() { "lock" } else { "unlock" },
        subject: &user.email,
        detail: message.unwrap_or_default(),
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(u64::try_from(devices).unwrap_or_default())
}

/// The message of a person's lock, if one is in force.
pub async fn of_user(store: &Store, id: &str) -> Result<Option<String>, StoreError> {
    let found: Option<Option<String>> = sqlx::query_scalar("SELECT lock_message FROM users WHERE id = $1")
        .bind(id)
        .fetch_optional(store.reader())
        .await?;
    Ok(found.flatten())
}

/// The messages of all locks, by person.
pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<HashMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT id, lock_message FROM users WHERE lock_message IS NOT NULL")
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().collect())
}
