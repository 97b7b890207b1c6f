//! `POST /v1/enroll`: a token and a certificate signing request in, a device's identity out.

use std::fmt::Write as _;

use axum::extract::{Request, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toktra_pki::{DeviceCertificate, VerifiedCsr};
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, EnrolResponse, REQUEST_LIMIT};
use toktra_protocol::event::TEXT_LIMIT;
use toktra_protocol::{Code, DeviceId, UnixSeconds};
use toktra_store::audit::{self, Deed};
use toktra_store::enrolment::{self, EnrolError, NewCertificate};

use crate::app::{App, SharedApp};
use crate::ingest::{read_body, require_json};
use crate::peer::Peer;
use crate::refusal::Refusal;

/// Enrols a device, or says why not. A refusal consumes nothing.
pub async fn enroll(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<EnrolResponse>, Refusal> {
    let now = app.clock.now();
    let address = peer.address.ip();
    app.refusals.may_try(address, now).map_err(|seconds| {
        Refusal::new(
            Code::RateLimited,
            "Too many enrolments from this address were refused. Try again later.",
        )
        .retry_after(seconds)
    })?;
    require_json(request.headers())?;
    let body = read_body(request.into_body(), REQUEST_LIMIT).await?;
    let outcome = match read(&body) {
        Ok((request, csr)) => issue(&app, request, csr, now).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = &outcome
        && app.refusals.note(address, now)
    {
        audit_refusal(&app, &address.to_string(), refusal, now).await;
    }
    outcome.map(Json)
}

/// The hash by which a token is stored and found: SHA-256, hexadecimal.
pub fn token_hash(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.trim().as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read(body: &[u8]) -> Result<(EnrolRequest, VerifiedCsr), Refusal> {
    let request: EnrolRequest = serde_json::from_slice(body).map_err(|error| {
        // The error's own text could quote the token.
        let place = format!("line {}, column {}", error.line(), error.column());
        Refusal::new(Code::BadRequest, format!("The body is not the JSON of an enrolment ({place})."))
    })?;
    check(&request.device)?;
    let der = STANDARD.decode(&request.csr).map_err(|_| {
        Refusal::new(Code::BadCsr, "`csr` is not base64. Send the DER of the request in base64.")
    })?;
    let csr = VerifiedCsr::from_der(&der).map_err(|error| {
        Refusal::new(Code::BadCsr, format!("Nothing was issued: {error}. Make a new key and request."))
    })?;
    Ok((request, csr))
}

fn check(description: &DeviceDescription) -> Result<(), Refusal> {
    let fits =
        |text: &str| !text.is_empty() && text.len() <= TEXT_LIMIT && !text.chars().any(char::is_control);
    if fits(&description.hostname) && fits(&description.platform) && fits(&description.agent_version) {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::BadRequest,
            format!("A field of `device` is empty, has control characters or exceeds {TEXT_LIMIT} bytes."),
        ))
    }
}

async fn issue(
    app: &App,
    request: EnrolRequest,
    csr: VerifiedCsr,
    now: UnixSeconds,
) -> Result<EnrolResponse, Refusal> {
    let device = DeviceId::new_v4();
    let mut issued: Option<DeviceCertificate> = None;
    let bound =
        enrolment::enrol(&app.store, &token_hash(&request.token), device, &request.device, now, |bound| {
            let organisation = bound.organisation_id.parse()?;
            let certificate = app.authority().issue_device(&csr, organisation, device, now)?;
            let row = NewCertificate {
                serial: certificate.serial.clone(),
                issuer: certificate.issuer.clone(),
                not_before: certificate.not_before,
                not_after: certificate.not_after,
                der: STANDARD.encode(&certificate.der),
            };
            issued = Some(certificate);
            Ok(row)
        })
        .await
        .map_err(|error| enrol_refusal(&error))?;
    let Some(certificate) = issued else {
        return Err(Refusal::new(Code::Internal, "The server failed. Try again with a new token."));
    };
    Ok(EnrolResponse {
        device,
        organisation: bound.organisation,
        department: bound.department,
        certificate_chain: certificate.chain_pem,
        directive_key: app.authority().directive().public_key(),
        server_time: now,
    })
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
        EnrolError::TokenExpired => Refusal::new(Code::TokenExpired, format!("The token has expired. {ask}")),
        EnrolError::Certificate(cause) => Refusal::internal(&**cause),
        EnrolError::Store(cause) => Refusal::internal(cause),
    }
}

async fn audit_refusal(app: &App, address: &str, refusal: &Refusal, now: UnixSeconds) {
    let deed = Deed {
        organisation: None,
        actor: address,
        action: "enrol_refused",
        subject: "",
        detail: refusal.code().name(),
    };
    if let Err(error) = audit::record_alone(&app.store, now, deed).await {
        tracing::error!(%error, "A refused enrolment could not be audited.");
    }
}
