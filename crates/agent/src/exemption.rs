//! Passes a user's wish for more on to the backend, where an administrator decides. Anyone on the
//! machine may wish, so wishes are few at a time and each is bounded.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, header};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use toktra_protocol::budget::{EXEMPTION_PATH, ExemptionRequest, REASON_LIMIT};

use crate::board::{Board, NOT_ENROLLED};
use crate::dial::{DialError, Host};

/// Wishes that may wait; beyond that they are refused.
const QUEUE: usize = 4;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the one who wishes waits, others' wishes included.
const PATIENCE: Duration = Duration::from_secs(40);

/// A wish, and where its outcome goes.
#[derive(Debug)]
pub struct ExemptionAsk {
    request: ExemptionRequest,
    outcome: oneshot::Sender<Result<(), DialError>>,
}

/// Why a wish was not passed on. In words for the user.
#[derive(Debug, thiserror::Error)]
pub enum ExemptionError {
    /// There is no session with a backend.
    #[error("{NOT_ENROLLED}")]
    NotEnrolled,
    /// No budget applies, or none of this identifier.
    #[error("no such budget applies to this device; `toktra-agent budget` lists those that do")]
    NoBudget,
    /// Nothing was said, or too much.
    #[error("give a reason of at most {REASON_LIMIT} bytes")]
    Reason,
    /// Others are being passed on.
    #[error("other requests are on their way; try again in a minute")]
    Busy,
    /// The backend is out of reach, or refused.
    #[error("the request did not reach an administrator: {0}")]
    Backend(#[from] DialError),
    /// The agent ends, or the answer takes too long.
    #[error("there was no answer; try again in a minute")]
    NoAnswer,
}

/// Asks an administrator to exempt this device from a budget for a while; from the one with
/// least left if none is named. Returns that budget's name once the backend has the request.
pub async fn request_more(
    board: &Board,
    budget: Option<&str>,
    reason: &str,
) -> Result<String, ExemptionError> {
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > REASON_LIMIT {
        return Err(ExemptionError::Reason);
    }
    let sender = board.exemptions().ok_or(ExemptionError::NotEnrolled)?;
    let budgets = board.status(None).budgets;
    let wanted = budgets.into_iter().find(|one| budget.is_none_or(|id| id == one.id));
    let wanted = wanted.ok_or(ExemptionError::NoBudget)?;
    let request = ExemptionRequest { budget: wanted.id, reason: reason.to_owned() };
    let (outcome, wait) = oneshot::channel();
    sender.try_send(ExemptionAsk { request, outcome }).map_err(|_| ExemptionError::Busy)?;
    let outcome = timeout(PATIENCE, wait).await.ok().and_then(Result::ok);
    outcome.ok_or(ExemptionError::NoAnswer)??;
    Ok(wanted.name)
}

/// The task: one wish after the other, each sent once.
pub async fn pass_on(mut host: Host, board: Arc<Board>) {
    let (sender, mut asks) = mpsc::channel::<ExemptionAsk>(QUEUE);
    board.set_exemptions(sender);
    drop(board);
    while let Some(ask) = asks.recv().await {
        let outcome = post(&mut host, &ask.request).await;
        // Who no longer waits need not hear.
        let _ = ask.outcome.send(outcome);
    }
}

async fn post(host: &mut Host, request: &ExemptionRequest) -> Result<(), DialError> {
    let body = serde_json::to_vec(request).map_err(|error| DialError::Unreachable(error.to_string()))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(EXEMPTION_PATH)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| DialError::Unreachable(error.to_string()))?;
    host.ask(request, ANSWER_TIMEOUT).await.map(drop)
}
