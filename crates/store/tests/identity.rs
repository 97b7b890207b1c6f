//! Tokens, approval, renewal and recovery against a real database.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use tempfile::TempDir;
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::{DeviceId, Estimate, UnixSeconds};
use toktra_store::certificates::{self, Shown, Worth};
use toktra_store::devices::{self, Device};
use toktra_store::directory::{self, Organisation};
use toktra_store::enrolment::{self, EnrolError, Enrolled, Grant, NewCertificate};
use toktra_store::ledger::{Cost, Tariff};
use toktra_store::price_mix::Share;
use toktra_store::renewal::{self, RECOVERABLE_S, RenewError, Renewed};
use toktra_store::tokens::{self, Use};
use toktra_store::{Ledger, Store, approvals, audit};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const DAY_S: u64 = 86_400;
const LIFE_S: u64 = 90 * DAY_S;

struct Free;

impl Tariff for Free {
    fn cost(&self, _: &[Share], _: &str, _: UnixSeconds, _: Estimate, _: Estimate) -> Option<Cost> {
        None
    }
}

struct House {
    _directory: TempDir,
    store: Store,
    ledger: Ledger,
    organisation: Organisation,
}

fn description(hardware: Option<&str>) -> DeviceDescription {
    DeviceDescription {
        hostname: "laptop".into(),
        platform: "linux".into(),
        agent_version: "1".into(),
        hardware: hardware.map(str::to_owned),
    }
}

fn certificate(key: &str, now: UnixSeconds) -> NewCertificate {
    NewCertificate {
        serial: DeviceId::new_v4().simple().to_string(),
        issuer: "ca".into(),
        root: "root".into(),
        not_before: now,
        not_after: now.plus(LIFE_S),
        der: String::new(),
        chain_pem: format!("chain of {key}"),
        public_key: key.into(),
    }
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
        let organisation = directory::create_organisation(&store, "Acme", "test", NOW).await.unwrap();
        let (ledger, _) = Ledger::start(store.clone(), Box::new(Free), || NOW);
        Self { _directory: directory, store, ledger, organisation }
    }

    async fn token(&self, hash: &str, uses: Use) {
        let grant = Grant { organisation: &self.organisation, department: None, user: None };
        tokens::create(&self.store, hash, (grant, uses, "fleet"), NOW.plus(DAY_S), "test", NOW)
            .await
            .unwrap();
    }

    async fn enrol_as(
        &self,
        token: &str,
        key: &str,
        description: &DeviceDescription,
        now: UnixSeconds,
    ) -> Result<Enrolled, EnrolError> {
        let attempt = enrolment::Attempt {
            token_hash: token,
            public_key: key,
            description,
            address: "192.0.2.1",
            device: DeviceId::new_v4(),
        };
        enrolment::enrol(&self.store, &attempt, now, |_, _| Ok(certificate(key, now))).await
    }

    async fn enrol(&self, token: &str, key: &str) -> Result<Enrolled, EnrolError> {
        self.enrol_as(token, key, &description(None), NOW).await
    }

    /// A device with a certificate for this key.
    async fn device(&self, key: &str) -> Shown {
        self.token(key, Use::Once).await;
        let enrolled = self.enrol(key, key).await.unwrap();
        self.shown(enrolled.device, key).await
    }

    async fn shown(&self, device: DeviceId, key: &str) -> Shown {
        let (serial, not_before, not_after): (String, i64, i64) =
            sqlx::query_as("SELECT serial, not_before, not_after FROM certificates WHERE public_key = $1")
                .bind(key)
                .fetch_one(self.store.reader())
                .await
                .unwrap();
        let (not_before, not_after) = (UnixSeconds(not_before as u64), UnixSeconds(not_after as u64));
        Shown { device, serial, issuer: "ca".into(), not_before, not_after }
    }

    async fn renew(&self, shown: &Shown, key: &str, now: UnixSeconds) -> Result<Renewed, RenewError> {
        let attempt = renewal::Attempt { shown, public_key: key, description: None };
        renewal::renew(&self.store, &attempt, now, |_| Ok(certificate(key, now))).await
    }

    async fn used(&self, shown: &Shown) -> Worth {
        self.ledger.certificate_used(shown.clone()).await.unwrap()
    }

    async fn find(&self, id: DeviceId) -> Device {
        devices::find(&self.store, id).await.unwrap().unwrap()
    }

    async fn actions(&self) -> Vec<String> {
        let mut rows = audit::newest(&self.store, 1000).await.unwrap();
        rows.reverse();
        rows.into_iter().map(|row| row.action).collect()
    }
}

#[tokio::test]
async fn a_lost_answer_is_given_again_until_the_certificate_was_used() {
    let house = House::new().await;
    house.token("t", Use::Once).await;
    let first = house.enrol("t", "key").await.unwrap();
    let again = house.enrol("t", "key").await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.chain_pem, "chain of key");
    assert!(matches!(house.enrol("t", "other key").await, Err(EnrolError::TokenUsed)));

    let late = NOW.plus(2 * DAY_S);
    let description = description(None);
    assert!(house.enrol_as("t", "key", &description, late).await.is_ok(), "the token's time does not matter");
    assert_eq!(house.used(&house.shown(first.device, "key").await).await, Worth::InUse);
    assert!(matches!(house.enrol("t", "key").await, Err(EnrolError::TokenUsed)));
    assert_eq!(devices::all(&house.store).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_that_was_certified_is_not_certified_with_another_token() {
    let house = House::new().await;
    house.token("a", Use::Once).await;
    house.token("b", Use::Once).await;
    house.token("c", Use::Reusable { devices: 9 }).await;
    house.enrol("a", "key").await.unwrap();
    assert!(matches!(house.enrol("b", "key").await, Err(EnrolError::KeyUsed)));
    assert!(matches!(house.enrol("c", "key").await, Err(EnrolError::KeyUsed)));
    assert!(matches!(house.enrol("c", "waiting").await, Err(EnrolError::Pending)));
    assert!(matches!(house.enrol("b", "waiting").await, Err(EnrolError::KeyUsed)));
    assert!(house.enrol("b", "fresh").await.is_ok(), "the token is still good");
}

#[tokio::test]
async fn of_fifty_that_come_with_one_token_at_once_one_is_enrolled() {
    let house = House::new().await;
    house.token("t", Use::Once).await;
    let attempts = (0..50).map(|number| {
        let key = format!("key {number}");
        let house = &house;
        async move { house.enrol("t", &key).await }
    });
    let mut enrolled = 0;
    for outcome in join_all(attempts.collect()).await {
        match outcome {
            Ok(_) => enrolled += 1,
            Err(error) => assert!(matches!(error, EnrolError::TokenUsed), "{error}"),
        }
    }
    assert_eq!((enrolled, devices::all(&house.store).await.unwrap().len()), (1, 1));
}

async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        let mut pending = false;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(outputs.iter_mut().map(|output| output.take().unwrap()).collect())
    })
    .await
}

#[tokio::test]
async fn a_device_with_a_reusable_token_waits_until_it_is_approved() {
    let house = House::new().await;
    house.token("t", Use::Reusable { devices: 2 }).await;
    for _ in 0..3 {
        assert!(matches!(house.enrol("t", "one").await, Err(EnrolError::Pending)));
    }
    assert!(matches!(house.enrol("t", "two").await, Err(EnrolError::Pending)));
    assert!(matches!(house.enrol("t", "three").await, Err(EnrolError::TokenClosed)), "it is full");
    let waiting = approvals::waiting(&house.store, &house.organisation.id, NOW).await.unwrap();
    assert_eq!(waiting.len(), 2);
    assert_eq!((waiting[0].label.as_str(), waiting[0].address.as_str()), ("fleet", "192.0.2.1"));

    approvals::decide(&house.store, None, &waiting[0].id, true, "ada", NOW).await.unwrap();
    approvals::decide(&house.store, None, &waiting[1].id, false, "ada", NOW).await.unwrap();
    let mut outcomes = Vec::new();
    for key in ["one", "two"] {
        outcomes.push(house.enrol("t", key).await);
    }
    let enrolled = outcomes.iter().position(Result::is_ok).unwrap();
    assert!(matches!(outcomes[1 - enrolled], Err(EnrolError::Denied)));
    let key = ["one", "two"][enrolled];
    assert_eq!(&house.enrol("t", key).await.unwrap(), outcomes[enrolled].as_ref().unwrap());
    let device = outcomes[enrolled].as_ref().unwrap().device;
    house.used(&house.shown(device, key).await).await;
    assert!(matches!(house.enrol("t", key).await, Err(EnrolError::KeyUsed)));
    assert!(matches!(house.enrol("t", "four").await, Err(EnrolError::Pending)), "the denied one's place");
    for action in ["enrol_pending", "approve", "deny", "enrol"] {
        assert!(house.actions().await.iter().any(|done| done == action), "{action}");
    }
}

#[tokio::test]
async fn a_request_that_nobody_decides_on_or_comes_back_for_lapses_and_gives_its_place_back() {
    let house = House::new().await;
    let (store, organisation) = (&house.store, &house.organisation.id);
    let grant = Grant { organisation: &house.organisation, department: None, user: None };
    let uses = Use::Reusable { devices: 2 };
    tokens::create(store, "t", (grant, uses, ""), NOW.plus(90 * DAY_S), "test", NOW).await.unwrap();
    let description = description(None);
    let ask = async |key, now| house.enrol_as("t", key, &description, now).await;
    for key in ["waits", "approved"] {
        assert!(matches!(ask(key, NOW).await, Err(EnrolError::Pending)));
    }
    let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM enrolment_requests ORDER BY public_key DESC")
        .fetch_all(store.reader())
        .await
        .unwrap();
    approvals::decide(store, None, &ids[1], true, "ada", NOW).await.unwrap();
    let (last, late) = (NOW.plus(approvals::LAPSES_AFTER_S - 1), NOW.plus(approvals::LAPSES_AFTER_S));
    assert!(matches!(ask("waits", last).await, Err(EnrolError::Pending)));
    assert!(matches!(ask("third", last).await, Err(EnrolError::TokenClosed)), "both places are taken");
    assert_eq!(approvals::waiting(store, organisation, last).await.unwrap().len(), 1);
    assert_eq!(tokens::of_organisation(store, organisation, last).await.unwrap()[0].devices, 2);

    assert!(approvals::waiting(store, organisation, late).await.unwrap().is_empty());
    assert_eq!(tokens::of_organisation(store, organisation, late).await.unwrap()[0].devices, 0);
    for id in &ids {
        assert!(approvals::decide(store, None, id, true, "ada", late).await.is_err(), "it is over");
    }
    // Who still asks waits anew, as long as the token is good.
    for key in ["waits", "approved"] {
        assert!(matches!(ask(key, late).await, Err(EnrolError::Pending)));
    }
    assert!(matches!(ask("third", late).await, Err(EnrolError::TokenClosed)));
    let later = late.plus(approvals::LAPSES_AFTER_S + 30 * DAY_S);
    assert!(matches!(ask("waits", later).await, Err(EnrolError::TokenExpired)));
}

#[tokio::test]
async fn only_the_organisation_that_is_named_decides_on_its_devices() {
    let house = House::new().await;
    house.token("t", Use::Reusable { devices: 2 }).await;
    assert!(matches!(house.enrol("t", "key").await, Err(EnrolError::Pending)));
    let id = &approvals::waiting(&house.store, &house.organisation.id, NOW).await.unwrap()[0].id;
    assert!(approvals::decide(&house.store, Some("other"), id, true, "eve", NOW).await.is_err());
    assert!(matches!(house.enrol("t", "key").await, Err(EnrolError::Pending)));
    approvals::decide(&house.store, Some(&house.organisation.id), id, true, "ada", NOW).await.unwrap();
    assert!(house.enrol("t", "key").await.is_ok());
}

#[tokio::test]
async fn a_withdrawn_token_takes_nobody_and_who_was_approved_still_enrols() {
    let house = House::new().await;
    house.token("abcdef0123456789", Use::Reusable { devices: 9 }).await;
    house.token("abcfff0123456789", Use::Once).await;
    assert!(matches!(house.enrol("abcdef0123456789", "one").await, Err(EnrolError::Pending)));
    let organisation = &house.organisation.id;
    let ambiguous = tokens::withdraw(&house.store, organisation, "abc", "ada", NOW).await;
    assert!(ambiguous.is_err(), "of two that begin so, none is withdrawn");
    assert!(tokens::withdraw(&house.store, organisation, "", "ada", NOW).await.is_err());
    for name in ["abcdef012345", "abcfff"] {
        tokens::withdraw(&house.store, organisation, name, "ada", NOW).await.unwrap();
    }
    assert!(matches!(house.enrol("abcdef0123456789", "two").await, Err(EnrolError::TokenClosed)));
    assert!(matches!(house.enrol("abcfff0123456789", "two").await, Err(EnrolError::TokenClosed)));
    let waiting = approvals::waiting(&house.store, organisation, NOW).await.unwrap();
    approvals::decide(&house.store, None, &waiting[0].id, true, "ada", NOW).await.unwrap();
    assert!(house.enrol("abcdef0123456789", "one").await.is_ok());
    let listed = tokens::of_organisation(&house.store, organisation, NOW).await.unwrap();
    assert!(listed.iter().all(|token| token.state(NOW) == "withdrawn"));
}

#[tokio::test]
async fn a_cloned_machine_is_enrolled_beside_the_other_and_both_are_flagged() {
    let house = House::new().await;
    for token in ["a", "b", "c", "d"] {
        house.token(token, Use::Once).await;
    }
    let same = description(Some("machine"));
    let first = house.enrol_as("a", "a", &same, NOW).await.unwrap().device;
    assert_eq!(house.find(first).await.flag, None);
    devices::revoke(&house.store, first, "ada", NOW).await.unwrap();
    let second = house.enrol_as("b", "b", &same, NOW).await.unwrap().device;
    assert_eq!(house.find(second).await.flag, None, "a revoked device does not live");
    let third = house.enrol_as("c", "c", &same, NOW).await.unwrap().device;
    assert_ne!(second, third);
    let other = house.enrol_as("d", "d", &description(Some("other")), NOW).await.unwrap().device;
    assert_eq!(house.find(other).await.flag, None);
    for device in [second, third] {
        assert_eq!(house.find(device).await.flag.as_deref(), Some("cloned_hardware"));
    }
    assert!(house.actions().await.contains(&"hardware_shared".to_owned()));
    devices::clear_flag(&house.store, second, "ada", NOW).await.unwrap();
    assert_eq!(house.find(second).await.flag, None);
}

#[tokio::test]
async fn the_old_certificate_is_good_until_the_new_one_is_used() {
    let house = House::new().await;
    let old = house.device("old").await;
    assert_eq!(house.used(&old).await, Worth::InUse);
    let renewed = house.renew(&old, "new", NOW).await.unwrap();
    assert_eq!(house.renew(&old, "new", NOW).await.unwrap(), renewed, "a lost answer");
    assert_eq!(house.used(&old).await, Worth::InUse);
    let new = house.shown(old.device, "new").await;
    assert_eq!(house.used(&new).await, Worth::InUse);
    assert_eq!(house.used(&old).await, Worth::Superseded);
    assert_eq!(certificates::worth(&house.store, &old).await.unwrap(), Some(Worth::Superseded));
    assert_eq!(certificates::worth(&house.store, &new).await.unwrap(), None);
    assert!(matches!(house.renew(&old, "third", NOW).await, Err(RenewError::Superseded)));
    assert!(matches!(house.renew(&new, "new", NOW).await, Err(RenewError::KeyUsed)), "always a new key");
    assert!(matches!(house.renew(&new, "old", NOW).await, Err(RenewError::KeyUsed)));

    let flag =
        async |now| renewal::flag_superseded(&house.store, old.device, &old.serial, now).await.unwrap();
    assert!(!flag(NOW.plus(299)).await, "a request that was under way is no clone");
    assert!(flag(NOW.plus(300)).await);
    assert!(!flag(NOW.plus(301)).await, "it is news once");
    assert_eq!(house.find(old.device).await.flag.as_deref(), Some("superseded_certificate"));
}

#[tokio::test]
async fn a_device_that_lost_its_new_key_renews_with_a_third() {
    let house = House::new().await;
    let old = house.device("old").await;
    house.renew(&old, "lost", NOW).await.unwrap();
    house.renew(&old, "kept", NOW).await.unwrap();
    let (lost, kept) = (house.shown(old.device, "lost").await, house.shown(old.device, "kept").await);
    assert_eq!(house.used(&kept).await, Worth::InUse);
    for ended in [old, lost] {
        assert_eq!(house.used(&ended).await, Worth::Superseded);
    }
}

#[tokio::test]
async fn an_expired_certificate_recovers_its_device_within_bounds() {
    let house = House::new().await;
    let mut shown = house.device("key 0").await;
    let mut now = NOW;
    for number in 1..=4_u64 {
        now = shown.not_after.plus(1);
        let key = format!("key {number}");
        let outcome = house.renew(&shown, &key, now).await;
        if number == 4 {
            assert!(matches!(outcome, Err(RenewError::RecoveredTooOften)), "{outcome:?}");
            break;
        }
        outcome.unwrap();
        shown = house.shown(shown.device, &key).await;
    }
    // A year after the first of them, there is one recovery more.
    let later = shown.not_after.plus(RECOVERABLE_S);
    assert!(later.0 > NOW.0 + LIFE_S + 365 * DAY_S);
    assert!(matches!(house.renew(&shown, "late", later.plus(1)).await, Err(RenewError::RecoveryTooLate)));
    assert!(house.renew(&shown, "late", later).await.is_ok());
    assert!(now < later);
    let recoveries = house.actions().await.into_iter().filter(|action| action == "recover").count();
    assert_eq!(recoveries, 4);
}

#[tokio::test]
async fn a_device_gets_so_many_certificates_a_day() {
    let house = House::new().await;
    let shown = house.device("key").await;
    let mut issued = 1;
    let refused = loop {
        match house.renew(&shown, &format!("key {issued}"), NOW).await {
            Ok(_) => issued += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, RenewError::TooMany));
    assert_eq!(issued, renewal::ISSUED_A_DAY);
    assert!(house.renew(&shown, "tomorrow", NOW.plus(DAY_S)).await.is_ok());
}

#[tokio::test]
async fn a_revoked_device_and_a_stranger_renew_nothing_and_the_list_names_the_revoked() {
    let house = House::new().await;
    let shown = house.device("key").await;
    devices::revoke(&house.store, shown.device, "ada", NOW.plus(5)).await.unwrap();
    devices::revoke(&house.store, shown.device, "ada", NOW.plus(9)).await.unwrap();
    assert!(matches!(house.renew(&shown, "new", NOW).await, Err(RenewError::Revoked)));
    assert_eq!(house.used(&shown).await, Worth::Revoked);
    let stranger = Shown { device: DeviceId::new_v4(), ..shown.clone() };
    assert!(matches!(house.renew(&stranger, "new", NOW).await, Err(RenewError::UnknownDevice)));
    let revoked = certificates::revoked(&house.store, "ca").await.unwrap();
    assert_eq!(revoked.len(), 1);
    assert_eq!((&revoked[0].serial, revoked[0].at), (&shown.serial, NOW.plus(5)));
    assert!(certificates::revoked(&house.store, "other").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_certificate_that_a_restored_database_lacks_is_taken_over_and_an_older_one_is_not() {
    let house = House::new().await;
    let known = house.device("key").await;
    let since = Shown { serial: "since".into(), not_before: NOW.plus(9), ..known.clone() };
    let before = Shown { serial: "before".into(), not_before: UnixSeconds(NOW.0 - 9), ..known.clone() };
    assert_eq!(house.used(&before).await, Worth::Superseded);
    assert_eq!(house.used(&known).await, Worth::InUse);
    assert_eq!(house.used(&since).await, Worth::InUse);
    assert_eq!(house.used(&known).await, Worth::Superseded);
    assert!(house.actions().await.contains(&"certificate_adopted".to_owned()));
    assert_eq!(audit::verify(&house.store, None).await.unwrap().fault, None);
}

#[tokio::test]
async fn a_device_from_before_renewal_existed_is_served_and_renews() {
    let house = House::new().await;
    let old = house.device("old").await;
    let mut transaction = house.store.begin().await.unwrap();
    sqlx::query("UPDATE certificates SET public_key = NULL, chain_pem = NULL, issued_at = 0, generation = 0")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert!(matches!(house.enrol("old", "old").await, Err(EnrolError::TokenUsed)));
    assert_eq!(house.used(&old).await, Worth::InUse);
    house.renew(&old, "new", NOW).await.unwrap();
    assert_eq!(house.used(&house.shown(old.device, "new").await).await, Worth::InUse);
    assert_eq!(house.used(&old).await, Worth::Superseded);
}
