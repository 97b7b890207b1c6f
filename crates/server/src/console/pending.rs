//! The devices that wait for approval, and the two buttons that decide on each. Only of the session's
//! organisation; audited under the administrator's name.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use toktra_protocol::UnixSeconds;
use toktra_store::approvals::{self, Waiting};
use toktra_store::{Store, StoreError};
use uuid::Uuid;

use super::failure::Failure;
use super::session::Administrator;
use super::{Console, figures};

/// Rows on a page: those that wait longest.
const SHOWN: usize = 50;

/// What waits, as the page shows it.
pub(super) struct Pending {
    pub(super) rows: Vec<Row>,
    /// How many more wait.
    pub(super) more: usize,
}

pub(super) struct Row {
    pub(super) waiting: Waiting,
    pub(super) since: String,
    pub(super) full: String,
}

impl Pending {
    pub(super) async fn of(store: &Store, organisation: &str, now: UnixSeconds) -> Result<Self, StoreError> {
        let mut waiting = approvals::waiting(store, organisation, now).await?;
        let more = waiting.len().saturating_sub(SHOWN);
        waiting.truncate(SHOWN);
        let now = i64::try_from(now.0).unwrap_or(i64::MAX);
        let row = |waiting: Waiting| Row {
            since: figures::ago(waiting.requested_at, now),
            full: figures::full_time(waiting.requested_at),
            waiting,
        };
        Ok(Self { rows: waiting.into_iter().map(row).collect(), more })
    }
}

/// What either button sends.
#[derive(Deserialize)]
pub(super) struct Decision {
    request: Uuid,
}

/// `POST /devices/approve`
pub(super) async fn approve(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Decision>, FormRejection>,
) -> Result<Response, Failure> {
    decide(&console, &administrator, form, true).await
}

/// `POST /devices/deny`
pub(super) async fn deny(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Decision>, FormRejection>,
) -> Result<Response, Failure> {
    decide(&console, &administrator, form, false).await
}

async fn decide(
    console: &Console,
    administrator: &Administrator,
    form: Result<Form<Decision>, FormRejection>,
    approve: bool,
) -> Result<Response, Failure> {
    let Form(Decision { request }) = form.map_err(|_| Failure::BadForm)?;
    let session = &administrator.session;
    let (organisation, id) = (Some(session.organisation_id.as_str()), request.to_string());
    let now = console.clock.now();
    match approvals::decide(&console.store, organisation, &id, approve, &session.administrator, now).await {
        Err(StoreError::NotFound { .. }) => Err(Failure::NotFound),
        decided => {
            decided?;
            Ok(Redirect::to("/devices").into_response())
        }
    }
}
