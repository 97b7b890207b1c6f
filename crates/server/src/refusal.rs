//! A [`Problem`] as an HTTP response: the one place where errors become status codes.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use toktra_protocol::problem::MEDIA_TYPE;
use toktra_protocol::{Code, Problem};

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    problem: Problem,
    retry_after_s: Option<u64>,
}

impl Refusal {
    /// A refusal with this code; `detail` says what happened and what to do next.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: Problem::new(code, detail), retry_after_s: None }
    }

    /// Adds `Retry-After`.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// Tells a device where to go on.
    pub fn acknowledged(self, acknowledged: u64) -> Self {
        Self { problem: self.problem.with_acknowledged(acknowledged), ..self }
    }

    /// A fault of ours. The cause is logged, not told.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(cause, "A request failed.");
        Self::new(Code::Internal, "The server failed; its log has the cause. Try again later.")
            .retry_after(30)
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.problem.code
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
