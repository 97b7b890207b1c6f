//! Sums of a day, which the console's pages read: booked in the transaction that stores the events, in
//! three tables that say the same of fewer and fewer parts.
//!
//! | table | a row for each |
//! | --- | --- |
//! | `usage_daily` | department, user, device, provider, service, application |
//! | `usage_daily_by_service` | department, provider, service, application |
//! | `usage_daily_by_device` | department, user, device |
//!
//! Invariants: each table's sums over a day are the same. Days are the organisation's, as those of
//! [`crate::spend`]. No sum exceeds [`DAY_LIMIT`]. What they hold ends with the hourly sums by
//! [`crate::retention`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::period::Day;
use crate::spend::DAY_LIMIT;
use crate::{StoreError, column};

/// A table, and which parts of usage its rows tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) parts: &'static [&'static str],
}

/// From the one with the fewest rows to the one with every part.
pub(crate) const TABLES: [Table; 3] = [
    Table { name: "usage_daily_by_service", parts: &["department_id", "provider", "service", "application"] },
    Table { name: "usage_daily_by_device", parts: &["department_id", "user_id", "device_id"] },
    Table {
        name: "usage_daily",
        parts: &["department_id", "user_id", "device_id", "provider", "service", "application"],
    },
];

/// What is summed up, in the order of the tables' columns.
pub(crate) const NUMBERS: [&str; 12] = [
    "blocked",
    "exchanges",
    "tokens_in_low",
    "tokens_in_point",
    "tokens_in_high",
    "tokens_out_low",
    "tokens_out_point",
    "tokens_out_high",
    "cost_low_micros",
    "cost_point_micros",
    "cost_high_micros",
    "tokens_unpriced",
];

pub(crate) type Numbers = [u64; NUMBERS.len()];

/// Whose usage of what, on which day.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part<'a> {
    pub(crate) organisation: Arc<str>,
    pub(crate) day: Day,
    pub(crate) department: Arc<str>,
    pub(crate) user: Arc<str>,
    pub(crate) device: Arc<str>,
    pub(crate) provider: &'a str,
    pub(crate) service: &'a str,
    pub(crate) application: &'a str,
}

impl Part<'_> {
    fn text(&self, part: &str) -> &str {
        match part {
            "department_id" => &self.department,
            "user_id" => &self.user,
            "device_id" => &self.device,
            "provider" => self.provider,
            "service" => self.service,
            _ => self.application,
        }
    }
}

/// What a transaction adds to the tables.
#[derive(Default)]
pub(crate) struct Rollup<'a>(BTreeMap<Part<'a>, Sums>);

type Sums = [i64; NUMBERS.len()];

impl<'a> Rollup<'a> {
    /// Adds what an event says.
    pub(crate) fn add(&mut self, part: Part<'a>, numbers: &Numbers) {
        let sums = self.0.entry(part).or_insert([0; NUMBERS.len()]);
        add(sums, &numbers.map(|number| column(number).min(DAY_LIMIT)));
    }

    /// Books it.
    pub(crate) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        for (table, statement) in TABLES.iter().zip(ADD.iter()) {
            let mut rows: BTreeMap<(i64, Vec<&str>), Sums> = BTreeMap::new();
            for (part, sums) in &self.0 {
                let parts = table.parts.iter().map(|name| part.text(name));
                let key = std::iter::once(&*part.organisation).chain(parts).collect();
                add(rows.entry((part.day.0, key)).or_insert([0; NUMBERS.len()]), sums);
            }
            for ((day, parts), sums) in rows {
                let mut query = sqlx::query(AssertSqlSafe(Arc::clone(statement))).bind(day);
                for part in parts {
                    query = query.bind(part);
                }
                for sum in sums {
                    query = query.bind(sum);
                }
                query.execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

/// Deletes an organisation's sums of days before this one, at most so many rows of each table. Returns
/// how many rows were taken.
pub(crate) async fn delete_days(
    connection: &mut SqliteConnection,
    organisation: &str,
    day: i64,
    most: usize,
) -> Result<usize, StoreError> {
    let mut taken = 0;
    for statement in DELETE.iter() {
        let deleted = sqlx::query(AssertSqlSafe(Arc::clone(statement)))
            .bind(organisation)
            .bind(day)
            .bind(column(most as u64))
            .execute(&mut *connection)
            .await?;
        taken = taken.max(usize::try_from(deleted.rows_affected()).unwrap_or(usize::MAX));
    }
    Ok(taken)
}

fn add(sums: &mut Sums, numbers: &Sums) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum = sum.saturating_add(*number).min(DAY_LIMIT);
    }
}

static ADD: LazyLock<[Arc<str>; 3]> = LazyLock::new(|| TABLES.map(|table| add_text(&table).into()));
static DELETE: LazyLock<[Arc<str>; 3]> = LazyLock::new(|| TABLES.map(|table| delete_text(&table).into()));

fn add_text(table: &Table) -> String {
    let Table { name, parts } = table;
    let parts = parts.join(", ");
    let columns = NUMBERS.join(", ");
    let places: Vec<_> =
        (1..=2 + table.parts.len() + NUMBERS.len()).map(|place| format!("${place}")).collect();
    let places = places.join(", ");
    let update = |column: &&str| {
        // Neither term exceeds the limit, so that the sum cannot overflow.
        format!(
            "{column} = CASE WHEN {name}.{column} + excluded.{column} > {DAY_LIMIT} THEN {DAY_LIMIT}
                ELSE {name}.{column} + excluded.{column} END"
        )
    };
    let updates: Vec<_> = NUMBERS.iter().map(update).collect();
    let updates = updates.join(", ");
    format!(
        "INSERT INTO {name} (day, organisation_id, {parts}, {columns}) VALUES ({places})
         ON CONFLICT (organisation_id, day, {parts}) DO UPDATE SET {updates}"
    )
}

fn delete_text(table: &Table) -> String {
    let Table { name, parts } = table;
    let key = format!("organisation_id, day, {}", parts.join(", "));
    format!(
        "DELETE FROM {name} WHERE ({key}) IN
            (SELECT {key} FROM {name} WHERE organisation_id = $1 AND day < $2 LIMIT $3)"
    )
}
