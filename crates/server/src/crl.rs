//! `GET /v1/crl/ISSUER.crl` and `GET /v1/ca.pem` on the API host: what others need who verify our
//! device certificates. The backend itself asks its roster with every request.
//!
//! A list is signed when it is asked for, kept in memory, and signed anew when something was
//! changed in the database or it is an hour old, so that it is never far from its end. Who is not
//! an intermediate that is trusted now has none, so that nothing asked for can fill the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use toktra_pki::RevokedCertificate;
use toktra_protocol::{Code, UnixSeconds};
use toktra_store::certificates;

use crate::app::{App, SharedApp};
use crate::refusal::Refusal;

/// Where an intermediate's list is; `ISSUER.crl`, its key identifier in hexadecimal.
pub const CRL_PATH: &str = "/v1/crl/{file}";
/// Where the certificates of roots and CAs are.
pub const CA_PATH: &str = "/v1/ca.pem";
/// A list is signed anew at least so often.
const FRESH_S: u64 = 60 * 60;
/// An expired certificate stays on the list so long, for verifiers whose clock is behind.
const KEPT_S: u64 = 24 * 60 * 60;

/// The lists that were signed, by intermediate.
#[derive(Debug, Default)]
pub struct Lists(Mutex<HashMap<String, Arc<List>>>);

#[derive(Debug)]
struct List {
    der: Vec<u8>,
    number: u64,
    made_at: UnixSeconds,
    /// The database's counter of changes when it was made.
    changes: i64,
}

impl List {
    fn is_fresh(&self, changes: i64, now: UnixSeconds) -> bool {
        self.changes == changes && self.made_at <= now && now < self.made_at.plus(FRESH_S)
    }
}

/// Answers with an intermediate's list.
pub async fn crl(State(app): State<SharedApp>, Path(file): Path<String>) -> Result<Response, Refusal> {
    let issuer = file.strip_suffix(".crl").unwrap_or_default();
    let list = current(&app, issuer).await?;
    let headers = [(CONTENT_TYPE, "application/pkix-crl"), (CACHE_CONTROL, "no-cache")];
    Ok((headers, list.der.clone()).into_response())
}

/// Answers with roots and CAs.
pub async fn ca(State(app): State<SharedApp>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-pem-file"), (CACHE_CONTROL, "no-cache")], app.authority().ca_pem())
}

async fn current(app: &App, issuer: &str) -> Result<Arc<List>, Refusal> {
    let authority = app.authority();
    if !authority.trusted_issuers().any(|trusted| trusted == issuer) {
        return Err(none());
    }
    let now = app.clock.now();
    let changes = app.store.changes().await.map_err(|error| Refusal::internal(&error))?;
    let known = app.lists.0.lock().unwrap_or_else(PoisonError::into_inner).get(issuer).cloned();
    if let Some(list) = known.as_ref().filter(|list| list.is_fresh(changes, now)) {
        return Ok(Arc::clone(list));
    }
    let number = known.map_or(now.0, |list| now.0.max(list.number + 1));
    let entries = entries(app, issuer, now).await?;
    let der = authority
        .crl(issuer, &entries, number, now)
        .map_err(|error| Refusal::internal(&error))?
        .ok_or_else(none)?;
    let list = Arc::new(List { der, number, made_at: now, changes });
    let mut lists = app.lists.0.lock().unwrap_or_else(PoisonError::into_inner);
    lists.retain(|id, _| authority.trusted_issuers().any(|trusted| trusted == id));
    lists.insert(issuer.to_owned(), Arc::clone(&list));
    Ok(list)
}

async fn entries(app: &App, issuer: &str, now: UnixSeconds) -> Result<Vec<RevokedCertificate>, Refusal> {
    let revoked = certificates::revoked(&app.store, issuer).await;
    let revoked = revoked.map_err(|error| Refusal::internal(&error))?.into_iter();
    Ok(revoked
        .filter(|one| now < one.not_after.plus(KEPT_S))
        .map(|one| RevokedCertificate { serial: one.serial, revoked_at: one.at })
        .collect())
}

fn none() -> Refusal {
    Refusal::new(
        Code::NotFound,
        "There is no such list. Ask for the authority key identifier of a device certificate, in hexadecimal.",
    )
}
