//! The end of what is not kept for good, in virtual time against a real database: it comes when it
//! should, whatever else goes on, and the ledger balances before and after.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use toktra_protocol::event::Dropped;
use toktra_protocol::{Batch, DeviceId, Estimate, Event, EventBody, NameSource, UnixSeconds, Usage};
use toktra_store::directory::{self, Department, Organisation};
use toktra_store::ledger::{Cost, Tariff};
use toktra_store::price_mix::Share;
use toktra_store::retention::{self, ROWS, Settings, Swept};
use toktra_store::{Ledger, Store, audit, events, spend};

/// 2026-11-23T12:00:00Z, a Monday.
const NOW: UnixSeconds = UnixSeconds(1_795_435_200);
const DAY_S: u64 = 24 * 60 * 60;

/// Three dollars a million tokens.
struct ThreeDollars;

impl Tariff for ThreeDollars {
    fn cost(&self, _: &[Share], _: &str, _: UnixSeconds, sent: Estimate, _: Estimate) -> Option<Cost> {
        let [low_micros, point_micros, high_micros] = [sent.low, sent.point, sent.high].map(|n| n * 3);
        Some(Cost { low_micros, point_micros, high_micros })
    }
}

/// Engineering, in it Research; beside them Sales.
struct House {
    directory: TempDir,
    store: Store,
    ledger: Ledger,
    clock: Arc<AtomicU64>,
    acme: Organisation,
    engineering: Department,
    research: Department,
    sales: Department,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
        let acme = directory::create_organisation(&store, "Acme", "test", NOW).await.unwrap();
        directory::set_time_zone(
            &store,
            &acme,
            &toktra_store::period::Zone::named("America/Los_Angeles").unwrap(),
            "test",
            NOW,
        )
        .await
        .unwrap();
        let department = async |parent: Option<&Department>, name| {
            directory::create_department_within(&store, &acme, parent, name, "test", NOW).await.unwrap()
        };
        let engineering = department(None, "Engineering").await;
        let research = department(Some(&engineering), "Research").await;
        let sales = department(None, "Sales").await;
        let clock = Arc::new(AtomicU64::new(NOW.0));
        let time = Arc::clone(&clock);
        let now = move || UnixSeconds(time.load(Ordering::Relaxed));
        let (ledger, _) = Ledger::start(store.clone(), Box::new(ThreeDollars), now);
        Self { directory, store, ledger, clock, acme, engineering, research, sales }
    }

    async fn second_server(&self) -> Store {
        Store::open(&self.directory.path().join("toktra.db")).await.unwrap()
    }

    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.clock.load(Ordering::Relaxed))
    }

    fn pass_days(&self, days: u64) {
        self.clock.fetch_add(days * DAY_S, Ordering::Relaxed);
    }

    async fn write(&self, sql: &'static str) {
        let mut transaction = self.store.begin().await.unwrap();
        sqlx::query(sql).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn device(&self, department: &Department) -> DeviceId {
        let id = DeviceId::new_v4();
        let mut transaction = self.store.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO devices (id, organisation_id, department_id, hostname, platform,
                agent_version, state, enrolled_at, acknowledged_sequence, directive_version)
             VALUES ($1, $2, $3, 'host', 'linux', '1', 'enrolled', 0, 0, 1)",
        )
        .bind(id.to_string())
        .bind(&self.acme.id)
        .bind(&department.id)
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        id
    }

    /// Books events with these numbers; every seventh is a report of drops.
    async fn book(&self, device: DeviceId, numbers: std::ops::RangeInclusive<u64>) {
        let minute = self.now().minute();
        let events = numbers.map(|sequence| {
            let body = match sequence % 7 {
                0 => EventBody::Dropped(Dropped { events: 3, place: "spool".into() }),
                _ => usage(sequence),
            };
            Event { sequence, minute, body }
        });
        self.ledger.book(device, Batch { events: events.collect() }).await.unwrap();
    }

    async fn count(&self, table: &'static str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(self.store.reader()).await.unwrap()
    }

    async fn sweep(&self) -> Swept {
        let swept = retention::sweep(&self.store, self.now(), Duration::ZERO).await.unwrap();
        self.assert_even().await;
        swept
    }

    async fn assert_even(&self) {
        for balance in events::balances(&self.store).await.unwrap() {
            assert!(balance.is_even(), "{balance:?}");
        }
        for balance in spend::balances(&self.store).await.unwrap() {
            assert!(balance.is_even(), "{balance:?}");
        }
    }
}

fn usage(number: u64) -> EventBody {
    let tokens = Estimate { low: number, point: number * 2, high: number * 3 };
    EventBody::Usage(Usage {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        name_source: NameSource::Sni,
        user_account: Some("ada".into()),
        application: Some(format!("program-{}", number % 3)),
        exchanges: 2,
        bytes_out: number * 11,
        bytes_in: number * 13,
        bytes_handshake: 5,
        duration_s: 1,
        streaming: true,
        partial: false,
        tokens_in: tokens,
        tokens_out: tokens,
        calibration: "c".into(),
    })
}

#[tokio::test]
async fn a_raw_event_ends_thirty_days_after_it_came_and_the_ledger_still_balances() {
    let house = House::new().await;
    let (one, other) = (house.device(&house.research).await, house.device(&house.sales).await);
    house.book(one, 1..=20).await;
    house.pass_days(29);
    house.book(one, 21..=30).await;
    house.book(other, 1..=5).await;
    assert!(house.sweep().await.is_empty(), "29 days");
    house.pass_days(1);
    assert!(house.sweep().await.is_empty(), "30 days to the second");
    house.clock.fetch_add(1, Ordering::Relaxed);
    assert_eq!(house.sweep().await, Swept { events: 20, ..Swept::default() });
    assert_eq!(house.count("events").await, 15);
    assert!(house.sweep().await.is_empty(), "a sweep that is repeated finds nothing");
    // The device goes on, and what it sends again is still known.
    house.book(one, 15..=35).await;
    house.assert_even().await;
    house.pass_days(31);
    assert_eq!(house.sweep().await.events, 20);
    assert_eq!(house.count("events").await, 0);
    let balances = events::balances(&house.store).await.unwrap();
    let of_one = balances.iter().find(|balance| balance.device_id == one.to_string()).unwrap();
    assert_eq!((of_one.acknowledged, of_one.pruned, of_one.events), (35, 35, 0));
}

#[tokio::test]
async fn an_event_that_went_missing_is_still_found_after_pruning() {
    let house = House::new().await;
    let device = house.device(&house.sales).await;
    house.book(device, 1..=10).await;
    house.pass_days(31);
    house.book(device, 11..=20).await;
    house.sweep().await;
    house.write("DELETE FROM events WHERE sequence = 12").await;
    assert!(!events::balances(&house.store).await.unwrap()[0].is_even());
}

#[tokio::test]
async fn many_events_end_in_small_transactions_between_which_others_write() {
    let house = House::new().await;
    let device = house.device(&house.sales).await;
    for first in (1..=4001).step_by(1000) {
        house.book(device, first..=first + 999).await;
    }
    house.pass_days(31);
    let now = house.now();
    let pause = Duration::from_millis(1);
    let store = house.store.clone();
    let sweeping = tokio::spawn(async move { retention::sweep(&store, now, pause).await.unwrap() });
    let mut number = 5001;
    while !sweeping.is_finished() {
        house.book(device, number..=number).await;
        number += 1;
    }
    assert_eq!(sweeping.await.unwrap().events, 5000);
    assert!(number > 5001, "the ledger wrote meanwhile");
    house.assert_even().await;
    const { assert!(ROWS <= 1000) };
}

#[tokio::test]
async fn two_servers_sweep_at_once_and_count_nothing_twice() {
    let house = House::new().await;
    let second = house.second_server().await;
    let devices = [house.device(&house.sales).await, house.device(&house.research).await];
    for device in devices {
        for first in [1, 1001] {
            house.book(device, first..=first + 999).await;
        }
    }
    house.pass_days(800);
    for device in devices {
        house.book(device, 2001..=2010).await;
    }
    let now = house.now();
    let (one, other) = tokio::join!(
        retention::sweep(&house.store, now, Duration::ZERO),
        retention::sweep(&second, now, Duration::ZERO)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.events + other.events, 4000);
    house.assert_even().await;
    assert_eq!(house.count("events").await, 20);
    assert!(house.sweep().await.is_empty());
}

#[tokio::test]
async fn sums_end_after_25_months_in_one_total_without_account_or_application() {
    let house = House::new().await;
    let device = house.device(&house.research).await;
    for day in 0..10 {
        house.book(device, day * 20 + 1..=day * 20 + 20).await;
        house.pass_days(1);
    }
    let before = spend::balances(&house.store).await.unwrap();
    house.pass_days(761);
    house.book(device, 201..=220).await;
    let swept = house.sweep().await;
    assert_eq!((swept.hours, swept.days), (30, 30), "3 applications, and 3 scopes, on each of 10 days");
    assert!(house.sweep().await.is_empty());
    let named: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM usage_hourly WHERE hour < 0 AND
            (user_account <> '' OR application <> '' OR provider <> '' OR service <> '')",
    )
    .fetch_one(house.store.reader())
    .await
    .unwrap();
    assert_eq!((named, house.count("usage_hourly WHERE hour < 0").await), (0, 1));
    let after = spend::balances(&house.store).await.unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert!(after.daily_tokens >= before.daily_tokens, "nothing of the sums is lost: {after:?}");
    }
    // What the tree's change moves includes what was added up.
    directory::move_department(&house.store, &house.research, Some(&house.sales), "test", house.now())
        .await
        .unwrap();
    house.assert_even().await;
    let of = |id: &str| {
        let found = after.iter().position(|balance| balance.scope_id == id);
        found.unwrap()
    };
    let moved = spend::balances(&house.store).await.unwrap();
    assert_eq!(moved[of(&house.engineering.id)].daily_tokens, 0);
    assert_eq!(moved[of(&house.sales.id)].daily_tokens, moved[of(&house.research.id)].daily_tokens);
}

#[tokio::test]
async fn an_organisation_says_for_how_long_and_the_audit_trail_who_said_it() {
    let house = House::new().await;
    let device = house.device(&house.sales).await;
    house.book(device, 1..=6).await;
    let week = Settings { events_days: 7, usage_days: 90, personal_months: 2 };
    retention::set(&house.store, &house.acme, week, "eve", house.now()).await.unwrap();
    assert_eq!(retention::settings(&house.store, &house.acme).await.unwrap(), week);
    let newest = audit::newest(&house.store, 1).await.unwrap().remove(0);
    assert_eq!((&*newest.actor, &*newest.action), ("eve", "retention_set"));
    assert_eq!(newest.detail, "events 7 days, usage 90 days, personal 2 months");
    house.pass_days(8);
    assert_eq!(house.sweep().await.events, 6);
    house.pass_days(83);
    assert_eq!(house.sweep().await.hours, 3);
    for (events_days, usage_days) in [(0, 90), (400, 500), (30, 30), (91, 90), (30, 4000)] {
        let settings = Settings { events_days, usage_days, ..week };
        let refused = retention::set(&house.store, &house.acme, settings, "eve", NOW).await;
        assert!(refused.is_err(), "{settings:?}");
    }
}

#[tokio::test]
async fn rows_from_a_clock_that_was_ahead_do_not_hide_those_behind_them() {
    let house = House::new().await;
    let device = house.device(&house.sales).await;
    house.pass_days(1000);
    for first in [1, 501] {
        house.book(device, first..=first + 499).await;
    }
    house.clock.store(NOW.0, Ordering::Relaxed);
    house.book(device, 1001..=1010).await;
    house.pass_days(31);
    assert_eq!(house.sweep().await.events, 10);
    house.pass_days(1000);
    assert_eq!(house.sweep().await.events, 1000);
}

#[tokio::test]
async fn whatever_is_decided_expired_or_over_ends_and_what_is_in_force_stays() {
    let house = House::new().await;
    house.device(&house.sales).await;
    let rows = [
        "INSERT INTO administrators (id, organisation_id, name, password_hash, created_at, failed_attempts)
            SELECT 'a', id, 'eve', '', 0, 0 FROM organisations",
        "INSERT INTO sessions (hash, administrator_id, created_at, expires_at)
            VALUES ('old', 'a', 0, 1795435200), ('new', 'a', 0, 1795435201)",
        "INSERT INTO enrolment_tokens (hash, organisation_id, created_at, expires_at)
            SELECT 't' || n.column1, o.id, 0, n.column2 FROM organisations o,
            (VALUES (1, 1787659199), (2, 1787659199), (3, 1795435201)) n",
        "INSERT INTO enrolment_requests (id, organisation_id, token_hash, public_key, hostname, platform,
            agent_version, address, state, requested_at, decided_at)
            SELECT n.column1, o.id, n.column2, n.column1, '', '', '', '', n.column3, n.column4, n.column5
            FROM organisations o,
            (VALUES ('denied long ago', 't1', 'denied', 0, 1787659199),
                ('denied of late', 't2', 'denied', 0, 1787659201),
                ('never decided', 't1', 'pending', 1787659199, NULL),
                ('waits', 't3', 'pending', 1795435200, NULL)) n",
        "INSERT INTO budgets (id, organisation_id, name, scope, scope_id, unit, amount, period, hard,
            thresholds, rollover_limit, message, created_at, updated_at)
            SELECT 'b', id, 'b', 'organisation', id, 'tokens', 1, 'annual', 0, '', 0, '', 0, 0
            FROM organisations",
        "INSERT INTO budget_alerts (budget_id, period_start, threshold, at, spent, budget_limit)
            VALUES ('b', 1, 90, 1760875199, 0, 0), ('b', 2, 90, 1760875201, 0, 0)",
        "INSERT INTO exemptions (id, organisation_id, budget_id, device_id, reason, state, requested_at,
            decided_at, until)
            SELECT n.column1, d.organisation_id, 'b', d.id, '', n.column2, n.column3, n.column4, n.column5
            FROM devices d,
            (VALUES ('over', 'granted', 0, 1, 1760875199), ('denied', 'denied', 0, 1760875199, NULL),
                ('in force', 'granted', 0, 1, 1795435201), ('stale', 'requested', 1787659199, NULL, NULL),
                ('waits', 'requested', 1787659201, NULL, NULL)) n",
    ];
    for row in rows {
        house.write(row).await;
    }
    assert_eq!(house.sweep().await.others, 1 + 2 + 1 + 1 + 3);
    for (table, left) in [
        ("sessions WHERE hash = 'new'", 1),
        ("enrolment_requests WHERE id IN ('denied of late', 'waits')", 2),
        ("enrolment_tokens WHERE hash IN ('t2', 't3')", 2),
        ("budget_alerts WHERE period_start = 2", 1),
        ("exemptions WHERE id IN ('in force', 'waits')", 2),
    ] {
        assert_eq!(house.count(table).await, left, "{table}");
    }
    assert!(house.sweep().await.is_empty());
    assert!(audit::verify(&house.store, None).await.unwrap().fault.is_none());
}

#[tokio::test]
async fn what_has_ended_is_not_left_in_the_database_file() {
    let house = House::new().await;
    let device = house.device(&house.sales).await;
    let body = EventBody::Dropped(Dropped { events: 1, place: "a-mark-to-look-for".into() });
    let event = Event { sequence: 1, minute: house.now().minute(), body };
    house.ledger.book(device, Batch { events: vec![event] }).await.unwrap();
    house.pass_days(31);
    assert_eq!(house.sweep().await.events, 1);
    let path = house.directory.path().to_owned();
    let House { store, ledger, directory: _directory, .. } = house;
    drop(ledger);
    store.close().await;
    for file in std::fs::read_dir(path).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(18).any(|part| part == b"a-mark-to-look-for"));
    }
}
