//! Budgets while their surroundings change: devices that change hands, flags, removed budgets, calendars.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::time::Duration;

use support::{House, hard, usage};
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::{Batch, Block, BlockReason, UnixSeconds};
use toktra_store::book::{self, Book, Hold};
use toktra_store::budgets::{self, Settings};
use toktra_store::exemptions::{self, Decision};
use toktra_store::period::Zone;
use toktra_store::{devices, directory, fleet, locks};

#[tokio::test]
async fn a_device_that_changes_hands_leaves_its_spend_and_takes_the_caps_of_its_new_place() {
    let house = House::new().await;
    house.flag(true).await;
    let device = house.device(&house.vision, Some(&house.ada)).await;
    let vision = house.scope(Scope::Department, &house.vision.id);
    let bobs = house.scope(Scope::User, &house.bob.id);
    let left = house.budget("V", &vision, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    let joined = house.budget("Bob", &bobs, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    house.spend(device, 1, &[100]).await;
    let block = Block {
        reason: BlockReason::Provider,
        message: "not here".into(),
        providers: vec!["openai".into()],
        until: None,
        budget: None,
    };
    devices::set_department_block(&house.store, &house.sales, Some(&block), "root", house.now())
        .await
        .unwrap();
    let version = house.version(device).await;
    house.move_device(device, Some(&house.sales), Some(&house.bob)).await;
    assert_eq!(house.version(device).await, version + 1);
    let row = devices::find(&house.store, device).await.unwrap().unwrap();
    assert_eq!(row.block(), Some(block), "as if it enrolled now");
    assert_eq!(house.told(device).await.iter().map(|told| &told.name).collect::<Vec<_>>(), ["Bob"]);
    assert!(house.standing(&left).await.is_passed(), "what was booked stays");
    assert_eq!(house.standing(&joined).await.spent.point, 0);
    house.spend(device, 2, &[40]).await;
    assert!(house.standing(&joined).await.is_passed());
    assert_eq!(house.standing(&left).await.spent.point, 100);
    house.move_device(device, None, None).await;
    let row = devices::find(&house.store, device).await.unwrap().unwrap();
    assert_eq!((row.department_id.as_deref(), row.user_id.as_deref(), row.block()), (None, None, None));
    assert!(house.told(device).await.is_empty() && house.is_even().await);
    assert_eq!(house.actions().await.iter().filter(|action| *action == "device_move").count(), 2);
}

#[tokio::test]
async fn an_exemption_stays_with_the_user_who_asked_and_not_with_the_device() {
    let house = House::new().await;
    house.flag(true).await;
    let (asked, other) = (
        house.device(&house.vision, Some(&house.ada)).await,
        house.device(&house.vision, Some(&house.ada)).await,
    );
    let nobodys = house.device(&house.vision, None).await;
    let budget = house.budget("B", &house.everyone(), &hard(Unit::Tokens, 10, Period::Monthly)).await;
    for device in [asked, nobodys] {
        exemptions::request(&house.store, device, &budget.id, "please", house.now()).await.unwrap();
    }
    let until = house.now().plus(3600);
    for open in exemptions::of_organisation(&house.store, &house.acme, false, house.now()).await.unwrap() {
        let granted = Decision::GrantUntil(until);
        exemptions::decide(&house.store, &house.acme, &open.id, granted, "root", house.now()).await.unwrap();
    }
    let exempt = async |device| house.told(device).await[0].exempt_until == Some(until);
    assert!(exempt(asked).await && exempt(other).await && exempt(nobodys).await);
    house.move_device(asked, Some(&house.vision), Some(&house.bob)).await;
    assert!(!exempt(asked).await, "Bob asked for nothing");
    assert!(exempt(other).await, "Ada did");
    house.move_device(nobodys, Some(&house.vision), Some(&house.bob)).await;
    assert!(exempt(nobodys).await, "it was for this one device");
}

#[tokio::test]
async fn a_user_without_devices_and_a_device_without_a_user_have_what_is_theirs_alone() {
    let house = House::new().await;
    house.flag(true).await;
    let adas = house.scope(Scope::User, &house.ada.id);
    let budget = house.budget("Ada", &adas, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    assert_eq!(locks::set(&house.store, &house.ada, Some("stop"), "root", house.now()).await.unwrap(), 0);
    let nobodys = house.device(&house.vision, None).await;
    house.spend(nobodys, 1, &[1000]).await;
    assert!(house.told(nobodys).await.is_empty());
    assert_eq!(house.standing(&budget).await.spent.point, 0);
    let lock = async |device| {
        let book = Book::read(&house.store, house.now()).await.unwrap();
        let row = devices::find(&house.store, device).await.unwrap().unwrap();
        book.lock_of(&row).map(str::to_owned)
    };
    assert_eq!(lock(nobodys).await, None);
    // Her lock and her budget, whatever department the device is in.
    house.move_device(nobodys, Some(&house.sales), Some(&house.ada)).await;
    assert_eq!(lock(nobodys).await.as_deref(), Some("stop"));
    assert_eq!((house.told(nobodys).await.len(), house.standing(&budget).await.spent.point), (1, 0));
    house.spend(nobodys, 2, &[20]).await;
    assert!(house.standing(&budget).await.is_passed());
}

#[tokio::test]
async fn a_list_of_devices_shows_what_their_directives_say() {
    let house = House::new().await;
    house.flag(true).await;
    let over = house.device(&house.vision, None).await;
    let locked = house.device(&house.sales, Some(&house.ada)).await;
    let free = house.device(&house.sales, None).await;
    let vision = house.scope(Scope::Department, &house.vision.id);
    let budget = house.budget("V", &vision, &hard(Unit::Tokens, 10, Period::Monthly)).await;
    house.spend(over, 1, &[100]).await;
    locks::set(&house.store, &house.ada, Some("stop"), "root", house.now()).await.unwrap();
    let list = async || fleet::devices(&house.store, &house.acme.id, 0, house.now()).await.unwrap();
    let listed = list().await;
    let hold = |id: toktra_protocol::DeviceId| {
        let device = listed.iter().find(|device| device.id == id.to_string()).unwrap();
        device.hold.clone()
    };
    assert_eq!(hold(over).block.unwrap().budget, Some(budget.id));
    assert_eq!(hold(locked).lock.unwrap().message, "stop");
    assert_eq!(hold(free), Hold::default());
    let fleet = async || fleet::fleet(&house.store, &house.acme.id, 0, house.now()).await.unwrap();
    assert_eq!(fleet().await.held, 2);
    house.flag(false).await;
    assert_eq!(fleet().await.held, 1, "without the flag no cap blocks");
}

#[tokio::test]
async fn devices_that_all_report_a_directive_at_once_are_all_heard_and_leave_room_for_what_they_spent() {
    let house = House::new().await;
    let mut all = Vec::new();
    for _ in 0..1_500 {
        all.push(house.device(&house.vision, None).await);
    }
    // The writer is held up, as by another process, while each has something to say, some twice.
    let held = house.store.begin().await.unwrap();
    for &device in &all {
        house.ledger.seen(device, Some(1));
        house.ledger.seen(device, None);
    }
    for _ in 0..10_000 {
        house.ledger.seen(all[0], Some(1));
    }
    let (ledger, minute, device) = (house.ledger.clone(), house.now().minute(), all[0]);
    let batch = Batch { events: vec![usage(1, minute, 10)] };
    let booked = tokio::spawn(async move { ledger.book(device, batch).await });
    tokio::task::yield_now().await;
    held.rollback().await.unwrap();
    booked.await.unwrap().unwrap();
    let heard = async || {
        let devices = devices::all(&house.store).await.unwrap();
        devices.iter().filter(|device| device.directive_applied == Some(1)).count()
    };
    let everybody = async {
        while heard().await < all.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), everybody).await.unwrap();
}

/// Switched within one second, before and after the cap is passed: what counts is the state, not the order.
#[tokio::test]
async fn the_flag_and_the_cap_may_come_in_any_order_within_a_second() {
    for flag_first in [true, false] {
        let house = House::new().await;
        let device = house.device(&house.vision, None).await;
        house.budget("B", &house.everyone(), &hard(Unit::Tokens, 10, Period::Monthly)).await;
        if flag_first {
            house.flag(true).await;
        }
        let version = house.version(device).await;
        house.spend(device, 1, &[100]).await;
        assert_eq!(house.version(device).await, version + 1, "the cap is told with or without the flag");
        assert_eq!(house.is_blocked(device).await, flag_first);
        for (grown, on) in [true, false, true].into_iter().enumerate() {
            house.flag(on).await;
            assert_eq!(house.version(device).await, version + 2 + grown as i64);
            assert_eq!(house.is_blocked(device).await, on);
        }
    }
}

#[tokio::test]
async fn a_cap_that_is_softened_raised_or_removed_opens_at_once_and_takes_its_exemptions_with_it() {
    let house = House::new().await;
    house.flag(true).await;
    let device = house.device(&house.vision, Some(&house.ada)).await;
    let settings = hard(Unit::Tokens, 10, Period::Monthly);
    let budget = house.budget("B", &house.everyone(), &settings).await;
    house.spend(device, 1, &[100]).await;
    let opened_by = async |changed: &Settings| {
        let (was, version) = (house.is_blocked(device).await, house.version(device).await);
        budgets::set(&house.store, &budget, changed, "root", house.now()).await.unwrap();
        assert!(house.version(device).await > version);
        was && !house.is_blocked(device).await
    };
    assert!(opened_by(&Settings { hard: false, ..settings.clone() }).await);
    assert!(!opened_by(&settings).await && house.is_blocked(device).await, "and shuts again");
    assert!(opened_by(&Settings { amount: 1000, ..settings.clone() }).await);
    assert!(!opened_by(&settings).await && house.is_blocked(device).await);
    exemptions::request(&house.store, device, &budget.id, "please", house.now()).await.unwrap();
    let asked = exemptions::of_organisation(&house.store, &house.acme, false, house.now()).await.unwrap();
    let until = house.now().plus(3600);
    let granted = Decision::GrantUntil(until);
    exemptions::decide(&house.store, &house.acme, &asked[0].id, granted, "root", house.now()).await.unwrap();
    assert!(!house.is_blocked(device).await);
    budgets::remove(&house.store, &budget, "root", house.now()).await.unwrap();
    assert!(
        exemptions::of_organisation(&house.store, &house.acme, true, house.now()).await.unwrap().is_empty()
    );
    let again = house.budget("B", &house.everyone(), &settings).await;
    assert!(
        again.id != budget.id && house.is_blocked(device).await,
        "the old exemption is not of the new one"
    );
    let version = house.version(device).await;
    budgets::remove(&house.store, &again, "root", house.now()).await.unwrap();
    assert!(house.version(device).await > version && !house.is_blocked(device).await);
    house.set_clock(until);
    book::turn(&house.store, UnixSeconds(until.0 - 1), until).await.unwrap();
}

#[tokio::test]
async fn another_time_zone_within_a_period_ends_it_when_that_zone_says_so() {
    let house = House::new().await;
    house.flag(true).await;
    let device = house.device(&house.vision, None).await;
    // 2026-11-30T20:00:00Z: in Tokyo it is December.
    house.set_clock(UnixSeconds(1_796_068_800));
    let budget = house.budget("B", &house.everyone(), &hard(Unit::Tokens, 10, Period::Monthly)).await;
    house.spend(device, 1, &[100]).await;
    assert!(house.is_blocked(device).await);
    let zone = async |name: &str| {
        let (zone, version) = (Zone::named(name).unwrap(), house.version(device).await);
        directory::set_time_zone(&house.store, &house.acme, &zone, "root", house.now()).await.unwrap();
        assert!(house.version(device).await > version);
    };
    zone("Asia/Tokyo").await;
    assert!(!house.is_blocked(device).await, "a new month, and what was booked stays in the old");
    house.spend(device, 2, &[100]).await;
    assert!(house.is_blocked(device).await);
    zone("America/Los_Angeles").await;
    assert!(house.is_blocked(device).await, "November again, with what was spent in it");
    assert_eq!(house.standing(&budget).await.spent.point, 100);
    // November ends eight hours later than by UTC; December has what Tokyo's had.
    let end = house.standing(&budget).await.period_end;
    assert_eq!(end, UnixSeconds(1_796_083_200 + 8 * 3600));
    house.set_clock(end);
    assert_eq!(house.standing(&budget).await.spent.point, 100);
    assert!(house.is_even().await);
}

#[tokio::test]
async fn a_booking_at_the_very_end_of_a_day_with_25_hours_counts_on_it_and_the_next_second_is_free() {
    let house = House::new().await;
    house.flag(true).await;
    let zone = Zone::named("Europe/Berlin").unwrap();
    directory::set_time_zone(&house.store, &house.acme, &zone, "root", house.now()).await.unwrap();
    let device = house.device(&house.vision, None).await;
    let budget = house.budget("B", &house.everyone(), &hard(Unit::Tokens, 10, Period::Daily)).await;
    // The clocks of 2027-10-31 go back: the day begins at 22:00Z and ends at 23:00Z of the next.
    let start = UnixSeconds(1_824_933_600);
    let end = start.plus(25 * 3600);
    house.set_clock(UnixSeconds(end.0 - 1));
    house.spend(device, 1, &[100]).await;
    let standing = house.standing(&budget).await;
    assert_eq!((standing.period_start, standing.period_end), (start, end));
    assert!(house.is_blocked(device).await);
    house.set_clock(end);
    assert!(!house.is_blocked(device).await, "by the calendar alone, before anything is turned");
    let version = house.version(device).await;
    book::turn(&house.store, UnixSeconds(end.0 - 1), end).await.unwrap();
    assert_eq!(house.version(device).await, version + 1);
    // What was recorded before midnight arrives after it: it counts on its day and blocks nobody.
    let late = Batch { events: vec![usage(2, UnixSeconds(end.0 - 60).minute(), 100)] };
    house.ledger.book(device, late).await.unwrap();
    assert!(!house.is_blocked(device).await);
    house.spend(device, 3, &[100]).await;
    assert!(house.is_blocked(device).await);
}
