//! What the console shows of usage: sums of days, over all of an organisation or a part of it, as totals,
//! by day, and by provider, service, department, person, device or application. Read from the sums by day
//! that [`crate::rollup`] keeps, from the smallest table that has what is asked for. Every statement is
//! scoped to one organisation, and nothing here writes.
//!
//! Sums keep the estimate's interval: lows are added to lows and highs to highs, which assumes that the
//! errors of the parts never cancel, so an interval is at its widest. Days are the organisation's.

use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, FromRow, Sqlite};

use crate::period::Days;
use crate::rollup::{NUMBERS, TABLES};
pub use crate::sums::{Interval, Sums};
use crate::{Store, StoreError};

/// Most rows of one answer.
pub const ROWS_LIMIT: u32 = 10_000;

/// By what usage is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// Who offers the service.
    Provider,
    /// What was used.
    Service,
    /// The device's department at that moment, without those below it.
    Department,
    /// The device's person at that moment.
    User,
    /// The device.
    Device,
    /// The program.
    Application,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose usage.
    pub organisation: String,
    /// On which days.
    pub days: Days,
    /// Only what has one of these identifiers, for each of these.
    pub only: Vec<(Dimension, Vec<String>)>,
}

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: OrderBy,
    /// The largest, or the last name, first.
    pub descending: bool,
}

/// By what rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// Cost, then tokens.
    Cost,
    /// Tokens of both directions.
    Tokens,
    /// Requests.
    Requests,
    /// What the row is called.
    Name,
}

/// The most cost first, then the most tokens.
pub const DEAREST: Order = Order { by: OrderBy::Cost, descending: true };

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

/// Sums of one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Days since 1970-01-01.
    pub day: i64,
    /// The sums.
    pub sums: Sums,
}

impl Dimension {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Provider, Self::Service, Self::Department, Self::User, Self::Device, Self::Application];

    fn column(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Service => "service",
            Self::Department => "department_id",
            Self::User => "user_id",
            Self::Device => "device_id",
            Self::Application => "application",
        }
    }

    /// The name of the row whose identifier is `id`, as SQL.
    fn name(self) -> &'static str {
        match self {
            Self::Provider | Self::Service | Self::Application => "sums.id",
            Self::Department => {
                "(SELECT d.name FROM departments d WHERE d.id = sums.id AND d.organisation_id = $1)"
            }
            Self::User => "(SELECT p.email FROM users p WHERE p.id = sums.id AND p.organisation_id = $1)",
            Self::Device => {
                "(SELECT d.hostname FROM devices d WHERE d.id = sums.id AND d.organisation_id = $1)"
            }
        }
    }
}

impl Question {
    /// The table with the fewest rows that tells this and every filter apart.
    fn table(&self, by: Option<Dimension>) -> &'static str {
        let asked = self.only.iter().map(|(dimension, _)| *dimension).chain(by);
        let found = TABLES
            .iter()
            .find(|table| asked.clone().all(|dimension| table.parts.contains(&dimension.column())));
        found.map_or("usage_daily", |table| table.name)
    }

    /// The condition on `u`'s rows; parameters are as [`Self::bind`] binds them.
    fn condition(&self) -> String {
        let mut text = "u.organisation_id = $1 AND u.day >= $2 AND u.day < $3".to_owned();
        let mut place = 3;
        for (dimension, identifiers) in &self.only {
            let places: Vec<_> = identifiers
                .iter()
                .map(|_| {
                    place += 1;
                    format!("${place}")
                })
                .collect();
            text.push_str(&match places.as_slice() {
                // An empty list is not portable, and nothing is in it.
                [] => " AND 1 = 0".to_owned(),
                _ => format!(" AND u.{} IN ({})", dimension.column(), places.join(", ")),
            });
        }
        text
    }

    fn bind<'q, O>(&'q self, text: String) -> sqlx::query::QueryAs<'q, Sqlite, O, SqliteArguments>
    where
        O: for<'r> FromRow<'r, sqlx::sqlite::SqliteRow>,
    {
        let text: Arc<str> = text.into();
        let query = sqlx::query_as(AssertSqlSafe(text))
            .bind(&self.organisation)
            .bind(self.days.start.0)
            .bind(self.days.end.0);
        let identifiers = self.only.iter().flat_map(|(_, identifiers)| identifiers);
        identifiers.fold(query, |query, identifier| query.bind(identifier))
    }
}

/// Sums of everything that is asked for.
pub async fn total(store: &Store, question: &Question) -> Result<Sums, StoreError> {
    let text = format!("SELECT {} FROM {} u WHERE {}", columns(), question.table(None), question.condition());
    let row: SumsRow = question.bind(text).fetch_one(store.reporter()).await?;
    Ok(row.into())
}

/// Sums by day, oldest first, with a moment for each that had no usage too.
pub async fn by_day(store: &Store, question: &Question) -> Result<Vec<Moment>, StoreError> {
    let text = format!(
        "SELECT u.day AS day, {} FROM {} u WHERE {} GROUP BY u.day ORDER BY u.day",
        columns(),
        question.table(None),
        question.condition()
    );
    let rows: Vec<DayRow> = question.bind(text).fetch_all(store.reporter()).await?;
    let mut rows = rows.into_iter().peekable();
    let days = question.days.start.0..question.days.end.0;
    Ok(days
        .map(|day| {
            let sums = rows.next_if(|row| row.day == day).map(|row| row.sums.into());
            Moment { day, sums: sums.unwrap_or_default() }
        })
        .collect())
}

/// Sums of each provider, service and so on, in this order, from the row `offset` on, at most `limit` and at
/// most [`ROWS_LIMIT`].
pub async fn by(
    store: &Store,
    question: &Question,
    dimension: Dimension,
    order: Order,
    (offset, limit): (u32, u32),
) -> Result<Vec<Share>, StoreError> {
    let direction = if order.descending { "DESC" } else { "ASC" };
    let ordered = match order.by {
        OrderBy::Cost => format!("cost_point_micros {direction}, tokens_point {direction}, id"),
        OrderBy::Tokens => format!("tokens_point {direction}, id"),
        OrderBy::Requests => format!("exchanges {direction}, id"),
        OrderBy::Name => format!("name {direction}, id"),
    };
    let page = format!("ORDER BY {ordered} LIMIT {} OFFSET {offset}", limit.min(ROWS_LIMIT));
    // A name is looked up for the rows that are shown, unless they are in its order.
    let (inner, outer) = match order.by {
        OrderBy::Name => (String::new(), page),
        _ => (page, format!("ORDER BY {ordered}")),
    };
    let text = format!(
        "WITH sums AS (
            SELECT u.{} AS id, {} FROM {} u WHERE {} GROUP BY u.{} {inner}
         )
         SELECT sums.*, {} AS name FROM sums {outer}",
        dimension.column(),
        columns(),
        question.table(Some(dimension)),
        question.condition(),
        dimension.column(),
        dimension.name(),
    );
    let rows: Vec<ShareRow> = question.bind(text).fetch_all(store.reporter()).await?;
    Ok(rows.into_iter().map(|row| Share { id: row.id, name: row.name, sums: row.sums.into() }).collect())
}

/// The columns of [`SumsRow`], and one to order by. A hostile device's rows could make a sum of integers
/// overflow, which is an error and would be the whole organisation's; one of doubles is exact up to 2^53
/// and large beyond.
fn columns() -> String {
    let sum = |column: &&str| {
        format!("CAST(COALESCE(SUM(CAST(u.{column} AS DOUBLE PRECISION)), 0) AS BIGINT) AS {column}")
    };
    let mut columns: Vec<_> = NUMBERS.iter().map(sum).collect();
    columns.push(
        "COALESCE(SUM(CAST(u.tokens_in_point AS DOUBLE PRECISION) + u.tokens_out_point), 0) AS tokens_point"
            .to_owned(),
    );
    columns.join(", ")
}

#[derive(FromRow)]
struct SumsRow {
    blocked: i64,
    exchanges: i64,
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
}

#[derive(FromRow)]
struct DayRow {
    day: i64,
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
        let interval = |low, point, high| Interval { low, point, high };
        Self {
            tokens_in: interval(row.tokens_in_low, row.tokens_in_point, row.tokens_in_high),
            tokens_out: interval(row.tokens_out_low, row.tokens_out_point, row.tokens_out_high),
            cost_micros: interval(row.cost_low_micros, row.cost_point_micros, row.cost_high_micros),
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
    use crate::period::Day;

    const DAY: i64 = 20_000;

    async fn book(house: &House, organisation: &str, device: &str, day: i64, tokens: i64, priced: bool) {
        let department = device.replace('d', "g");
        let mut transaction = house.store.begin().await.expect("a transaction");
        let sums = "0, 1, 0, 0, 0, $6 - 1, $6, $6 + 1, $7, $7 * 2, $7 * 3, $8";
        for text in [
            format!("INSERT INTO usage_daily VALUES ($1, $5, $2, '', $3, 'openai', $4, '', {sums})"),
            format!("INSERT INTO usage_daily_by_service VALUES ($1, $5, $2, 'openai', $4, '', {sums})"),
            format!(
                "INSERT INTO usage_daily_by_device SELECT $1, $5, $2, '', $3, {sums} WHERE $4 <> '' ON CONFLICT DO NOTHING"
            ),
        ] {
            sqlx::query(AssertSqlSafe(text))
                .bind(organisation)
                .bind(&department)
                .bind(device)
                .bind(if priced { "api" } else { "chat" })
                .bind(day)
                .bind(tokens)
                .bind(if priced { 5_i64 } else { 0 })
                .bind(if priced { 0 } else { tokens })
                .execute(&mut *transaction)
                .await
                .expect("usage");
        }
        transaction.commit().await.expect("committed");
    }

    fn asked(organisation: &str, days: std::ops::Range<i64>) -> Question {
        let days = Days { start: Day(days.start), end: Day(days.end) };
        Question { organisation: organisation.to_owned(), days, only: Vec::new() }
    }

    async fn rows(house: &House, question: &Question, dimension: Dimension, order: Order) -> Vec<Share> {
        by(&house.store, question, dimension, order, (0, 100)).await.expect("rows")
    }

    #[tokio::test]
    async fn sums_keep_low_point_and_high_and_what_is_unpriced() {
        let house = house().await;
        book(&house, "o1", "d1", DAY, 100, true).await;
        book(&house, "o1", "d1", DAY + 1, 50, false).await;
        let sums = total(&house.store, &asked("o1", DAY..DAY + 2)).await.expect("sums");
        assert_eq!(sums.tokens(), Interval { low: 148, point: 150, high: 152 });
        assert_eq!(sums.cost_micros, Interval { low: 5, point: 10, high: 15 });
        assert_eq!(sums.tokens_unpriced, 50);
        assert!(!sums.is_unpriced());
    }

    #[tokio::test]
    async fn an_empty_ledger_sums_to_nothing_and_every_day_has_its_moment() {
        let house = house().await;
        assert_eq!(total(&house.store, &asked("o1", 0..DAY)).await.expect("sums"), Sums::default());
        book(&house, "o1", "d1", DAY - 2, 7, true).await;
        book(&house, "o1", "d1", DAY, 100, true).await;
        let days = by_day(&house.store, &asked("o1", DAY - 3..DAY + 2)).await.expect("days");
        let points: Vec<_> = days.iter().map(|day| (day.day - DAY, day.sums.tokens_out.point)).collect();
        assert_eq!(points, [(-3, 0), (-2, 7), (-1, 0), (0, 100), (1, 0)]);
    }

    #[tokio::test]
    async fn no_answer_has_a_row_of_another_organisation() {
        let house = house().await;
        book(&house, "o1", "d1", DAY, 100, true).await;
        book(&house, "o2", "d2", DAY, 900, true).await;
        // A row that names another organisation's department and device must not lend their names.
        book(&house, "o1", "d2", DAY, 1, false).await;
        let question = asked("o1", DAY..DAY + 1);
        assert_eq!(total(&house.store, &question).await.expect("total").tokens().point, 101);
        assert_eq!(by_day(&house.store, &question).await.expect("days")[0].sums.tokens().point, 101);
        let providers = rows(&house, &question, Dimension::Provider, DEAREST).await;
        assert_eq!(providers[0].sums.tokens().point, 101);
        let names = |shares: Vec<Share>| shares.into_iter().map(|share| share.name).collect::<Vec<_>>();
        let departments = rows(&house, &question, Dimension::Department, DEAREST).await;
        assert_eq!(names(departments), [Some("Dept g1".to_owned()), None]);
        let devices = rows(&house, &question, Dimension::Device, DEAREST).await;
        assert_eq!(names(devices), [Some("host-d1".to_owned()), None]);
        assert_eq!(total(&house.store, &asked("nobody", DAY..DAY + 1)).await.expect("none"), Sums::default());
    }

    #[tokio::test]
    async fn a_filter_leaves_what_it_names_whichever_table_answers() {
        let house = house().await;
        book(&house, "o1", "d1", DAY, 100, true).await;
        book(&house, "o1", "d3", DAY, 30, true).await;
        book(&house, "o1", "d3", DAY, 8, false).await;
        let only = |dimension, ids: &[&str]| Question {
            only: vec![(dimension, ids.iter().map(|&id| id.to_owned()).collect())],
            ..asked("o1", DAY..DAY + 1)
        };
        let points = |shares: Vec<Share>| -> Vec<_> {
            shares.into_iter().map(|share| (share.id, share.sums.tokens().point)).collect()
        };
        let device = only(Dimension::Device, &["d3"]);
        assert_eq!(total(&house.store, &device).await.expect("total").tokens().point, 30);
        let named = [("api".to_owned(), 30), ("chat".to_owned(), 8)];
        assert_eq!(points(rows(&house, &device, Dimension::Service, DEAREST).await), named);
        let service = only(Dimension::Service, &["chat", "nothing"]);
        let named = [("d3".to_owned(), 8)];
        assert_eq!(points(rows(&house, &service, Dimension::Device, DEAREST).await), named);
        let nothing = only(Dimension::Department, &[]);
        assert_eq!(total(&house.store, &nothing).await.expect("total"), Sums::default());
    }

    #[tokio::test]
    async fn rows_come_in_the_order_that_is_asked_for_and_in_pages() {
        let house = house().await;
        for (device, tokens) in [("d1", 5), ("d3", 9), ("d4", 7)] {
            book(&house, "o1", device, DAY, tokens, false).await;
        }
        let question = asked("o1", DAY..DAY + 1);
        let ids = async |order: Order, page| {
            let rows = by(&house.store, &question, Dimension::Device, order, page).await.expect("rows");
            rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        let order = |by, descending| Order { by, descending };
        assert_eq!(ids(DEAREST, (0, 9)).await, ["d3", "d4", "d1"]);
        assert_eq!(ids(order(OrderBy::Tokens, false), (0, 2)).await, ["d1", "d4"]);
        assert_eq!(ids(order(OrderBy::Tokens, true), (2, 2)).await, ["d1"]);
        assert_eq!(ids(order(OrderBy::Name, false), (0, 9)).await, ["d3", "d4", "d1"], "unnamed first");
        assert_eq!(ids(order(OrderBy::Requests, false), (0, 9)).await, ["d1", "d3", "d4"]);
    }

    #[tokio::test]
    async fn sums_beyond_every_number_are_a_page_all_the_same() {
        let house = house().await;
        for day in 0..4 {
            book(&house, "o1", "d1", DAY + day, i64::MAX / 4, false).await;
        }
        let question = asked("o1", DAY..DAY + 4);
        let sums = total(&house.store, &question).await.expect("sums");
        assert!(sums.tokens_out.point >= i64::MAX / 4 * 3);
        assert_eq!(rows(&house, &question, Dimension::Device, DEAREST).await.len(), 1);
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
    async fn an_answer_reads_the_days_of_its_organisation_by_index_from_the_smallest_table() {
        let house = house().await;
        for (dimension, table) in [
            (Dimension::Provider, "usage_daily_by_service"),
            (Dimension::Application, "usage_daily_by_service"),
            (Dimension::Department, "usage_daily_by_service"),
            (Dimension::User, "usage_daily_by_device"),
            (Dimension::Device, "usage_daily_by_device"),
        ] {
            let question = asked("o1", 1..2);
            assert_eq!(question.table(Some(dimension)), table);
            let text = format!(
                "EXPLAIN QUERY PLAN SELECT SUM(u.exchanges) FROM {table} u WHERE {}",
                question.condition()
            );
            let plan: Vec<(i64, i64, i64, String)> =
                question.bind(text).fetch_all(house.store.reporter()).await.expect("a plan");
            let text = &plan[0].3;
            assert!(text.starts_with("SEARCH") && text.contains("day>? AND day<?"), "{text}");
        }
        let mixed = Question { only: vec![(Dimension::User, vec![])], ..asked("o1", 1..2) };
        assert_eq!(mixed.table(Some(Dimension::Service)), "usage_daily");
    }
}
