//! `POST /v1/renew` on the ingest host: a certificate for a new key, authorised by the device's
//! present one. One that has expired recovers its device, within the store's bounds.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use toktra_pki::{Authority, VerifiedCsr};
use toktra_protocol::enrol::{DeviceDescription, REQUEST_LIMIT, RenewRequest, RenewResponse};
use toktra_protocol::{Code, UnixSeconds};
use toktra_store::renewal::{self, Attempt, ISSUED_A_DAY, RECOVERIES_A_YEAR, RenewError};

use crate::app::{App, SharedApp};
use crate::enrol::{bad_json, check, read_csr, row};
use crate::ingest::{read_body, require_json};
use crate::peer::{Caller, Peer, revoked, superseded, unknown};
use crate::refusal::Refusal;

/// How long a device with too many certificates is told to wait, in seconds.
const TOO_MANY_RETRY_S: u64 = 3600;

/// Renews, or says why not.
pub async fn renew(
    State(app): State<SharedApp>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Json<RenewResponse>, Refusal> {
    let caller = Caller::admit_to_renew(&app, &peer).await?;
    let outcome = answer(&app, &caller, request).await;
    caller.settle(&app, "renew_refused", outcome).await.map(Json)
}

async fn answer(app: &App, caller: &Caller, request: Request) -> Result<RenewResponse, Refusal> {
    require_json(request.headers())?;
    let body = read_body(request.into_body(), REQUEST_LIMIT).await?;
    let RenewRequest { csr, device } =
        serde_json::from_slice(&body).map_err(|error| bad_json("a renewal", &error))?;
    check(&device)?;
    let csr = read_csr(&csr)?;
    let (now, authority) = (app.clock.now(), app.authority());
    let renewed = certify(app, caller, &authority, (Some(&device), &csr), now).await?;
    Ok(RenewResponse {
        certificate_chain: renewed.chain_pem,
        organisation: renewed.holder.organisation,
        department: renewed.holder.department,
        roots: authority.roots_pem().to_owned(),
        server_time: now,
    })
}

/// Certifies the new key of a device that was let in.
pub async fn certify(
    app: &App,
    caller: &Caller,
    authority: &Authority,
    (description, csr): (Option<&DeviceDescription>, &VerifiedCsr),
    now: UnixSeconds,
) -> Result<renewal::Renewed, Refusal> {
    let shown = caller.shown();
    let attempt = Attempt { shown: &shown, public_key: &csr.key_id(), description };
    let renewed = renewal::renew(&app.store, &attempt, now, |holder| {
        let organisation = holder.organisation_id.parse()?;
        Ok(row(authority, authority.issue_device(csr, organisation, shown.device, now)?, csr))
    });
    renewed.await.map_err(|error| renew_refusal(&error))
}

fn renew_refusal(error: &RenewError) -> Refusal {
    match error {
        RenewError::UnknownDevice => unknown(),
        RenewError::Revoked => revoked(),
        RenewError::Superseded => superseded(),
        RenewError::KeyUsed => Refusal::new(
            Code::KeyUsed,
            "The key was certified before. Make a new key; every renewal needs one.",
        ),
        RenewError::RecoveryTooLate => Refusal::new(
            Code::RecoveryClosed,
            "The certificate expired over 180 days ago. Enrol the device again with a new token.",
        ),
        RenewError::RecoveredTooOften => Refusal::new(
            Code::RecoveryClosed,
            format!(
                "The device recovered {RECOVERIES_A_YEAR} times within a year. Enrol it again with a new token."
            ),
        ),
        RenewError::TooMany => Refusal::new(
            Code::RateLimited,
            format!("The device got {ISSUED_A_DAY} certificates within a day. Try again later."),
        )
        .retry_after(TOO_MANY_RETRY_S),
        RenewError::Certificate(cause) => Refusal::internal(&**cause),
        RenewError::Store(cause) => Refusal::internal(cause),
    }
}
