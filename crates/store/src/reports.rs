//! What the console shows, read from the ledger's hourly sums. Every statement is scoped to
//! one organisation, and nothing here writes. Sums keep the estimate's interval: lows are
//! added to lows and highs to highs, which assumes that the errors of the parts never cancel,
//! so an interval is at its widest. Hours and days are UTC.

use sqlx::FromRow;

use crate::{Store, StoreError};

/// Most rows of one breakdown; the rest is left to the totals.
pub const BREAKDOWN_ROWS: i64 = 100;

/// Most devices on one page of the list.
pub const DEVICES_PER_PAGE: i64 = 100;

/// The hours from `start` up to, not including, `end`, as Unix hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// First hour.
    pub start: i64,
    /// The hour after the last.
    pub end: i64,
}

/// An estimate: the truth is expected between `low` and `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Lower bound.
    pub low: i64,
    /// Best guess.
    pub point: i64,
    /// Upper bound.
    pub high: i64,
}

/// Sums over some part of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Tokens sent.
    pub tokens_in: Interval,
    /// Tokens received.
    pub tokens_out: Interval,
    /// Cost of the priced tokens, micro-dollars.
    pub cost_micros: Interval,
    /// Tokens (point estimates, both directions) that have no price.
    pub tokens_unpriced: i64,
    /// Requests and their replies.
    pub exchanges: i64,
    /// Attempts that were blocked.
    pub blocked: i64,
}

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

/// How many devices there are, and what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Fleet {
    /// Devices that ever enrolled.
    pub devices: i64,
    /// Of these, the revoked.
    pub revoked: i64,
    /// Of these, the ones seen since a given time.
    pub seen: i64,
    /// Of these, the ones with a lock or a block in force.
    pub held: i64,
}

/// One device as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Device {
    /// UUID.
    pub id: String,
    /// As the device said at enrolment.
    pub hostname: String,
    /// Operating system.
    pub platform: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Department's name.
    pub department: Option<String>,
    /// User's address.
    pub user: Option<String>,
    /// `enrolled`, `revoked`.
    pub state: String,
    /// Unix seconds.
    pub enrolled_at: i64,
    /// Unix seconds.
    pub last_seen_at: Option<i64>,
    /// End of the newest certificate, Unix seconds.
    pub certificate_until: Option<i64>,
    /// Highest sequence number up to which every event is stored.
    pub acknowledged_sequence: i64,
    /// The newest directive.
    pub directive_version: i64,
    /// The directive that the device says it applies.
    pub directive_applied: Option<i64>,
    /// An administrator's lock is in force when some.
    pub lock_message: Option<String>,
    /// A block is in force when some: `budget`, `provider`.
    pub block_reason: Option<String>,
}

impl Hours {
    /// The `days` days that end with the hour `now` (inclusive): today and the days before it.
    pub fn last_days(days: i64, now: i64) -> Self {
        let tomorrow = now.div_euclid(24) + 1;
        Self { start: (tomorrow - days) * 24, end: tomorrow * 24 }
    }

    /// As many hours just before, up to where the hour `now` lies in these: a period that is
    /// under way is compared with the same stretch of the one before.
    pub fn previous(self, now: i64) -> Self {
        let length = self.end - self.start;
        Self { start: self.start - length, end: (now + 1).min(self.end) - length }
    }
}

impl Interval {
    /// Adds bound to bound, saturating.
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            point: self.point.saturating_add(other.point),
            high: self.high.saturating_add(other.high),
        }
    }

    /// What is left of a sum without one of its parts, bound by bound.
    pub fn minus(self, part: Self) -> Self {
        Self {
            low: self.low.saturating_sub(part.low),
            point: self.point.saturating_sub(part.point),
            high: self.high.saturating_sub(part.high),
        }
    }
}

impl Sums {
    /// Tokens of both directions.
    pub fn tokens(&self) -> Interval {
        self.tokens_in.plus(self.tokens_out)
    }

    /// What is left of a total without one of its parts.
    pub fn minus(&self, part: Self) -> Self {
        Self {
            tokens_in: self.tokens_in.minus(part.tokens_in),
            tokens_out: self.tokens_out.minus(part.tokens_out),
            cost_micros: self.cost_micros.minus(part.cost_micros),
            tokens_unpriced: self.tokens_unpriced.saturating_sub(part.tokens_unpriced),
            exchanges: self.exchanges.saturating_sub(part.exchanges),
            blocked: self.blocked.saturating_sub(part.blocked),
        }
    }

    /// Tokens were used and none of them has a price.
    pub fn is_unpriced(&self) -> bool {
        self.tokens_unpriced > 0 && self.tokens_unpriced >= self.tokens().point
    }
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
    .fetch_one(store.reader())
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
    .fetch_all(store.reader())
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

/// Counts the devices; `since` is in Unix seconds.
pub async fn fleet(store: &Store, organisation_id: &str, since: i64) -> Result<Fleet, StoreError> {
    sqlx::query_as(
        "SELECT COUNT(*) AS devices,
                COUNT(CASE WHEN state = 'revoked' THEN 1 END) AS revoked,
                COUNT(CASE WHEN last_seen_at >= $2 THEN 1 END) AS seen,
                COUNT(CASE WHEN lock_message IS NOT NULL OR block_reason IS NOT NULL THEN 1 END) AS held
         FROM devices WHERE organisation_id = $1",
    )
    .bind(organisation_id)
    .bind(since)
    .fetch_one(store.reader())
    .await
    .map_err(StoreError::from)
}

/// One page of the devices by name, page 0 first.
pub async fn devices(store: &Store, organisation_id: &str, page: i64) -> Result<Vec<Device>, StoreError> {
    sqlx::query_as(
        "SELECT d.id, d.hostname, d.platform, d.agent_version, g.name AS department, p.email AS \"user\",
                d.state, d.enrolled_at, d.last_seen_at,
                (SELECT MAX(c.not_after) FROM certificates c WHERE c.device_id = d.id) AS certificate_until,
                d.acknowledged_sequence, d.directive_version, d.directive_applied,
                d.lock_message, d.block_reason
         FROM devices d
         LEFT JOIN departments g ON g.id = d.department_id AND g.organisation_id = d.organisation_id
         LEFT JOIN users p ON p.id = d.user_id AND p.organisation_id = d.organisation_id
         WHERE d.organisation_id = $1
         ORDER BY d.hostname, d.id LIMIT $2 OFFSET $3",
    )
    .bind(organisation_id)
    .bind(DEVICES_PER_PAGE)
    .bind(page.max(0).saturating_mul(DEVICES_PER_PAGE))
    .fetch_all(store.reader())
    .await
    .map_err(StoreError::from)
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
        .fetch_all(store.reader())
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

/// The columns of [`SumsRow`]. A sum of BIGINT is NUMERIC on PostgreSQL, hence the casts.
macro_rules! sums {
    () => {
        "CAST(COALESCE(SUM(u.tokens_in_low), 0) AS BIGINT) AS tokens_in_low,
         CAST(COALESCE(SUM(u.tokens_in_point), 0) AS BIGINT) AS tokens_in_point,
         CAST(COALESCE(SUM(u.tokens_in_high), 0) AS BIGINT) AS tokens_in_high,
         CAST(COALESCE(SUM(u.tokens_out_low), 0) AS BIGINT) AS tokens_out_low,
         CAST(COALESCE(SUM(u.tokens_out_point), 0) AS BIGINT) AS tokens_out_point,
         CAST(COALESCE(SUM(u.tokens_out_high), 0) AS BIGINT) AS tokens_out_high,
         CAST(COALESCE(SUM(u.cost_low_micros), 0) AS BIGINT) AS cost_low_micros,
         CAST(COALESCE(SUM(u.cost_point_micros), 0) AS BIGINT) AS cost_point_micros,
         CAST(COALESCE(SUM(u.cost_high_micros), 0) AS BIGINT) AS cost_high_micros,
         CAST(COALESCE(SUM(u.tokens_unpriced), 0) AS BIGINT) AS tokens_unpriced,
         CAST(COALESCE(SUM(u.exchanges), 0) AS BIGINT) AS exchanges,
         CAST(COALESCE(SUM(u.blocked), 0) AS BIGINT) AS blocked,
         COALESCE(SUM(u.tokens_in_point + u.tokens_out_point), 0) AS tokens_point"
    };
}
use sums;

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

    const DAY: i64 = 20_000;

    struct House {
        store: Store,
        _directory: tempfile::TempDir,
    }

    impl House {
        /// Writes rows that other rooms would; `parameters` are bound as texts.
        async fn write(&self, sql: &'static str, parameters: &[&str]) {
            let mut transaction = self.store.begin().await.expect("a transaction");
            let mut query = sqlx::query(sql);
            for parameter in parameters {
                query = query.bind(*parameter);
            }
            query.execute(&mut *transaction).await.expect("a row");
            transaction.commit().await.expect("committed");
        }
    }

    async fn house() -> House {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("toktra.db")).await.expect("a database");
        let house = House { store, _directory: directory };
        for (organisation, department, device) in [("o1", "g1", "d1"), ("o2", "g2", "d2")] {
            house.write("INSERT INTO organisations VALUES ($1, $1, 0)", &[organisation]).await;
            house
                .write(
                    "INSERT INTO departments (id, organisation_id, name, created_at)
                     VALUES ($2, $1, 'Dept ' || $2, 0)",
                    &[organisation, department],
                )
                .await;
            house
                .write(
                    "INSERT INTO devices (id, organisation_id, department_id, hostname, platform, agent_version,
                                          state, enrolled_at, acknowledged_sequence, directive_version)
                     VALUES ($3, $1, $2, 'host-' || $3, 'linux', '0.1.0', 'enrolled', 0, 7, 1)",
                    &[organisation, department, device],
                )
                .await;
        }
        house
    }

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

    #[test]
    fn the_previous_period_goes_as_far_as_this_one_has_come() {
        let now = DAY * 24 + 11;
        let hours = Hours::last_days(7, now);
        assert_eq!(hours.end - hours.start, 7 * 24);
        let expected = Hours { start: hours.start - 7 * 24, end: now + 1 - 7 * 24 };
        assert_eq!(hours.previous(now), expected);
        let over = Hours { start: hours.start - 7 * 24, end: hours.start };
        assert_eq!(hours.previous(now + 1_000), over);
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
        let listed = devices(&house.store, "o1", 0).await.expect("list");
        assert_eq!(listed.iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), ["d1"]);
        assert_eq!(fleet(&house.store, "o1", 0).await.expect("fleet").devices, 1);
        assert_eq!(total(&house.store, "nobody", hours).await.expect("total"), Sums::default());
    }

    #[tokio::test]
    async fn a_device_shows_its_newest_certificate_and_its_holds() {
        let house = house().await;
        for (serial, until) in [("01", "10"), ("02", "30"), ("03", "20")] {
            house
                .write(
                    "INSERT INTO certificates VALUES ($1, 'd1', 'i', 0, CAST($2 AS BIGINT), '')",
                    &[serial, until],
                )
                .await;
        }
        house
            .write("UPDATE devices SET block_reason = 'budget', last_seen_at = 50 WHERE id = 'd1'", &[])
            .await;
        let device = &devices(&house.store, "o1", 0).await.expect("list")[0];
        assert_eq!(device.certificate_until, Some(30));
        assert_eq!(device.department.as_deref(), Some("Dept g1"));
        assert_eq!(device.user, None);
        let fleet = fleet(&house.store, "o1", 50).await.expect("fleet");
        assert_eq!(fleet, Fleet { devices: 1, revoked: 0, seen: 1, held: 1 });
    }
}
