//! Budgets against a real database: each failure that users of gateways report has its test here.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use support::{DAY_S, House, NOW, PERIODS, hard, usage};
use toktra_protocol::budget::{Budget, Period, Scope, Unit};
use toktra_protocol::{Batch, DeviceId, Estimate, EventBody, Minute, UnixSeconds};
use toktra_store::alerts::{self, CAP};
use toktra_store::book::{self, Book};
use toktra_store::budgets::{self, BudgetError, Settings};
use toktra_store::directory;
use toktra_store::exemptions::{self, Decision, ExemptionError};
use toktra_store::period::Zone;
use toktra_store::{StoreError, devices, locks};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_writers_at_the_edge_of_a_budget_every_token_counts_once() {
    let house = House::new().await;
    house.flag(true).await;
    let scope = house.scope(Scope::Department, &house.engineering.id);
    let mut writers = Vec::new();
    for _ in 0..200 {
        writers.push(house.device(&house.vision, Some(&house.ada)).await);
    }
    let outsider = house.device(&house.sales, Some(&house.bob)).await;
    // The lower bound of all of it is just the limit: the last event passes it, whichever that is.
    let written: u64 =
        (0..200_u64).map(|writer| (0..5).map(|event| 2 * (writer + event + 1)).sum::<u64>()).sum();
    let budget = house.budget("Tight", &scope, &hard(Unit::Tokens, written / 2, Period::Monthly)).await;
    let before = (house.version(writers[0]).await, house.version(outsider).await);
    let writing: Vec<_> = writers
        .iter()
        .zip(0_u64..)
        .map(|(&device, writer)| {
            let (ledger, minute) = (house.ledger.clone(), house.now().minute());
            tokio::spawn(async move {
                for number in 0..5 {
                    let events = vec![usage(number + 1, minute, 2 * (writer + number + 1))];
                    // Each is sent twice, as after a lost answer.
                    for _ in 0..2 {
                        ledger.book(device, Batch { events: events.clone() }).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writing {
        writer.await.unwrap();
    }
    let events: i64 = sqlx::query_scalar("SELECT SUM(tokens_in_point) FROM events")
        .fetch_one(house.store.reader())
        .await
        .unwrap();
    assert_eq!(u64::try_from(events).unwrap(), written);
    let standing = house.standing(&budget).await;
    assert_eq!(
        (standing.spent.point, standing.spent.low, standing.limit),
        (written, written / 2, written / 2)
    );
    assert!(standing.is_passed() && house.is_even().await);
    let passed = house.actions().await.iter().filter(|action| *action == "budget_passed").count();
    assert_eq!(passed, 1, "told once");
    assert_eq!(house.version(writers[0]).await, before.0 + 1);
    assert_eq!(house.version(outsider).await, before.1, "another department is untouched");
}

#[tokio::test]
async fn a_cap_holds_on_whatever_scope_it_hangs() {
    for unit in [Unit::Tokens, Unit::Micros] {
        for period in PERIODS {
            for place in 0..6 {
                let house = House::new().await;
                house.flag(true).await;
                let (ada, bob) = (
                    house.device(&house.vision, Some(&house.ada)).await,
                    house.device(&house.sales, Some(&house.bob)).await,
                );
                let (scope, bobs_too) = match place {
                    0 => (house.everyone(), true),
                    1 => (house.scope(Scope::Department, &house.engineering.id), false),
                    2 => (house.scope(Scope::Department, &house.research.id), false),
                    3 => (house.scope(Scope::Department, &house.vision.id), false),
                    4 => (house.scope(Scope::User, &house.ada.id), false),
                    _ => (house.scope(Scope::Department, &house.sales.id), true),
                };
                house.budget("B", &scope, &hard(unit, 300, period)).await;
                house.spend(ada, 1, &[600]).await;
                let of =
                    |told: &[Budget]| told.iter().map(|budget| (budget.hard, budget.is_passed())).collect();
                let (adas, bobs): (Vec<_>, Vec<_>) = (of(&house.told(ada).await), of(&house.told(bob).await));
                let case = format!("{unit:?} {period:?} {scope:?}");
                let passed = (place < 5).then_some((true, true));
                assert_eq!(adas, passed.into_iter().collect::<Vec<_>>(), "{case}");
                let expected = bobs_too.then_some((true, place == 0));
                assert_eq!(bobs, expected.into_iter().collect::<Vec<_>>(), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn no_counter_drifts_whatever_is_sent_twice_refused_or_interrupted() {
    let house = House::new().await;
    let device = house.device(&house.vision, Some(&house.ada)).await;
    let budget = house.budget("B", &house.everyone(), &hard(Unit::Tokens, 1_000_000, Period::Annual)).await;
    let minute = house.now().minute();
    let (mut ledger, mut sum, mut next) = (house.ledger.clone(), 0, 1);
    for round in 0..60_u64 {
        let batch = Batch { events: (next..next + 3).map(|number| usage(number, minute, number)).collect() };
        let overlapping = Batch {
            events: (next.saturating_sub(2).max(1)..next + 3)
                .map(|number| usage(number, minute, number))
                .collect(),
        };
        let gap = Batch { events: vec![usage(next + 9, minute, 1_000_000)] };
        assert!(ledger.book(device, gap).await.is_err());
        assert!(ledger.book(DeviceId::new_v4(), batch.clone()).await.is_err());
        let (one, two) = tokio::join!(ledger.book(device, batch), ledger.book(device, overlapping));
        assert!(one.is_ok() && two.is_ok());
        sum += next + next + 1 + next + 2;
        next += 3;
        if round % 20 == 19 {
            ledger = support::ledger(&house.store, &house.clock);
        }
        let standing = house.standing(&budget).await;
        assert_eq!((standing.spent.point, standing.is_passed()), (sum, false));
        assert_eq!(house.told(device).await[0].spent, standing.spent, "book and ledger agree");
    }
    assert!(house.is_even().await);
}

#[tokio::test]
async fn every_scope_begins_every_period_at_nothing() {
    let house = House::new().await;
    let zone = Zone::named("Europe/Berlin").unwrap();
    directory::set_time_zone(&house.store, &house.acme, &zone, "test", NOW).await.unwrap();
    house.flag(true).await;
    let device = house.device(&house.vision, Some(&house.ada)).await;
    let mut rows = Vec::new();
    for scope in [
        house.everyone(),
        house.scope(Scope::Department, &house.engineering.id),
        house.scope(Scope::User, &house.ada.id),
    ] {
        for period in PERIODS.into_iter().filter(|&period| period != Period::Annual) {
            let name = format!("{:?} {period:?}", scope.scope);
            rows.push(house.budget(&name, &scope, &hard(Unit::Tokens, 5, period)).await);
        }
    }
    let mut sequence = 1;
    for row in &rows {
        for _ in 0..5 {
            let before = house.standing(row).await;
            assert!(before.period_start <= house.now() && house.now() < before.period_end);
            house.spend(device, sequence, &[10]).await;
            sequence += 1;
            assert!(house.standing(row).await.is_passed(), "{}", row.name);
            house.set_clock(UnixSeconds(before.period_end.0 - 1));
            assert!(house.standing(row).await.is_passed(), "to its last second: {}", row.name);
            let version = house.version(device).await;
            house.set_clock(before.period_end);
            let after = house.standing(row).await;
            assert_eq!((after.spent.high, after.period_start), (0, before.period_end), "{}", row.name);
            book::turn(&house.store, UnixSeconds(before.period_end.0 - 1), house.now()).await.unwrap();
            assert!(house.version(device).await > version, "the device is told: {}", row.name);
        }
    }
    assert!(house.is_even().await);
}

#[tokio::test]
async fn money_is_counted_in_micro_dollars_and_what_has_no_price_is_said() {
    let house = House::new().await;
    house.flag(true).await;
    let device = house.device(&house.vision, None).await;
    let five_dollars =
        house.budget("Money", &house.everyone(), &hard(Unit::Micros, 5_000_000, Period::Monthly)).await;
    house.spend(device, 1, &[1_000_000]).await;
    let standing = house.standing(&five_dollars).await;
    assert_eq!(standing.spent, Estimate { low: 1_500_000, point: 3_000_000, high: 6_000_000 });
    assert!(!standing.is_passed(), "three dollars, not three million");
    let mut unpriced = usage(2, house.now().minute(), 70);
    if let EventBody::Usage(usage) = &mut unpriced.body {
        usage.service = "free-service".into();
    }
    house.ledger.book(device, Batch { events: vec![unpriced] }).await.unwrap();
    let standing = house.standing(&five_dollars).await;
    assert_eq!((standing.spent.point, standing.tokens_unpriced), (3_000_000, 70));
}

#[tokio::test]
async fn warnings_follow_the_point_and_the_cap_the_lower_bound_and_each_is_told_once() {
    let house = House::new().await;
    let device = house.device(&house.research, None).await;
    let scope = house.scope(Scope::Department, &house.research.id);
    let budget = house.budget("B", &scope, &hard(Unit::Tokens, 100, Period::Weekly)).await;
    let reached = async || -> Vec<i64> {
        let alerts = alerts::newest(&house.store, &budget, 10).await.unwrap();
        let mut reached: Vec<_> = alerts.into_iter().map(|alert| alert.threshold).collect();
        reached.sort_unstable();
        reached
    };
    let version = house.version(device).await;
    house.spend(device, 1, &[80]).await;
    assert_eq!(reached().await, [75]);
    house.spend(device, 2, &[100]).await;
    assert_eq!(reached().await, [75, 90, 100], "the point is 180, the lower bound 90");
    assert_eq!(house.version(device).await, version);
    house.spend(device, 3, &[20, 20]).await;
    assert_eq!(reached().await, [i64::from(CAP), 75, 90, 100]);
    assert_eq!(house.version(device).await, version + 1);
    house.spend(device, 5, &[20]).await;
    assert_eq!((reached().await.len(), house.version(device).await), (4, version + 1));
    // More is granted by another limit; when that is passed too, it is told again.
    let more = Settings { amount: 200, ..budget.settings.clone() };
    budgets::set(&house.store, &budget, &more, "test", house.now()).await.unwrap();
    assert_eq!(reached().await, [75, 90, 100]);
    let version = house.version(device).await;
    house.spend(device, 6, &[200]).await;
    assert_eq!(reached().await, [i64::from(CAP), 75, 90, 100]);
    assert_eq!(house.version(device).await, version + 1);
    let told = house.actions().await;
    assert_eq!(told.iter().filter(|action| *action == "budget_passed").count(), 2);
}

#[tokio::test]
async fn without_the_flag_no_budget_is_hard_and_the_one_with_least_left_comes_first() {
    let house = House::new().await;
    let device = house.device(&house.vision, Some(&house.ada)).await;
    house.budget("Much", &house.everyone(), &hard(Unit::Tokens, 1000, Period::Monthly)).await;
    let scope = house.scope(Scope::User, &house.ada.id);
    house.budget("Little", &scope, &hard(Unit::Tokens, 30, Period::Daily)).await;
    let other = house.scope(Scope::Department, &house.research.id);
    house.budget("Dollars", &other, &hard(Unit::Micros, 1_000_000, Period::Daily)).await;
    house.spend(device, 1, &[40]).await;
    let names =
        |told: Vec<Budget>| -> Vec<_> { told.into_iter().map(|told| (told.name, told.hard)).collect() };
    let expected = |hard| ["Little", "Much", "Dollars"].map(|name| (name.to_owned(), hard));
    assert_eq!(names(house.told(device).await), expected(false));
    let version = house.version(device).await;
    house.flag(true).await;
    assert_eq!(names(house.told(device).await), expected(true));
    assert!(house.version(device).await > version);
}

#[tokio::test]
async fn what_an_offline_device_brings_counts_on_its_day_and_the_future_counts_today() {
    let house = House::new().await;
    let device = house.device(&house.sales, Some(&house.bob)).await;
    let daily = house.budget("Day", &house.everyone(), &hard(Unit::Tokens, 1000, Period::Daily)).await;
    let weekly = house.budget("Week", &house.everyone(), &hard(Unit::Tokens, 1000, Period::Weekly)).await;
    house.set_clock(NOW.plus(2 * DAY_S));
    let now = house.now();
    let events = vec![
        usage(1, NOW.minute(), 7),
        usage(2, now.minute(), 10),
        usage(3, now.plus(30 * DAY_S).minute(), 100),
        usage(4, Minute(u64::MAX / 60), 200),
    ];
    house.ledger.book(device, Batch { events }).await.unwrap();
    assert_eq!(house.standing(&daily).await.spent.point, 310);
    assert_eq!(house.standing(&weekly).await.spent.point, 317);
    assert!(house.is_even().await);
}

#[tokio::test]
async fn a_period_leaves_what_it_did_not_spend_up_to_a_ceiling_if_the_budget_was_there() {
    let house = House::new().await;
    let device = house.device(&house.sales, None).await;
    let settings = Settings { rollover_limit: 40, ..hard(Unit::Tokens, 100, Period::Daily) };
    let budget = house.budget("B", &house.everyone(), &settings).await;
    assert_eq!(house.standing(&budget).await.limit, 100, "it was not there yesterday");
    house.spend(device, 1, &[80]).await;
    for (day, limit) in [(1, 120), (2, 140)] {
        house.set_clock(NOW.plus(day * DAY_S));
        assert_eq!(house.standing(&budget).await.limit, limit);
        assert_eq!(house.told(device).await[0].limit, limit);
    }
    house.spend(device, 2, &[500]).await;
    house.set_clock(NOW.plus(3 * DAY_S));
    assert_eq!(house.standing(&budget).await.limit, 100, "an overdraft is not carried over");
}

#[tokio::test]
async fn an_exemption_is_asked_granted_and_over_at_its_end() {
    let house = House::new().await;
    house.flag(true).await;
    let (one, two) = (
        house.device(&house.vision, Some(&house.ada)).await,
        house.device(&house.research, Some(&house.ada)).await,
    );
    let bobs = house.device(&house.sales, Some(&house.bob)).await;
    let scope = house.scope(Scope::Department, &house.research.id);
    let budget = house.budget("B", &scope, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    let ask = async |device, budget: &str, reason: &str| {
        exemptions::request(&house.store, device, budget, reason, house.now()).await
    };
    assert!(matches!(ask(bobs, &budget.id, "no").await, Err(ExemptionError::NotApplying)));
    assert!(matches!(ask(one, "b", "no").await, Err(ExemptionError::NotApplying)));
    for bad in ["", "  ", "two\nlines", &"x".repeat(1001)] {
        assert!(matches!(ask(one, &budget.id, bad).await, Err(ExemptionError::Reason)), "{bad}");
    }
    ask(one, &budget.id, "the demo is tomorrow").await.unwrap();
    ask(one, &budget.id, "again").await.unwrap();
    let open = exemptions::of_organisation(&house.store, &house.acme, false, house.now()).await.unwrap();
    assert_eq!((open.len(), open[0].reason.as_str()), (1, "the demo is tomorrow"));
    assert_eq!(open[0].user.as_deref(), Some("ada@acme"));
    let id = &open[0].id;
    let decide = async |decision| {
        exemptions::decide(&house.store, &house.acme, id, decision, "ada", house.now()).await
    };
    assert!(matches!(decide(Decision::End).await, Err(ExemptionError::State(_))));
    let versions = (house.version(one).await, house.version(two).await, house.version(bobs).await);
    let until = house.now().plus(7200);
    decide(Decision::GrantUntil(until)).await.unwrap();
    let grown = (house.version(one).await, house.version(two).await, house.version(bobs).await);
    assert_eq!(grown, (versions.0 + 1, versions.1 + 1, versions.2), "both devices of the user");
    for device in [one, two] {
        assert_eq!(house.told(device).await[0].exempt_until, Some(until));
    }
    let book = Book::read(&house.store, house.now()).await.unwrap();
    assert_eq!(book.next_turn(), Some(until), "before the month ends");
    house.set_clock(until);
    book::turn(&house.store, UnixSeconds(until.0 - 1), until).await.unwrap();
    assert_eq!(house.version(two).await, versions.1 + 2);
    assert_eq!(house.told(one).await[0].exempt_until, None);
    assert!(matches!(decide(Decision::Deny).await, Err(ExemptionError::State(_))));
    let actions = house.actions().await;
    for action in ["exemption_request", "exemption_grant"] {
        assert!(actions.iter().any(|done| done == action), "{action}");
    }
    budgets::remove(&house.store, &budget, "ada", house.now()).await.unwrap();
    assert!(house.told(one).await.is_empty());
}

#[tokio::test]
async fn a_device_cannot_flood_its_administrators() {
    let house = House::new().await;
    let device = house.device(&house.sales, None).await;
    let budget = house.budget("B", &house.everyone(), &hard(Unit::Tokens, 10, Period::Monthly)).await;
    for _ in 0..exemptions::REQUESTS_PER_DAY {
        exemptions::request(&house.store, device, &budget.id, "please", house.now()).await.unwrap();
        let open = exemptions::of_organisation(&house.store, &house.acme, false, house.now()).await.unwrap();
        let deny =
            exemptions::decide(&house.store, &house.acme, &open[0].id, Decision::Deny, "ada", house.now());
        deny.await.unwrap();
    }
    let once_more = exemptions::request(&house.store, device, &budget.id, "please", house.now()).await;
    assert!(matches!(once_more, Err(ExemptionError::TooMany)));
    let tomorrow = house.now().plus(DAY_S + 1);
    exemptions::request(&house.store, device, &budget.id, "please", tomorrow).await.unwrap();
}

#[tokio::test]
async fn a_department_that_moves_takes_its_spend_and_the_caps_of_its_new_place() {
    let house = House::new().await;
    house.flag(true).await;
    let device = house.device(&house.vision, Some(&house.ada)).await;
    let seller = house.device(&house.sales, None).await;
    let engineering = house.scope(Scope::Department, &house.engineering.id);
    let sales = house.scope(Scope::Department, &house.sales.id);
    let left = house.budget("E", &engineering, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    let joined = house.budget("S", &sales, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    house.spend(device, 1, &[100]).await;
    assert!(house.standing(&left).await.is_passed() && !house.standing(&joined).await.is_passed());
    let (version, sellers) = (house.version(device).await, house.version(seller).await);
    directory::move_department(&house.store, &house.research, Some(&house.sales), "ada", NOW).await.unwrap();
    assert!(!house.standing(&left).await.is_passed() && house.standing(&joined).await.is_passed());
    assert!(house.version(device).await > version && house.version(seller).await > sellers);
    assert_eq!(house.told(device).await.len(), 1);
    house.spend(device, 2, &[100]).await;
    assert_eq!(house.standing(&joined).await.spent.point, 200);
    assert!(house.is_even().await);
    let into_itself =
        directory::move_department(&house.store, &house.sales, Some(&house.vision), "ada", NOW).await;
    assert!(matches!(into_itself, Err(StoreError::Tree(_))));
    let mut parent = house.vision.clone();
    let mut depth = 3;
    loop {
        let name = format!("level {depth}");
        let made =
            directory::create_department_within(&house.store, &house.acme, Some(&parent), &name, "ada", NOW)
                .await;
        match made {
            Ok(made) => parent = made,
            Err(error) => {
                break assert!(matches!(error, StoreError::Tree(_)) && depth == 6, "{error} {depth}");
            }
        }
        depth += 1;
    }
}

#[tokio::test]
async fn a_lock_of_a_person_holds_for_every_device_of_theirs_later_ones_too() {
    let house = House::new().await;
    let one = house.device(&house.vision, Some(&house.ada)).await;
    let version = house.version(one).await;
    assert_eq!(locks::set(&house.store, &house.ada, Some("stop"), "root", NOW).await.unwrap(), 1);
    assert_eq!(house.version(one).await, version + 1);
    let later = house.device(&house.sales, Some(&house.ada)).await;
    let bobs = house.device(&house.sales, Some(&house.bob)).await;
    let (book, rows) = Book::read_with_devices(&house.store, NOW).await.unwrap();
    for row in rows {
        let expected = (row.id != bobs.to_string()).then_some("stop");
        assert_eq!(book.lock_of(&row), expected);
    }
    locks::set(&house.store, &house.ada, None, "root", NOW).await.unwrap();
    let book = Book::read(&house.store, NOW).await.unwrap();
    let row = devices::find(&house.store, later).await.unwrap().unwrap();
    assert_eq!(book.lock_of(&row), None);
    let actions = house.actions().await;
    assert!(["lock", "unlock"].iter().all(|action| actions.iter().any(|done| done == action)));
}

#[tokio::test]
async fn what_no_budget_can_be_is_refused() {
    let house = House::new().await;
    let good = hard(Unit::Tokens, 10, Period::Monthly);
    let add = async |name: &str, settings: Settings| {
        budgets::create(&house.store, name, &house.everyone(), &settings, "test", NOW).await
    };
    assert!(matches!(add("", good.clone()).await, Err(BudgetError::Name)));
    assert!(matches!(add("a\u{1b}", good.clone()).await, Err(BudgetError::Name)));
    for amount in [0, u64::MAX] {
        assert!(matches!(add("B", Settings { amount, ..good.clone() }).await, Err(BudgetError::Amount)));
    }
    for thresholds in [vec![0], vec![90, 75], vec![50, 50], vec![201], (1..10).collect()] {
        let settings = Settings { thresholds, ..good.clone() };
        assert!(matches!(add("B", settings).await, Err(BudgetError::Thresholds)));
    }
    for number in 0..budgets::BUDGETS_PER_SCOPE {
        add(&number.to_string(), good.clone()).await.unwrap();
    }
    assert!(matches!(add("one more", good.clone()).await, Err(BudgetError::TooMany)));
    let adas = house.scope(Scope::User, &house.ada.id);
    let taken = budgets::create(&house.store, "0", &adas, &good, "test", NOW);
    assert!(matches!(taken.await, Err(BudgetError::Store(StoreError::Exists { .. }))));
    assert!(house.directory.path().exists());
}
