//! Which scopes a device's spend counts for, and which budgets hang on them: the one answer that
//! booking, directives, exemptions and commands share, so that no path overlooks a cap.
//!
//! Invariants: what is here is as of one value of the change counter; whoever keeps it reads it
//! anew when the counter has moved. No walk up the tree is longer than [`DEPTH_LIMIT`].

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::SqliteConnection;
use toktra_protocol::budget::Scope;

use crate::StoreError;
use crate::budgets::{self, BudgetRow};
use crate::period::Zone;
use crate::spend::ScopeKey;

/// Most levels of departments, one within the other.
pub const DEPTH_LIMIT: usize = 6;

static UTC: Zone = Zone::UTC;

/// Time zones, the department tree and the budgets of every organisation.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    counter: Option<i64>,
    zones: HashMap<Arc<str>, Zone>,
    parents: HashMap<Arc<str>, Arc<str>>,
    budgets: HashMap<ScopeKey, Vec<Arc<BudgetRow>>>,
}

impl Terms {
    /// Reads all of it, in the caller's transaction.
    pub async fn read(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        let counter = counter(connection).await?;
        let organisations: Vec<(String, String)> =
            sqlx::query_as("SELECT id, time_zone FROM organisations").fetch_all(&mut *connection).await?;
        let zones = organisations.into_iter().map(|(id, name)| {
            let zone = Zone::named(&name).ok_or(StoreError::Corrupt("organisations.time_zone"))?;
            Ok((Arc::from(id), zone))
        });
        let parents: Vec<(String, String)> =
            sqlx::query_as("SELECT id, parent_id FROM departments WHERE parent_id IS NOT NULL")
                .fetch_all(&mut *connection)
                .await?;
        let mut budgets: HashMap<_, Vec<_>> = HashMap::new();
        for budget in budgets::all(&mut *connection).await? {
            budgets.entry(budget.scope.clone()).or_default().push(Arc::new(budget));
        }
        Ok(Self {
            counter: Some(counter),
            zones: zones.collect::<Result<_, StoreError>>()?,
            parents: parents.into_iter().map(|(id, parent)| (id.into(), parent.into())).collect(),
            budgets,
        })
    }

    /// Reads it anew if the change counter has moved.
    pub(crate) async fn refresh(&mut self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        if self.are_stale(connection).await? {
            *self = Self::read(connection).await?;
        }
        Ok(())
    }

    /// Whether the change counter has moved since this was read.
    pub(crate) async fn are_stale(&self, connection: &mut SqliteConnection) -> Result<bool, StoreError> {
        Ok(self.counter != Some(counter(connection).await?))
    }

    /// The change counter that this is as of.
    pub fn counter(&self) -> Option<i64> {
        self.counter
    }

    /// An organisation's time zone.
    pub fn zone(&self, organisation: &str) -> &Zone {
        self.zones.get(organisation).unwrap_or(&UTC)
    }

    /// What the spend of a device with this department and user counts for: the user, the
    /// department and those above it, the organisation.
    pub fn scopes(&self, organisation: &str, department: Option<&str>, user: Option<&str>) -> Vec<ScopeKey> {
        let organisation: Arc<str> = organisation.into();
        let key = |scope, id: &Arc<str>| ScopeKey {
            organisation: Arc::clone(&organisation),
            scope,
            id: Arc::clone(id),
        };
        let mut scopes = Vec::with_capacity(4);
        scopes.extend(user.map(|user| key(Scope::User, &user.into())));
        let mut next = department.map(Arc::from);
        for _ in 0..DEPTH_LIMIT {
            let Some(id) = next else { break };
            scopes.push(key(Scope::Department, &id));
            next = self.parents.get(&id).cloned();
        }
        scopes.push(key(Scope::Organisation, &organisation));
        scopes
    }

    /// Levels of the tree from this department down, itself included.
    pub(crate) fn height(&self, department: &str) -> usize {
        let children = self.parents.iter().filter(|(_, parent)| &***parent == department);
        1 + children.map(|(child, _)| self.height(child)).max().unwrap_or_default()
    }

    /// The budgets that hang on a scope itself.
    pub fn budgets_of(&self, scope: &ScopeKey) -> &[Arc<BudgetRow>] {
        self.budgets.get(scope).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every budget.
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<BudgetRow>> {
        self.budgets.values().flatten()
    }

    /// Every budget that applies to a device with this department and user.
    pub fn applying(
        &self,
        organisation: &str,
        department: Option<&str>,
        user: Option<&str>,
    ) -> Vec<&Arc<BudgetRow>> {
        let scopes = self.scopes(organisation, department, user);
        scopes.iter().flat_map(|scope| self.budgets_of(scope)).collect()
    }
}

async fn counter(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT counter FROM changes WHERE id = 1").fetch_one(connection).await?)
}
