//! Why a page was not shown, and the page that is shown instead. What went wrong inside is
//! logged, never shown.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use toktra_store::StoreError;

use super::assets;

/// Why a page was not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing lives at that address.
    NotFound,
    /// The form lacks a field, or is too large.
    BadForm,
    /// The form was not sent from a page of this session.
    ForeignOrigin,
    /// The account's role does not include it.
    Role,
    /// Our fault.
    Internal,
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage<'a> {
    style: &'a str,
    status: u16,
    title: &'a str,
    advice: &'a str,
}

impl Failure {
    /// The page that says so.
    pub(super) fn into_page(self) -> Response {
        let (status, title, advice) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "There is no such page",
                "Check the address, or start from the overview.",
            ),
            Self::BadForm => (
                StatusCode::BAD_REQUEST,
                "The form could not be read",
                "Go back, fill in every field and send it again.",
            ),
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                "This request was refused",
                "It did not come from a page of your present session. Open the page anew and try again.",
            ),
            Self::Role => (
                StatusCode::FORBIDDEN,
                "This is not part of your role",
                "An owner of your organisation can give your account another role.",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The server could not answer",
                "Try again in a moment. The server's log says what went wrong.",
            ),
        };
        render(status, &FailurePage { style: assets::style_href(), status: status.as_u16(), title, advice })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.into_page()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a page of the console failed");
        Self::Internal
    }
}

/// Renders a page.
pub(super) fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a template failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page could not be rendered.").into_response()
        }
    }
}
