//! The routes of each host. A host has no route of another's.

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use toktra_protocol::{Code, budget, codec, enrol};

use crate::app::SharedApp;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::{console, crl, directives, exemptions, ingest};

/// The API host: enrolment, health and the console.
pub fn api(app: SharedApp) -> Router {
    let pages = console::router(app.store.clone(), app.clock);
    let metrics = app.metrics.clone();
    let own = Router::new()
        .route(enrol::PATH, post(crate::enrol::enroll))
        .route(enrol::TIME_PATH, get(crate::time::time))
        .route(crl::CRL_PATH, get(crl::crl))
        .route(crl::CA_PATH, get(crl::ca))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(app);
    counted(with_fallbacks(own.merge(pages)).fallback(not_found), metrics, "api")
}

/// The ingest host: device traffic. The vault's routes have a state of their own.
pub fn ingest(app: SharedApp, vault: Router) -> Router {
    let metrics = app.metrics.clone();
    let own = Router::new()
        .merge(crate::est::router())
        .route(enrol::RENEW_PATH, post(crate::renew::renew))
        .route(codec::EVENTS_PATH, post(ingest::events))
        .route(codec::DIRECTIVE_PATH, get(directives::directive))
        .route(budget::EXEMPTION_PATH, post(exemptions::request))
        .with_state(app);
    counted(with_fallbacks(own.merge(vault)), metrics, "ingest")
}

/// The updates host.
pub fn updates() -> Router {
    with_fallbacks(Router::new())
}

fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async || Refusal::new(Code::NotFound, "There is nothing at this path of this host."))
        .method_not_allowed_fallback(async || {
            Refusal::new(Code::Method, "This path does not take this method; see `allow`.")
        })
}

/// Counts every answer of a host.
fn counted(router: Router, metrics: Metrics, host: &'static str) -> Router {
    router.layer(map_response(move |response: Response| {
        metrics.request(host, response.status());
        std::future::ready(response)
    }))
}

/// People get a page, programs a problem.
async fn not_found(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return console::not_found();
    }
    Refusal::new(Code::NotFound, "There is nothing at this path of this host.").into_response()
}

pub(crate) async fn ready(
    axum::extract::State(app): axum::extract::State<SharedApp>,
    _headers: HeaderMap,
) -> Result<&'static str, Refusal> {
    match app.store.changes().await {
        Ok(_) => Ok("ready\n"),
        Err(error) => {
            tracing::error!(%error, "The database does not answer.");
            Err(Refusal::new(Code::Busy, "The database does not answer.").retry_after(5))
        }
    }
}
