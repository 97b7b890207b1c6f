//! The two buttons of a device's row: a lock, which blocks every provider until it is lifted. Only of
//! devices of the session's organisation; audited under the administrator's name.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use toktra_protocol::DeviceId;
use toktra_store::budgets::MESSAGE_LIMIT;
use toktra_store::devices;

use super::Console;
use super::failure::Failure;
use super::session::Administrator;

/// What a lock's form sends.
#[derive(Deserialize)]
pub(super) struct Lock {
    device: DeviceId,
    message: String,
}

/// What an unlock's form sends.
#[derive(Deserialize)]
pub(super) struct Unlock {
    device: DeviceId,
}

/// `POST /devices/lock`
pub(super) async fn lock(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Lock>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(Lock { device, message }) = form.map_err(|_| Failure::BadForm)?;
    let message = message.trim();
    if !(1..=MESSAGE_LIMIT).contains(&message.len()) || message.contains(char::is_control) {
        return Err(Failure::BadForm);
    }
    set(&console, &administrator, device, Some(message)).await
}

/// `POST /devices/unlock`
pub(super) async fn unlock(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    form: Result<Form<Unlock>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(Unlock { device }) = form.map_err(|_| Failure::BadForm)?;
    set(&console, &administrator, device, None).await
}

async fn set(
    console: &Console,
    administrator: &Administrator,
    id: DeviceId,
    message: Option<&str>,
) -> Result<Response, Failure> {
    let session = &administrator.session;
    let device = devices::find(&console.store, id).await?;
    if device.is_none_or(|device| device.organisation_id != session.organisation_id) {
        return Err(Failure::NotFound);
    }
    devices::set_lock(&console.store, id, message, &session.administrator, console.clock.now()).await?;
    Ok(Redirect::to(&format!("/devices#device-{id}")).into_response())
}
