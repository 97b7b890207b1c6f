//! Demo data: the same every time, booked as devices' own, and never beside somebody's work.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use toktra_protocol::{EventBody, UnixSeconds};
use toktra_server::demo::{self, Filled, Plan};
use toktra_store::directory::{self, Organisation, create_organisation};
use toktra_store::period::Zone;
use toktra_store::{Store, alerts, budgets, events, fleet, spend};

/// Friday 27 November 2026, 17:00 UTC.
const PLAN: Plan = Plan { seed: 7, end: UnixSeconds(1_795_798_800), days: 40, people: 18, devices: 24 };

struct House {
    store: Store,
    organisation: Organisation,
    filled: Filled,
    _directory: TempDir,
}

async fn filled(plan: &Plan) -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
    let organisation = create_organisation(&store, "Acme", "test", plan.end).await.unwrap();
    let zone = Zone::named("Europe/Berlin").unwrap();
    directory::set_time_zone(&store, &organisation, &zone, "test", plan.end).await.unwrap();
    let filled = demo::fill(&store, &organisation, plan, |_| ()).await.unwrap();
    House { store, organisation, filled, _directory: directory }
}

/// Everything in the ledger, by names and not by identifiers that differ.
async fn ledger(house: &House) -> Vec<String> {
    let mut connection = house.store.reader().acquire().await.unwrap();
    let mut all = Vec::new();
    for sql in [
        "SELECT json_array(d.hostname, g.name, p.email, h.user_account, h.application, h.provider, h.service, h.hour,
            h.events, h.exchanges, h.bytes_out, h.bytes_in, h.tokens_in_low, h.tokens_in_point,
            h.tokens_out_high, h.cost_point_micros, h.tokens_unpriced)
         FROM usage_hourly h INNER JOIN devices d ON d.id = h.device_id
         LEFT JOIN departments g ON g.id = h.department_id LEFT JOIN users p ON p.id = d.user_id ORDER BY 1",
        "SELECT json_array(s.scope, COALESCE(g.name, p.email), s.day, s.tokens_point, s.micros_point)
         FROM spend_daily s LEFT JOIN departments g ON g.id = s.scope_id LEFT JOIN users p ON p.id = s.scope_id
         ORDER BY 1",
        "SELECT json_array(b.name, b.amount, a.threshold, a.period_start) FROM budget_alerts a
         INNER JOIN budgets b ON b.id = a.budget_id ORDER BY 1",
    ] {
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await.unwrap();
        assert!(!rows.is_empty(), "{sql}");
        all.extend(rows);
    }
    all
}

#[tokio::test]
async fn the_same_seed_makes_the_same_ledger_and_another_one_another() {
    let one = ledger(&filled(&PLAN).await).await;
    assert_eq!(one, ledger(&filled(&PLAN).await).await);
    assert_ne!(one, ledger(&filled(&Plan { seed: 8, ..PLAN }).await).await);
}

#[tokio::test]
async fn the_ledgers_sums_are_those_of_the_events_that_the_plan_says() {
    let house = filled(&PLAN).await;
    let zone = Zone::named("Europe/Berlin").unwrap();
    let (mut count, mut tokens, mut exchanges) = (0_u64, 0_u64, 0_u64);
    let mut days: BTreeMap<i64, i64> = BTreeMap::new();
    for (_, events) in demo::events(&PLAN, &zone) {
        for (minute, body) in events {
            assert!(minute.start() <= PLAN.end);
            count += 1;
            let EventBody::Usage(usage) = body else { continue };
            let of_event = usage.tokens_in.point + usage.tokens_out.point;
            tokens += of_event;
            exchanges += u64::from(usage.exchanges);
            *days.entry(zone.day(minute.start()).0).or_default() += i64::try_from(of_event).unwrap();
        }
    }
    assert!(count > 3000, "{count}");
    assert_eq!(house.filled.events, count);
    let balances = events::balances(&house.store).await.unwrap();
    assert!(balances.iter().all(events::Balance::is_even));
    assert_eq!(balances.iter().map(|balance| balance.booked).sum::<i64>(), i64::try_from(count).unwrap());
    assert!(spend::balances(&house.store).await.unwrap().iter().all(spend::SpendBalance::is_even));
    let sums: (i64, i64) =
        sqlx::query_as("SELECT SUM(tokens_in_point + tokens_out_point), SUM(exchanges) FROM usage_hourly")
            .fetch_one(house.store.reader())
            .await
            .unwrap();
    assert_eq!(sums, (i64::try_from(tokens).unwrap(), i64::try_from(exchanges).unwrap()));
    let booked: Vec<(i64, i64)> =
        sqlx::query_as("SELECT day, tokens_point FROM spend_daily WHERE scope = 'organisation' ORDER BY day")
            .fetch_all(house.store.reader())
            .await
            .unwrap();
    assert_eq!(booked, days.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn there_is_a_budget_of_each_state_a_locked_and_a_silent_device() {
    let house = filled(&PLAN).await;
    let (store, organisation) = (&house.store, &house.organisation);
    let share = async |name: &str| {
        let row = budgets::find(store, organisation, name).await.unwrap();
        let standing = budgets::standing_now(store, &row, PLAN.end).await.unwrap();
        let alerts = alerts::newest(store, &row, 9).await.unwrap();
        let alerts: Vec<_> = alerts.into_iter().map(|alert| alert.threshold).collect();
        (standing.spent.point * 100 / standing.limit, alerts)
    };
    let (nearly, alerts) = share("Research, monthly").await;
    assert!((93..=95).contains(&nearly), "{nearly}");
    assert!(alerts.contains(&90) && !alerts.contains(&100), "{alerts:?}");
    let (wholly, alerts) = share("Customer Support, monthly").await;
    assert!(wholly >= 100 && alerts.contains(&0), "{wholly} {alerts:?}");
    assert!(share("Marketing, monthly").await.1.is_empty());
    let listed = fleet::devices(store, &organisation.id, 0, PLAN.end).await.unwrap();
    assert_eq!(listed.len(), 24);
    assert_eq!(listed.iter().filter(|device| device.lock_message.is_some()).count(), 1);
    assert!(listed.iter().any(|device| device.hold.block.is_some()), "support is blocked");
    let week = i64::try_from(PLAN.end.0).unwrap() - 7 * 86_400;
    let quiet: Vec<_> = listed.iter().filter(|device| device.last_seen_at.unwrap() < week).collect();
    assert_eq!(quiet.len(), 1);
    let mut departments = directory::departments(store, &organisation.id).await.unwrap();
    departments.retain(|department| department.parent_id.is_some());
    assert_eq!(departments.len(), 2);
}

#[tokio::test]
async fn a_database_in_use_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
    let acme = create_organisation(&store, "Acme", "test", PLAN.end).await.unwrap();
    let demo = create_organisation(&store, "Demo", "test", PLAN.end).await.unwrap();
    directory::create_department(&store, &acme, "Research", "test", PLAN.end).await.unwrap();
    let refused = demo::fill(&store, &demo, &PLAN, |_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("toktra-server init"), "{refused}");
    assert_eq!(directory::users(&store, &demo.id).await.unwrap(), []);
}

fn run(parent: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toktra-server"))
        .args(arguments)
        .arg("--data")
        .arg(parent.join("data"))
        .output()
        .unwrap()
}

#[test]
fn the_command_tells_how_far_it_is_and_does_nothing_twice() {
    let house = tempfile::tempdir().unwrap();
    let made = run(house.path(), &["init", "--domain", "acme.example", "--organisation", "Acme"]);
    assert!(made.status.success());
    let fill = ["demo-data", "--end", "2026-11-27", "--days", "3", "--people", "9", "--devices", "12"];
    let filled = run(house.path(), &fill);
    let [out, err] = [filled.stdout, filled.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(filled.status.success(), "{err}");
    assert!(out.starts_with("Acme has 9 people and 12 devices now"), "{out}");
    assert!(err.contains("3 of 3 days"), "{err}");
    assert!(run(house.path(), &["check"]).status.success());
    let again = run(house.path(), &fill);
    assert!(!again.status.success());
    assert!(String::from_utf8(again.stderr).unwrap().contains("is in use"));
}
