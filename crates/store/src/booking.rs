//! The statements of the ledger: events as rows, hourly sums, the devices' positions. All
//! within a transaction that the caller commits.
//!
//! Invariants: of a batch, exactly the events beyond the device's acknowledged number are
//! booked, so that one sent twice counts once; a batch that starts beyond the next number
//! changes nothing. No sum exceeds [`SUM_LIMIT`], so that a hostile device cannot make a
//! later addition overflow, in the database or in a report over many rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Row as _, Sqlite, Transaction};
use toktra_protocol::{Ack, BlockReason, DeviceId, Estimate, Event, EventBody, NameSource, UnixSeconds};

use crate::ledger::{BookError, Cost, Entry, Sighting, Tariff};
use crate::period::Day;
use crate::price_mix::Declared;
use crate::retention::MERGED;
use crate::rollup::{self, Part, Rollup};
use crate::spend::{BatchSpend, DayOf, ScopeKey, Sheet, Spent, bounded};
use crate::terms::Terms;
use crate::{StoreError, alerts, column, note_change};

/// Largest sum in a row: 17.6 TB, or 17.6 million dollars, an hour.
pub(crate) const SUM_LIMIT: i64 = 1 << 44;

/// Books the batches in order; the answers are theirs, in the same order.
pub(crate) async fn book(
    transaction: &mut Transaction<'static, Sqlite>,
    terms: &mut Terms,
    tariff: &dyn Tariff,
    now: UnixSeconds,
    entries: &[Entry],
) -> Result<Vec<Result<Ack, BookError>>, StoreError> {
    terms.refresh(transaction).await?;
    let mut positions = positions(transaction, entries).await?;
    let organisations = positions.values().map(|position| &*position.organisation);
    let declared = Declared::read(transaction, organisations).await?;
    let mut answers = Vec::with_capacity(entries.len());
    let mut rows = Vec::new();
    let mut sums = BTreeMap::new();
    let mut rollup = Rollup::default();
    let mut sheet = Sheet::default();
    for entry in entries {
        let Some(position) = positions.get_mut(&entry.device) else {
            answers.push(Err(BookError::UnknownDevice));
            continue;
        };
        let answer = position.advance(entry);
        if let Ok(fresh) = &answer {
            let mut days = DayOf::new(terms.zone(&position.organisation), now);
            let mut spend = BatchSpend::default();
            for event in fresh.events {
                rows.push((position.id.clone(), event));
                let Some(account) = account(position, event) else { continue };
                let numbers = contribution((tariff, &declared), &position.organisation, event);
                let day = days.find(event.minute.start());
                rollup.add(account.part(position, day), &rolled_up(numbers));
                add(&mut sums, account, numbers);
                if matches!(event.body, EventBody::Usage(_)) {
                    spend.add(day, &spent(numbers));
                }
            }
            sheet.add(&position.scopes(terms), &spend);
        }
        answers.push(answer.map(|fresh| fresh.ack));
    }
    insert_events(transaction, now, &rows).await?;
    add_sums(transaction, &sums).await?;
    rollup.write(transaction).await?;
    sheet.write(transaction).await?;
    for position in positions.values().filter(|position| position.moved) {
        sqlx::query("UPDATE devices SET acknowledged_sequence = $2, last_seen_at = $3 WHERE id = $1")
            .bind(&*position.id)
            .bind(column(position.acknowledged))
            .bind(column(now.0))
            .execute(&mut **transaction)
            .await?;
    }
    alerts::settle(transaction, terms, sheet.scopes(), now).await?;
    Ok(answers)
}

/// Largest version of a directive that a device is believed to run.
const BELIEVED_VERSION: i64 = 1 << 40;

/// Notes when devices were last heard of, and which directive they run. A device that runs a
/// newer one than there is, because an older database was restored, would take no directive
/// any more; so the version grows beyond its.
pub(crate) async fn note_sightings(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    sightings: &[Sighting],
) -> Result<(), StoreError> {
    for sighting in sightings {
        let id = sighting.device.to_string();
        let applied = sighting.directive_applied.map(column);
        let version: Option<i64> = sqlx::query_scalar(
            "UPDATE devices SET last_seen_at = $2, directive_applied = COALESCE($3, directive_applied)
             WHERE id = $1 RETURNING directive_version",
        )
        .bind(&id)
        .bind(column(now.0))
        .bind(applied)
        .fetch_optional(&mut **transaction)
        .await?;
        let is_ahead =
            |&applied: &i64| applied <= BELIEVED_VERSION && version.is_some_and(|version| version < applied);
        let Some(applied) = applied.filter(is_ahead) else { continue };
        sqlx::query("UPDATE devices SET directive_version = $2 + 1 WHERE id = $1")
            .bind(&id)
            .bind(applied)
            .execute(&mut **transaction)
            .await?;
        note_change(transaction).await?;
    }
    Ok(())
}

/// Where a device stands in this transaction.
struct Position {
    id: Arc<str>,
    organisation: Arc<str>,
    department: Arc<str>,
    /// Empty: none.
    user: Arc<str>,
    acknowledged: u64,
    revoked: bool,
    moved: bool,
}

struct Fresh<'a> {
    events: &'a [Event],
    ack: Ack,
}

impl Position {
    fn advance<'a>(&mut self, entry: &'a Entry) -> Result<Fresh<'a>, BookError> {
        if self.revoked {
            return Err(BookError::Revoked);
        }
        let events = &entry.batch.events;
        let first = events.first().map_or(1, |event| event.sequence);
        if first > self.acknowledged.saturating_add(1) {
            return Err(BookError::Gap { first, acknowledged: self.acknowledged });
        }
        let known = events.partition_point(|event| event.sequence <= self.acknowledged);
        let fresh = &events[known..];
        if let Some(last) = fresh.last() {
            self.acknowledged = last.sequence;
            self.moved = true;
        }
        Ok(Fresh { events: fresh, ack: Ack { acknowledged: self.acknowledged } })
    }

    fn scopes(&self, terms: &Terms) -> Vec<ScopeKey> {
        let department = Some(&*self.department).filter(|id| !id.is_empty());
        let user = Some(&*self.user).filter(|id| !id.is_empty());
        terms.scopes(&self.organisation, department, user)
    }
}

/// Organisation, department, user, acknowledged number, state.
type PositionRow = (String, Option<String>, Option<String>, i64, String);

async fn positions(
    transaction: &mut Transaction<'static, Sqlite>,
    entries: &[Entry],
) -> Result<HashMap<DeviceId, Position>, StoreError> {
    let mut positions = HashMap::new();
    for entry in entries {
        if positions.contains_key(&entry.device) {
            continue;
        }
        let id = entry.device.to_string();
        let row: Option<PositionRow> = sqlx::query_as(
            "SELECT organisation_id, department_id, user_id, acknowledged_sequence, state
             FROM devices WHERE id = $1",
        )
        .bind(&id)
        .fetch_optional(&mut **transaction)
        .await?;
        let Some((organisation, department, user, acknowledged, state)) = row else { continue };
        let position = Position {
            id: id.into(),
            organisation: organisation.into(),
            department: department.unwrap_or_default().into(),
            user: user.unwrap_or_default().into(),
            acknowledged: u64::try_from(acknowledged)
                .map_err(|_| StoreError::Corrupt("devices.acknowledged_sequence"))?,
            revoked: state != "enrolled",
            moved: false,
        };
        positions.insert(entry.device, position);
    }
    Ok(positions)
}

const EVENT_COLUMNS: usize = 28;
/// Rows in a statement: few sizes, so that each is prepared once.
const CHUNKS: [usize; 3] = [128, 16, 1];

static INSERT_EVENTS: LazyLock<[Arc<str>; 3]> =
    LazyLock::new(|| CHUNKS.map(|rows| insert_events_text(rows).into()));

fn insert_events_text(rows: usize) -> String {
    let mut text = String::from(
        "INSERT INTO events (device_id, sequence, received_at, minute, kind, provider, service, host,
            name_source, user_account, application, exchanges, bytes_out, bytes_in, bytes_handshake,
            duration_s, streaming, partial, tokens_in_low, tokens_in_point, tokens_in_high,
            tokens_out_low, tokens_out_point, tokens_out_high, calibration, reason, cut, dropped) VALUES ",
    );
    // `?` and not `$1`: sqlx looks every named parameter up, and SQLite walks its list of
    // names for that, which makes thousands of names quadratic. PostgreSQL will number them.
    let row = format!("({})", vec!["?"; EVENT_COLUMNS].join(", "));
    text.push_str(&vec![row; rows].join(", "));
    text.push_str(" ON CONFLICT (device_id, sequence) DO NOTHING");
    text
}

async fn insert_events(
    transaction: &mut Transaction<'static, Sqlite>,
    now: UnixSeconds,
    mut rows: &[(Arc<str>, &Event)],
) -> Result<(), StoreError> {
    for (size, text) in CHUNKS.into_iter().zip(INSERT_EVENTS.iter()) {
        while rows.len() >= size {
            let (chunk, rest) = rows.split_at(size);
            let mut query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
            for (device, event) in chunk {
                query = bind_event(query, device, now, event);
            }
            query.execute(&mut **transaction).await?;
            rows = rest;
        }
    }
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

fn bind_event<'q>(query: Query<'q>, device: &'q str, now: UnixSeconds, event: &'q Event) -> Query<'q> {
    let query =
        query.bind(device).bind(column(event.sequence)).bind(column(now.0)).bind(column(event.minute.0));
    match &event.body {
        EventBody::Usage(usage) => {
            let query = query
                .bind("usage")
                .bind(&*usage.provider)
                .bind(&*usage.service)
                .bind(&*usage.host)
                .bind(name_source(usage.name_source))
                .bind(usage.user_account.as_deref())
                .bind(usage.application.as_deref())
                .bind(i64::from(usage.exchanges))
                .bind(column(usage.bytes_out))
                .bind(column(usage.bytes_in))
                .bind(column(usage.bytes_handshake))
                .bind(i64::from(usage.duration_s))
                .bind(i64::from(usage.streaming))
                .bind(i64::from(usage.partial));
            bind_estimate(bind_estimate(query, usage.tokens_in), usage.tokens_out)
                .bind(&*usage.calibration)
                .bind(None::<&str>)
                .bind(None::<i64>)
                .bind(None::<i64>)
        }
        EventBody::Blocked(blocked) => bind_nulls(
            query
                .bind("blocked")
                .bind(&*blocked.provider)
                .bind(&*blocked.service)
                .bind(&*blocked.host)
                .bind(name_source(blocked.name_source))
                .bind(blocked.user_account.as_deref())
                .bind(blocked.application.as_deref()),
            14,
        )
        .bind(block_reason(blocked.reason))
        .bind(i64::from(blocked.cut))
        .bind(None::<i64>),
        EventBody::Dropped(dropped) => bind_nulls(query.bind("dropped"), 20)
            .bind(&*dropped.place)
            .bind(None::<i64>)
            .bind(column(dropped.events)),
    }
}

fn bind_estimate(query: Query<'_>, estimate: Estimate) -> Query<'_> {
    query.bind(column(estimate.low)).bind(column(estimate.point)).bind(column(estimate.high))
}

fn bind_nulls(mut query: Query<'_>, count: usize) -> Query<'_> {
    for _ in 0..count {
        query = query.bind(None::<i64>);
    }
    query
}

fn name_source(source: NameSource) -> &'static str {
    match source {
        NameSource::Sni => "sni",
        NameSource::QuicSni => "quic_sni",
        NameSource::EchOuter => "ech_outer",
        NameSource::Asked => "asked",
        NameSource::Address => "address",
    }
}

fn block_reason(reason: BlockReason) -> &'static str {
    match reason {
        BlockReason::Budget => "budget",
        BlockReason::Lock => "lock",
        BlockReason::Provider => "provider",
    }
}

/// Whose sums these are; the primary key of `usage_hourly`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Account<'a> {
    organisation: Arc<str>,
    hour: i64,
    department: Arc<str>,
    device: Arc<str>,
    user_account: &'a str,
    application: &'a str,
    provider: &'a str,
    service: &'a str,
}

/// In the order of the table's columns.
const SUMS: [&str; 15] = [
    "events",
    "blocked",
    "exchanges",
    "bytes_out",
    "bytes_in",
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

type Sums = [i64; SUMS.len()];

impl<'a> Account<'a> {
    /// The same account, of a day.
    fn part(&self, position: &Position, day: Day) -> Part<'a> {
        Part {
            organisation: Arc::clone(&self.organisation),
            day,
            department: Arc::clone(&self.department),
            user: Arc::clone(&position.user),
            device: Arc::clone(&self.device),
            provider: self.provider,
            service: self.service,
            application: self.application,
        }
    }
}

/// The account that an event is booked to; none of what was dropped.
fn account<'a>(position: &Position, event: &'a Event) -> Option<Account<'a>> {
    let (provider, service, user_account, application) = match &event.body {
        EventBody::Usage(usage) => (&usage.provider, &usage.service, &usage.user_account, &usage.application),
        EventBody::Blocked(blocked) => {
            (&blocked.provider, &blocked.service, &blocked.user_account, &blocked.application)
        }
        EventBody::Dropped(_) => return None,
    };
    Some(Account {
        organisation: Arc::clone(&position.organisation),
        hour: column(event.minute.0 / 60),
        department: Arc::clone(&position.department),
        device: Arc::clone(&position.id),
        user_account: user_account.as_deref().unwrap_or_default(),
        application: application.as_deref().unwrap_or_default(),
        provider,
        service,
    })
}

/// Adds what an event says to the hourly sums.
fn add<'a>(sums: &mut BTreeMap<Account<'a>, Sums>, account: Account<'a>, numbers: [u64; SUMS.len()]) {
    let sums = sums.entry(account).or_insert([0; SUMS.len()]);
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum = sum.saturating_add(column(number)).min(SUM_LIMIT);
    }
}

/// What the sums by day have of an event.
fn rolled_up([_, blocked, exchanges, _, _, rest @ ..]: [u64; SUMS.len()]) -> rollup::Numbers {
    let mut numbers = [0; rollup::NUMBERS.len()];
    numbers[0] = blocked;
    numbers[1] = exchanges;
    numbers[2..].copy_from_slice(&rest);
    numbers
}

/// What a budget counts of an event.
fn spent(numbers: [u64; SUMS.len()]) -> Spent {
    let [_, _, _, _, _, in_low, in_point, in_high, out_low, out_point, out_high, rest @ ..] = numbers;
    let [micros_low, micros_point, micros_high, tokens_unpriced] = rest.map(bounded);
    Spent {
        tokens_low: bounded(in_low.saturating_add(out_low)),
        tokens_point: bounded(in_point.saturating_add(out_point)),
        tokens_high: bounded(in_high.saturating_add(out_high)),
        micros_low,
        micros_point,
        micros_high,
        tokens_unpriced,
    }
}

fn contribution(
    (tariff, declared): (&dyn Tariff, &Declared),
    organisation: &str,
    event: &Event,
) -> [u64; SUMS.len()] {
    let EventBody::Usage(usage) = &event.body else {
        let mut blocked = [0; SUMS.len()];
        blocked[0] = 1;
        blocked[1] = 1;
        return blocked;
    };
    let (tokens_in, tokens_out) = (usage.tokens_in, usage.tokens_out);
    let mix = declared.shares(organisation, &usage.service);
    let cost = tariff.cost(mix, &usage.service, event.minute.start(), tokens_in, tokens_out);
    let unpriced = if cost.is_some() { 0 } else { tokens_in.point.saturating_add(tokens_out.point) };
    let cost = cost.unwrap_or(Cost::default());
    [
        1,
        0,
        usage.exchanges.into(),
        usage.bytes_out,
        usage.bytes_in,
        tokens_in.low,
        tokens_in.point,
        tokens_in.high,
        tokens_out.low,
        tokens_out.point,
        tokens_out.high,
        cost.low_micros,
        cost.point_micros,
        cost.high_micros,
        unpriced,
    ]
}

static ADD_SUMS: LazyLock<Arc<str>> = LazyLock::new(|| add_sums_text().into());

fn add_sums_text() -> String {
    let names = SUMS.join(", ");
    let places: Vec<_> = (1..=8 + SUMS.len()).map(|number| format!("${number}")).collect();
    let places = places.join(", ");
    let updates: Vec<_> = SUMS
        .iter()
        .map(|name| {
            format!(
                "{name} = CASE WHEN usage_hourly.{name} > {SUM_LIMIT} - excluded.{name} THEN {SUM_LIMIT}
                    ELSE usage_hourly.{name} + excluded.{name} END"
            )
        })
        .collect();
    let updates = updates.join(", ");
    format!(
        "INSERT INTO usage_hourly (organisation_id, hour, department_id, device_id, user_account,
            application, provider, service, {names}) VALUES ({places})
         ON CONFLICT (organisation_id, hour, department_id, device_id, user_account, application,
            provider, service) DO UPDATE SET {updates}"
    )
}

async fn add_sums(
    transaction: &mut Transaction<'static, Sqlite>,
    sums: &BTreeMap<Account<'_>, Sums>,
) -> Result<(), StoreError> {
    for (account, sums) in sums {
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&ADD_SUMS)))
            .bind(&*account.organisation)
            .bind(account.hour)
            .bind(&*account.department)
            .bind(&*account.device)
            .bind(account.user_account)
            .bind(account.application)
            .bind(account.provider)
            .bind(account.service);
        for &sum in sums {
            query = query.bind(sum);
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Adds up an organisation's sums of hours before this one, at most so many: of each device and
/// department one row is left, without account, application, provider, service or hour. Returns how
/// many rows were taken.
pub(crate) async fn merge_hours(
    transaction: &mut Transaction<'static, Sqlite>,
    organisation: &str,
    hour: i64,
    most: usize,
) -> Result<usize, StoreError> {
    let rows = sqlx::query(AssertSqlSafe(Arc::clone(&TAKE_HOURS)))
        .bind(organisation)
        .bind(MERGED)
        .bind(hour)
        .bind(column(most as u64))
        .fetch_all(&mut **transaction)
        .await?;
    let organisation: Arc<str> = organisation.into();
    let mut merged: BTreeMap<Account<'_>, Sums> = BTreeMap::new();
    for row in &rows {
        let account = Account {
            organisation: Arc::clone(&organisation),
            hour: MERGED,
            department: row.try_get::<String, _>(0)?.into(),
            device: row.try_get::<String, _>(1)?.into(),
            user_account: "",
            application: "",
            provider: "",
            service: "",
        };
        let sums = merged.entry(account).or_insert([0; SUMS.len()]);
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum = sum.saturating_add(row.try_get(place + 2)?).min(SUM_LIMIT);
        }
    }
    add_sums(transaction, &merged).await?;
    Ok(rows.len())
}

static TAKE_HOURS: LazyLock<Arc<str>> = LazyLock::new(|| {
    let key = "organisation_id, hour, department_id, device_id, user_account, application, provider, service";
    let sums = SUMS.join(", ");
    format!(
        "DELETE FROM usage_hourly WHERE ({key}) IN (SELECT {key} FROM usage_hourly
            WHERE organisation_id = $1 AND hour > $2 AND hour < $3 ORDER BY {key} LIMIT $4)
         RETURNING department_id, device_id, {sums}"
    )
    .into()
});
