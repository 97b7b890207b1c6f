//! Budgets while their surroundings change: devices that change hands, flags, removed budgets, calendars.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use support::{House, hard};
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::{Block, BlockReason};
use toktra_store::book::{Book, Hold};
use toktra_store::exemptions::{self, Decision};
use toktra_store::{devices, fleet, locks};

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
