//! What budgets have reached: thresholds by the point estimate, and the cap by the lower bound.
//!
//! Invariants: each is written once for a budget and period, in the transaction that books the event or
//! settles the budget anew, and audited in it. A cap's grows the directives of the devices it is for.

use sqlx::{FromRow, Sqlite, SqliteConnection, Transaction};
use toktra_protocol::{Estimate, UnixSeconds, budget};

use crate::audit::{Deed, record};
use crate::budgets::{BudgetRow, grow, standing, unit_name};
use crate::period::{Day, Days};
use crate::spend::ScopeKey;
use crate::terms::Terms;
use crate::{Store, StoreError, column, note_change};

/// In place of a threshold: the hard cap, by the lower bound.
pub const CAP: u8 = 0;
/// Whom the audit trail names for what follows from the ledger.
const ACTOR: &str = "ledger";

/// What was reached of a budget, newest first.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Alert {
    /// First day of the period, since 1970-01-01.
    pub period_start: i64,
    /// Percent, or [`CAP`].
    pub threshold: i64,
    /// Unix seconds.
    pub at: i64,
    /// By then, in the budget's unit: the point estimate, or of the cap the lower bound.
    pub spent: i64,
    /// The limit of that moment.
    pub budget_limit: i64,
}

/// The newest alerts of a budget.
pub async fn newest(store: &Store, budget: &BudgetRow, limit: u32) -> Result<Vec<Alert>, StoreError> {
    Ok(sqlx::query_as(
        "SELECT period_start, threshold, at, spent, budget_limit FROM budget_alerts
         WHERE budget_id = $1 ORDER BY period_start DESC, at DESC, threshold DESC LIMIT $2",
    )
    .bind(&budget.id)
    .bind(i64::from(limit))
    .fetch_all(store.reader())
    .await?)
}

/// Writes down what these scopes' budgets have reached, and tells the devices of a passed cap.
pub(crate) async fn settle<'a>(
    transaction: &mut Transaction<'static, Sqlite>,
    terms: &Terms,
    scopes: impl Iterator<Item = &'a ScopeKey>,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    for budget in scopes.flat_map(|scope| terms.budgets_of(scope)) {
        let standing = standing(transaction, terms, budget, now).await?;
        let start = terms.zone(&budget.scope.organisation).day(standing.period_start).0;
        for (threshold, spent) in reached(&standing) {
            let first = add_alert(transaction, budget, start, threshold, spent, standing.limit, now).await?;
            if first && threshold == CAP {
                grow(transaction, &budget.scope).await?;
                note_change(transaction).await?;
            }
        }
    }
    Ok(())
}

/// The thresholds that were reached, and the cap, with the spend that reached them.
fn reached(standing: &budget::Budget) -> Vec<(u8, u64)> {
    let Estimate { low, point, .. } = standing.spent;
    let highest = standing.threshold_reached().unwrap_or_default();
    let thresholds = standing.thresholds.iter().filter(|&&percent| percent <= highest);
    let cap = (standing.hard && standing.is_passed()).then_some((CAP, low));
    thresholds.map(|&percent| (percent, point)).chain(cap).collect()
}

/// Whether it was the first of its kind in the period.
async fn add_alert(
    transaction: &mut Transaction<'static, Sqlite>,
    budget: &BudgetRow,
    period_start: i64,
    threshold: u8,
    spent: u64,
    limit: u64,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let added = sqlx::query(
        "INSERT INTO budget_alerts (budget_id, period_start, threshold, at, spent, budget_limit)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(&budget.id)
    .bind(period_start)
    .bind(i64::from(threshold))
    .bind(column(now.0))
    .bind(column(spent))
    .bind(column(limit))
    .execute(&mut **transaction)
    .await?;
    if added.rows_affected() == 0 {
        return Ok(false);
    }
    let unit = unit_name(budget.settings.unit);
    let (action, detail) = match threshold {
        CAP => ("budget_passed", format!("at least {spent} of {limit} {unit}")),
        percent => ("budget_threshold", format!("{percent} %: about {spent} of {limit} {unit}")),
    };
    let organisation = Some(&*budget.scope.organisation);
    let deed = Deed { organisation, actor: ACTOR, action, subject: &budget.name, detail: &detail };
    record(transaction, now, deed).await?;
    Ok(true)
}

/// Whether the cap was passed in the period before the one that begins on this day.
pub(crate) async fn was_passed_before(
    connection: &mut SqliteConnection,
    budget: &BudgetRow,
    start: Day,
) -> Result<bool, StoreError> {
    let before = Days::of(budget.settings.period, start).before(budget.settings.period);
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT threshold FROM budget_alerts WHERE budget_id = $1 AND period_start = $2 AND threshold = $3",
    )
    .bind(&budget.id)
    .bind(before.start.0)
    .bind(i64::from(CAP))
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Writes down anew what a budget has reached in the current period: what it no longer has can be
/// reached again, and is then noticed again.
pub(crate) async fn resettle(
    transaction: &mut Transaction<'static, Sqlite>,
    terms: &Terms,
    budget: &BudgetRow,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    let standing = standing(transaction, terms, budget, now).await?;
    let reached: Vec<_> = reached(&standing).into_iter().map(|(threshold, _)| threshold).collect();
    let start = terms.zone(&budget.scope.organisation).day(standing.period_start).0;
    let written: Vec<i64> =
        sqlx::query_scalar("SELECT threshold FROM budget_alerts WHERE budget_id = $1 AND period_start = $2")
            .bind(&budget.id)
            .bind(start)
            .fetch_all(&mut **transaction)
            .await?;
    let gone = written.into_iter().filter(|&written| !reached.iter().any(|&now| i64::from(now) == written));
    for threshold in gone {
        sqlx::query(
            "DELETE FROM budget_alerts WHERE budget_id = $1 AND period_start = $2 AND threshold = $3",
        )
        .bind(&budget.id)
        .bind(start)
        .bind(threshold)
        .execute(&mut **transaction)
        .await?;
        if threshold == i64::from(CAP) {
            grow(transaction, &budget.scope).await?;
            note_change(transaction).await?;
        }
    }
    settle(transaction, terms, std::iter::once(&budget.scope), now).await
}
