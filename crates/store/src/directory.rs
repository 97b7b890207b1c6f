//! Organisations, departments and users: who a device may belong to.

use std::collections::HashMap;

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;
use toktra_protocol::budget::Scope;
use uuid::Uuid;

use crate::audit::{Deed, record};
use crate::period::Zone;
use crate::spend::{self, ScopeKey};
use crate::terms::{DEPTH_LIMIT, Terms};
use crate::{Store, StoreError, alerts, budgets, column, note_change};

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
    /// The department that it is part of.
    pub parent_id: Option<String>,
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
    create_department_within(store, organisation, None, name, actor, now).await
}

/// Makes a department that is part of another.
pub async fn create_department_within(
    store: &Store,
    organisation: &Organisation,
    parent: Option<&Department>,
    name: &str,
    actor: &str,
    now: UnixSeconds,
) -> Result<Department, StoreError> {
    let made = Department {
        id: Uuid::now_v7().to_string(),
        organisation_id: organisation.id.clone(),
        name: name.into(),
        created_at: column(now.0),
        parent_id: parent.map(|parent| parent.id.clone()),
    };
    let mut transaction = store.begin().await?;
    if let Some(parent) = parent {
        check_depth(&Terms::read(&mut transaction).await?, parent, 1)?;
    }
    let inserted = sqlx::query(
        "INSERT INTO departments (id, organisation_id, name, created_at, parent_id)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(&made.id)
    .bind(&made.organisation_id)
    .bind(name)
    .bind(made.created_at)
    .bind(&made.parent_id)
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

/// Makes a department part of another, or of none. What it and those below it have spent goes with
/// it, so that what a department spent is always what the ledger says of its tree.
pub async fn move_department(
    store: &Store,
    department: &Department,
    parent: Option<&Department>,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let organisation = department.organisation_id.as_str();
    let old = Terms::read(&mut transaction).await?;
    if let Some(parent) = parent {
        let above = old.scopes(organisation, Some(&parent.id), None);
        if above.iter().any(|scope| *scope.id == *department.id) {
            return Err(StoreError::Tree("a department cannot be part of itself or of one below it"));
        }
        check_depth(&old, parent, old.height(&department.id))?;
    }
    sqlx::query("UPDATE departments SET parent_id = $2 WHERE id = $1")
        .bind(&department.id)
        .bind(parent.map(|parent| &parent.id))
        .execute(&mut *transaction)
        .await?;
    note_change(&mut transaction).await?;
    let new = Terms::read(&mut transaction).await?;
    let [from, to] = [&old, &new].map(|terms| terms.scopes(organisation, Some(&department.id), None));
    let moved = from.first().cloned().ok_or(StoreError::Corrupt("departments.id"))?;
    let only = |these: &[ScopeKey], those: &[ScopeKey]| -> Vec<_> {
        these.iter().filter(|&scope| !those.contains(scope)).cloned().collect()
    };
    let (left, joined) = (only(&from, &to), only(&to, &from));
    spend::rebook(&mut transaction, &moved, &left, &joined).await?;
    for budget in left.iter().chain(&joined).flat_map(|scope| new.budgets_of(scope)) {
        alerts::resettle(&mut transaction, &new, budget, now).await?;
    }
    budgets::grow(&mut transaction, &moved).await?;
    let detail = parent.map(|parent| parent.name.as_str()).unwrap_or_default();
    let deed = Deed {
        organisation: Some(organisation),
        actor,
        action: "department_move",
        subject: &department.name,
        detail,
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

fn check_depth(terms: &Terms, parent: &Department, height: usize) -> Result<(), StoreError> {
    let above = terms.scopes(&parent.organisation_id, Some(&parent.id), None).len() - 1;
    if above + height > DEPTH_LIMIT {
        return Err(StoreError::Tree("the tree of departments has six levels at most"));
    }
    Ok(())
}

/// An organisation's time zone, as the database of zones writes it.
pub async fn time_zone(store: &Store, organisation: &Organisation) -> Result<String, StoreError> {
    Ok(sqlx::query_scalar("SELECT time_zone FROM organisations WHERE id = $1")
        .bind(&organisation.id)
        .fetch_one(store.reader())
        .await?)
}

/// Sets an organisation's time zone. What was booked stays on its day.
pub async fn set_time_zone(
    store: &Store,
    organisation: &Organisation,
    zone: &Zone,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    sqlx::query("UPDATE organisations SET time_zone = $2 WHERE id = $1")
        .bind(&organisation.id)
        .bind(zone.name())
        .execute(&mut *transaction)
        .await?;
    let id = organisation.id.as_str();
    let deed = Deed {
        organisation: Some(id),
        actor,
        action: "time_zone",
        subject: &organisation.name,
        detail: zone.name(),
    };
    record(&mut transaction, now, deed).await?;
    note_change(&mut transaction).await?;
    let terms = Terms::read(&mut transaction).await?;
    for budget in terms.budgets().filter(|budget| *budget.scope.organisation == *id) {
        alerts::resettle(&mut transaction, &terms, budget, now).await?;
    }
    let everyone = ScopeKey { organisation: id.into(), scope: Scope::Organisation, id: id.into() };
    budgets::grow(&mut transaction, &everyone).await?;
    transaction.commit().await?;
    Ok(())
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
        "SELECT id, organisation_id, name, created_at, parent_id FROM departments
         WHERE organisation_id = $1 ORDER BY name",
    )
    .bind(organisation)
    .fetch_all(store.reader())
    .await?)
}

/// The department of this name.
pub async fn department(store: &Store, organisation: &str, name: &str) -> Result<Department, StoreError> {
    sqlx::query_as(
        "SELECT id, organisation_id, name, created_at, parent_id FROM departments
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

/// What an organisation's scopes are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeNames(HashMap<String, String>);

impl ScopeNames {
    /// The name of the organisation, the department, or the user's address; the identifier where there is none.
    pub fn of(&self, scope: &ScopeKey) -> String {
        self.0.get(&*scope.id).cloned().unwrap_or_else(|| scope.id.to_string())
    }
}

/// The names of everything that a budget may be of.
pub async fn scope_names(store: &Store, organisation: &Organisation) -> Result<ScopeNames, StoreError> {
    let departments = departments(store, &organisation.id).await?.into_iter();
    let users = users(store, &organisation.id).await?.into_iter();
    let own = std::iter::once((organisation.id.clone(), organisation.name.clone()));
    let departments = departments.map(|department| (department.id, department.name));
    Ok(ScopeNames(own.chain(departments).chain(users.map(|user| (user.id, user.email))).collect()))
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
