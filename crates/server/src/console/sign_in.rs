//! Signing in and out. A wrong password, an unknown name and a locked account get the same
//! answer after the same work.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, State};
use axum::http::header::{RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use toktra_store::accounts::{self, ClaimedAttempt};

use super::failure::{Failure, render};
use super::session::{Administrator, SessionKey, end, expired_cookie};
use super::verifier::TypedPassword;
use super::{Console, NAME_LIMIT, assets};
use crate::peer::Peer;

/// The form of the sign-in.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Credentials {
    name: String,
    password: TypedPassword,
}

#[derive(Template)]
#[template(path = "login.html")]
struct SignInPage<'a> {
    style: &'a str,
    name: &'a str,
    complaint: &'a str,
}

/// `GET /login`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if Administrator::find(&console, &headers).await?.is_some() {
        return Ok(Redirect::to("/").into_response());
    }
    Ok(form(StatusCode::OK, "", ""))
}

/// `POST /login`
pub(super) async fn sign_in(
    State(console): State<Arc<Console>>,
    peer: Option<Extension<Peer>>,
    credentials: Result<Form<Credentials>, FormRejection>,
) -> Result<Response, Failure> {
    let Form(Credentials { name, password }) = credentials.map_err(|_| Failure::BadForm)?;
    let address = peer.map(|Extension(peer)| peer.address.ip());
    if !console.throttle.admits(address, console.clock.now().minute()) {
        return Ok(too_many(&name, 60));
    }
    let name = name.trim();
    let attempt = if name.len() <= NAME_LIMIT {
        accounts::claim_attempt(&console.store, name, console.clock.now()).await?
    } else {
        None
    };
    let phc = attempt.as_ref().map(|attempt| attempt.password_hash.clone());
    let Ok(matches) = console.verifier.matches(password, phc).await else {
        return Ok(too_many(name, 2));
    };
    match attempt {
        Some(attempt) if matches => open(&console, &attempt).await,
        attempt => {
            if let Some(attempt) = attempt.filter(|attempt| attempt.locked_until.is_some()) {
                accounts::note_locked_out(&console.store, &attempt, console.clock.now()).await?;
            }
            Ok(form(StatusCode::UNAUTHORIZED, name, REFUSED))
        }
    }
}

/// `POST /logout`
pub(super) async fn sign_out(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
) -> Result<Response, Failure> {
    accounts::close_session(&console.store, &administrator.session_hash()).await?;
    Ok(([(SET_COOKIE, expired_cookie())], Redirect::to("/login")).into_response())
}

/// The one answer to whatever did not work; it must not tell a name that exists from one that does not.
const REFUSED: &str = "This name and password do not match. After five wrong passwords an account \
    stays locked for ten minutes, even for the right one.";

const TOO_MANY: &str = "There have been too many attempts to sign in. Wait a minute, then try again.";

async fn open(console: &Console, attempt: &ClaimedAttempt) -> Result<Response, Failure> {
    let key = SessionKey::generate().map_err(|_| Failure::Internal)?;
    let now = console.clock.now();
    accounts::open_session(&console.store, attempt, &key.hash(), now, end(now, now)).await?;
    Ok(([(SET_COOKIE, key.cookie())], Redirect::to("/")).into_response())
}

fn too_many(name: &str, retry_after_s: u32) -> Response {
    let mut response = form(StatusCode::TOO_MANY_REQUESTS, name, TOO_MANY);
    response.headers_mut().insert(RETRY_AFTER, retry_after_s.into());
    response
}

fn form(status: StatusCode, name: &str, complaint: &str) -> Response {
    render(status, &SignInPage { style: assets::style_href(), name, complaint })
}
