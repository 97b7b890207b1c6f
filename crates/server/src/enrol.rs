//! `POST /v1/enroll`: a token and a certificate signing request in, a device's identity out. The
//! same door serves EST ([`crate::est`]).
//!
//! Invariants: there is one way to a new device, [`grant`], whatever the protocol; it counts every
//! refusal against the address and audits it within limits. Waiting for approval is no refusal in this sense, since a thousand laptops behind one address may wait.

use std::fmt::Write as _;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toktra_pki::{Authority, DeviceCertificate, VerifiedCsr};
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, EnrolResponse, REQUEST_LIMIT};
use toktra_protocol::event::TEXT_LIMIT;
use toktra_protocol::{Code, DeviceId, UnixSeconds};
use toktra_store::audit::{self, Deed};
use toktra_store::enrolment::{self, Attempt, EnrolError, NewCertificate};
use toktra_store::tokens;
use zeroize::Zeroizing;

use crate::app::{App, SharedApp};
use crate::ingest::{read_body, require_json};
use crate::peer::Peer;
use crate::refusal::Refusal;

/// How long a device that awaits approval is told to wait, in seconds.
const PENDING_RETRY_S: u64 = 30;
/// How long it is told to wait if too many wait already, in seconds.
const FULL_RETRY_S: u64 = 600;

/// What a device brings, read and checked.
pub struct Application {
    /// The token. Secret.
    pub token: Zeroizing<String>,
    /// What it says of itself.
    pub description: DeviceDescription,
    /// Its key.
    pub csr: VerifiedCsr,
}

/// Enrols a device, or says why not. A refusal consumes nothing.
pub async fn enroll(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<EnrolResponse>, Refusal> {
    let now = app.clock.now();
    let address = peer.address.ip();
    may_try(&app, address, now)?;
    require_json(request.headers())?;
    let body = read_body(request.into_body(), REQUEST_LIMIT).await?;
    grant(&app, address, read(&body), now).await.map(Json)
}

/// Whether this address was not refused too often lately.
pub fn may_try(app: &App, address: IpAddr, now: UnixSeconds) -> Result<(), Refusal> {
    app.refusals.may_try(address, now).map_err(|seconds| {
        Refusal::new(
            Code::RateLimited,
            "Too many enrolments from this address were refused. Try again later.",
        )
        .retry_after(seconds)
    })
}

/// Enrols a device in a transaction of its own. A refusal, also to read what was sent, is counted
/// and audited.
pub async fn grant(
    app: &App,
    address: IpAddr,
    application: Result<Application, Refusal>,
    now: UnixSeconds,
) -> Result<EnrolResponse, Refusal> {
    let (token, outcome) = match application {
        Ok(application) => {
            let token = token_hash(&application.token);
            let outcome = admit(app, address, &token, &application, now).await;
            (Some(token), outcome)
        }
        Err(refusal) => (None, Err(refusal)),
    };
    if let Err(refusal) = &outcome
        && !matches!(refusal.code(), Code::Pending | Code::RateLimited | Code::Internal | Code::Busy)
        && app.refusals.note(address, now)
    {
        audit_enrolment(app, address, token.as_deref(), refusal).await;
    }
    outcome
}

async fn admit(
    app: &App,
    address: IpAddr,
    token_hash: &str,
    application: &Application,
    now: UnixSeconds,
) -> Result<EnrolResponse, Refusal> {
    app.refusals.may_use(token_hash, now).map_err(|seconds| {
        Refusal::new(Code::RateLimited, "Too many enrolments with this token were refused. Try again later.")
            .retry_after(seconds)
    })?;
    let csr = &application.csr;
    let attempt = Attempt {
        token_hash,
        public_key: &csr.key_id(),
        description: &application.description,
        address: &address.to_string(),
        device: DeviceId::new_v4(),
    };
    let authority = app.authority();
    let enrolled = enrolment::enrol(&app.store, &attempt, now, |bound, device| {
        let certificate = authority.issue_device(csr, bound.organisation_id.parse()?, device, now)?;
        Ok(row(&authority, certificate, csr))
    })
    .await
    .map_err(|error| {
        if !matches!(error, EnrolError::TokenUnknown | EnrolError::Pending | EnrolError::WaitingFull) {
            app.refusals.note_token(token_hash, now);
        }
        enrol_refusal(&error)
    })?;
    Ok(EnrolResponse {
        device: enrolled.device,
        organisation: enrolled.bound.organisation,
        department: enrolled.bound.department,
        certificate_chain: enrolled.chain_pem,
        directive_key: authority.directive().public_key(),
        roots: authority.roots_pem().to_owned(),
        server_time: now,
    })
}

/// Audits a refused enrolment: of which organisation, and by which token, where there is such a token.
async fn audit_enrolment(app: &App, address: IpAddr, token: Option<&str>, refusal: &Refusal) {
    let issued = match token {
        Some(token) => tokens::issuer(&app.store, token).await,
        None => Ok(None),
    };
    let organisation = issued.unwrap_or_else(|error| {
        tracing::error!(%error, "The organisation of a refused enrolment could not be found.");
        None
    });
    let subject = token.filter(|_| organisation.is_some()).map_or("", tokens::name);
    let deed = Deed {
        organisation: organisation.as_deref(),
        actor: &address.to_string(),
        action: "enrol_refused",
        subject,
        detail: refusal.code().name(),
    };
    audit_refusal(app, deed).await;
}

/// Writes a refusal to the audit trail. The caller has limits.
pub async fn audit_refusal(app: &App, deed: Deed<'_>) {
    if let Err(error) = audit::record_alone(&app.store, app.clock.now(), deed).await {
        tracing::error!(%error, "A refusal could not be audited.");
    }
}

/// A certificate as the database keeps it.
pub fn row(authority: &Authority, certificate: DeviceCertificate, csr: &VerifiedCsr) -> NewCertificate {
    NewCertificate {
        serial: certificate.serial,
        issuer: certificate.issuer,
        root: authority.newest_root().to_owned(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        der: STANDARD.encode(&certificate.der),
        chain_pem: certificate.chain_pem,
        public_key: csr.key_id(),
    }
}

/// The hash by which a token is stored and found: SHA-256, hexadecimal.
pub fn token_hash(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.trim().as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a request for a certificate, DER in base64.
pub fn read_csr(base64: &str) -> Result<VerifiedCsr, Refusal> {
    let der = STANDARD.decode(base64).map_err(|_| {
        Refusal::new(Code::BadCsr, "The request is not base64. Send the DER of the request in base64.")
    })?;
    VerifiedCsr::from_der(&der).map_err(|error| {
        Refusal::new(Code::BadCsr, format!("Nothing was issued: {error}. Make a new key and request."))
    })
}

/// Refuses a description that could not be stored or shown.
pub fn check(description: &DeviceDescription) -> Result<(), Refusal> {
    let fits =
        |text: &str| !text.is_empty() && text.len() <= TEXT_LIMIT && !text.chars().any(char::is_control);
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !(fits(&description.hostname) && fits(&description.platform) && fits(&description.agent_version)) {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("A field of `device` is empty, has control characters or exceeds {TEXT_LIMIT} bytes."),
        ));
    }
    if !description.hardware.as_deref().is_none_or(is_digest) {
        return Err(Refusal::new(
            Code::BadRequest,
            "`device.hardware` is not a SHA-256 in hexadecimal. Send 64 such digits, or leave it out.",
        ));
    }
    Ok(())
}

/// A body that is not the JSON of what was asked. The error's own text could quote a token.
pub fn bad_json(what: &str, error: &serde_json::Error) -> Refusal {
    let place = format!("line {}, column {}", error.line(), error.column());
    Refusal::new(Code::BadRequest, format!("The body is not the JSON of {what} ({place})."))
}

fn read(body: &[u8]) -> Result<Application, Refusal> {
    let EnrolRequest { token, csr, device } =
        serde_json::from_slice(body).map_err(|error| bad_json("an enrolment", &error))?;
    let token = Zeroizing::new(token);
    check(&device)?;
    Ok(Application { token, csr: read_csr(&csr)?, description: device })
}

fn enrol_refusal(error: &EnrolError) -> Refusal {
    let ask = "Ask an administrator for a new one.";
    match error {
        EnrolError::TokenUnknown => Refusal::new(
            Code::TokenUnknown,
            "This backend issued no such token. Check that it was copied whole and is meant for this domain.",
        ),
        EnrolError::TokenUsed => {
            Refusal::new(Code::TokenUsed, format!("The token enrolled a device before. {ask}"))
        }
        EnrolError::TokenClosed => Refusal::new(
            Code::TokenClosed,
            format!("The token was withdrawn, or has as many devices as it may. {ask}"),
        ),
        EnrolError::TokenExpired => Refusal::new(Code::TokenExpired, format!("The token has expired. {ask}")),
        EnrolError::KeyUsed => Refusal::new(
            Code::KeyUsed,
            "The key was certified before, or waits by another token. Make a new one.",
        ),
        EnrolError::Pending => Refusal::new(
            Code::Pending,
            "An administrator has yet to approve this device. Send the same request again later.",
        )
        .retry_after(PENDING_RETRY_S),
        EnrolError::Denied => {
            Refusal::new(Code::Denied, "An administrator did not approve this device. Ask them why.")
        }
        EnrolError::WaitingFull => Refusal::new(
            Code::RateLimited,
            "Too many devices wait for approval. Ask an administrator to decide on them; try again later.",
        )
        .retry_after(FULL_RETRY_S),
        EnrolError::Certificate(cause) => Refusal::internal(&**cause),
        EnrolError::Store(cause) => Refusal::internal(cause),
    }
}
