//! `POST /v1/exemptions`: a device's user asks that a cap be opened for a time. Answered with 204;
//! an administrator decides, and the device's directive says so.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use toktra_protocol::Code;
use toktra_protocol::budget::{ExemptionRequest, REASON_LIMIT};
use toktra_store::exemptions::{self, ExemptionError, REQUESTS_PER_DAY};

use crate::app::SharedApp;
use crate::ingest::{read_body, require_json};
use crate::peer::{Caller, Peer};
use crate::refusal::Refusal;

/// Largest body, in bytes: a reason, each byte of it escaped, and an identifier.
const BODY_LIMIT: usize = 6 * REASON_LIMIT + 512;

/// Stores a request.
pub async fn request(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let caller = Caller::admit(&app, &peer).await?;
    require_json(request.headers())?;
    let body = read_body(request.into_body(), BODY_LIMIT).await?;
    let asked: ExemptionRequest = serde_json::from_slice(&body).map_err(|_| {
        Refusal::new(Code::BadRequest, "Send `{\"budget\": IDENTIFIER, \"reason\": TEXT}`, both as text.")
    })?;
    let device = caller.identity.device;
    exemptions::request(&app.store, device, &asked.budget, &asked.reason, app.clock.now())
        .await
        .map_err(|error| refusal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn refusal(error: &ExemptionError) -> Refusal {
    match error {
        ExemptionError::Reason => {
            Refusal::new(Code::BadRequest, format!("Nothing was stored: {error}. Say it in one line."))
        }
        ExemptionError::NotApplying => Refusal::new(
            Code::NotFound,
            "No budget of this identifier applies to the device. Take one from its directive.",
        ),
        ExemptionError::TooMany => Refusal::new(
            Code::RateLimited,
            format!("{REQUESTS_PER_DAY} requests of this device within a day. Ask an administrator."),
        )
        .retry_after(60 * 60),
        ExemptionError::State(_) | ExemptionError::Store(_) => Refusal::internal(error),
    }
}
