//! The administrator's console: pages rendered here, read in a browser, without a script.
//!
//! Invariants: every page but the sign-in needs a session and shows rows of the session's
//! organisation alone; a request that changes something comes from a page of ours (see
//! [`origin`]); no page loads anything from another host or runs a script (see [`headers`]);
//! templates escape everything; no SQL here.

mod assets;
mod budgets;
mod chart;
mod devices;
mod failure;
mod figures;
mod headers;
mod locks;
mod origin;
mod overview;
mod pending;
mod perks;
mod session;
mod sign_in;
mod throttle;
mod verifier;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, map_response};
use axum::routing::{get, post};
use axum::{Router, response::Response};
use toktra_store::Store;

use crate::app::Clock;
use failure::Failure;
use throttle::Throttle;
use verifier::Verifier;

/// Longest name of an administrator, in bytes; a longer one is not looked up.
pub(crate) const NAME_LIMIT: usize = 256;
/// Largest form that is read, in bytes.
const FORM_LIMIT: usize = 8 * 1024;

/// What the console's handlers share.
struct Console {
    store: Store,
    clock: Clock,
    verifier: Verifier,
    throttle: Throttle,
}

/// The console's pages, for the host of the API. Attempts to sign in are counted for each
/// address where a request's extensions hold its [`crate::peer::Peer`].
pub fn router(store: Store, clock: Clock) -> Router {
    let console = Console { store, clock, verifier: Verifier::default(), throttle: Throttle::default() };
    Router::new()
        .route("/", get(overview::page))
        .route("/budgets", get(budgets::page))
        .route("/budgets/add", post(budgets::add))
        .route("/budgets/caps", post(budgets::caps))
        .route("/budgets/exemptions", post(budgets::decide))
        .route("/budgets/remove", post(budgets::remove))
        .route("/budgets/set", post(budgets::set))
        .route("/devices", get(devices::page))
        .route("/devices/approve", post(pending::approve))
        .route("/devices/deny", post(pending::deny))
        .route("/devices/lock", post(locks::lock))
        .route("/devices/unlock", post(locks::unlock))
        .route("/perks", get(perks::page))
        .route("/perks/tiers", post(perks::set_tier))
        .route("/perks/tiers/remove", post(perks::remove_tier))
        .route("/perks/enrol", post(perks::enrol))
        .route("/perks/remove", post(perks::remove))
        .route("/login", get(sign_in::page).post(sign_in::sign_in))
        .route("/logout", post(sign_in::sign_out))
        .route("/style.css", get(|| async { assets::style() }))
        .route("/favicon.svg", get(|| async { assets::favicon() }))
        .layer(DefaultBodyLimit::max(FORM_LIMIT))
        .layer(from_fn(origin::refuse_foreign_writes))
        .layer(map_response(|response| async { headers::harden(response) }))
        .with_state(Arc::new(console))
}

/// The page for an address that leads nowhere; the fallback of the host that serves the console.
pub fn not_found() -> Response {
    headers::harden(Failure::NotFound.into_page())
}
