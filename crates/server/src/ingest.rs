//! `POST /v1/events`: a device's batch, answered once it is durable.

use std::error::Error as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::{Extension, Json};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use toktra_protocol::codec::{COMPRESSED_LIMIT, CodecError, DECOMPRESSED_LIMIT};
use toktra_protocol::{Ack, Batch, Code};
use toktra_store::ledger::BookError;

use crate::app::SharedApp;
use crate::peer::{Caller, Peer, revoked, unknown};
use crate::refusal::Refusal;

/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Books a batch.
pub async fn events(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<Ack>, Refusal> {
    let caller = Caller::admit(&app, &peer).await?;
    require_json(request.headers())?;
    let compressed = is_compressed(request.headers())?;
    let limit = if compressed { COMPRESSED_LIMIT } else { DECOMPRESSED_LIMIT };
    let body = read_body(request.into_body(), limit).await?;
    let batch = if compressed { Batch::decode(&body) } else { Batch::from_json(&body) };
    drop(body);
    let batch = batch.map_err(|error| codec_refusal(&error))?;
    let events = batch.events.len();
    let booked = app.ledger.book(caller.identity.device, batch).await;
    app.metrics.batch(&booked, events);
    let ack = booked.map_err(|error| book_refusal(&error))?;
    caller.entry.is_news(None, app.clock.now());
    Ok(Json(ack))
}

/// Refuses what does not call itself JSON.
pub fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::new(Code::MediaType, "Send `content-type: application/json`."))
    }
}

/// Reads a body up to a limit, within a time.
pub async fn read_body(body: Body, limit: usize) -> Result<axum::body::Bytes, Refusal> {
    let reading = Limited::new(body, limit).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::TooLarge, format!("The body exceeds {limit} bytes. Send less at once.")))
        }
        Ok(Err(_)) => {
            Err(Refusal::new(Code::BadRequest, "The body ended before it was complete. Send it again."))
        }
        Err(_) => Err(Refusal::new(Code::BadRequest, "The body took too long to come. Send it again.")),
    }
}

fn is_compressed(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        Some(b"zstd") => Ok(true),
        None | Some(b"identity") => Ok(false),
        Some(_) => Err(Refusal::new(Code::MediaType, "Send `content-encoding: zstd` or none.")),
    }
}

fn codec_refusal(error: &CodecError) -> Refusal {
    let code = match error {
        CodecError::TooLarge => Code::TooLarge,
        CodecError::Zstd(_) | CodecError::Json(_) => Code::BadRequest,
        CodecError::Order => Code::BatchOrder,
        CodecError::Event(_) => Code::BadEvent,
    };
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    Refusal::new(code, format!("Nothing was stored: {error}{cause}."))
}

/// Why the ledger did not do what was asked.
pub fn book_refusal(error: &BookError) -> Refusal {
    match error {
        BookError::Busy => {
            Refusal::new(Code::Busy, "Too many events wait to be stored. Send the batch again later.")
                .retry_after(1)
        }
        BookError::UnknownDevice => unknown(),
        BookError::Revoked => revoked(),
        BookError::Gap { acknowledged, .. } => {
            let next = acknowledged.saturating_add(1);
            Refusal::new(Code::BatchOrder, format!("Nothing was stored: {error}. Send from {next} on."))
                .acknowledged(*acknowledged)
        }
        BookError::Database => Refusal::internal(error),
    }
}
