//! The administrator's console: pages rendered here and read in a browser, which brings some of them up to
//! date with one script of ours and shows the same without it.
//!
//! Invariants: every page but the sign-in needs a session whose role may open it (see [`mod@routes`])
//! and shows rows of the session's organisation alone, and of what of it the session reaches; a
//! request that changes something comes from a page of ours (see [`origin`]); no page loads anything
//! from another host, and no script runs but [`assets::live`] (see [`headers`]);
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
mod routes;
mod session;
mod shares;
mod sight;
mod sign_in;
mod throttle;
mod usage;
mod verifier;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, map_response};
use axum::{Router, response::Response};
use toktra_store::Store;

use crate::app::Clock;
use failure::Failure;
pub use routes::{Access, Route, routes};
use throttle::Throttle;
use verifier::Verifier;

/// Longest name of an administrator, in bytes; a longer one is not looked up.
pub(crate) const NAME_LIMIT: usize = 256;

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
    let console =
        Arc::new(Console { store, clock, verifier: Verifier::default(), throttle: Throttle::default() });
    routes::router(&console)
        .layer(DefaultBodyLimit::max(routes::FORM_LIMIT))
        .layer(from_fn(origin::refuse_foreign_writes))
        .layer(map_response(|response| async { headers::harden(response) }))
        .with_state(console)
}

/// The page for an address that leads nowhere; the fallback of the host that serves the console.
pub fn not_found() -> Response {
    headers::harden(Failure::NotFound.into_page())
}
