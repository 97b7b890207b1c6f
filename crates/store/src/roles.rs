//! What an account of the console may do: its role, and for a budget owner the departments.
//!
//! Invariants: an organisation keeps an owner who can sign in; only a budget owner has departments;
//! an account that is disabled has no session. Every change is audited in its own transaction.

use std::collections::BTreeSet;

use sqlx::{Sqlite, Transaction};
use toktra_protocol::UnixSeconds;
use toktra_protocol::budget::Scope;

use crate::accounts::Session;
use crate::audit::{Deed, record};
use crate::directory::{Department, User};
use crate::spend::ScopeKey;
use crate::{Store, StoreError, column};

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "TEXT", rename_all = "snake_case")]
pub enum Role {
    /// Everything, accounts and sign-in included.
    Owner,
    /// Everything but accounts and sign-in.
    Admin,
    /// Budgets, exemptions and people of some departments and those below them.
    BudgetOwner,
    /// Reads everything, changes nothing.
    Auditor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::BudgetOwner, Self::Auditor];

    /// As commands and the audit trail write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::BudgetOwner => "budget-owner",
            Self::Auditor => "auditor",
        }
    }

    /// The role of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// What of its organisation an account reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Organisation,
    /// These departments, by identifier: a budget owner's own and those below them.
    Departments(BTreeSet<String>),
}

impl Reach {
    /// Whether it reaches a department; `None` is who is in none.
    pub fn department(&self, id: Option<&str>) -> bool {
        match self {
            Self::Organisation => true,
            Self::Departments(ids) => id.is_some_and(|id| ids.contains(id)),
        }
    }

    /// Whether it reaches whatever a budget may be of, in an organisation with these users.
    pub fn scope(&self, scope: &ScopeKey, users: &[User]) -> bool {
        match (self, scope.scope) {
            (Self::Organisation, _) => true,
            (_, Scope::Organisation) => false,
            (_, Scope::Department) => self.department(Some(&scope.id)),
            (_, Scope::User) => users
                .iter()
                .find(|user| *user.id == *scope.id)
                .is_some_and(|user| self.department(user.department_id.as_deref())),
        }
    }
}

/// What a session's account reaches now.
pub async fn reach(store: &Store, session: &Session) -> Result<Reach, StoreError> {
    if session.role != Role::BudgetOwner {
        return Ok(Reach::Organisation);
    }
    let ids: Vec<String> = sqlx::query_scalar(
        "WITH RECURSIVE below (id) AS (
            SELECT department_id FROM administrator_departments WHERE administrator_id = $1
            UNION SELECT d.id FROM departments d INNER JOIN below ON d.parent_id = below.id)
         SELECT id FROM below",
    )
    .bind(&session.administrator_id)
    .fetch_all(store.reader())
    .await?;
    Ok(Reach::Departments(ids.into_iter().collect()))
}

/// Gives an account another role and, if that is a budget owner's, these departments in place of any
/// before. Its sessions go on with what it may do from now on.
pub async fn set_role(
    store: &Store,
    name: &str,
    role: Role,
    departments: &[Department],
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let account = Account::find(&mut transaction, name).await?;
    account.keep_an_owner(&mut transaction, role == Role::Owner).await?;
    sqlx::query("UPDATE administrators SET role = $2 WHERE id = $1")
        .bind(&account.id)
        .bind(role)
        .execute(&mut *transaction)
        .await?;
    give(&mut transaction, (&account.id, &account.organisation_id), role, departments).await?;
    let detail = words(role, departments);
    account.record(&mut transaction, now, (actor, "administrator_role", &detail)).await?;
    Ok(transaction.commit().await?)
}

/// Lets nobody sign in as this account any more, and ends its sessions.
pub async fn disable(store: &Store, name: &str, actor: &str, now: UnixSeconds) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let account = Account::find(&mut transaction, name).await?;
    account.keep_an_owner(&mut transaction, false).await?;
    sqlx::query("UPDATE administrators SET disabled_at = COALESCE(disabled_at, $2) WHERE id = $1")
        .bind(&account.id)
        .bind(column(now.0))
        .execute(&mut *transaction)
        .await?;
    sqlx::query("DELETE FROM sessions WHERE administrator_id = $1")
        .bind(&account.id)
        .execute(&mut *transaction)
        .await?;
    account.record(&mut transaction, now, (actor, "administrator_disable", "")).await?;
    Ok(transaction.commit().await?)
}

/// Lets an account that was disabled sign in again.
pub async fn enable(store: &Store, name: &str, actor: &str, now: UnixSeconds) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    let account = Account::find(&mut transaction, name).await?;
    sqlx::query("UPDATE administrators SET disabled_at = NULL WHERE id = $1")
        .bind(&account.id)
        .execute(&mut *transaction)
        .await?;
    account.record(&mut transaction, now, (actor, "administrator_enable", "")).await?;
    Ok(transaction.commit().await?)
}

/// Writes which departments an account has: for a budget owner these, for any other none.
pub(crate) async fn give(
    transaction: &mut Transaction<'static, Sqlite>,
    (account, organisation): (&str, &str),
    role: Role,
    departments: &[Department],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM administrator_departments WHERE administrator_id = $1")
        .bind(account)
        .execute(&mut **transaction)
        .await?;
    if role != Role::BudgetOwner {
        return Ok(());
    }
    for department in departments {
        if department.organisation_id != organisation {
            return Err(StoreError::NotFound { kind: "department", name: department.name.clone() });
        }
        sqlx::query(
            "INSERT INTO administrator_departments (administrator_id, department_id) VALUES ($1, $2)
             ON CONFLICT DO NOTHING",
        )
        .bind(account)
        .bind(&department.id)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// A role with its departments, as the audit trail has it.
pub(crate) fn words(role: Role, departments: &[Department]) -> String {
    let names: Vec<_> = departments.iter().map(|department| department.name.as_str()).collect();
    match (role, names.as_slice()) {
        (Role::BudgetOwner, [_, ..]) => format!("{} of {}", role.name(), names.join(", ")),
        _ => role.name().to_owned(),
    }
}

#[derive(sqlx::FromRow)]
struct Account {
    id: String,
    organisation_id: String,
    name: String,
}

impl Account {
    async fn find(transaction: &mut Transaction<'static, Sqlite>, name: &str) -> Result<Self, StoreError> {
        sqlx::query_as("SELECT id, organisation_id, name FROM administrators WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut **transaction)
            .await?
            .ok_or_else(|| StoreError::NotFound { kind: "account", name: name.into() })
    }

    /// Fails if nobody could sign in as an owner any more, were this account no owner.
    async fn keep_an_owner(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        stays_owner: bool,
    ) -> Result<(), StoreError> {
        let (own, others): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(CASE WHEN id = $2 THEN 1 END), COUNT(CASE WHEN id <> $2 THEN 1 END)
             FROM administrators WHERE organisation_id = $1 AND role = $3 AND disabled_at IS NULL",
        )
        .bind(&self.organisation_id)
        .bind(&self.id)
        .bind(Role::Owner)
        .fetch_one(&mut **transaction)
        .await?;
        if own > 0 && others == 0 && !stays_owner {
            return Err(StoreError::LastOwner(self.name.clone()));
        }
        Ok(())
    }

    async fn record(
        &self,
        transaction: &mut Transaction<'static, Sqlite>,
        now: UnixSeconds,
        (actor, action, detail): (&str, &str, &str),
    ) -> Result<(), StoreError> {
        let organisation = Some(self.organisation_id.as_str());
        record(transaction, now, Deed { organisation, actor, action, subject: &self.name, detail }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{administrators, claim_attempt, create_administrator, open_session, session};
    use crate::audit::newest;
    use crate::directory::{
        Organisation, create_department, create_department_within, create_organisation, create_user,
        move_department, users,
    };

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    struct House {
        store: Store,
        organisation: Organisation,
        _directory: tempfile::TempDir,
    }

    async fn house() -> House {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
        let organisation = create_organisation(&store, "Acme", "cli", NOW).await.unwrap();
        for (name, role) in [("ada", Role::Owner), ("bob", Role::BudgetOwner)] {
            create_administrator(&store, &organisation, (name, role, &[]), "phc", "cli", NOW).await.unwrap();
        }
        House { store, organisation, _directory: directory }
    }

    async fn signed_in(house: &House, name: &str) -> Session {
        let attempt = claim_attempt(&house.store, name, NOW).await.unwrap().unwrap();
        open_session(&house.store, &attempt, name, NOW, NOW.plus(60)).await.unwrap();
        session(&house.store, name, NOW).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_budget_owner_reaches_departments_with_those_below_and_the_people_in_them() {
        let house = house().await;
        let (store, organisation) = (&house.store, &house.organisation);
        let lab = create_department(store, organisation, "Lab", "cli", NOW).await.unwrap();
        let optics =
            create_department_within(store, organisation, Some(&lab), "Optics", "cli", NOW).await.unwrap();
        let sales = create_department(store, organisation, "Sales", "cli", NOW).await.unwrap();
        for (department, email) in [(Some(&optics), "o@x"), (Some(&sales), "s@x"), (None, "n@x")] {
            create_user(store, organisation, department, email, "cli", NOW).await.unwrap();
        }
        set_role(store, "bob", Role::BudgetOwner, std::slice::from_ref(&lab), "ada", NOW).await.unwrap();
        let bob = signed_in(&house, "bob").await;
        let reached = reach(store, &bob).await.unwrap();
        assert_eq!(reached, Reach::Departments([lab.id.clone(), optics.id.clone()].into()));
        assert!(reached.department(Some(&optics.id)));
        assert!(!reached.department(Some(&sales.id)) && !reached.department(None));
        let users = users(store, &organisation.id).await.unwrap();
        let reaches = |scope, id: &str| {
            reached.scope(&ScopeKey { organisation: "o".into(), scope, id: id.into() }, &users)
        };
        assert!(!reaches(Scope::Organisation, &organisation.id));
        assert!(reaches(Scope::Department, &lab.id) && !reaches(Scope::Department, &sales.id));
        let by_email = |email: &str| &users.iter().find(|user| user.email == email).unwrap().id;
        assert!(reaches(Scope::User, by_email("o@x")));
        assert!(!reaches(Scope::User, by_email("s@x")) && !reaches(Scope::User, by_email("n@x")));
        // What leaves the tree is not theirs any more.
        move_department(store, &optics, Some(&sales), "ada", NOW).await.unwrap();
        assert_eq!(reach(store, &bob).await.unwrap(), Reach::Departments([lab.id].into()));
        assert_eq!(reach(store, &signed_in(&house, "ada").await).await.unwrap(), Reach::Organisation);
        let trail = newest(store, 10).await.unwrap();
        let row = trail.iter().find(|row| row.action == "administrator_role").unwrap();
        assert_eq!((&*row.actor, &*row.subject, &*row.detail), ("ada", "bob", "budget-owner of Lab"));
    }

    #[tokio::test]
    async fn another_role_takes_the_departments_away_and_those_of_others_are_not_given() {
        let house = house().await;
        let lab = create_department(&house.store, &house.organisation, "Lab", "cli", NOW).await.unwrap();
        let departments = std::slice::from_ref(&lab);
        set_role(&house.store, "bob", Role::BudgetOwner, departments, "ada", NOW).await.unwrap();
        set_role(&house.store, "bob", Role::Auditor, departments, "ada", NOW).await.unwrap();
        let listed = administrators(&house.store, &house.organisation.id).await.unwrap();
        assert_eq!((listed[1].role, listed[1].departments.as_deref()), (Role::Auditor, None));
        let other = create_organisation(&house.store, "Other", "cli", NOW).await.unwrap();
        let theirs = create_department(&house.store, &other, "Theirs", "cli", NOW).await.unwrap();
        let given = set_role(&house.store, "bob", Role::BudgetOwner, &[theirs], "ada", NOW).await;
        assert!(matches!(given, Err(StoreError::NotFound { .. })));
        let listed = administrators(&house.store, &house.organisation.id).await.unwrap();
        assert_eq!(listed[1].role, Role::Auditor, "nothing has changed");
    }

    #[tokio::test]
    async fn the_last_owner_stays_and_one_of_two_may_go() {
        let house = house().await;
        let (store, organisation) = (&house.store, &house.organisation);
        let elsewhere = create_organisation(store, "Other", "cli", NOW).await.unwrap();
        create_administrator(store, &elsewhere, ("eve", Role::Owner, &[]), "phc", "cli", NOW).await.unwrap();
        for _ in 0..2 {
            let demoted = set_role(store, "ada", Role::Admin, &[], "ada", NOW).await;
            assert!(matches!(demoted, Err(StoreError::LastOwner(_))), "an owner elsewhere does not count");
            let disabled = disable(store, "ada", "ada", NOW).await;
            assert!(matches!(disabled, Err(StoreError::LastOwner(_))));
            // Nor does one who cannot sign in.
            create_administrator(store, organisation, ("cay", Role::Owner, &[]), "phc", "cli", NOW)
                .await
                .ok();
            disable(store, "cay", "ada", NOW).await.unwrap();
        }
        set_role(store, "ada", Role::Owner, &[], "ada", NOW).await.unwrap();
        enable(store, "cay", "ada", NOW).await.unwrap();
        set_role(store, "ada", Role::Admin, &[], "ada", NOW).await.unwrap();
        assert!(matches!(disable(store, "cay", "cay", NOW).await, Err(StoreError::LastOwner(_))));
    }

    #[tokio::test]
    async fn a_disabled_account_has_no_session_and_gets_none_until_it_is_enabled() {
        let house = house().await;
        signed_in(&house, "bob").await;
        disable(&house.store, "bob", "ada", NOW).await.unwrap();
        assert_eq!(session(&house.store, "bob", NOW).await.unwrap(), None);
        assert!(claim_attempt(&house.store, "bob", NOW).await.unwrap().is_none());
        enable(&house.store, "bob", "ada", NOW).await.unwrap();
        signed_in(&house, "bob").await;
        assert!(matches!(disable(&house.store, "eve", "ada", NOW).await, Err(StoreError::NotFound { .. })));
    }
}
