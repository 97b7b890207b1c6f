//! What an operator watches: counters of this process and the state of the database, in the format of
//! Prometheus (OpenMetrics), on a listener of its own. `docs/server.md` lists the names.
//!
//! Invariants: nothing names a person, a device or a host. What the database knows is read when it is asked
//! for, and no more often than every [`FRESH`]. The listener is off unless `serve --metrics` names an address,
//! speaks plain HTTP and has no other route than these three.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use toktra_protocol::budget::{Budget, Unit};
use toktra_protocol::{Ack, UnixSeconds};
use toktra_store::book::Book;
use toktra_store::directory::Organisation;
use toktra_store::ledger::BookError;
use toktra_store::period::{Day, Days, Zone};
use toktra_store::usage::{self, DEAREST, Dimension, Question};
use toktra_store::{StoreError, approvals, budgets, directory, fleet};

use crate::app::SharedApp;
use crate::routes;

/// The content type of the format.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How old what was read of the database may be.
const FRESH: Duration = Duration::from_secs(10);
/// A device that was not heard of for so long is silent, in seconds.
const SILENT_S: u64 = 24 * 60 * 60;
/// Most providers, with the most cost first.
const PROVIDERS: u32 = 50;

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;
type Count = Family<Labels, Counter>;
type Level = Family<Labels, Gauge<f64, AtomicU64>>;

/// What this process counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    batches: Count,
    /// Those that a device sends again count again.
    events: Counter,
    requests: Count,
    /// What was last read of the database, and when.
    known: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Metrics {
    /// A batch of so many events was booked, or was not.
    pub(crate) fn batch(&self, booked: &Result<Ack, BookError>, events: usize) {
        let outcome = match booked {
            Ok(_) => "booked",
            Err(BookError::Busy) => "busy",
            Err(BookError::Database) => "failed",
            Err(BookError::UnknownDevice | BookError::Revoked | BookError::Gap { .. }) => "refused",
        };
        self.batches.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        if booked.is_ok() {
            self.events.inc_by(events as u64);
        }
    }

    /// A host answered a request.
    pub(crate) fn request(&self, host: &'static str, status: StatusCode) {
        let class = format!("{}xx", status.as_u16() / 100);
        self.requests.get_or_create(&vec![("host", host.to_owned()), ("status", class)]).inc();
    }

    /// Counters that nothing has grown yet are there too, as 0, so that a rate sees their first step.
    fn register(&self, registry: &mut Registry) {
        for outcome in ["booked", "busy", "refused", "failed"] {
            drop(self.batches.get_or_create(&vec![("outcome", outcome.to_owned())]));
        }
        for host in ["api", "ingest"] {
            for class in 2..=5 {
                let class = format!("{class}xx");
                drop(self.requests.get_or_create(&vec![("host", host.to_owned()), ("status", class)]));
            }
        }
        registry.register(
            "toktra_batches",
            "Batches of devices, by what became of them",
            self.batches.clone(),
        );
        registry.register("toktra_events", "Events of batches that were booked", self.events.clone());
        registry.register(
            "toktra_http_requests",
            "Requests answered, by host and class of status",
            self.requests.clone(),
        );
    }
}

/// What the database knows.
#[derive(Default)]
struct Known {
    devices: Level,
    silent: Level,
    waiting: Level,
    spent: Level,
    limit: Level,
    tokens: Level,
    dollars: Level,
    unpriced: Level,
    database: Gauge<f64, AtomicU64>,
    build: Level,
}

impl Known {
    async fn read(app: &SharedApp, now: UnixSeconds) -> Result<Self, StoreError> {
        let known = Self::default();
        known.database.set(app.store.size_bytes().await? as f64);
        set(&known.build, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let book = Book::read(&app.store, now).await?;
        for organisation in directory::organisations(&app.store).await? {
            let name = organisation.name.as_str();
            let since = i64::try_from(now.0.saturating_sub(SILENT_S)).unwrap_or_default();
            let fleet = fleet::fleet(&app.store, &organisation.id, since, now).await?;
            let enrolled = fleet.devices - fleet.revoked;
            set(&known.devices, &[("organisation", name), ("state", "enrolled")], enrolled as f64);
            set(&known.devices, &[("organisation", name), ("state", "revoked")], fleet.revoked as f64);
            set(&known.devices, &[("organisation", name), ("state", "held")], fleet.held as f64);
            let silent = fleet::silent(&app.store, &organisation.id, since).await?;
            set(&known.silent, &[("organisation", name)], silent as f64);
            let waiting = approvals::waiting(&app.store, &organisation.id, now).await?.len();
            set(&known.waiting, &[("organisation", name)], waiting as f64);
            for budget in budgets::of_organisation(&app.store, &organisation).await? {
                let Some(standing) = book.standing(&budget.id) else { continue };
                known.budget(name, standing);
            }
            known.today(app, &organisation, now).await?;
        }
        Ok(known)
    }

    fn budget(&self, organisation: &str, standing: &Budget) {
        let (unit, scale) = match standing.unit {
            Unit::Tokens => ("tokens", 1.0),
            Unit::Micros => ("dollars", 1_000_000.0),
        };
        let labels = [("organisation", organisation), ("budget", &standing.name), ("unit", unit)];
        set(&self.limit, &labels, standing.limit as f64 / scale);
        let spent = &standing.spent;
        for (bound, number) in [("low", spent.low), ("point", spent.point), ("high", spent.high)] {
            let labels = [labels[0], labels[1], labels[2], ("bound", bound)];
            set(&self.spent, &labels, number as f64 / scale);
        }
    }

    async fn today(
        &self,
        app: &SharedApp,
        organisation: &Organisation,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let zone = directory::time_zone(&app.store, organisation).await?;
        let today = Zone::named(&zone).unwrap_or(Zone::UTC).day(now);
        let days = Days { start: today, end: Day(today.0 + 1) };
        let question = Question { organisation: organisation.id.clone(), days, only: Vec::new() };
        let all = (0, PROVIDERS);
        for share in usage::by(&app.store, &question, Dimension::Provider, DEAREST, all).await? {
            let labels = [("organisation", organisation.name.as_str()), ("provider", share.id.as_str())];
            set(&self.tokens, &labels, share.sums.tokens().point as f64);
            set(&self.dollars, &labels, share.sums.cost_micros.point as f64 / 1_000_000.0);
            set(&self.unpriced, &labels, share.sums.tokens_unpriced as f64);
        }
        Ok(())
    }

    fn register(self, registry: &mut Registry) {
        for (name, help, level) in [
            ("toktra_devices", "Devices, by state; held ones have a lock or a block in force", self.devices),
            ("toktra_devices_silent", "Enrolled devices that were not heard of for 24 hours", self.silent),
            ("toktra_devices_waiting", "Devices that wait for approval", self.waiting),
            ("toktra_budget_spent", "Spent in the budget's present period, in its unit", self.spent),
            ("toktra_budget_limit", "Limit of the budget's present period, in its unit", self.limit),
            ("toktra_usage_today_tokens", "Tokens of the organisation's present day", self.tokens),
            ("toktra_usage_today_cost_dollars", "Cost of them at list prices, in dollars", self.dollars),
            ("toktra_usage_today_tokens_unpriced", "Of the tokens, those without a price", self.unpriced),
            ("toktra_build_info", "Always 1; the version is a label", self.build),
        ] {
            registry.register(name, help, level);
        }
        registry.register("toktra_database_bytes", "Size of the database", self.database);
    }
}

fn set(level: &Level, labels: &[(&'static str, &str)], value: f64) {
    let labels = labels.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    level.get_or_create(&labels).set(value);
}

/// Listens, and answers until the server stops. Returns where.
pub(crate) async fn serve(app: SharedApp, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen for metrics on {address}"))?;
    let address = listener.local_addr()?;
    let mut stop = app.stop.subscribe();
    let served = axum::serve(listener, router(app)).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "Metrics are not served any more.");
        }
    });
    Ok(address)
}

/// The routes of the listener.
pub fn router(app: SharedApp) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(routes::ready))
        .with_state(app)
}

async fn metrics(State(app): State<SharedApp>) -> Response {
    match text(&app).await {
        Ok(text) => ([(CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!("Metrics could not be read: {error:#}.");
            (StatusCode::SERVICE_UNAVAILABLE, "The database does not answer.\n").into_response()
        }
    }
}

async fn text(app: &SharedApp) -> anyhow::Result<String> {
    // Whoever asks at the same time waits for the one answer.
    let mut known = app.metrics.known.lock().await;
    let fresh = known.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
    let of_database = match fresh {
        Some((_, text)) => text.clone(),
        None => {
            let mut registry = Registry::default();
            Known::read(app, app.clock.now()).await?.register(&mut registry);
            let text = encoded(&registry)?;
            *known = Some((Instant::now(), text.clone()));
            text
        }
    };
    let mut registry = Registry::default();
    app.metrics.register(&mut registry);
    // Each ends as the format says that a whole answer ends; there is one end.
    let own = encoded(&registry)?;
    Ok(format!("{}{of_database}", own.trim_end_matches("# EOF\n")))
}

fn encoded(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}
