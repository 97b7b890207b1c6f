//! The vault's rooms from outside: records in order and once, totals by device, leaving, the end of
//! what has passed its time.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use tempfile::TempDir;
use toktra_protocol::personal::wire::{RECORDS_LIMIT, SEALED_HEAD};
use toktra_protocol::personal::{Member, Month, Sealed, Slot};
use toktra_vault_store::records::Run;
use toktra_vault_store::totals::{Claim, Standing};
use toktra_vault_store::{
    Newcomer, Pseudonym, VaultError, VaultStore, closing, leaving, records, retention, totals,
};

const ACME: &str = "acme";
const LAPTOP: Slot = Slot::new([1; 16]);
const DESKTOP: Slot = Slot::new([2; 16]);

struct House {
    vault: VaultStore,
    directory: TempDir,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let vault = VaultStore::open(&directory.path().join("vault.db")).await.unwrap();
        Self { vault, directory }
    }

    async fn append(
        &self,
        member: &Pseudonym,
        slot: Slot,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, VaultError> {
        self.append_in("2026-11", member, slot, numbers).await
    }

    async fn append_in(
        &self,
        month: &str,
        member: &Pseudonym,
        slot: Slot,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, VaultError> {
        let first = *numbers.start();
        let sealed: Vec<_> = numbers.map(|number| sealed(slot, number)).collect();
        let run = Run { slot, first, records: &sealed };
        records::append(&self.vault, ACME, member, run, month.parse().unwrap(), || Newcomer::Person).await
    }

    /// Slot and number of every record that a member has, by pages.
    async fn list(&self, organisation: &str, member: &Pseudonym) -> Vec<(Slot, u64)> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let page = records::page(&self.vault, organisation, member, after).await.unwrap();
            assert!(page.records.len() <= RECORDS_LIMIT);
            for record in &page.records {
                assert_eq!(record.sealed, sealed(record.slot, record.number));
                assert!(record.place > after);
                after = record.place;
                found.push((record.slot, record.number));
            }
            assert_eq!(page.next, after);
            if !page.more {
                return found;
            }
        }
    }

    async fn total(
        &self,
        member: &Pseudonym,
        slot: Slot,
        month: &str,
        tokens: u64,
    ) -> Result<Standing, VaultError> {
        let claim = Claim { slot, month: month.parse().unwrap(), tokens, tier: Some("a") };
        totals::note(&self.vault, ACME, member, claim, || Newcomer::Person).await
    }
}

fn member(number: u8) -> Pseudonym {
    Pseudonym::of(&Member::new([number; 32]))
}

fn sealed(slot: Slot, number: u64) -> Sealed {
    Sealed::new([SEALED_HEAD, slot.bytes(), &number.to_be_bytes()].concat()).unwrap()
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_record_counts_once_and_none_is_left_out() {
    let house = House::new().await;
    let ada = member(1);
    assert_eq!(house.append(&ada, LAPTOP, 1..=3).await.unwrap(), 3);
    assert_eq!(house.append(&ada, LAPTOP, 1..=3).await.unwrap(), 3, "the same again");
    assert_eq!(house.append(&ada, LAPTOP, 2..=5).await.unwrap(), 5, "what is new of it");
    assert_eq!(house.append(&ada, LAPTOP, 2..=2).await.unwrap(), 5, "nothing is new of it");
    let gap = house.append(&ada, LAPTOP, 7..=8).await;
    assert!(matches!(gap, Err(VaultError::Gap { acknowledged: 5 })), "{gap:?}");
    let expected: Vec<_> = (1..=5).map(|number| (LAPTOP, number)).collect();
    assert_eq!(house.list(ACME, &ada).await, expected);
}

#[tokio::test]
async fn devices_of_a_member_number_by_themselves_and_are_listed_as_they_came_page_by_page() {
    let house = House::new().await;
    let ada = member(1);
    let mut expected = Vec::new();
    for first in [1, 51, 101] {
        for slot in [LAPTOP, DESKTOP] {
            house.append(&ada, slot, first..=first + 49).await.unwrap();
            expected.extend((first..=first + 49).map(|number| (slot, number)));
        }
    }
    house.append(&member(2), LAPTOP, 1..=1).await.unwrap();
    assert_eq!(house.list(ACME, &ada).await, expected);
    assert_eq!(house.list("another", &ada).await, [], "of another organisation");
    assert_eq!(house.list(ACME, &member(3)).await, []);
}

#[tokio::test]
async fn the_highest_total_of_a_device_counts_and_the_others_are_told() {
    let house = House::new().await;
    let ada = member(1);
    let standing = |others, before| Standing { others, before };
    assert_eq!(house.total(&ada, LAPTOP, "2026-11", 100).await.unwrap(), standing(0, None));
    assert_eq!(house.total(&ada, DESKTOP, "2026-11", 7).await.unwrap(), standing(100, None));
    assert_eq!(house.total(&ada, LAPTOP, "2026-11", 50).await.unwrap(), standing(7, None));
    assert_eq!(house.total(&ada, DESKTOP, "2026-12", 1).await.unwrap(), standing(0, Some(107)));
    assert_eq!(house.total(&member(2), LAPTOP, "2026-12", 1).await.unwrap(), standing(0, None));
}

#[tokio::test]
async fn who_leaves_is_forgotten_and_what_they_used_is_nobodys() {
    let house = House::new().await;
    for number in 1..=6 {
        house.total(&member(number), LAPTOP, "2026-11", 10).await.unwrap();
    }
    let ada = member(1);
    house.total(&ada, DESKTOP, "2026-11", 1).await.unwrap();
    house.append(&ada, LAPTOP, 1..=64).await.unwrap();
    for first in (65..1100).step_by(64) {
        house.append(&ada, LAPTOP, first..=first + 63).await.unwrap();
    }
    house.append(&member(2), LAPTOP, 1..=1).await.unwrap();
    for _ in 0..2 {
        leaving::leave(&house.vault, ACME, &ada).await.unwrap();
    }
    leaving::leave(&house.vault, ACME, &member(9)).await.unwrap();
    assert_eq!(house.list(ACME, &ada).await, []);
    assert_eq!(house.list(ACME, &member(2)).await.len(), 1);
    // Who comes back begins anew, and the sum has what was used before as well.
    assert_eq!(house.append(&ada, LAPTOP, 1..=1).await.unwrap(), 1);
    assert_eq!(house.total(&ada, LAPTOP, "2026-11", 5).await.unwrap(), Standing { others: 0, before: None });
    closing::close(&house.vault, ACME, month("2026-12")).await.unwrap();
    let told = closing::told(&house.vault, ACME).await.unwrap();
    assert_eq!(told.iter().map(|(_, sum)| sum.tokens).collect::<Vec<_>>(), [66]);
}

#[tokio::test]
async fn the_file_has_nothing_of_a_member_who_left() {
    let house = House::new().await;
    let secret = [0xa5; 32];
    let ada = Pseudonym::of(&Member::new(secret));
    house.append(&ada, LAPTOP, 1..=64).await.unwrap();
    house.total(&ada, LAPTOP, "2026-11", 10).await.unwrap();
    let pseudonym: String = {
        let digest = ring::digest::digest(&ring::digest::SHA256, &secret);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    leaving::leave(&house.vault, ACME, &ada).await.unwrap();
    house.vault.close().await;
    let marks = [pseudonym.as_bytes(), b"AQEBAQEBAQEBAQEBAQEBAQ"];
    for file in std::fs::read_dir(house.directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        for mark in marks {
            assert!(!bytes.windows(mark.len()).any(|window| window == mark), "a trace is left");
        }
    }
}

#[tokio::test]
async fn a_member_has_a_limit_and_a_newcomer_may_be_refused() {
    let house = House::new().await;
    let ada = member(1);
    for number in 0..32 {
        let slot = Slot::new([number; 16]);
        house.append(&ada, slot, 1..=1).await.unwrap();
        house.total(&ada, slot, "2026-11", 1).await.unwrap();
    }
    let slot = Slot::new([99; 16]);
    assert!(matches!(house.append(&ada, slot, 1..=1).await, Err(VaultError::Full)));
    assert!(matches!(house.total(&ada, slot, "2026-11", 1).await, Err(VaultError::Full)));
    let claim = Claim { slot, month: month("2026-11"), tokens: 1, tier: None };
    let refused = totals::note(&house.vault, ACME, &member(2), claim, || Newcomer::Refused).await;
    assert!(matches!(refused, Err(VaultError::NoNewcomer)));
    assert_eq!(house.total(&member(2), slot, "2026-11", 1).await.unwrap(), Standing::default());
}

#[tokio::test]
async fn a_closed_month_takes_no_totals_and_is_forgotten_in_the_end() {
    let house = House::new().await;
    let ada = member(1);
    house.total(&ada, LAPTOP, "2026-11", 10).await.unwrap();
    house.total(&ada, LAPTOP, "2026-12", 10).await.unwrap();
    assert_eq!(closing::close(&house.vault, ACME, month("2026-12")).await.unwrap(), 1);
    assert_eq!(closing::close(&house.vault, ACME, month("2026-12")).await.unwrap(), 0);
    assert!(matches!(house.total(&ada, LAPTOP, "2026-11", 99).await, Err(VaultError::Closed)));
    assert_eq!(
        house.total(&ada, LAPTOP, "2026-12", 10).await.unwrap().before,
        Some(10),
        "still carried over"
    );
    closing::forget(&house.vault, ACME, month("2027-01")).await.unwrap();
    let standing = house.total(&ada, LAPTOP, "2026-12", 10).await.unwrap();
    assert_eq!(standing.before, None, "a closed month is gone; an open one stays");
    assert!(closing::told(&house.vault, ACME).await.unwrap().is_empty());
}

#[tokio::test]
async fn records_end_with_their_time_and_numbers_go_on() {
    let house = House::new().await;
    let ada = member(1);
    for first in (1..1200).step_by(64) {
        house.append_in("2025-10", &ada, LAPTOP, first..=first + 63).await.unwrap();
    }
    let last = house.append_in("2025-11", &ada, LAPTOP, 1217..=1218).await.unwrap();
    let deleted = retention::sweep(&house.vault, ACME, month("2025-11"), async || ()).await.unwrap();
    assert_eq!((deleted, last), (1216, 1218));
    assert_eq!(house.list(ACME, &ada).await, [(LAPTOP, 1217), (LAPTOP, 1218)]);
    assert_eq!(house.append(&ada, LAPTOP, 1219..=1219).await.unwrap(), 1219);
}
