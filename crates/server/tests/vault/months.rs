//! Months: what is left over, what is told of a finished one, and what a leave leaves behind.

use toktra_protocol::Code;
use toktra_protocol::personal::Member;
use toktra_store::perks::{self, Beneficiary};

use super::people::{DAY_S, NOVEMBER, Person, Time, backend, tier};
use super::support::Backend;

/// 2026-12-05, -09, 2027-01-05, at noon.
const EARLY_DECEMBER: u64 = NOVEMBER + 25 * DAY_S;
const LATER_DECEMBER: u64 = NOVEMBER + 29 * DAY_S;
const JANUARY: u64 = NOVEMBER + 56 * DAY_S;

async fn sums(backend: &Backend) -> Vec<(String, String, u64)> {
    let sums = perks::sums(&backend.app.store, &backend.organisation).await.unwrap();
    sums.into_iter().map(|sum| (sum.month.to_string(), sum.of, sum.tokens)).collect()
}

#[tokio::test]
async fn what_a_month_leaves_goes_to_the_next_within_the_ceiling_and_never_further() {
    let time = Time::new(NOVEMBER);
    let backend = backend(time).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    let mut desktop = ada.other_device(&backend).await;
    let mut bob = Person::enrolled(&backend, "bob").await;
    let mut eve = Person::enrolled(&backend, "eve").await;
    let (store, organisation, now) = (&backend.app.store, &backend.organisation, backend.app.clock.now());
    let bonus = Beneficiary::User(&ada.user);
    perks::set_bonus(store, organisation, bonus, (None, 50), "test", now).await.unwrap();
    assert_eq!(ada.total("2026-11", 600).await, Ok((0, 0)));
    assert_eq!(desktop.total("2026-11", 300).await, Ok((600, 0)));
    assert_eq!(ada.total("2026-11", 500).await, Ok((300, 0)), "a total never falls");
    assert_eq!(bob.total("2026-11", 2000).await, Ok((0, 0)));
    time.set(EARLY_DECEMBER);
    // What changes now does not reach back.
    tier(&backend, "Everyone", 5000, 5000).await;
    assert_eq!(ada.total("2026-12", 1).await, Ok((0, 150)), "1000 + 50 - 900");
    assert_eq!(desktop.total("2026-11", 340).await, Ok((600, 0)), "late, but not too late");
    assert_eq!(ada.total("2026-12", 1).await, Ok((0, 110)));
    assert_eq!(bob.total("2026-12", 1).await, Ok((0, 0)), "more than everything was used");
    assert_eq!(eve.total("2026-12", 1).await, Ok((0, 0)), "nothing is known of her November");
    ada.total("2026-12", 4000).await.unwrap();
    time.set(JANUARY);
    assert_eq!(ada.total("2027-01", 0).await, Ok((0, 1000)), "of December alone");
    assert_eq!(ada.total("2026-11", 1).await, Err(Code::MonthClosed));
    backend.stop().await;
}

#[tokio::test]
async fn a_finished_month_is_told_once_a_week_after_its_end_and_over_five_people() {
    let time = Time::new(NOVEMBER);
    let mut backend = backend(time).await;
    tier(&backend, "Managers", 9000, 0).await;
    let mut people = Vec::new();
    for name in ["ada", "bob", "cyd", "dan", "eve"] {
        people.push(Person::enrolled(&backend, name).await);
    }
    let mut few = Person::new(&backend, "max").await;
    few.enrol(&backend, "Managers").await;
    for (person, tokens) in people.iter_mut().zip([1, 2, 4, 8, 16]) {
        person.total("2026-11", tokens).await.unwrap();
    }
    few.total("2026-11", 1000).await.unwrap();
    // One leaves, and has the month's use counted as nobody's; another has a second name.
    people[0].leave().await.unwrap();
    people[1].member = Member::new([0xb0; 32]);
    people[1].total("2026-11", 32).await.unwrap();
    time.set(EARLY_DECEMBER);
    backend = backend.start_again().await;
    assert_eq!(sums(&backend).await, []);
    time.set(LATER_DECEMBER);
    backend = backend.start_again().await;
    let all = |of: &str, tokens| (String::from("2026-11"), of.to_owned(), tokens);
    let told = loop {
        let told = sums(&backend).await;
        if !told.is_empty() {
            break told;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(told, [all("Everyone and all other tiers", 1063)]);
    for person in &mut people {
        person.client = backend.ingest(&person.device).await;
        assert_eq!(person.total("2026-11", 500).await, Err(Code::MonthClosed));
    }
    time.set(JANUARY + 7 * DAY_S);
    backend = backend.start_again().await;
    assert_eq!(sums(&backend).await, told, "four people in December would be told of by a difference");
    backend.stop().await;
}

#[tokio::test]
async fn two_devices_of_a_member_share_a_ledger_and_either_may_leave_for_both() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut laptop = Person::enrolled(&backend, "ada").await;
    let mut desktop = laptop.other_device(&backend).await;
    for first in (1..=129).step_by(64) {
        laptop.append(first..=first + 63).await.unwrap();
        desktop.append(first..=first + 63).await.unwrap();
    }
    let listed = desktop.list().await.unwrap();
    assert_eq!(listed.len(), 384);
    assert_eq!(listed, laptop.list().await.unwrap());
    assert!(listed.iter().zip(1..).all(|(record, place)| record.place == place));
    for (device, slot) in [(&laptop, laptop.slot), (&desktop, desktop.slot)] {
        let own: Vec<_> = listed.iter().filter(|record| record.slot == slot).collect();
        let sent = device.batch(1..=192);
        assert!(own.iter().map(|record| &record.sealed).eq(&sent.records));
    }
    laptop.total("2026-11", 700).await.unwrap();
    desktop.leave().await.unwrap();
    assert_eq!(laptop.list().await.unwrap(), []);
    assert_eq!(desktop.total("2026-11", 1).await, Ok((0, 0)), "what was used before is nobody's");
    assert_eq!(laptop.append(193..=193).await, Err(Code::BatchOrder), "it is told to begin anew");
    assert_eq!(laptop.append(1..=1).await, Ok(1));
    backend.stop().await;
}
