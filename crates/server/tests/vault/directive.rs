//! What a device is told of its user's perks, and when.

use toktra_protocol::UnixSeconds;
use toktra_protocol::personal::Perks;
use toktra_store::perks::{self, Beneficiary};
use toktra_store::{directory, period::Zone};

use super::people::{NOVEMBER, Person, Time, backend, enrol, flag, tier};

fn everyone(month: &str, month_end: u64, bonus_tokens: u64) -> Perks {
    Perks {
        tier: "Everyone".into(),
        month: month.parse().unwrap(),
        month_end: UnixSeconds(month_end),
        monthly_tokens: 1000,
        bonus_tokens,
        rollover_tokens: 300,
    }
}

/// 2026-12-01 and 2027-01-01, UTC.
const DECEMBER: u64 = 1_796_083_200;
const JANUARY: u64 = 1_798_761_600;

#[tokio::test]
async fn every_change_of_a_users_perks_reaches_their_devices_and_nobody_elses() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let (store, organisation, now) = (&backend.app.store, &backend.organisation, backend.app.clock.now());
    let mut ada = Person::new(&backend, "ada").await;
    let mut bob = Person::new(&backend, "bob").await;
    let mut told = ada.directive(0).await;
    let of_bob = bob.directive(0).await.version;
    assert_eq!(told.perks, None);
    enrol(&backend, &ada.user, "Everyone").await;
    told = ada.directive(told.version).await;
    assert_eq!(told.perks, Some(everyone("2026-11", DECEMBER, 0)));
    let tier_row = perks::tier(store, organisation, "Everyone", now).await.unwrap();
    perks::set_bonus(store, organisation, Beneficiary::Tier(&tier_row), (None, 40), "test", now)
        .await
        .unwrap();
    told = ada.directive(told.version).await;
    perks::set_bonus(store, organisation, Beneficiary::User(&ada.user), (None, 2), "test", now)
        .await
        .unwrap();
    told = ada.directive(told.version).await;
    assert_eq!(told.perks, Some(everyone("2026-11", DECEMBER, 42)));
    perks::set_bonus(store, organisation, Beneficiary::User(&ada.user), (None, 0), "test", now)
        .await
        .unwrap();
    told = ada.directive(told.version).await;
    assert_eq!(told.perks, Some(everyone("2026-11", DECEMBER, 40)));
    tier(&backend, "Everyone", 2000, 0).await;
    told = ada.directive(told.version).await;
    let perks_now = told.perks.clone().unwrap();
    assert_eq!((perks_now.monthly_tokens, perks_now.rollover_tokens), (2000, 0));
    flag(&backend, false).await;
    told = ada.directive(told.version).await;
    assert_eq!(told.perks, None);
    flag(&backend, true).await;
    told = ada.directive(told.version).await;
    perks::remove(store, organisation, &ada.user, "test", now).await.unwrap();
    told = ada.directive(told.version).await;
    assert_eq!(told.perks, None);
    // Only the flag, which is everybody's, reached the other.
    assert_eq!(bob.directive(0).await.version, of_bob + 2);
    backend.stop().await;
}

#[tokio::test]
async fn a_month_turns_in_the_organisations_time_zone_on_polls_that_wait() {
    let time = Time::new(DECEMBER - 2 * 3600);
    let backend = backend(time).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    let (store, organisation, now) = (&backend.app.store, &backend.organisation, backend.app.clock.now());
    let berlin = Zone::named("Europe/Berlin").unwrap();
    directory::set_time_zone(store, organisation, &berlin, "test", now).await.unwrap();
    let mut told = ada.directive(0).await;
    while told.perks != Some(everyone("2026-11", DECEMBER - 3600, 0)) {
        told = ada.directive(told.version).await;
    }
    time.set(DECEMBER - 3601);
    let version = told.version;
    let turned = async {
        loop {
            told = ada.directive(told.version).await;
            if told.version > version {
                return told.perks.clone();
            }
        }
    };
    let moved = async { time.set(DECEMBER - 3600) };
    let (turned, ()) = tokio::join!(turned, moved);
    assert_eq!(turned, Some(everyone("2026-12", JANUARY - 3600, 0)));
    // A clock that goes back turns back.
    time.set(DECEMBER - 2 * 3600);
    loop {
        let told = ada.directive(0).await;
        if told.perks == Some(everyone("2026-11", DECEMBER - 3600, 0)) {
            break;
        }
    }
    backend.stop().await;
}
