//! Who is at the other end of a connection, and whether a request of theirs is served.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use toktra_pki::{DeviceIdentity, DeviceTrust};
use toktra_protocol::Code;
use toktra_store::audit::Deed;
use toktra_store::certificates::{self, Shown, Worth};
use toktra_store::renewal;

use crate::app::App;
use crate::enrol::audit_refusal;
use crate::ingest::book_refusal;
use crate::refusal::Refusal;
use crate::refusals::Refused;
use crate::roster::{Entry, REQUESTS_PER_DEVICE};

/// The other end of a connection; in every request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// Who.
    pub who: Who,
}

/// What the handshake proved.
#[derive(Clone, Debug)]
pub enum Who {
    /// No certificate was shown.
    Anonymous,
    /// A certificate of somebody else's.
    Stranger,
    /// A device of ours, of whatever standing.
    Device(Arc<DeviceIdentity>),
}

impl Who {
    /// Judges what was shown in the handshake.
    pub fn of(certificates: Option<&[CertificateDer<'_>]>, trust: &DeviceTrust) -> Self {
        match certificates.and_then(<[_]>::first) {
            None => Self::Anonymous,
            Some(leaf) => match trust.identify(leaf) {
                Ok(identity) => Self::Device(Arc::new(identity)),
                Err(error) => {
                    tracing::debug!(%error, "A certificate was not accepted.");
                    Self::Stranger
                }
            },
        }
    }
}

/// A device whose certificate is good and in use, and which was not revoked, for one request.
#[derive(Debug)]
pub struct Caller {
    /// What its certificate proves.
    pub identity: Arc<DeviceIdentity>,
    /// Its entry in the roster.
    pub entry: Arc<Entry>,
    _request: OwnedSemaphorePermit,
}

/// What is asked of a certificate's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// It has come, and is not over.
    Now,
    /// It has come.
    NowOrPast,
}

impl Caller {
    /// Judges a request. Done for each, since a connection outlives certificates and standing.
    pub async fn admit(app: &App, peer: &Peer) -> Result<Self, Refusal> {
        Self::judge_and_audit(app, peer, Time::Now).await
    }

    /// The same for a renewal, which a certificate may ask for whose time is over.
    pub async fn admit_to_renew(app: &App, peer: &Peer) -> Result<Self, Refusal> {
        Self::judge_and_audit(app, peer, Time::NowOrPast).await
    }

    /// The certificate as the store knows it.
    pub fn shown(&self) -> Shown {
        shown(&self.identity)
    }

    /// Writes a refusal of what this device asked to the audit trail, unless the like was written lately.
    pub async fn settle<T>(
        &self,
        app: &App,
        action: &str,
        outcome: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Err(refusal) = &outcome
            && !matches!(refusal.code(), Code::Internal | Code::Busy)
            && app.refusals.is_news(Refused::Device(self.identity.device), refusal.code(), app.clock.now())
        {
            audit_device(app, &self.identity, action, refusal).await;
        }
        outcome
    }

    async fn judge_and_audit(app: &App, peer: &Peer, time: Time) -> Result<Self, Refusal> {
        let outcome = Self::judge(app, peer, time).await;
        if let Err(refusal) = &outcome {
            note_refusal(app, peer, refusal).await;
        }
        outcome
    }

    async fn judge(app: &App, peer: &Peer, time: Time) -> Result<Self, Refusal> {
        let identity = device_of(peer)?;
        if !app.authority().trust().takes(&identity.issuer) {
            return Err(Refusal::new(Code::CertificateRequired, RETIRED));
        }
        let found = app.roster.find(&app.store, identity.device).await;
        let entry = found.map_err(|error| Refusal::internal(&error))?.ok_or_else(unknown)?;
        if entry.device().is_revoked() {
            return Err(revoked());
        }
        check_time(app, &identity, time)?;
        let Some(request) = entry.request() else {
            return Err(Refusal::new(
                Code::RateLimited,
                format!("{REQUESTS_PER_DEVICE} requests of this device are under way. Wait for one to end."),
            )
            .retry_after(1));
        };
        if !entry.is_in_use(&identity.serial) {
            note_use(app, &identity, &entry).await?;
        }
        Ok(Self { identity, entry, _request: request })
    }
}

const RETIRED: &str = "The intermediate that issued this certificate was retired. Enrol the device again.";

fn device_of(peer: &Peer) -> Result<Arc<DeviceIdentity>, Refusal> {
    let detail = match &peer.who {
        Who::Device(identity) => return Ok(Arc::clone(identity)),
        Who::Anonymous => {
            "No client certificate was shown. Enrol the device, then connect with its certificate."
        }
        Who::Stranger => {
            "The client certificate was not issued to a device by an intermediate that this backend takes \
             (another backend's, or retired). Enrol the device here."
        }
    };
    Err(Refusal::new(Code::CertificateRequired, detail))
}

fn check_time(app: &App, identity: &DeviceIdentity, time: Time) -> Result<(), Refusal> {
    let now = app.clock.now();
    if now < identity.not_before {
        return Err(Refusal::new(
            Code::ClockSkew,
            "The certificate's time has not come by this server's clock. Compare the clocks (GET /v1/time).",
        ));
    }
    if now > identity.not_after && time == Time::Now {
        return Err(Refusal::new(
            Code::CertificateExpired,
            "The device certificate has expired. Renew it with a new key (POST /v1/renew on this host).",
        ));
    }
    Ok(())
}

/// The certificate is not the one known to be in use: asks the database, which knows the first use
/// of a new one from the return of an old one.
async fn note_use(app: &App, identity: &DeviceIdentity, entry: &Entry) -> Result<(), Refusal> {
    let shown = shown(identity);
    let known = certificates::worth(&app.store, &shown).await.map_err(|error| Refusal::internal(&error))?;
    let worth = match known {
        Some(worth) => worth,
        None => app.ledger.certificate_used(shown).await.map_err(|error| book_refusal(&error))?,
    };
    match worth {
        Worth::InUse => {
            entry.note_in_use(&identity.serial);
            Ok(())
        }
        Worth::Superseded => Err(superseded()),
        Worth::Revoked => Err(revoked()),
        Worth::UnknownDevice => Err(unknown()),
    }
}

fn shown(identity: &DeviceIdentity) -> Shown {
    Shown {
        device: identity.device,
        serial: identity.serial.clone(),
        issuer: identity.issuer.clone(),
        not_before: identity.not_before,
        not_after: identity.not_after,
    }
}

/// Audits a refusal of which the like was not audited lately. A certificate that was superseded
/// long ago flags its device.
async fn note_refusal(app: &App, peer: &Peer, refusal: &Refusal) {
    let now = app.clock.now();
    let refused = match &peer.who {
        Who::Anonymous => return,
        Who::Stranger => Refused::Stranger(peer.address.ip()),
        Who::Device(identity) => Refused::Device(identity.device),
    };
    if matches!(refusal.code(), Code::RateLimited | Code::Internal | Code::Busy)
        || !app.refusals.is_news(refused, refusal.code(), now)
    {
        return;
    }
    let Who::Device(identity) = &peer.who else {
        let (actor, detail) = (&peer.address.ip().to_string(), refusal.code().name());
        let deed = Deed { organisation: None, actor, action: "request_refused", subject: "", detail };
        return audit_refusal(app, deed).await;
    };
    audit_device(app, identity, "request_refused", refusal).await;
    if refusal.code() == Code::CertificateSuperseded
        && let Err(error) = renewal::flag_superseded(&app.store, identity.device, &identity.serial, now).await
    {
        tracing::error!(%error, "A device could not be flagged.");
    }
}

/// Writes a refusal of a device to the audit trail, under the organisation that its certificate names.
async fn audit_device(app: &App, identity: &DeviceIdentity, action: &str, refusal: &Refusal) {
    let deed = Deed {
        organisation: Some(&identity.organisation.to_string()),
        actor: &identity.device.to_string(),
        action,
        subject: &identity.serial,
        detail: refusal.code().name(),
    };
    audit_refusal(app, deed).await;
}

/// The device is not in the database.
pub fn unknown() -> Refusal {
    Refusal::new(Code::UnknownDevice, "This backend knows no such device. Enrol it again.")
}

/// The device was revoked.
pub fn revoked() -> Refusal {
    Refusal::new(Code::Revoked, "An administrator revoked this device. Enrol it again with a new token.")
}

/// A newer certificate of the device was used.
pub fn superseded() -> Refusal {
    Refusal::new(
        Code::CertificateSuperseded,
        "A newer certificate of this device is in use. If this is another machine, enrol it with its own token.",
    )
}
