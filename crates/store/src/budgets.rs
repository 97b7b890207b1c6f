//! Budgets: what may be spent in a period, and by whom.
//!
//! Invariants: where a budget stands is computed here alone, from the ledger ([`standing`]), for
//! booking, directives and commands alike; what it has reached is in [`crate::alerts`]. Whatever may change what a device is told grows the version of its directive.

use std::sync::Arc;

use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};
use toktra_protocol::UnixSeconds;
use toktra_protocol::budget::{self, Period, Scope, Unit};
use uuid::Uuid;

use crate::audit::{Deed, record};
use crate::directory::Organisation;
use crate::period::{Days, Zone};
use crate::spend::{self, SCOPES, ScopeKey, Spent, scope_name};
use crate::terms::Terms;
use crate::{Store, StoreError, alerts, column, note_change};

/// Most budgets on one scope; with [`crate::terms::DEPTH_LIMIT`], what applies to a device is never
/// more than [`budget::BUDGETS_LIMIT`].
pub const BUDGETS_PER_SCOPE: usize = 4;
/// Longest name, in bytes.
pub const NAME_LIMIT: usize = 128;
/// Longest message to a user, in bytes.
pub const MESSAGE_LIMIT: usize = 1024;
/// Most thresholds, and the highest, in percent.
pub const THRESHOLDS_LIMIT: usize = 8;
/// The highest threshold, in percent.
pub const HIGHEST_THRESHOLD: u8 = 200;
/// Largest amount: a billion dollars, or as many micro-tokens.
pub const AMOUNT_LIMIT: u64 = 1 << 50;

/// What an administrator settles about a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What `amount` and `rollover_limit` count.
    pub unit: Unit,
    /// What may be spent in a period.
    pub amount: u64,
    /// How long a period is.
    pub period: Period,
    /// Whether it blocks, or only warns.
    pub hard: bool,
    /// Shares of the limit at which to warn, in percent, ascending.
    pub thresholds: Vec<u8>,
    /// Most that the period before may leave to the next; 0: none.
    pub rollover_limit: u64,
    /// What to tell the user when it blocks; empty: a sentence of ours.
    pub message: String,
}

/// A budget as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    /// UUID as text.
    pub id: String,
    /// Unique in its organisation.
    pub name: String,
    /// Whose spend counts.
    pub scope: ScopeKey,
    /// What an administrator settled.
    pub settings: Settings,
    /// Since when there is this budget.
    pub created_at: UnixSeconds,
    /// When it was last changed.
    pub updated_at: UnixSeconds,
}

/// Why a budget was not stored.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Its name.
    #[error("a budget's name has 1 to {NAME_LIMIT} bytes and no control characters")]
    Name,
    /// Its amount.
    #[error("an amount is at least 1 and at most {AMOUNT_LIMIT}, in tokens or micro-dollars")]
    Amount,
    /// Its thresholds.
    #[error(
        "there are at most {THRESHOLDS_LIMIT} thresholds, ascending, of 1 to {HIGHEST_THRESHOLD} percent"
    )]
    Thresholds,
    /// Its message.
    #[error("a message has at most {MESSAGE_LIMIT} bytes and no control characters")]
    Message,
    /// Too many.
    #[error("there are {BUDGETS_PER_SCOPE} budgets on this scope already; change or remove one of them")]
    TooMany,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for BudgetError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Settings {
    /// Whether a budget may be so.
    pub fn check(&self) -> Result<(), BudgetError> {
        let ascending = self.thresholds.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self.thresholds.iter().all(|percent| (1..=HIGHEST_THRESHOLD).contains(percent));
        if !(ascending && within && self.thresholds.len() <= THRESHOLDS_LIMIT) {
            return Err(BudgetError::Thresholds);
        }
        if !(1..=AMOUNT_LIMIT).contains(&self.amount) || self.rollover_limit > AMOUNT_LIMIT {
            return Err(BudgetError::Amount);
        }
        if self.message.len() > MESSAGE_LIMIT || self.message.contains(char::is_control) {
            return Err(BudgetError::Message);
        }
        Ok(())
    }
}

impl BudgetRow {
    /// The days of the current period.
    pub fn days(&self, zone: &Zone, now: UnixSeconds) -> Days {
        Days::of(self.settings.period, zone.day(now))
    }

    /// The days of the period that may leave something to the current one: the one before, if the
    /// budget existed then.
    pub fn days_before(&self, zone: &Zone, now: UnixSeconds) -> Option<Days> {
        let current = self.days(zone, now);
        let carries = self.settings.rollover_limit > 0 && zone.day(self.created_at) < current.start;
        carries.then(|| current.before(self.settings.period))
    }

    /// Where it stands with this spend in the current period, and this in the one before.
    pub fn standing(
        &self,
        zone: &Zone,
        now: UnixSeconds,
        spent: &Spent,
        before: Option<&Spent>,
    ) -> budget::Budget {
        let settings = &self.settings;
        let carried = before.map_or(0, |before| {
            settings.amount.saturating_sub(before.in_unit(settings.unit).point).min(settings.rollover_limit)
        });
        let days = self.days(zone, now);
        budget::Budget {
            id: self.id.clone(),
            name: self.name.clone(),
            scope: self.scope.scope,
            unit: settings.unit,
            period: settings.period,
            period_start: zone.start(days.start),
            period_end: zone.start(days.end),
            limit: settings.amount.saturating_add(carried),
            spent: spent.in_unit(settings.unit),
            tokens_unpriced: u64::try_from(spent.tokens_unpriced).unwrap_or_default(),
            thresholds: settings.thresholds.clone(),
            hard: settings.hard,
            exempt_until: None,
        }
    }
}

/// Where a budget stands, from the ledger. `hard` says what the budget is, whatever the flag says.
pub async fn standing(
    connection: &mut SqliteConnection,
    terms: &Terms,
    budget: &BudgetRow,
    now: UnixSeconds,
) -> Result<budget::Budget, StoreError> {
    let zone = terms.zone(&budget.scope.organisation);
    let spent = spend::sum(connection, &budget.scope, budget.days(zone, now)).await?;
    let before = match budget.days_before(zone, now) {
        Some(days) => Some(spend::sum(connection, &budget.scope, days).await?),
        None => None,
    };
    Ok(budget.standing(zone, now, &spent, before.as_ref()))
}

/// The same, in a connection of its own.
pub async fn standing_now(
    store: &Store,
    budget: &BudgetRow,
    now: UnixSeconds,
) -> Result<budget::Budget, StoreError> {
    let mut transaction = store.reader().begin().await?;
    let terms = Terms::read(&mut transaction).await?;
    standing(&mut transaction, &terms, budget, now).await
}

/// Makes a budget.
pub async fn create(
    store: &Store,
    name: &str,
    scope: &ScopeKey,
    settings: &Settings,
    actor: &str,
    now: UnixSeconds,
) -> Result<BudgetRow, BudgetError> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.contains(char::is_control) {
        return Err(BudgetError::Name);
    }
    settings.check()?;
    let made = BudgetRow {
        id: Uuid::now_v7().to_string(),
        name: name.into(),
        scope: scope.clone(),
        settings: settings.clone(),
        created_at: now,
        updated_at: now,
    };
    let mut transaction = store.begin().await?;
    let on_scope: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM budgets WHERE organisation_id = $1 AND scope = $2 AND scope_id = $3",
    )
    .bind(&*scope.organisation)
    .bind(scope_name(scope.scope))
    .bind(&*scope.id)
    .fetch_one(&mut *transaction)
    .await?;
    if on_scope >= BUDGETS_PER_SCOPE as i64 {
        return Err(BudgetError::TooMany);
    }
    insert(&mut transaction, &made).await?;
    finish(transaction, &made, (actor, "budget_add"), now).await?;
    Ok(made)
}

/// Settles a budget anew. What it holds for the current period follows at once.
pub async fn set(
    store: &Store,
    budget: &BudgetRow,
    settings: &Settings,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), BudgetError> {
    settings.check()?;
    let mut transaction = store.begin().await?;
    sqlx::query(
        "UPDATE budgets SET unit = $2, amount = $3, period = $4, hard = $5, thresholds = $6,
            rollover_limit = $7, message = $8, updated_at = $9 WHERE id = $1",
    )
    .bind(&budget.id)
    .bind(unit_name(settings.unit))
    .bind(column(settings.amount))
    .bind(period_name(settings.period))
    .bind(i64::from(settings.hard))
    .bind(thresholds_text(&settings.thresholds))
    .bind(column(settings.rollover_limit))
    .bind(&settings.message)
    .bind(column(now.0))
    .execute(&mut *transaction)
    .await?;
    let changed = BudgetRow { settings: settings.clone(), updated_at: now, ..budget.clone() };
    finish(transaction, &changed, (actor, "budget_set"), now).await
}

/// Removes a budget with its alerts and exemptions; the audit trail keeps what happened.
pub async fn remove(
    store: &Store,
    budget: &BudgetRow,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let mut transaction = store.begin().await?;
    for sql in [
        "DELETE FROM budget_alerts WHERE budget_id = $1",
        "DELETE FROM exemptions WHERE budget_id = $1",
        "DELETE FROM budgets WHERE id = $1",
    ] {
        sqlx::query(sql).bind(&budget.id).execute(&mut *transaction).await?;
    }
    note(&mut transaction, budget, (actor, "budget_remove"), "", now).await?;
    transaction.commit().await?;
    Ok(())
}

/// The budgets of an organisation, by name.
pub async fn of_organisation(
    store: &Store,
    organisation: &Organisation,
) -> Result<Vec<BudgetRow>, StoreError> {
    let mut connection = store.reader().acquire().await?;
    let mut all = all(&mut connection).await?;
    all.retain(|budget| *budget.scope.organisation == *organisation.id);
    Ok(all)
}

/// The budget of this name.
pub async fn find(store: &Store, organisation: &Organisation, name: &str) -> Result<BudgetRow, StoreError> {
    let all = of_organisation(store, organisation).await?;
    all.into_iter()
        .find(|budget| budget.name == name)
        .ok_or_else(|| StoreError::NotFound { kind: "budget", name: name.into() })
}

/// Grows the directives of every device whose spend counts for the scope.
pub(crate) async fn grow(
    transaction: &mut Transaction<'static, Sqlite>,
    scope: &ScopeKey,
) -> Result<(), StoreError> {
    let sql = match scope.scope {
        Scope::Organisation => {
            "UPDATE devices SET directive_version = directive_version + 1 WHERE organisation_id = $1
                AND organisation_id = $2"
        }
        Scope::Department => {
            "UPDATE devices SET directive_version = directive_version + 1
             WHERE organisation_id = $1 AND department_id IN (
                WITH RECURSIVE below (id) AS (
                    SELECT id FROM departments WHERE id = $2
                    UNION
                    SELECT d.id FROM departments d INNER JOIN below ON d.parent_id = below.id
                )
                SELECT id FROM below)"
        }
        Scope::User => {
            "UPDATE devices SET directive_version = directive_version + 1
             WHERE organisation_id = $1 AND user_id = $2"
        }
    };
    sqlx::query(sql).bind(&*scope.organisation).bind(&*scope.id).execute(&mut **transaction).await?;
    Ok(())
}

/// Commits a change of a budget, with what follows from it.
async fn finish(
    mut transaction: Transaction<'static, Sqlite>,
    budget: &BudgetRow,
    deed: (&str, &str),
    now: UnixSeconds,
) -> Result<(), BudgetError> {
    note(&mut transaction, budget, deed, &describe(&budget.settings), now).await?;
    let terms = Terms::read(&mut transaction).await?;
    alerts::resettle(&mut transaction, &terms, budget, now).await?;
    transaction.commit().await?;
    Ok(())
}

async fn note(
    transaction: &mut Transaction<'static, Sqlite>,
    budget: &BudgetRow,
    (actor, action): (&str, &str),
    detail: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let deed = Deed {
        organisation: Some(&*budget.scope.organisation),
        actor,
        action,
        subject: &budget.name,
        detail,
    };
    record(transaction, now, deed).await?;
    grow(transaction, &budget.scope).await?;
    note_change(transaction).await
}

fn describe(settings: &Settings) -> String {
    format!(
        "{} {} {}, {}, thresholds {}, rollover {}",
        settings.amount,
        unit_name(settings.unit),
        period_name(settings.period),
        if settings.hard { "hard" } else { "soft" },
        thresholds_text(&settings.thresholds),
        settings.rollover_limit,
    )
}

#[derive(FromRow)]
struct Row {
    id: String,
    organisation_id: String,
    name: String,
    scope: String,
    scope_id: String,
    unit: String,
    amount: i64,
    period: String,
    hard: i64,
    thresholds: String,
    rollover_limit: i64,
    message: String,
    created_at: i64,
    updated_at: i64,
}

/// Every budget of every organisation, by name.
pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<Vec<BudgetRow>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, organisation_id, name, scope, scope_id, unit, amount, period, hard, thresholds,
            rollover_limit, message, created_at, updated_at FROM budgets ORDER BY name, id",
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

impl TryFrom<Row> for BudgetRow {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let number = |number| u64::try_from(number).map_err(|_| StoreError::Corrupt("budgets"));
        let thresholds = row.thresholds.split(',').filter(|text| !text.is_empty());
        let named = || {
            let scope = SCOPES.into_iter().find(|&scope| scope_name(scope) == row.scope)?;
            let unit = UNITS.into_iter().find(|&unit| unit_name(unit) == row.unit)?;
            let period = PERIODS.into_iter().find(|&period| period_name(period) == row.period)?;
            Some((scope, unit, period))
        };
        let (scope, unit, period) = named().ok_or(StoreError::Corrupt("budgets"))?;
        Ok(Self {
            id: row.id,
            name: row.name,
            scope: ScopeKey { organisation: row.organisation_id.into(), scope, id: Arc::from(row.scope_id) },
            settings: Settings {
                unit,
                amount: number(row.amount)?,
                period,
                hard: row.hard != 0,
                thresholds: thresholds
                    .map(|text| text.parse().map_err(|_| StoreError::Corrupt("budgets.thresholds")))
                    .collect::<Result<_, _>>()?,
                rollover_limit: number(row.rollover_limit)?,
                message: row.message,
            },
            created_at: UnixSeconds(number(row.created_at)?),
            updated_at: UnixSeconds(number(row.updated_at)?),
        })
    }
}

async fn insert(
    transaction: &mut Transaction<'static, Sqlite>,
    budget: &BudgetRow,
) -> Result<(), StoreError> {
    let settings = &budget.settings;
    let inserted = sqlx::query(
        "INSERT INTO budgets (id, organisation_id, name, scope, scope_id, unit, amount, period, hard,
            thresholds, rollover_limit, message, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13) ON CONFLICT DO NOTHING",
    )
    .bind(&budget.id)
    .bind(&*budget.scope.organisation)
    .bind(&budget.name)
    .bind(scope_name(budget.scope.scope))
    .bind(&*budget.scope.id)
    .bind(unit_name(settings.unit))
    .bind(column(settings.amount))
    .bind(period_name(settings.period))
    .bind(i64::from(settings.hard))
    .bind(thresholds_text(&settings.thresholds))
    .bind(column(settings.rollover_limit))
    .bind(&settings.message)
    .bind(column(budget.created_at.0))
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Err(StoreError::Exists { kind: "budget", name: budget.name.clone() });
    }
    Ok(())
}

const UNITS: [Unit; 2] = [Unit::Tokens, Unit::Micros];
const PERIODS: [Period; 5] =
    [Period::Daily, Period::Weekly, Period::Monthly, Period::Quarterly, Period::Annual];

pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Tokens => "tokens",
        Unit::Micros => "micros",
    }
}

/// How the database and the command line name a period.
pub fn period_name(period: Period) -> &'static str {
    match period {
        Period::Daily => "daily",
        Period::Weekly => "weekly",
        Period::Monthly => "monthly",
        Period::Quarterly => "quarterly",
        Period::Annual => "annual",
    }
}

fn thresholds_text(thresholds: &[u8]) -> String {
    let texts: Vec<_> = thresholds.iter().map(u8::to_string).collect();
    texts.join(",")
}
