//! Organisations with devices and a month of usage, made through the store's own doors: tokens,
//! enrolment and the ledger.

use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::enrol::DeviceDescription;
use toktra_protocol::event::Blocked;
use toktra_protocol::{
    Batch, Block, BlockReason, DeviceId, Estimate, Event, EventBody, Minute, NameSource, UnixSeconds, Usage,
};
use toktra_server::password;
use toktra_store::budgets::Settings;
use toktra_store::directory::{
    Department, Organisation, create_department, create_organisation, create_user,
};
use toktra_store::enrolment::{self, Attempt, EnrolError, Grant, NewCertificate};
use toktra_store::ledger::{Cost, Ledger, Tariff};
use toktra_store::price_mix::Share;
use toktra_store::roles::Role;
use toktra_store::spend::ScopeKey;
use toktra_store::tokens::{self, Use};
use toktra_store::{Store, accounts, budgets, devices, exemptions, flags};

pub const NAME: &str = "ada";
pub const PASSWORD: &str = "correct horse battery staple";

/// Micro-dollars per million tokens, in and out; services that are not here have no price.
const PRICES: [(&str, u64, u64); 4] = [
    ("openai-api", 2_500_000, 10_000_000),
    ("anthropic-api", 3_000_000, 15_000_000),
    ("google-gemini-api", 1_250_000, 10_000_000),
    ("mistral-api", 400_000, 2_000_000),
];

/// Provider, service, host, relative weight.
const SERVICES: [(&str, &str, &str, u64); 6] = [
    ("openai", "openai-api", "api.openai.com", 9),
    ("anthropic", "anthropic-api", "api.anthropic.com", 7),
    ("google", "google-gemini-api", "generativelanguage.googleapis.com", 4),
    ("mistral", "mistral-api", "api.mistral.ai", 3),
    ("github", "github-copilot", "api.githubcopilot.com", 2),
    ("perplexity", "perplexity-chat", "www.perplexity.ai", 1),
];

/// Host, platform, department, weight in per cent.
const MACHINES: [(&str, &str, usize, u64); 12] = [
    ("build-runner-01", "linux", 0, 260),
    ("build-runner-02", "linux", 0, 190),
    ("ada-thinkpad", "linux", 0, 120),
    ("grace-macbook", "macos", 0, 100),
    ("linus-workstation", "linux", 0, 85),
    ("margaret-macbook", "macos", 1, 70),
    ("katherine-macbook", "macos", 1, 55),
    ("dorothy-laptop", "linux", 1, 40),
    ("mary-macbook", "macos", 1, 30),
    ("support-desk-1", "linux", 2, 22),
    ("support-desk-2", "linux", 2, 12),
    ("reception", "macos", 2, 4),
];

struct Prices;

impl Tariff for Prices {
    fn cost(
        &self,
        _: &[Share],
        service: &str,
        _: UnixSeconds,
        tokens_in: Estimate,
        tokens_out: Estimate,
    ) -> Option<Cost> {
        let (_, input, output) = PRICES.iter().find(|(name, ..)| *name == service)?;
        let cost = |tokens_in: u64, tokens_out: u64| (tokens_in * input + tokens_out * output) / 1_000_000;
        Some(Cost {
            low_micros: cost(tokens_in.low, tokens_out.low),
            point_micros: cost(tokens_in.point, tokens_out.point),
            high_micros: cost(tokens_in.high, tokens_out.high),
        })
    }
}

/// Books whatever a test wants in the ledger, at any minute.
pub fn ledger(store: &Store, now: UnixSeconds) -> Ledger {
    Ledger::start(store.clone(), Box::new(Prices), move || now).0
}

/// An organisation with one administrator, whose password is [`PASSWORD`], and nothing else.
pub async fn organisation(store: &Store, name: &str, administrator: &str, now: UnixSeconds) -> Organisation {
    let organisation = create_organisation(store, name, "test", now).await.unwrap();
    let hash = password::hash(PASSWORD).unwrap();
    let owner = (administrator, Role::Owner, &[][..]);
    accounts::create_administrator(store, &organisation, owner, &hash, "test", now).await.unwrap();
    organisation
}

/// Enrols a device.
pub async fn device(
    store: &Store,
    organisation: &Organisation,
    department: Option<&Department>,
    (hostname, platform, user): (&str, &str, Option<&str>),
    now: UnixSeconds,
) -> DeviceId {
    let user = match user {
        Some(email) => Some(create_user(store, organisation, department, email, "test", now).await.unwrap()),
        None => None,
    };
    let hash = uuid::Uuid::new_v4().to_string();
    let grant = Grant { organisation, department, user: user.as_ref() };
    enrolment::create_token(store, &hash, grant, now.plus(60), "test", now).await.unwrap();
    let id: DeviceId = uuid::Uuid::now_v7();
    let description = DeviceDescription {
        hostname: hostname.to_owned(),
        platform: platform.to_owned(),
        agent_version: "0.1.0".to_owned(),
        hardware: None,
    };
    let certificate = NewCertificate {
        serial: uuid::Uuid::new_v4().simple().to_string(),
        issuer: "00".to_owned(),
        root: "00".to_owned(),
        not_before: now,
        not_after: now.plus(90 * 86_400),
        der: String::new(),
        chain_pem: String::new(),
        public_key: uuid::Uuid::new_v4().simple().to_string(),
    };
    let attempt = Attempt {
        token_hash: &hash,
        public_key: &certificate.public_key.clone(),
        description: &description,
        address: "192.0.2.1",
        device: id,
    };
    enrolment::enrol(store, &attempt, now, |_, _| Ok(certificate)).await.unwrap();
    id
}

/// A device that waits for approval.
pub async fn waiting(store: &Store, organisation: &Organisation, hostname: &str, now: UnixSeconds) {
    let hash = uuid::Uuid::new_v4().to_string();
    let grant = Grant { organisation, department: None, user: None };
    let uses = (grant, Use::Reusable { devices: 1 }, "image");
    tokens::create(store, &hash, uses, now.plus(60), "test", now).await.unwrap();
    let attempt = Attempt {
        token_hash: &hash,
        public_key: &hash,
        description: &DeviceDescription {
            hostname: hostname.to_owned(),
            platform: "linux".to_owned(),
            agent_version: "0.1.0".to_owned(),
            hardware: None,
        },
        address: "192.0.2.1",
        device: uuid::Uuid::now_v7(),
    };
    let pending = enrolment::enrol(store, &attempt, now, |_, _| Err("nothing is issued".into())).await;
    assert!(matches!(pending, Err(EnrolError::Pending)));
}

/// Books events for a device that has none yet.
pub async fn book(ledger: &Ledger, device: DeviceId, bodies: Vec<(Minute, EventBody)>) {
    let mut sequence = 0;
    for part in bodies.chunks(200) {
        let events: Vec<_> = part
            .iter()
            .map(|(minute, body)| {
                sequence += 1;
                Event { sequence, minute: *minute, body: body.clone() }
            })
            .collect();
        ledger.book(device, Batch { events }).await.unwrap();
    }
}

/// Usage of one service.
pub fn usage(service: usize, tokens_in: u64, tokens_out: u64, exchanges: u32) -> EventBody {
    let (provider, service, host, _) = SERVICES[service];
    let around = |point: u64, per_mille: u64| Estimate {
        low: point - point * per_mille / 1_000,
        point,
        high: point + point * per_mille / 700,
    };
    EventBody::Usage(Usage {
        provider: provider.to_owned(),
        service: service.to_owned(),
        host: host.to_owned(),
        name_source: NameSource::Sni,
        user_account: Some("user".to_owned()),
        application: Some("python3".to_owned()),
        exchanges,
        bytes_out: tokens_in * 4,
        bytes_in: tokens_out * 300,
        bytes_handshake: 5_000,
        duration_s: 20,
        streaming: true,
        partial: false,
        tokens_in: around(tokens_in, 180),
        tokens_out: around(tokens_out, 40),
        calibration: "test".to_owned(),
    })
}

/// Three departments, twelve devices, six providers, thirty days. No randomness: numbers follow
/// from the day, the device and the service.
pub async fn month(store: &Store, organisation: &Organisation, now: UnixSeconds) {
    let ledger = ledger(store, now);
    let mut departments = Vec::new();
    for name in ["Research & Development", "Marketing", "Customer Support"] {
        departments.push(create_department(store, organisation, name, "test", now).await.unwrap());
    }
    let mut ids = Vec::new();
    for (index, (hostname, platform, department, weight)) in MACHINES.into_iter().enumerate() {
        let person = hostname.split('-').next().unwrap_or_default();
        let email = format!("{person}{index}@acme.example");
        let user = (index >= 2).then_some(email.as_str());
        let id = device(store, organisation, Some(&departments[department]), (hostname, platform, user), now)
            .await;
        ledger.seen(id, (index != 4).then_some(1));
        book(&ledger, id, month_of(index as u64, weight, now)).await;
        ids.push(id);
    }
    let block = Block {
        reason: BlockReason::Budget,
        message: "Budget".to_owned(),
        providers: vec![],
        until: None,
        budget: None,
    };
    devices::set_department_block(store, &departments[2], Some(&block), "test", now).await.unwrap();
    devices::set_lock(store, ids[7], Some("Lost"), "test", now).await.unwrap();
    waiting(store, organisation, "new-thinkpad", now).await;
    devices::revoke(store, ids[8], "test", now).await.unwrap();
    four_budgets(store, organisation, &departments, now).await;
    let waiting = budgets::find(store, organisation, "Research, monthly").await.unwrap();
    exemptions::request(store, ids[3], &waiting.id, "The reviewers' deadline is on Friday.", now)
        .await
        .unwrap();
    drop(ledger);
}

/// One of each state: well within, warned, passed and soft, passed and hard.
async fn four_budgets(
    store: &Store,
    organisation: &Organisation,
    departments: &[Department],
    now: UnixSeconds,
) {
    let whole = (Scope::Organisation, organisation.id.as_str());
    let of = |index: usize| (Scope::Department, departments[index].id.as_str());
    for (name, (scope, id), unit, amount, hard) in [
        ("Everybody, monthly", whole, Unit::Micros, 900_000_000_000, false),
        ("Research, monthly", of(0), Unit::Tokens, 60_000_000_000, true),
        ("Marketing, monthly", of(1), Unit::Tokens, 1_000_000, false),
        ("Support, monthly", of(2), Unit::Tokens, 1_000_000, true),
    ] {
        let scope = ScopeKey { organisation: organisation.id.as_str().into(), scope, id: id.into() };
        let settings = Settings {
            unit,
            amount,
            period: Period::Monthly,
            hard,
            thresholds: vec![50, 75, 90, 100],
            rollover_limit: 0,
            message: String::new(),
        };
        budgets::create(store, name, &scope, &settings, "test", now).await.unwrap();
    }
    flags::set(store, organisation, FF_BUDGET_HARD_CAPS, true, "test", now).await.unwrap();
}

fn month_of(index: u64, weight: u64, now: UnixSeconds) -> Vec<(Minute, EventBody)> {
    let today = now.0 / 86_400;
    let mut bodies = Vec::new();
    for back in (0..62).rev() {
        let day = today - back;
        let weekend = matches!((day + 4) % 7, 0 | 6);
        let busy = (6 + (day * 7 + index * 3) % 9) * if weekend { 2 } else { 10 } * (150 - back) / 3;
        for (service, (.., share)) in SERVICES.iter().enumerate() {
            let hour = (8 + (day * 5 + index * 2 + service as u64 * 3) % 11).min(23);
            let minute = day * 1_440 + hour * 60;
            if minute * 60 > now.0 || (service as u64 + index) % 5 == 4 {
                continue;
            }
            let tokens = busy * weight * share / 10;
            let exchanges = u32::try_from(tokens / 900 + 1).unwrap();
            bodies.push((Minute(minute), usage(service, tokens * 3, tokens, exchanges)));
        }
        if index >= 9 && back < 3 {
            bodies.push((Minute(day * 1_440), blocked()));
        }
    }
    bodies
}

fn blocked() -> EventBody {
    EventBody::Blocked(Blocked {
        provider: "openai".to_owned(),
        service: "openai-api".to_owned(),
        host: "api.openai.com".to_owned(),
        name_source: NameSource::Sni,
        user_account: None,
        application: None,
        reason: BlockReason::Budget,
        cut: false,
    })
}
