//! People with devices, members and tiers, and what their devices say to the vault.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use toktra_protocol::directive::FF_TOKEN_PERKS;
use toktra_protocol::personal::wire::{Body, LEAVE_PATH, LIST_PATH, RECORDS_PATH, SEALED_HEAD, TOTAL_PATH};
use toktra_protocol::personal::{
    Member, Month, PersonalAck, PersonalBatch, PersonalLeave, PersonalPage, PersonalQuery, PersonalStanding,
    PersonalTotal, Sealed, Slot, StoredRecord,
};
use toktra_protocol::{Code, Directive, SignedDirective};
use toktra_server::Clock;
use toktra_store::directory::User;
use toktra_store::perks::{self, TierTerms};
use toktra_store::{directory, flags};

use super::support::{Backend, Client, Device, Reply};

/// 2026-11-10, at noon.
pub const NOVEMBER: u64 = 1_794_312_000;
pub const DAY_S: u64 = 24 * 60 * 60;

/// A person's device, and who they are to the vault.
pub struct Person {
    pub user: User,
    pub device: Device,
    pub client: Client,
    pub member: Member,
    pub slot: Slot,
}

/// Virtual time that one test sets.
#[derive(Clone, Copy)]
pub struct Time(&'static AtomicU64);

impl Time {
    pub fn new(at: u64) -> Self {
        Self(Box::leak(Box::new(AtomicU64::new(at))))
    }

    pub fn set(self, at: u64) {
        self.0.store(at, Ordering::Relaxed);
    }

    pub fn clock(self) -> Clock {
        Clock::Set(self.0)
    }
}

/// A backend in November with the flag on and the tier `Everyone` of 1000 tokens, of which 300 roll over.
pub async fn backend(time: Time) -> Backend {
    backend_at(time.clock()).await
}

/// The same by any clock.
pub async fn backend_at(clock: Clock) -> Backend {
    let backend = Backend::start_at(clock).await;
    flag(&backend, true).await;
    tier(&backend, "Everyone", 1000, 300).await;
    backend
}

pub async fn flag(backend: &Backend, on: bool) {
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    flags::set(store, &backend.organisation, FF_TOKEN_PERKS, on, "test", now).await.unwrap();
}

pub async fn tier(backend: &Backend, name: &str, monthly_tokens: u64, rollover_tokens: u64) {
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    let terms = TierTerms { monthly_tokens, rollover_tokens };
    match perks::tier(store, &backend.organisation, name, now).await {
        Ok(tier) => perks::set_tier(store, &backend.organisation, &tier, terms, "test", now).await.unwrap(),
        Err(_) => perks::add_tier(store, &backend.organisation, name, terms, "test", now).await.unwrap(),
    }
}

pub async fn enrol(backend: &Backend, user: &User, tier: &str) {
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    let tier = perks::tier(store, &backend.organisation, tier, now).await.unwrap();
    perks::enrol(store, &backend.organisation, user, &tier, "test", now).await.unwrap();
}

impl Person {
    /// A user with a device; in no tier.
    pub async fn new(backend: &Backend, name: &str) -> Self {
        let (store, now) = (&backend.app.store, backend.app.clock.now());
        let email = format!("{name}@acme.example");
        let user =
            directory::create_user(store, &backend.organisation, None, &email, "test", now).await.unwrap();
        let mut secret = [0x5e; 32];
        secret[..name.len()].copy_from_slice(name.as_bytes());
        Self::on_device(backend, user, Member::new(secret), Slot::new([1; 16])).await
    }

    /// The same, enrolled in `Everyone`.
    pub async fn enrolled(backend: &Backend, name: &str) -> Self {
        let mut person = Self::new(backend, name).await;
        person.enrol(backend, "Everyone").await;
        person
    }

    /// Enrols the person in a tier and waits until the running server knows.
    pub async fn enrol(&mut self, backend: &Backend, tier: &str) {
        enrol(backend, &self.user, tier).await;
        while self.directive(0).await.perks.is_none_or(|perks| perks.tier != tier) {}
    }

    /// The same person on one more device.
    pub async fn other_device(&self, backend: &Backend) -> Self {
        Self::on_device(backend, self.user.clone(), self.member.clone(), Slot::new([2; 16])).await
    }

    async fn on_device(backend: &Backend, user: User, member: Member, slot: Slot) -> Self {
        let device = backend.device_of(&user).await;
        let client = backend.ingest(&device).await;
        Self { user, device, client, member, slot }
    }

    pub async fn append(&mut self, numbers: std::ops::RangeInclusive<u64>) -> Result<u64, Code> {
        let batch = self.batch(numbers);
        let reply = self.post(RECORDS_PATH, &batch).await;
        read::<PersonalAck>(&reply).map(|ack| ack.acknowledged)
    }

    pub fn batch(&self, numbers: std::ops::RangeInclusive<u64>) -> PersonalBatch {
        let (member, slot, first) = (self.member.clone(), self.slot, *numbers.start());
        PersonalBatch { member, slot, first, records: numbers.map(|number| sealed(slot, number)).collect() }
    }

    pub async fn total(&mut self, month: &str, tokens: u64) -> Result<(u64, u64), Code> {
        let (member, slot, month) = (self.member.clone(), self.slot, month.parse::<Month>().unwrap());
        let reply = self.post(TOTAL_PATH, &PersonalTotal { member, slot, month, tokens }).await;
        read::<PersonalStanding>(&reply).map(|standing| (standing.others, standing.carried))
    }

    /// Every record of the member, by pages.
    pub async fn list(&mut self) -> Result<Vec<StoredRecord>, Code> {
        let (mut records, mut after) = (Vec::new(), 0);
        loop {
            let query = PersonalQuery { member: self.member.clone(), after };
            let reply = self.post(LIST_PATH, &query).await;
            let page = read::<PersonalPage>(&reply)?;
            records.extend(page.records);
            if !page.more {
                return Ok(records);
            }
            after = page.next;
        }
    }

    pub async fn leave(&mut self) -> Result<(), Code> {
        let reply = self.post(LEAVE_PATH, &PersonalLeave { member: self.member.clone() }).await;
        if reply.status == 204 { Ok(()) } else { Err(reply.code()) }
    }

    pub async fn post(&mut self, path: &str, body: &impl Body) -> Reply {
        self.client.post_json(path, body.encode().unwrap().to_vec()).await
    }

    /// The directive, once it is newer than this version.
    pub async fn directive(&mut self, after: u64) -> Directive {
        let reply = self.client.get(&format!("/v1/directive?after={after}&applied={after}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        serde_json::from_slice::<SignedDirective>(&reply.body).unwrap().document().unwrap()
    }
}

pub fn read<T: DeserializeOwned>(reply: &Reply) -> Result<T, Code> {
    if reply.status == 200 { Ok(serde_json::from_slice(&reply.body).unwrap()) } else { Err(reply.code()) }
}

/// What a device would have sealed; the backend cannot tell.
pub fn sealed(slot: Slot, number: u64) -> Sealed {
    Sealed::new([SEALED_HEAD, b"MARK", slot.bytes(), &number.to_be_bytes()].concat()).unwrap()
}
