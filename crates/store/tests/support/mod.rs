//! An organisation with a tree of departments, two users and a clock of its own, and what they spend.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![allow(dead_code, reason = "each file of tests uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use toktra_protocol::budget::{Budget, Period, Scope, Unit};
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::{Batch, DeviceId, Estimate, Event, EventBody, Minute, NameSource, UnixSeconds, Usage};
use toktra_store::book::Book;
use toktra_store::budgets::{self, BudgetRow, Settings};
use toktra_store::directory::{self, Department, Organisation, User};
use toktra_store::ledger::{Cost, Tariff};
use toktra_store::price_mix::Share;
use toktra_store::spend::{self, ScopeKey};
use toktra_store::{Ledger, Store, audit, devices, flags};

/// 2026-11-23T12:00:00Z, a Monday.
pub const NOW: UnixSeconds = UnixSeconds(1_795_435_200);
pub const DAY_S: u64 = 24 * 60 * 60;
pub const PERIODS: [Period; 5] =
    [Period::Daily, Period::Weekly, Period::Monthly, Period::Quarterly, Period::Annual];

/// Three dollars a million tokens, in micro-dollars; `free-service` has no price.
pub struct ThreeDollars;

impl Tariff for ThreeDollars {
    fn cost(
        &self,
        _mix: &[Share],
        service: &str,
        _at: UnixSeconds,
        sent: Estimate,
        received: Estimate,
    ) -> Option<Cost> {
        let sum = sent.plus(received);
        (service != "free-service").then_some(Cost {
            low_micros: sum.low * 3,
            point_micros: sum.point * 3,
            high_micros: sum.high * 3,
        })
    }
}

/// Engineering, in it Research, in it Vision, where Ada works; beside them Sales, where Bob works.
pub struct House {
    pub directory: TempDir,
    pub store: Store,
    pub ledger: Ledger,
    pub clock: Arc<AtomicU64>,
    pub acme: Organisation,
    pub engineering: Department,
    pub research: Department,
    pub vision: Department,
    pub sales: Department,
    pub ada: User,
    pub bob: User,
}

impl House {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("toktra.db")).await.unwrap();
        let acme = directory::create_organisation(&store, "Acme", "test", NOW).await.unwrap();
        let department = async |parent: Option<&Department>, name| {
            directory::create_department_within(&store, &acme, parent, name, "test", NOW).await.unwrap()
        };
        let engineering = department(None, "Engineering").await;
        let research = department(Some(&engineering), "Research").await;
        let vision = department(Some(&research), "Vision").await;
        let sales = department(None, "Sales").await;
        let user =
            async |of, email| directory::create_user(&store, &acme, Some(of), email, "test", NOW).await;
        let (ada, bob) = (user(&vision, "ada@acme").await.unwrap(), user(&sales, "bob@acme").await.unwrap());
        let clock = Arc::new(AtomicU64::new(NOW.0));
        let ledger = ledger(&store, &clock);
        Self { directory, store, ledger, clock, acme, engineering, research, vision, sales, ada, bob }
    }

    pub fn now(&self) -> UnixSeconds {
        UnixSeconds(self.clock.load(Ordering::Relaxed))
    }

    pub fn set_clock(&self, now: UnixSeconds) {
        self.clock.store(now.0, Ordering::Relaxed);
    }

    pub async fn device(&self, department: &Department, user: Option<&User>) -> DeviceId {
        let id = DeviceId::new_v4();
        let mut transaction = self.store.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO devices (id, organisation_id, department_id, user_id, hostname, platform,
                agent_version, state, enrolled_at, acknowledged_sequence, directive_version)
             VALUES ($1, $2, $3, $4, 'host', 'linux', '1', 'enrolled', 0, 0, 1)",
        )
        .bind(id.to_string())
        .bind(&self.acme.id)
        .bind(&department.id)
        .bind(user.map(|user| &user.id))
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        id
    }

    pub async fn move_device(&self, device: DeviceId, department: Option<&Department>, user: Option<&User>) {
        devices::move_to(&self.store, &self.acme, device, (department, user), "test", self.now())
            .await
            .unwrap();
    }

    pub fn scope(&self, scope: Scope, id: &str) -> ScopeKey {
        ScopeKey { organisation: self.acme.id.as_str().into(), scope, id: id.into() }
    }

    pub fn everyone(&self) -> ScopeKey {
        self.scope(Scope::Organisation, &self.acme.id)
    }

    pub async fn budget(&self, name: &str, scope: &ScopeKey, settings: &Settings) -> BudgetRow {
        budgets::create(&self.store, name, scope, settings, "test", self.now()).await.unwrap()
    }

    pub async fn flag(&self, on: bool) {
        flags::set(&self.store, &self.acme, FF_BUDGET_HARD_CAPS, on, "test", self.now()).await.unwrap();
    }

    pub async fn version(&self, device: DeviceId) -> i64 {
        devices::find(&self.store, device).await.unwrap().unwrap().directive_version
    }

    /// What a device is told of its budgets.
    pub async fn told(&self, device: DeviceId) -> Vec<Budget> {
        let book = Book::read(&self.store, self.now()).await.unwrap();
        book.applying(&devices::find(&self.store, device).await.unwrap().unwrap())
    }

    /// Whether a device's directive blocks it.
    pub async fn is_blocked(&self, device: DeviceId) -> bool {
        let book = Book::read(&self.store, self.now()).await.unwrap();
        let row = devices::find(&self.store, device).await.unwrap().unwrap();
        book.hold(&row, self.now()).block.is_some()
    }

    pub async fn standing(&self, budget: &BudgetRow) -> Budget {
        budgets::standing_now(&self.store, budget, self.now()).await.unwrap()
    }

    /// Books events of one day's minute each.
    pub async fn spend(&self, device: DeviceId, first: u64, tokens: &[u64]) {
        let minute = self.now().minute();
        let events = tokens.iter().zip(first..).map(|(&tokens, number)| usage(number, minute, tokens));
        self.ledger.book(device, Batch { events: events.collect() }).await.unwrap();
    }

    pub async fn actions(&self) -> Vec<String> {
        let rows = audit::newest(&self.store, 1000).await.unwrap();
        rows.into_iter().map(|row| row.action).collect()
    }

    pub async fn is_even(&self) -> bool {
        spend::balances(&self.store).await.unwrap().iter().all(spend::SpendBalance::is_even)
    }
}

pub fn ledger(store: &Store, clock: &Arc<AtomicU64>) -> Ledger {
    let clock = Arc::clone(clock);
    let now = move || UnixSeconds(clock.load(Ordering::Relaxed));
    Ledger::start(store.clone(), Box::new(ThreeDollars), now).0
}

/// The point estimate is so many tokens, the lower bound half of it.
pub fn usage(sequence: u64, minute: Minute, tokens: u64) -> Event {
    Event {
        sequence,
        minute,
        body: EventBody::Usage(Usage {
            provider: "openai".into(),
            service: "openai-api".into(),
            host: "api.openai.com".into(),
            name_source: NameSource::Sni,
            user_account: None,
            application: None,
            exchanges: 1,
            bytes_out: 1,
            bytes_in: 1,
            bytes_handshake: 0,
            duration_s: 0,
            streaming: false,
            partial: false,
            tokens_in: Estimate { low: tokens / 2, point: tokens, high: tokens * 2 },
            tokens_out: Estimate::default(),
            calibration: "c".into(),
        }),
    }
}

pub fn hard(unit: Unit, amount: u64, period: Period) -> Settings {
    Settings {
        unit,
        amount,
        period,
        hard: true,
        thresholds: vec![75, 90, 100],
        rollover_limit: 0,
        message: String::new(),
    }
}
