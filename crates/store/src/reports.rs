//! What the console shows, read from the ledger's hourly sums. Every statement is scoped to
//! one organisation, and nothing here writes. Sums keep the estimate's interval: lows are
//! added to lows and highs to highs, which assumes that the errors of the parts never cancel,
//! so an interval is at its widest. Hours and days are UTC.

use sqlx::FromRow;

pub use crate::sums::{Hours, Interval, Sums};
use crate::{Store, StoreError};

/// Most rows of one breakdown; the rest is left to the totals.
pub const BREAKDOWN_ROWS: i64 = 100;

/// Sums under a name, for example a provider's or a department's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Identifier; empty where the ledger knows none.
    pub id: String,
    /// Name to show, `None` when the identifier's owner is unknown or gone.
    pub name: Option<String>,
    /// The sums.
    pub sums: Sums,
}

/// Sums of one hour or one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Unix hours or Unix days, as asked for.
    pub at: i64,
    /// The sums.
    pub sums: Sums,
}

/// How fine a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// One moment an hour.
    Hour,
    /// One moment a day, UTC.
    Day,
}

/// Sums of everything in the given hours.
pub async fn total(store: &Store, organisation_id: &str, hours: Hours) -> Result<Sums, StoreError> {
    let row: SumsRow = sqlx::query_as(concat!(
        "SELECT ",
        sums!(),
        " FROM usage_hourly u WHERE u.organisation_id = $1 AND u.hour >= $2 AND u.hour < $3"
    ))
    .bind(organisation_id)
    .bind(hours.start)
    .bind(hours.end)
    .fetch_one(store.reporter())
    .await?;
    Ok(row.into())
}

/// Sums by hour or day, oldest first, with a moment for each that had no usage too.
pub async fn series(
    store: &Store,
    organisation_id: &str,
    hours: Hours,
    grain: Grain,
) -> Result<Vec<Moment>, StoreError> {
    let divisor = grain.hours();
    let rows: Vec<MomentRow> = sqlx::query_as(concat!(
        "SELECT u.hour / $4 AS moment, ",
        sums!(),
        " FROM usage_hourly u WHERE u.organisation_id = $1 AND u.hour >= $2 AND u.hour < $3
          GROUP BY 1 ORDER BY 1"
    ))
    .bind(organisation_id)
    .bind(hours.start)
    .bind(hours.end)
    .bind(divisor)
    .fetch_all(store.reporter())
    .await?;
    let mut rows = rows.into_iter().peekable();
    let moments = hours.start.div_euclid(divisor)..hours.end.div_euclid(divisor);
    Ok(moments
        .map(|at| {
            let sums = rows.next_if(|row| row.moment == at).map(|row| row.sums.into());
            Moment { at, sums: sums.unwrap_or_default() }
        })
        .collect())
}

/// The providers with the most cost, then the most tokens.
pub async fn by_provider(
    store: &Store,
    organisation_id: &str,
    hours: Hours,
) -> Result<Vec<Share>, StoreError> {
    let sql = concat!(
        "SELECT u.provider AS id, u.provider AS name, ",
        sums!(),
        " FROM usage_hourly u
          WHERE u.organisation_id = $1 AND u.hour >= $2 AND u.hour < $3
          GROUP BY u.provider ORDER BY cost_point_micros DESC, tokens_point DESC, u.provider LIMIT $4"
    );
    breakdown(store, sql, organisation_id, hours).await
}

/// The departments with the most cost, then the most tokens.
pub async fn by_department(
    store: &Store,
    organisation_id: &str,
    hours: Hours,
) -> Result<Vec<Share>, StoreError> {
    let sql = concat!(
        "SELECT u.department_id AS id, d.name AS name, ",
        sums!(),
        " FROM usage_hourly u
          LEFT JOIN departments d ON d.id = u.department_id AND d.organisation_id = u.organisation_id
          WHERE u.organisation_id = $1 AND u.hour >= $2 AND u.hour < $3
          GROUP BY u.department_id, d.name
          ORDER BY cost_point_micros DESC, tokens_point DESC, u.department_id LIMIT $4"
    );
    breakdown(store, sql, organisation_id, hours).await
}

/// The devices with the most cost, then the most tokens.
pub async fn by_device(store: &Store, organisation_id: &str, hours: Hours) -> Result<Vec<Share>, StoreError> {
    let sql = concat!(
        "SELECT u.device_id AS id, d.hostname AS name, ",
        sums!(),
        " FROM usage_hourly u
          LEFT JOIN devices d ON d.id = u.device_id AND d.organisation_id = u.organisation_id
          WHERE u.organisation_id = $1 AND u.hour >= $2 AND u.hour < $3
          GROUP BY u.device_id, d.hostname
          ORDER BY cost_point_micros DESC, tokens_point DESC, u.device_id LIMIT $4"
    );
    breakdown(store, sql, organisation_id, hours).await
}

async fn breakdown(
    store: &Store,
    sql: &'static str,
    organisation_id: &str,
    hours: Hours,
) -> Result<Vec<Share>, StoreError> {
    let rows: Vec<ShareRow> = sqlx::query_as(sql)
        .bind(organisation_id)
        .bind(hours.start)
        .bind(hours.end)
        .bind(BREAKDOWN_ROWS)
        .fetch_all(store.reporter())
        .await?;
    Ok(rows.into_iter().map(|row| Share { id: row.id, name: row.name, sums: row.sums.into() }).collect())
}

impl Grain {
    fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
        }
    }
}

/// A column's sum. A hostile device's rows could make a sum of integers overflow, which is an
/// error and would be the whole organisation's; one of doubles is exact up to 2^53 and large beyond.
macro_rules! sum {
    ($column:literal) => {
        concat!(
            "CAST(COALESCE(SUM(CAST(u.",
            $column,
            " AS DOUBLE PRECISION)), 0) AS BIGINT) AS ",
            $column,
            ", "
        )
    };
}

/// The columns of [`SumsRow`], and one to order by.
macro_rules! sums {
    () => {
        concat!(
            sum!("tokens_in_low"),
            sum!("tokens_in_point"),
            sum!("tokens_in_high"),
            sum!("tokens_out_low"),
            sum!("tokens_out_point"),
            sum!("tokens_out_high"),
            sum!("cost_low_micros"),
            sum!("cost_point_micros"),
            sum!("cost_high_micros"),
            sum!("tokens_unpriced"),
            sum!("exchanges"),
            sum!("blocked"),
            "SUM(CAST(u.tokens_in_point AS DOUBLE PRECISION) + u.tokens_out_point) AS tokens_point"
        )
    };
}
use {sum, sums};

#[derive(FromRow)]
struct SumsRow {
    tokens_in_low: i64,
    tokens_in_point: i64,
    tokens_in_high: i64,
    tokens_out_low: i64,
    tokens_out_point: i64,
    tokens_out_high: i64,
    cost_low_micros: i64,
    cost_point_micros: i64,
    cost_high_micros: i64,
    tokens_unpriced: i64,
    exchanges: i64,
    blocked: i64,
}

#[derive(FromRow)]
struct MomentRow {
    moment: i64,
    #[sqlx(flatten)]
    sums: SumsRow,
}

#[derive(FromRow)]
struct ShareRow {
    id: String,
    name: Option<String>,
    #[sqlx(flatten)]
    sums: SumsRow,
}

impl From<SumsRow> for Sums {
    fn from(row: SumsRow) -> Self {
        Self {
            tokens_in: Interval {
                low: row.tokens_in_low,
                point: row.tokens_in_point,
                high: row.tokens_in_high,
            },
            tokens_out: Interval {
                low: row.tokens_out_low,
                point: row.tokens_out_point,
                high: row.tokens_out_high,
            },
            cost_micros: Interval {
                low: row.cost_low_micros,
                point: row.cost_point_micros,
                high: row.cost_high_micros,
            },
            tokens_unpriced: row.tokens_unpriced,
            exchanges: row.exchanges,
            blocked: row.blocked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::{House, house};

    const DAY: i64 = 20_000;

    async fn book(house: &House, organisation: &str, device: &str, hour: i64, tokens: i64, priced: bool) {
        let department = device.replace('d', "g");
        let mut transaction = house.store.begin().await.expect("a transaction");
        sqlx::query(
            "INSERT INTO usage_hourly VALUES
             ($1, $2, $3, '', '', 'openai', $4, $5, 1, 0, 1, 10, 20,
              0, 0, 0, $6 - 1, $6, $6 + 1, $7, $7 * 2, $7 * 3, $8)",
        )
        .bind(organisation)
        .bind(department)
        .bind(device)
        .bind(if priced { "api" } else { "chat" })
        .bind(hour)
        .bind(tokens)
        .bind(if priced { 5_i64 } else { 0 })
        .bind(if priced { 0 } else { tokens })
        .execute(&mut *transaction)
        .await
        .expect("usage");
        transaction.commit().await.expect("committed");
    }

    #[tokio::test]
    async fn sums_keep_low_point_and_high_and_what_is_unpriced() {
        let house = house().await;
        book(&house, "o1", "d1", DAY * 24, 100, true).await;
        book(&house, "o1", "d1", DAY * 24 + 23, 50, false).await;
        let sums = total(&house.store, "o1", Hours::last_days(1, DAY * 24 + 3)).await.expect("sums");
        assert_eq!(sums.tokens(), Interval { low: 148, point: 150, high: 152 });
        assert_eq!(sums.cost_micros, Interval { low: 5, point: 10, high: 15 });
        assert_eq!(sums.tokens_unpriced, 50);
        assert!(!sums.is_unpriced());
    }

    #[tokio::test]
    async fn an_empty_ledger_sums_to_nothing_and_is_not_unpriced() {
        let house = house().await;
        let sums = total(&house.store, "o1", Hours::last_days(30, DAY * 24)).await.expect("sums");
        assert_eq!(sums, Sums::default());
        assert!(!sums.is_unpriced());
    }

    #[tokio::test]
    async fn a_series_has_a_moment_for_every_day_and_every_hour() {
        let house = house().await;
        book(&house, "o1", "d1", DAY * 24 + 5, 100, true).await;
        book(&house, "o1", "d1", (DAY - 2) * 24, 7, true).await;
        let days =
            series(&house.store, "o1", Hours::last_days(7, DAY * 24 + 5), Grain::Day).await.expect("days");
        let points: Vec<_> = days.iter().map(|day| day.sums.tokens_out.point).collect();
        assert_eq!(points, [0, 0, 0, 0, 7, 0, 100]);
        assert_eq!(days.last().map(|day| day.at), Some(DAY));
        let hours =
            series(&house.store, "o1", Hours::last_days(1, DAY * 24), Grain::Hour).await.expect("hours");
        assert_eq!(hours.len(), 24);
        assert_eq!(hours[5].sums.tokens_out.point, 100);
    }

    #[tokio::test]
    async fn no_report_shows_a_row_of_another_organisation() {
        let house = house().await;
        book(&house, "o1", "d1", DAY * 24, 100, true).await;
        book(&house, "o2", "d2", DAY * 24, 900, true).await;
        // A row that names another organisation's department and device must not lend their names.
        book(&house, "o1", "d2", DAY * 24, 1, true).await;
        let hours = Hours::last_days(1, DAY * 24);
        assert_eq!(total(&house.store, "o1", hours).await.expect("total").tokens().point, 101);
        let series = series(&house.store, "o1", hours, Grain::Day).await.expect("series");
        assert_eq!(series[0].sums.tokens().point, 101);
        assert_eq!(
            by_provider(&house.store, "o1", hours).await.expect("providers")[0].sums.tokens().point,
            101
        );
        let names = |shares: Vec<Share>| shares.into_iter().map(|share| share.name).collect::<Vec<_>>();
        let departments = names(by_department(&house.store, "o1", hours).await.expect("departments"));
        assert_eq!(departments, [Some("Dept g1".to_owned()), None]);
        let hosts = names(by_device(&house.store, "o1", hours).await.expect("devices"));
        assert_eq!(hosts, [Some("host-d1".to_owned()), None]);
        assert_eq!(total(&house.store, "nobody", hours).await.expect("total"), Sums::default());
    }

    #[tokio::test]
    async fn sums_beyond_every_number_are_a_page_all_the_same() {
        let house = house().await;
        for hour in 0..4 {
            book(&house, "o1", "d1", DAY * 24 + hour, i64::MAX / 4, false).await;
        }
        let sums = total(&house.store, "o1", Hours::last_days(1, DAY * 24)).await.expect("sums");
        assert!(sums.tokens_out.point >= i64::MAX / 4 * 3);
        let hours = Hours::last_days(1, DAY * 24);
        assert_eq!(by_device(&house.store, "o1", hours).await.expect("devices").len(), 1);
    }

    #[tokio::test]
    async fn reports_that_take_long_keep_nobody_else_from_reading() {
        let house = house().await;
        let mut busy = Vec::new();
        for _ in 0..house.store.reporter().options().get_max_connections() {
            busy.push(house.store.reporter().acquire().await.expect("a connection"));
        }
        assert_eq!(house.store.changes().await.expect("the counter"), 0);
    }

    #[tokio::test]
    async fn a_report_reads_the_hours_of_its_organisation_by_index() {
        let house = house().await;
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(
            "EXPLAIN QUERY PLAN SELECT SUM(bytes_in) FROM usage_hourly u
             WHERE u.organisation_id = 'o1' AND u.hour >= 1 AND u.hour < 2",
        )
        .fetch_all(house.store.reporter())
        .await
        .expect("a plan");
        let text = &plan[0].3;
        assert!(text.starts_with("SEARCH") && text.contains("hour>? AND hour<?"), "{text}");
    }
}
