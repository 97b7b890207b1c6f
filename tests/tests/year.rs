//! A year of a fleet in virtual time (`toktra_testkit::fleet`): every device ends enrolled and no
//! person had to do anything. `TOKTRA_YEAR_SEED` lives another year.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use toktra_testkit::fleet::{Fault, Plan, Year, live};

/// Enough for every kind of mishap, and a second's work.
const FEW: u64 = 60;

fn seed() -> u64 {
    std::env::var("TOKTRA_YEAR_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_101)
}

fn assert_flawless(year: &Year) {
    eprintln!("{}", year.tally);
    assert_eq!(year.complaints, Vec::<String>::new());
}

/// Something that is broken shows.
async fn assert_shows(fault: Fault, machines: u64, as_what: &str) {
    let year = live(&Plan::year(seed(), machines).with(fault)).await.unwrap();
    let shows = year.complaints.iter().any(|complaint| complaint.contains(as_what));
    assert!(shows, "{fault:?} did not show as `{as_what}`: {:#?}\n{}", year.complaints, year.tally);
}

#[tokio::test]
async fn a_thousand_devices_end_the_year_enrolled_and_nobody_had_to_help() {
    let plan = Plan::year(seed(), 1000);
    eprintln!("{plan:?}");
    assert_flawless(&live(&plan).await.unwrap());
}

#[tokio::test]
async fn the_same_seed_lives_the_same_year() {
    let plan = Plan::year(seed(), FEW);
    let (one, other) = (live(&plan).await.unwrap(), live(&plan).await.unwrap());
    assert_eq!(one.tally.to_string(), other.tally.to_string());
    assert_ne!(one.tally.to_string(), live(&Plan::year(seed() + 1, FEW)).await.unwrap().tally.to_string());
}

#[tokio::test]
async fn a_fleet_that_cannot_recover_is_found_out() {
    assert_shows(Fault::NoRecovery, FEW, "ends Recovering").await;
}

#[tokio::test]
async fn a_fleet_that_renews_all_at_once_is_found_out() {
    assert_shows(Fault::NoJitter, FEW, "not spread").await;
}

#[tokio::test]
async fn a_fleet_that_forgets_the_keys_it_asked_with_is_found_out() {
    assert_shows(Fault::ForgottenKeys, FEW, "followed by another certificate").await;
}

#[tokio::test]
async fn an_intermediate_that_is_retired_too_soon_is_found_out() {
    assert_shows(Fault::HastyIntermediate, FEW, "certificate_required").await;
}

#[tokio::test]
async fn a_root_that_is_retired_too_soon_is_found_out() {
    assert_shows(Fault::HastyRoot, FEW, "does not have the roots in force").await;
}
