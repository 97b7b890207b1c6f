//! `GET /v1/time` on the API host: the server's clock, for everyone, so that a device whose own
//! clock is wrong can tell.

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Json};
use toktra_protocol::enrol::ServerTime;

use crate::app::SharedApp;

/// Answers with the clock.
pub async fn time(State(app): State<SharedApp>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(ServerTime { server_time: app.clock.now() }))
}
