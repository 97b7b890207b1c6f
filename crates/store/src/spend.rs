//! Spend by day: what the ledger books for the organisation, for each department up the tree, and
//! for the user, in the transaction that stores the events. What a period has spent is a query over
//! these rows.
//!
//! Invariants: no counter is kept beside the ledger. A day's sum never exceeds [`DAY_LIMIT`], so
//! that no sum over a year of days overflows.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sqlx::{FromRow, SqliteConnection};
use toktra_protocol::budget::{Scope, Unit};
use toktra_protocol::{Estimate, UnixSeconds};

use crate::period::{Day, Days, Zone};
use crate::retention::MERGED;
use crate::{Store, StoreError, column};

/// Largest sum of a day.
pub(crate) const DAY_LIMIT: i64 = 1 << 50;

/// Whose spend it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey {
    /// The organisation's identifier.
    pub organisation: Arc<str>,
    /// What kind of thing.
    pub scope: Scope,
    /// Its identifier.
    pub id: Arc<str>,
}

/// What was spent in some days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Spent {
    /// Tokens of both directions, lower bound.
    pub tokens_low: i64,
    /// Best guess.
    pub tokens_point: i64,
    /// Upper bound.
    pub tokens_high: i64,
    /// Micro-dollars at list price, lower bound.
    pub micros_low: i64,
    /// Best guess.
    pub micros_point: i64,
    /// Upper bound.
    pub micros_high: i64,
    /// Of `tokens_point`, those that have no price.
    pub tokens_unpriced: i64,
}

impl Spent {
    /// As a budget of this unit counts it.
    pub fn in_unit(&self, unit: Unit) -> Estimate {
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let (low, point, high) = match unit {
            Unit::Tokens => (self.tokens_low, self.tokens_point, self.tokens_high),
            Unit::Micros => (self.micros_low, self.micros_point, self.micros_high),
        };
        Estimate { low: number(low), point: number(point), high: number(high) }
    }

    fn numbers(&self) -> [i64; 7] {
        [
            self.tokens_low,
            self.tokens_point,
            self.tokens_high,
            self.micros_low,
            self.micros_point,
            self.micros_high,
            self.tokens_unpriced,
        ]
    }

    fn add(&mut self, other: &Self) {
        let add = |sum: &mut i64, number: i64| *sum = sum.saturating_add(number.max(0)).min(DAY_LIMIT);
        add(&mut self.tokens_low, other.tokens_low);
        add(&mut self.tokens_point, other.tokens_point);
        add(&mut self.tokens_high, other.tokens_high);
        add(&mut self.micros_low, other.micros_low);
        add(&mut self.micros_point, other.micros_point);
        add(&mut self.micros_high, other.micros_high);
        add(&mut self.tokens_unpriced, other.tokens_unpriced);
    }
}

/// Finds the day on which events count: the one of their minute, and of what claims to come from the
/// future the day of receipt.
pub(crate) struct DayOf<'a> {
    zone: &'a Zone,
    now: UnixSeconds,
    /// The day that was found last, and its seconds, so that few events ask the calendar.
    day: Day,
    seconds: std::ops::Range<u64>,
}

impl<'a> DayOf<'a> {
    pub(crate) fn new(zone: &'a Zone, now: UnixSeconds) -> Self {
        Self { zone, now, day: Day(0), seconds: 0..0 }
    }

    pub(crate) fn find(&mut self, at: UnixSeconds) -> Day {
        let at = at.min(self.now);
        if !self.seconds.contains(&at.0) {
            self.day = self.zone.day(at);
            self.seconds = self.zone.start(self.day).0..self.zone.start(Day(self.day.0 + 1)).0;
        }
        self.day
    }
}

/// One batch's spend by day.
#[derive(Default)]
pub(crate) struct BatchSpend(Vec<(Day, Spent)>);

impl BatchSpend {
    /// Adds an event's.
    pub(crate) fn add(&mut self, day: Day, spent: &Spent) {
        match self.0.last_mut() {
            Some((last, sum)) if *last == day => sum.add(spent),
            _ => self.0.push((day, *spent)),
        }
    }
}

/// What a transaction adds to the ledger by day.
#[derive(Default)]
pub(crate) struct Sheet(BTreeMap<(ScopeKey, Day), Spent>);

impl Sheet {
    /// Adds a batch's spend to every scope that it counts for.
    pub(crate) fn add(&mut self, scopes: &[ScopeKey], batch: &BatchSpend) {
        for scope in scopes {
            for (day, spent) in &batch.0 {
                self.0.entry((scope.clone(), *day)).or_default().add(spent);
            }
        }
    }

    /// Whose spend changes, each once.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &ScopeKey> {
        let mut last = None;
        self.0.keys().map(|(scope, _)| scope).filter(move |&scope| last.replace(scope) != Some(scope))
    }

    /// Books it.
    pub(crate) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        for ((scope, day), spent) in &self.0 {
            add(connection, scope, *day, spent.numbers()).await?;
        }
        Ok(())
    }
}

/// Takes what a department has spent from these scopes and gives it to those: the tree changed.
pub(crate) async fn rebook(
    connection: &mut SqliteConnection,
    moved: &ScopeKey,
    from: &[ScopeKey],
    to: &[ScopeKey],
) -> Result<(), StoreError> {
    let days: Vec<DayRow> = sqlx::query_as(
        "SELECT day, tokens_low, tokens_point, tokens_high, micros_low, micros_point, micros_high,
            tokens_unpriced
         FROM spend_daily WHERE organisation_id = $1 AND scope = $2 AND scope_id = $3",
    )
    .bind(&*moved.organisation)
    .bind(scope_name(moved.scope))
    .bind(&*moved.id)
    .fetch_all(&mut *connection)
    .await?;
    for DayRow { day, spent } in days {
        for scope in from {
            add(connection, scope, Day(day), spent.numbers().map(|number| -number)).await?;
        }
        for scope in to {
            add(connection, scope, Day(day), spent.numbers()).await?;
        }
    }
    Ok(())
}

/// Adds up an organisation's days before this one, at most so many: of each scope one row is left.
/// Returns how many rows were taken.
pub(crate) async fn merge_days(
    connection: &mut SqliteConnection,
    organisation: &str,
    day: i64,
    most: usize,
) -> Result<usize, StoreError> {
    let rows: Vec<ScopeRow> = sqlx::query_as(
        "DELETE FROM spend_daily WHERE (organisation_id, scope, scope_id, day) IN
            (SELECT organisation_id, scope, scope_id, day FROM spend_daily
             WHERE organisation_id = $1 AND day > $2 AND day < $3 LIMIT $4)
         RETURNING scope, scope_id, tokens_low, tokens_point, tokens_high, micros_low, micros_point,
            micros_high, tokens_unpriced",
    )
    .bind(organisation)
    .bind(MERGED)
    .bind(day)
    .bind(column(most as u64))
    .fetch_all(&mut *connection)
    .await?;
    let organisation: Arc<str> = organisation.into();
    let mut merged: BTreeMap<ScopeKey, Spent> = BTreeMap::new();
    for row in &rows {
        let scope = SCOPES.into_iter().find(|&scope| scope_name(scope) == row.scope);
        let scope = scope.ok_or(StoreError::Corrupt("spend_daily.scope"))?;
        let key =
            ScopeKey { organisation: Arc::clone(&organisation), scope, id: row.scope_id.as_str().into() };
        merged.entry(key).or_default().add(&row.spent);
    }
    for (scope, spent) in &merged {
        add(connection, scope, Day(MERGED), spent.numbers()).await?;
    }
    Ok(rows.len())
}

#[derive(FromRow)]
struct ScopeRow {
    scope: String,
    scope_id: String,
    #[sqlx(flatten)]
    spent: Spent,
}

#[derive(FromRow)]
struct DayRow {
    day: i64,
    #[sqlx(flatten)]
    spent: Spent,
}

async fn add(
    connection: &mut SqliteConnection,
    scope: &ScopeKey,
    day: Day,
    numbers: [i64; 7],
) -> Result<(), StoreError> {
    let mut query = sqlx::query(ADD)
        .bind(&*scope.organisation)
        .bind(scope_name(scope.scope))
        .bind(&*scope.id)
        .bind(day.0);
    for number in numbers {
        query = query.bind(number);
    }
    query.bind(DAY_LIMIT).execute(connection).await?;
    Ok(())
}

// Neither term exceeds the limit, so that the sum cannot overflow.
const ADD: &str = "
    INSERT INTO spend_daily (organisation_id, scope, scope_id, day, tokens_low, tokens_point, tokens_high,
        micros_low, micros_point, micros_high, tokens_unpriced)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (organisation_id, scope, scope_id, day) DO UPDATE SET
        tokens_low = CASE WHEN spend_daily.tokens_low + excluded.tokens_low > $12 THEN $12
            ELSE spend_daily.tokens_low + excluded.tokens_low END,
        tokens_point = CASE WHEN spend_daily.tokens_point + excluded.tokens_point > $12 THEN $12
            ELSE spend_daily.tokens_point + excluded.tokens_point END,
        tokens_high = CASE WHEN spend_daily.tokens_high + excluded.tokens_high > $12 THEN $12
            ELSE spend_daily.tokens_high + excluded.tokens_high END,
        micros_low = CASE WHEN spend_daily.micros_low + excluded.micros_low > $12 THEN $12
            ELSE spend_daily.micros_low + excluded.micros_low END,
        micros_point = CASE WHEN spend_daily.micros_point + excluded.micros_point > $12 THEN $12
            ELSE spend_daily.micros_point + excluded.micros_point END,
        micros_high = CASE WHEN spend_daily.micros_high + excluded.micros_high > $12 THEN $12
            ELSE spend_daily.micros_high + excluded.micros_high END,
        tokens_unpriced = CASE WHEN spend_daily.tokens_unpriced + excluded.tokens_unpriced > $12 THEN $12
            ELSE spend_daily.tokens_unpriced + excluded.tokens_unpriced END";

/// What a scope has spent in these days.
pub async fn sum(
    connection: &mut SqliteConnection,
    scope: &ScopeKey,
    days: Days,
) -> Result<Spent, StoreError> {
    Ok(sqlx::query_as(
        "SELECT CAST(COALESCE(SUM(tokens_low), 0) AS BIGINT) AS tokens_low,
            CAST(COALESCE(SUM(tokens_point), 0) AS BIGINT) AS tokens_point,
            CAST(COALESCE(SUM(tokens_high), 0) AS BIGINT) AS tokens_high,
            CAST(COALESCE(SUM(micros_low), 0) AS BIGINT) AS micros_low,
            CAST(COALESCE(SUM(micros_point), 0) AS BIGINT) AS micros_point,
            CAST(COALESCE(SUM(micros_high), 0) AS BIGINT) AS micros_high,
            CAST(COALESCE(SUM(tokens_unpriced), 0) AS BIGINT) AS tokens_unpriced
         FROM spend_daily
         WHERE organisation_id = $1 AND scope = $2 AND scope_id = $3 AND day >= $4 AND day < $5",
    )
    .bind(&*scope.organisation)
    .bind(scope_name(scope.scope))
    .bind(&*scope.id)
    .bind(days.start.0)
    .bind(days.end.0)
    .fetch_one(connection)
    .await?)
}

/// Every scope.
pub(crate) const SCOPES: [Scope; 3] = [Scope::Organisation, Scope::Department, Scope::User];

/// How the database names a scope.
pub(crate) fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Organisation => "organisation",
        Scope::Department => "department",
        Scope::User => "user",
    }
}

/// Where spend by day stands against the hourly sums, for an organisation or a department tree. Of a
/// user there is no other record: the hourly sums do not say whose the device was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromRow)]
pub struct SpendBalance {
    /// `organisation` or `department`.
    pub scope: String,
    /// Its identifier.
    pub scope_id: String,
    /// Tokens (point estimates) of the hourly sums.
    pub hourly_tokens: i64,
    /// Tokens (point estimates) of the days.
    pub daily_tokens: i64,
    /// Micro-dollars (point estimates) of the hourly sums.
    pub hourly_micros: i64,
    /// Micro-dollars (point estimates) of the days.
    pub daily_micros: i64,
}

impl SpendBalance {
    /// Both say the same.
    pub fn is_even(&self) -> bool {
        self.hourly_tokens == self.daily_tokens && self.hourly_micros == self.daily_micros
    }
}

/// The balance of every organisation and of every department with those below it.
pub async fn balances(store: &Store) -> Result<Vec<SpendBalance>, StoreError> {
    // Doubles, exact up to 2^53, for the reason that `events::balances` gives.
    Ok(sqlx::query_as(
        "WITH RECURSIVE below (top, id) AS (
            SELECT id, id FROM departments
            UNION
            SELECT below.top, d.id FROM departments d INNER JOIN below ON d.parent_id = below.id
         ), scopes (scope, scope_id) AS (
            SELECT 'organisation', id FROM organisations
            UNION ALL SELECT 'department', id FROM departments
         ), hourly (scope, scope_id, tokens, micros) AS (
            SELECT 'organisation', organisation_id,
                SUM(CAST(tokens_in_point AS DOUBLE PRECISION) + tokens_out_point),
                SUM(CAST(cost_point_micros AS DOUBLE PRECISION))
            FROM usage_hourly GROUP BY organisation_id
            UNION ALL
            SELECT 'department', below.top,
                SUM(CAST(tokens_in_point AS DOUBLE PRECISION) + tokens_out_point),
                SUM(CAST(cost_point_micros AS DOUBLE PRECISION))
            FROM usage_hourly INNER JOIN below ON below.id = usage_hourly.department_id GROUP BY below.top
         ), daily (scope, scope_id, tokens, micros) AS (
            SELECT scope, scope_id, SUM(CAST(tokens_point AS DOUBLE PRECISION)),
                SUM(CAST(micros_point AS DOUBLE PRECISION))
            FROM spend_daily GROUP BY scope, scope_id
         )
         SELECT scopes.scope, scopes.scope_id,
            CAST(COALESCE(hourly.tokens, 0) AS BIGINT) AS hourly_tokens,
            CAST(COALESCE(daily.tokens, 0) AS BIGINT) AS daily_tokens,
            CAST(COALESCE(hourly.micros, 0) AS BIGINT) AS hourly_micros,
            CAST(COALESCE(daily.micros, 0) AS BIGINT) AS daily_micros
         FROM scopes
         LEFT JOIN hourly ON hourly.scope = scopes.scope AND hourly.scope_id = scopes.scope_id
         LEFT JOIN daily ON daily.scope = scopes.scope AND daily.scope_id = scopes.scope_id
         ORDER BY scopes.scope, scopes.scope_id",
    )
    .fetch_all(store.reader())
    .await?)
}

/// Bounds a device's claim, so that additions cannot overflow.
pub(crate) fn bounded(number: u64) -> i64 {
    column(number).min(DAY_LIMIT)
}
