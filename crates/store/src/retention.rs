//! The end of what is not kept for good: raw events, hourly and daily sums, and whatever has been
//! decided, has expired or is over.
//!
//! | what | its end |
//! | --- | --- |
//! | events | [`Settings::events_days`] after they came |
//! | hourly sums | [`Settings::usage_days`] after their hour: added up, one row for each device and department |
//! | daily sums by department, user, device, service and application | [`Settings::usage_days`] after their day |
//! | daily sums of budgets | [`SPEND_DAYS`] after their day: added up, one row for each scope |
//! | sessions | when they expire |
//! | enrolment tokens and requests | [`ENROLMENT_DAYS`] after the token's expiry and the request's decision (without one: after it came) |
//! | budget alerts, exemptions | [`BUDGET_DAYS`] after they were noted or are over; an undecided one [`WAITING_DAYS`] after it came |
//!
//! The audit trail has no end: it is a chain.
//!
//! Invariants: a sweep may be broken off, repeated, and run by several servers at once: every
//! transaction takes at most [`ROWS`] rows and notes what it took in the same moment, so that
//! `toktra-server check` balances before, between and after. A time of the server's decides, never
//! one that a device claims, except for sums, which have no other.

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;
use toktra_protocol::UnixSeconds;

use crate::audit::{Deed, record};
use crate::directory::{self, Organisation};
use crate::{Store, StoreError, booking, column, rollup, spend};

/// Days that raw events are kept, unless the organisation says otherwise.
pub const EVENTS_DAYS: u32 = 30;
/// Days that hourly sums are kept, unless the organisation says otherwise: 25 months.
pub const USAGE_DAYS: u32 = 761;
/// Days that daily sums are kept: this year's annual budget and what the last one left, 25 months.
pub const SPEND_DAYS: u32 = 761;
/// Days that an expired token is kept, and a decided request by one.
pub const ENROLMENT_DAYS: u32 = 90;
/// Days that alerts and exemptions are kept that are over: longer than any budget's period.
pub const BUDGET_DAYS: u32 = 400;
/// Days that a request for an exemption waits for a decision.
pub const WAITING_DAYS: u32 = 90;
/// Months that sealed personal records are kept, unless the organisation says otherwise.
pub const PERSONAL_MONTHS: u32 = 13;
/// What [`Settings::events_days`] may be.
pub const EVENTS_RANGE: std::ops::RangeInclusive<u32> = 1..=366;
/// What [`Settings::usage_days`] may be.
pub const USAGE_RANGE: std::ops::RangeInclusive<u32> = 31..=3653;
/// What [`Settings::personal_months`] may be.
pub const PERSONAL_RANGE: std::ops::RangeInclusive<u32> = 1..=120;
/// Most rows that one transaction takes: some milliseconds.
pub const ROWS: usize = 500;

/// The hour, and the day, of sums over everything that has passed its time.
pub(crate) const MERGED: i64 = -1_000_000;
const DAY_S: u64 = 24 * 60 * 60;
/// No sum of what was taken grows beyond, so that no addition overflows.
const TAKEN_LIMIT: i64 = 1 << 60;

/// How long an organisation's data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Days that raw events are kept, counted from when they came.
    pub events_days: u32,
    /// Days that hourly sums by account, application and service are kept.
    pub usage_days: u32,
    /// Months that sealed personal records are kept in the vault, after the one in which they came.
    pub personal_months: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { events_days: EVENTS_DAYS, usage_days: USAGE_DAYS, personal_months: PERSONAL_MONTHS }
    }
}

impl Settings {
    /// Whether all lie in their ranges, and sums are kept for as long as what they sum up.
    pub fn are_possible(&self) -> bool {
        EVENTS_RANGE.contains(&self.events_days)
            && USAGE_RANGE.contains(&self.usage_days)
            && self.events_days <= self.usage_days
            && PERSONAL_RANGE.contains(&self.personal_months)
    }
}

/// An organisation's settings.
pub async fn settings(store: &Store, organisation: &Organisation) -> Result<Settings, StoreError> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT events_days, usage_days, personal_months FROM retention WHERE organisation_id = $1",
    )
    .bind(&organisation.id)
    .fetch_optional(store.reader())
    .await?;
    let Some((events, usage, personal)) = row else { return Ok(Settings::default()) };
    let whole = |number: i64| u32::try_from(number).map_err(|_| StoreError::Corrupt("retention"));
    Ok(Settings { events_days: whole(events)?, usage_days: whole(usage)?, personal_months: whole(personal)? })
}

/// Changes them; [possible](Settings::are_possible) ones only. The next sweep acts on them.
pub async fn set(
    store: &Store,
    organisation: &Organisation,
    settings: Settings,
    actor: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    if !settings.are_possible() {
        return Err(StoreError::Corrupt("retention"));
    }
    let mut transaction = store.begin().await?;
    sqlx::query(
        "INSERT INTO retention (organisation_id, events_days, usage_days, personal_months)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (organisation_id) DO UPDATE SET events_days = excluded.events_days,
            usage_days = excluded.usage_days, personal_months = excluded.personal_months",
    )
    .bind(&organisation.id)
    .bind(i64::from(settings.events_days))
    .bind(i64::from(settings.usage_days))
    .bind(i64::from(settings.personal_months))
    .execute(&mut *transaction)
    .await?;
    let Settings { events_days, usage_days, personal_months } = settings;
    let detail =
        format!("events {events_days} days, usage {usage_days} days, personal {personal_months} months");
    let deed = Deed {
        organisation: Some(&organisation.id),
        actor,
        action: "retention_set",
        subject: &organisation.name,
        detail: &detail,
    };
    record(&mut transaction, now, deed).await?;
    transaction.commit().await?;
    Ok(())
}

/// How many rows a sweep took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Raw events, deleted.
    pub events: u64,
    /// Hourly sums, added up.
    pub hours: u64,
    /// Daily sums, added up.
    pub days: u64,
    /// Daily sums of the console's pages, deleted.
    pub rollups: u64,
    /// Sessions, requests, tokens, alerts and exemptions, deleted.
    pub others: u64,
}

impl Swept {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends everything that has passed its time, in many small transactions with a `pause` after each.
pub async fn sweep(store: &Store, now: UnixSeconds, pause: Duration) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for organisation in directory::organisations(store).await? {
        let settings = settings(store, &organisation).await?;
        let devices: Vec<String> =
            sqlx::query_scalar("SELECT id FROM devices WHERE organisation_id = $1 ORDER BY id")
                .bind(&organisation.id)
                .fetch_all(store.reader())
                .await?;
        for device in devices {
            swept.events += sweep_events(store, &device, settings.events_days, now, pause).await?;
        }
        let hour = before(now, settings.usage_days) / 3600;
        swept.hours += repeat(pause, || merge_hours(store, &organisation.id, hour)).await?;
        let day = before(now, settings.usage_days) / DAY_S.cast_signed();
        swept.rollups += repeat(pause, || delete_days(store, &organisation.id, day)).await?;
        let day = before(now, SPEND_DAYS) / DAY_S.cast_signed();
        swept.days += repeat(pause, || merge_days(store, &organisation.id, day)).await?;
    }
    for (statement, days) in ENDS {
        swept.others += repeat(pause, || end(store, statement, before(now, days))).await?;
    }
    Ok(swept)
}

/// The second that lies so many days back.
fn before(now: UnixSeconds, days: u32) -> i64 {
    column(now.0.saturating_sub(u64::from(days) * DAY_S))
}

/// Repeats a transaction until it finds less than it may take.
async fn repeat<F>(pause: Duration, step: impl Fn() -> F) -> Result<u64, StoreError>
where
    F: Future<Output = Result<usize, StoreError>>,
{
    let mut all = 0;
    loop {
        let rows = step().await?;
        all += rows as u64;
        if rows > 0 {
            tokio::time::sleep(pause).await;
        }
        if rows < ROWS {
            return Ok(all);
        }
    }
}

/// What the rows of a device cannot tell any more.
#[derive(Clone, Copy, Debug, Default, FromRow)]
struct Taken {
    events: i64,
    last_sequence: i64,
    bookable: i64,
    bytes: i64,
    exchanges: i64,
}

/// Number, kind, bytes of both directions, exchanges.
type EventRow = (i64, String, Option<i64>, Option<i64>, Option<i64>);

impl Taken {
    fn add(&mut self, (sequence, kind, bytes_out, bytes_in, exchanges): &EventRow) {
        let add = |sum: &mut i64, number: i64| *sum = sum.saturating_add(number).min(TAKEN_LIMIT);
        add(&mut self.events, 1);
        add(&mut self.bookable, i64::from(kind != "dropped"));
        add(&mut self.bytes, bytes_out.unwrap_or_default());
        add(&mut self.bytes, bytes_in.unwrap_or_default());
        add(&mut self.exchanges, exchanges.unwrap_or_default());
        self.last_sequence = self.last_sequence.max(*sequence);
    }
}

/// Goes through a device's oldest events for as long as there are some to end.
async fn sweep_events(
    store: &Store,
    device: &str,
    days: u32,
    now: UnixSeconds,
    pause: Duration,
) -> Result<u64, StoreError> {
    let (old, now) = (before(now, days), column(now.0));
    let (mut after, mut all) = (0, 0);
    loop {
        let page: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT sequence, received_at FROM events WHERE device_id = $1 AND sequence > $2
             ORDER BY sequence LIMIT $3",
        )
        .bind(device)
        .bind(after)
        .bind(column(ROWS as u64))
        .fetch_all(store.reader())
        .await?;
        let Some(&(last, last_received)) = page.last() else { return Ok(all) };
        if page.iter().any(|&(_, received)| received < old) {
            all += take_events(store, device, (after, last), old).await?;
            tokio::time::sleep(pause).await;
        } else if last_received <= now {
            // They came in the order of their numbers; only a clock that was ahead hides older ones behind.
            return Ok(all);
        }
        after = last;
    }
}

/// Deletes a device's events that came before `old` and have numbers from the first (left out) to the second.
async fn take_events(
    store: &Store,
    device: &str,
    (after, last): (i64, i64),
    old: i64,
) -> Result<u64, StoreError> {
    let mut transaction = store.begin().await?;
    let rows: Vec<EventRow> = sqlx::query_as(
        "DELETE FROM events WHERE device_id = $1 AND sequence > $2 AND sequence <= $3 AND received_at < $4
         RETURNING sequence, kind, bytes_out, bytes_in, exchanges",
    )
    .bind(device)
    .bind(after)
    .bind(last)
    .bind(old)
    .fetch_all(&mut *transaction)
    .await?;
    let known: Option<Taken> = sqlx::query_as(
        "SELECT events, last_sequence, bookable, bytes, exchanges FROM pruned_events WHERE device_id = $1",
    )
    .bind(device)
    .fetch_optional(&mut *transaction)
    .await?;
    let mut taken = known.unwrap_or_default();
    rows.iter().for_each(|row| taken.add(row));
    sqlx::query(
        "INSERT INTO pruned_events (device_id, events, last_sequence, bookable, bytes, exchanges)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (device_id) DO UPDATE SET events = excluded.events,
            last_sequence = excluded.last_sequence, bookable = excluded.bookable, bytes = excluded.bytes,
            exchanges = excluded.exchanges",
    )
    .bind(device)
    .bind(taken.events)
    .bind(taken.last_sequence)
    .bind(taken.bookable)
    .bind(taken.bytes)
    .bind(taken.exchanges)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(rows.len() as u64)
}

async fn merge_hours(store: &Store, organisation: &str, hour: i64) -> Result<usize, StoreError> {
    let mut transaction = store.begin().await?;
    let rows = booking::merge_hours(&mut transaction, organisation, hour, ROWS).await?;
    transaction.commit().await?;
    Ok(rows)
}

async fn delete_days(store: &Store, organisation: &str, day: i64) -> Result<usize, StoreError> {
    let mut transaction = store.begin().await?;
    let rows = rollup::delete_days(&mut transaction, organisation, day, ROWS).await?;
    transaction.commit().await?;
    Ok(rows)
}

async fn merge_days(store: &Store, organisation: &str, day: i64) -> Result<usize, StoreError> {
    let mut transaction = store.begin().await?;
    let rows = spend::merge_days(&mut transaction, organisation, day, ROWS).await?;
    transaction.commit().await?;
    Ok(rows)
}

/// Where each row ends that is neither an event nor a sum: `$1` is the moment so many days back, `$2` most
/// rows. What waits for somebody has no end while it can still be decided, nor has a
/// request while its token is good: how many came by it is counted by them.
const ENDS: [(&str, u32); 6] = [
    ("DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE expires_at <= $1 LIMIT $2)", 0),
    (
        "DELETE FROM enrolment_requests WHERE id IN (SELECT id FROM enrolment_requests
            WHERE COALESCE(decided_at, requested_at) < $1
                AND token_hash IN (SELECT hash FROM enrolment_tokens WHERE expires_at < $1) LIMIT $2)",
        ENROLMENT_DAYS,
    ),
    (
        "DELETE FROM enrolment_tokens WHERE hash IN (SELECT t.hash FROM enrolment_tokens t
            WHERE t.expires_at < $1
                AND NOT EXISTS (SELECT 1 FROM enrolment_requests r WHERE r.token_hash = t.hash)
            LIMIT $2)",
        ENROLMENT_DAYS,
    ),
    (
        "DELETE FROM budget_alerts WHERE (budget_id, period_start, threshold) IN
            (SELECT budget_id, period_start, threshold FROM budget_alerts WHERE at < $1 LIMIT $2)",
        BUDGET_DAYS,
    ),
    (
        "DELETE FROM exemptions WHERE id IN (SELECT id FROM exemptions
            WHERE state <> 'requested' AND decided_at < $1 AND COALESCE(until, decided_at) < $1 LIMIT $2)",
        BUDGET_DAYS,
    ),
    (
        "DELETE FROM exemptions WHERE id IN (SELECT id FROM exemptions
            WHERE state = 'requested' AND requested_at < $1 LIMIT $2)",
        WAITING_DAYS,
    ),
];

async fn end(store: &Store, statement: &'static str, old: i64) -> Result<usize, StoreError> {
    let mut transaction = store.begin().await?;
    let ended = sqlx::query(statement).bind(old).bind(column(ROWS as u64)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(usize::try_from(ended.rows_affected()).unwrap_or(usize::MAX))
}
