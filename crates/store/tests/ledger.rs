//! The ledger against a real database: once and only once, sums that cannot overflow, and
//! many devices in one transaction.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::time::Duration;

use tempfile::TempDir;
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::{
    Ack, Batch, BlockReason, DeviceId, Estimate, Event, EventBody, Minute, NameSource, UnixSeconds, Usage,
    event::{Blocked, Dropped},
};
use toktra_store::directory::{self, Organisation};
use toktra_store::enrolment::{self, Attempt, EnrolError, Grant, NewCertificate};
use toktra_store::ledger::{BookError, Cost, Tariff, WAITING_EVENTS_LIMIT};
use toktra_store::price_mix::Share;
use toktra_store::{Ledger, Store, StoreError, devices};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// One micro-dollar a token; `free-service` has no price.
struct Simple;

impl Tariff for Simple {
    fn cost(
        &self,
        _: &[Share],
        service: &str,
        _: UnixSeconds,
        sent: Estimate,
        received: Estimate,
    ) -> Option<Cost> {
        let sum = sent.plus(received);
        (service != "free-service").then_some(Cost {
            low_micros: sum.low,
            point_micros: sum.point,
            high_micros: sum.high,
        })
    }
}

struct Fixture {
    _directory: TempDir,
    store: Store,
    ledger: Ledger,
    organisation: Organisation,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
        let organisation = directory::create_organisation(&store, "Acme", "test", NOW).await.unwrap();
        let (ledger, _) = Ledger::start(store.clone(), Box::new(Simple), || NOW);
        Self { _directory: directory, store, ledger, organisation }
    }

    async fn enrol(&self, hash: &str, now: UnixSeconds) -> Result<DeviceId, EnrolError> {
        let device = DeviceId::new_v4();
        let description = DeviceDescription {
            hostname: "h".into(),
            platform: "linux".into(),
            agent_version: "1".into(),
            hardware: None,
        };
        let certificate = NewCertificate {
            serial: device.to_string(),
            issuer: "i".into(),
            root: "r".into(),
            not_before: now,
            not_after: now.plus(1),
            der: String::new(),
            chain_pem: String::new(),
            public_key: device.to_string(),
        };
        let attempt = Attempt {
            token_hash: hash,
            public_key: &certificate.public_key.clone(),
            description: &description,
            address: "test",
            device,
        };
        enrolment::enrol(&self.store, &attempt, now, |_, _| Ok(certificate)).await?;
        Ok(device)
    }

    async fn device(&self) -> DeviceId {
        let hash = DeviceId::new_v4().to_string();
        let grant = Grant { organisation: &self.organisation, department: None, user: None };
        enrolment::create_token(&self.store, &hash, grant, NOW.plus(60), "test", NOW).await.unwrap();
        self.enrol(&hash, NOW).await.unwrap()
    }

    async fn sums(&self, column: &'static str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COALESCE(SUM({column}), 0) FROM usage_hourly"));
        sqlx::query_scalar(sql).fetch_one(self.store.reader()).await.unwrap()
    }

    async fn events(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM events").fetch_one(self.store.reader()).await.unwrap()
    }
}

fn usage(sequence: u64, service: &str, tokens: u64) -> Event {
    let estimate = Estimate { low: tokens, point: tokens, high: tokens };
    Event {
        sequence,
        minute: Minute(30_000_000 + sequence),
        body: EventBody::Usage(Usage {
            provider: "openai".into(),
            service: service.into(),
            host: "api.openai.com".into(),
            name_source: NameSource::Sni,
            user_account: None,
            application: None,
            exchanges: 1,
            bytes_out: tokens,
            bytes_in: tokens,
            bytes_handshake: 0,
            duration_s: 0,
            streaming: false,
            partial: false,
            tokens_in: estimate,
            tokens_out: Estimate::default(),
            calibration: "c".into(),
        }),
    }
}

fn batch(sequences: std::ops::RangeInclusive<u64>) -> Batch {
    Batch { events: sequences.map(|sequence| usage(sequence, "openai-api", 10)).collect() }
}

#[tokio::test]
async fn what_was_booked_is_not_booked_again_and_a_gap_changes_nothing() {
    let fixture = Fixture::new().await;
    let device = fixture.device().await;
    let book = |batch| fixture.ledger.book(device, batch);
    assert_eq!(book(batch(1..=300)).await, Ok(Ack { acknowledged: 300 }));
    assert_eq!(book(batch(1..=300)).await, Ok(Ack { acknowledged: 300 }));
    assert_eq!(book(batch(299..=301)).await, Ok(Ack { acknowledged: 301 }));
    assert_eq!(book(batch(303..=304)).await, Err(BookError::Gap { first: 303, acknowledged: 301 }));
    assert_eq!((fixture.events().await, fixture.sums("events").await), (301, 301));
    assert_eq!(fixture.sums("cost_point_micros").await, 3010);
    assert_eq!(fixture.sums("tokens_unpriced").await, 0);
}

#[tokio::test]
async fn what_has_no_price_is_unpriced_and_what_was_blocked_or_dropped_costs_nothing() {
    let fixture = Fixture::new().await;
    let device = fixture.device().await;
    let blocked = EventBody::Blocked(Blocked {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        name_source: NameSource::QuicSni,
        user_account: None,
        application: None,
        reason: BlockReason::Budget,
        cut: true,
    });
    let dropped = EventBody::Dropped(Dropped { events: 9, place: "spool".into() });
    let events = vec![
        usage(1, "free-service", 70),
        Event { sequence: 2, minute: Minute(1), body: blocked },
        Event { sequence: 3, minute: Minute(1), body: dropped },
    ];
    fixture.ledger.book(device, Batch { events }).await.unwrap();
    assert_eq!((fixture.sums("tokens_unpriced").await, fixture.sums("cost_high_micros").await), (70, 0));
    assert_eq!((fixture.sums("blocked").await, fixture.sums("events").await), (1, 2));
    let row: (String, i64, String, i64) = sqlx::query_as(
        "SELECT b.reason, b.cut, d.reason, d.dropped FROM events b, events d
         WHERE b.kind = 'blocked' AND d.kind = 'dropped'",
    )
    .fetch_one(fixture.store.reader())
    .await
    .unwrap();
    assert_eq!(row, ("budget".into(), 1, "spool".into(), 9));
}

#[tokio::test]
async fn a_hostile_device_cannot_make_a_sum_overflow() {
    let fixture = Fixture::new().await;
    let device = fixture.device().await;
    for sequence in 1..=3 {
        let mut event = usage(sequence, "openai-api", i64::MAX as u64);
        event.minute = Minute(1);
        fixture.ledger.book(device, Batch { events: vec![event] }).await.unwrap();
    }
    let sum = fixture.sums("tokens_in_high").await;
    assert_eq!(sum, 1 << 44, "a sum stays an integer at its limit");
    let honest = fixture.device().await;
    assert!(fixture.ledger.book(honest, batch(1..=1)).await.is_ok());
}

#[tokio::test]
async fn a_hostile_device_cannot_keep_the_ledger_from_being_checked() {
    let fixture = Fixture::new().await;
    let (hostile, honest) = (fixture.device().await, fixture.device().await);
    let mut events: Vec<_> = (1..=3).map(|number| usage(number, "openai-api", i64::MAX as u64)).collect();
    for event in &mut events {
        // Beside the largest number nothing that would make the addition a double anyway.
        let EventBody::Usage(usage) = &mut event.body else { continue };
        usage.bytes_out = 0;
    }
    fixture.ledger.book(hostile, Batch { events }).await.unwrap();
    fixture.ledger.book(honest, batch(1..=3)).await.unwrap();
    let balances = toktra_store::events::balances(&fixture.store).await.unwrap();
    let even = |device: DeviceId| balances.iter().find(|row| row.device_id == device.to_string()).unwrap();
    assert!(even(honest).is_even());
    assert!(!even(hostile).is_even(), "its claims exceed what a sum may hold");
}

#[tokio::test]
async fn a_device_that_is_ahead_of_a_restored_database_gets_directives_that_it_takes() {
    let fixture = Fixture::new().await;
    let device = fixture.device().await;
    let find = async || devices::find(&fixture.store, device).await.unwrap().unwrap();
    let version = async || find().await.directive_version;
    let report = async |applied: u64| {
        fixture.ledger.seen(device, Some(applied));
        fixture.ledger.seen(device, None);
        let column = Some(i64::try_from(applied).unwrap_or(i64::MAX));
        let written = async {
            while find().await.directive_applied != column {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();
    };
    let changes = fixture.store.changes().await.unwrap();
    for applied in [9, 3, 10] {
        report(applied).await;
        assert_eq!(version().await, 10, "{applied}");
    }
    assert_eq!(fixture.store.changes().await.unwrap(), changes + 1);
    fixture.ledger.changed().await;
    // What no version is, it is not believed; otherwise the next change would have none to grow to.
    report(u64::MAX).await;
    assert_eq!(version().await, 10);
    devices::revoke(&fixture.store, device, "test", NOW).await.unwrap();
    assert_eq!(version().await, 11);
}

#[tokio::test]
async fn strangers_and_revoked_devices_are_refused_beside_others_that_are_booked() {
    let fixture = Fixture::new().await;
    let (good, revoked) = (fixture.device().await, fixture.device().await);
    devices::revoke(&fixture.store, revoked, "test", NOW).await.unwrap();
    let (one, two, three) = tokio::join!(
        fixture.ledger.book(good, batch(1..=5)),
        fixture.ledger.book(revoked, batch(1..=5)),
        fixture.ledger.book(DeviceId::new_v4(), batch(1..=5)),
    );
    assert_eq!(one, Ok(Ack { acknowledged: 5 }));
    assert_eq!((two, three), (Err(BookError::Revoked), Err(BookError::UnknownDevice)));
    assert_eq!(fixture.events().await, 5);
}

#[tokio::test]
async fn a_full_queue_turns_batches_away_and_takes_them_again_later() {
    let fixture = Fixture::new().await;
    let device = fixture.device().await;
    let large = 1000;
    let batches = (WAITING_EVENTS_LIMIT as u64).div_ceil(large) + 1;
    let waiting: Vec<_> = (0..batches)
        .map(|_| {
            let ledger = fixture.ledger.clone();
            tokio::spawn(async move { ledger.book(device, batch(1..=large)).await })
        })
        .collect();
    let mut turned_away = 0;
    for booking in waiting {
        match booking.await.unwrap() {
            Ok(ack) => assert_eq!(ack.acknowledged, large),
            Err(error) => {
                assert_eq!(error, BookError::Busy);
                turned_away += 1;
            }
        }
    }
    assert!(turned_away <= 2, "only what exceeded the queue: {turned_away}");
    assert!(fixture.ledger.book(device, batch(1..=large)).await.is_ok());
    assert_eq!(fixture.events().await, large as i64);
}

#[tokio::test]
async fn a_refused_token_enrols_nobody() {
    let fixture = Fixture::new().await;
    let grant = Grant { organisation: &fixture.organisation, department: None, user: None };
    enrolment::create_token(&fixture.store, "t", grant, NOW.plus(60), "test", NOW).await.unwrap();
    assert!(matches!(fixture.enrol("u", NOW).await, Err(EnrolError::TokenUnknown)));
    assert!(matches!(fixture.enrol("t", NOW.plus(60)).await, Err(EnrolError::TokenExpired)));
    assert!(fixture.enrol("t", NOW).await.is_ok());
    assert!(matches!(fixture.enrol("t", NOW).await, Err(EnrolError::TokenUsed)));
    assert_eq!(devices::all(&fixture.store).await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_administrative_change_grows_the_version_the_counter_and_the_audit_trail() {
    let fixture = Fixture::new().await;
    let device = fixture.device().await;
    let before = fixture.store.changes().await.unwrap();
    devices::set_lock(&fixture.store, device, Some("stop"), "ada", NOW).await.unwrap();
    devices::set_lock(&fixture.store, device, None, "ada", NOW).await.unwrap();
    devices::revoke(&fixture.store, device, "ada", NOW).await.unwrap();
    assert_eq!(fixture.store.changes().await.unwrap(), before + 3);
    let row = devices::find(&fixture.store, device).await.unwrap().unwrap();
    assert_eq!((row.directive_version, row.lock_message.as_deref(), row.is_revoked()), (4, None, true));
    let actions: Vec<_> = toktra_store::audit::newest(&fixture.store, 3).await.unwrap();
    let actions: Vec<_> = actions.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["revoke", "unlock", "lock"]);
    let missing = devices::revoke(&fixture.store, DeviceId::nil(), "ada", NOW).await;
    assert!(matches!(missing, Err(StoreError::NotFound { kind: "device", .. })));
}

#[tokio::test]
async fn what_was_booked_is_there_after_the_database_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("toktra.db");
    let store = Store::open(&path).await.unwrap();
    directory::create_organisation(&store, "Acme", "test", NOW).await.unwrap();
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(directory::organisation(&store, "Acme").await.unwrap().created_at, NOW.0 as i64);
    let twice = directory::create_organisation(&store, "Acme", "test", NOW).await;
    assert!(matches!(twice, Err(StoreError::Exists { .. })));
}
