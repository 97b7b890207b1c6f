//! Organisations, departments and users: who a device may belong to.

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;
use uuid::Uuid;

use crate::audit::{Deed, record};
use crate::{Store, StoreError, column, note_change};

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Organisation {
    /// UUID as text.
    pub id: String,
    /// Unique.
    pub name: String,
    /// Unix seconds.
    pub created_at: i64,
}

/// A department of an organisation.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Department {
    /// UUID as text.
    pub id: String,
    /// Its organisation.
    pub organisation_id: String,
    /// Unique in its organisation.
    pub name: String,
    /// Unix seconds.
    pub created_at: i64,
}

/// A person of an organisation.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    /// UUID as text.
    pub id: String,
    /// Their organisation.
    pub organisation_id: String,
    /// Their department.
    pub department_id: Option<String>,
    /// Unique in its organisation.
    pub email: String,
    /// Unix seconds.
    pub created_at: i64,
}

/// Makes an organisation.
pub async fn create_organisation(
    store: &Store,
    name: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<Organisation, StoreError> {
    let made = Organisation { id: Uuid::now_v7().to_string(), name: name.into(), created_at: column(now.0) };
    let mut transaction = store.begin().await?;
    let inserted = sqlx::query(
        "INSERT INTO organisations (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(&made.id)
    .bind(name)
    .bind(made.created_at)
    .execute(&mut *transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(StoreError::Exists { kind: "organisation", name: name.into() });
    }
    note_created(&mut transaction, now, actor, &made.id, "organisation_create", name).await?;
    transaction.commit().await?;
    Ok(made)
}

/// Makes a department.
pub async fn create_department(
    store: &Store,
    organisation: &Organisation,
    name: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<Department, StoreError> {
    let made = Department {
        id: Uuid::now_v7().to_string(),
        organisation_id: organisation.id.clone(),
        name: name.into(),
        created_at: column(now.0),
    };
    let mut transaction = store.begin().await?;
    let inserted = sqlx::query(
        "INSERT INTO departments (id, organisation_id, name, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(&made.id)
    .bind(&made.organisation_id)
    .bind(name)
    .bind(made.created_at)
    .execute(&mut *transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(StoreError::Exists { kind: "department", name: name.into() });
    }
    note_created(&mut transaction, now, actor, &organisation.id, "department_create", name).await?;
    transaction.commit().await?;
    Ok(made)
}

/// Makes a user.
pub async fn create_user(
    store: &Store,
    organisation: &Organisation,
    department: Option<&Department>,
    email: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<User, StoreError> {
    let made = User {
        id: Uuid::now_v7().to_string(),
        organisation_id: organisation.id.clone(),
        department_id: department.map(|department| department.id.clone()),
        email: email.into(),
        created_at: column(now.0),
    };
    let mut transaction = store.begin().await?;
    let inserted = sqlx::query(
        "INSERT INTO users (id, organisation_id, department_id, email, created_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(&made.id)
    .bind(&made.organisation_id)
    .bind(&made.department_id)
    .bind(email)
    .bind(made.created_at)
    .execute(&mut *transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(StoreError::Exists { kind: "user", name: email.into() });
    }
    note_created(&mut transaction, now, actor, &organisation.id, "user_create", email).await?;
    transaction.commit().await?;
    Ok(made)
}

/// Every organisation, by name.
pub async fn organisations(store: &Store) -> Result<Vec<Organisation>, StoreError> {
    Ok(sqlx::query_as("SELECT id, name, created_at FROM organisations ORDER BY name")
        .fetch_all(store.reader())
        .await?)
}

/// The organisation of this name.
pub async fn organisation(store: &Store, name: &str) -> Result<Organisation, StoreError> {
    sqlx::query_as("SELECT id, name, created_at FROM organisations WHERE name = $1")
        .bind(name)
        .fetch_optional(store.reader())
        .await?
        .ok_or_else(|| StoreError::NotFound { kind: "organisation", name: name.into() })
}

/// The departments of an organisation, by name.
pub async fn departments(store: &Store, organisation: &str) -> Result<Vec<Department>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT id, organisation_id, name, created_at FROM departments
         WHERE organisation_id = $1 ORDER BY name",
    )
    .bind(organisation)
    .fetch_all(store.reader())
    .await?)
}

/// The department of this name.
pub async fn department(store: &Store, organisation: &str, name: &str) -> Result<Department, StoreError> {
    sqlx::query_as(
        "SELECT id, organisation_id, name, created_at FROM departments
         WHERE organisation_id = $1 AND name = $2",
    )
    .bind(organisation)
    .bind(name)
    .fetch_optional(store.reader())
    .await?
    .ok_or_else(|| StoreError::NotFound { kind: "department", name: name.into() })
}

/// The users of an organisation, by address.
pub async fn users(store: &Store, organisation: &str) -> Result<Vec<User>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT id, organisation_id, department_id, email, created_at FROM users
         WHERE organisation_id = $1 ORDER BY email",
    )
    .bind(organisation)
    .fetch_all(store.reader())
    .await?)
}

/// The user of this address.
pub async fn user(store: &Store, organisation: &str, email: &str) -> Result<User, StoreError> {
    sqlx::query_as(
        "SELECT id, organisation_id, department_id, email, created_at FROM users
         WHERE organisation_id = $1 AND email = $2",
    )
    .bind(organisation)
    .bind(email)
    .fetch_optional(store.reader())
    .await?
    .ok_or_else(|| StoreError::NotFound { kind: "user", name: email.into() })
}

async fn note_created(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    actor: &str,
    organisation: &str,
    action: &str,
    subject: &str,
) -> Result<(), StoreError> {
    let deed = Deed { organisation: Some(organisation), actor, action, subject, detail: "" };
    record(transaction, now, deed).await?;
    note_change(transaction).await
}
