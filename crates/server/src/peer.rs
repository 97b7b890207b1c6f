//! Who is at the other end of a connection, and whether a request of theirs is served.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use toktra_pki::{DeviceIdentity, DeviceTrust};
use toktra_protocol::Code;

use crate::app::App;
use crate::refusal::Refusal;
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

/// A device whose certificate is within its time and which was not revoked, for one request.
#[derive(Debug)]
pub struct Caller {
    /// What its certificate proves.
    pub identity: Arc<DeviceIdentity>,
    /// Its entry in the roster.
    pub entry: Arc<Entry>,
    _request: OwnedSemaphorePermit,
}

impl Caller {
    /// Judges a request. Done for each, since a connection outlives certificates and standing.
    pub async fn admit(app: &App, peer: &Peer) -> Result<Self, Refusal> {
        let identity = match &peer.who {
            Who::Device(identity) => Arc::clone(identity),
            Who::Anonymous => {
                return Err(Refusal::new(
                    Code::CertificateRequired,
                    "No client certificate was shown. Enrol the device, then connect with its certificate.",
                ));
            }
            Who::Stranger => {
                return Err(Refusal::new(
                    Code::CertificateRequired,
                    "The client certificate was not issued by this backend. Enrol the device here.",
                ));
            }
        };
        if !identity.is_valid_at(app.clock.now()) {
            return Err(Refusal::new(
                Code::CertificateExpired,
                "The device certificate is outside its validity. Check the device's clock, or enrol it again.",
            ));
        }
        let found = app.roster.find(&app.store, identity.device).await;
        let entry = found.map_err(|error| Refusal::internal(&error))?.ok_or_else(unknown)?;
        if entry.device().is_revoked() {
            return Err(revoked());
        }
        let Some(request) = entry.request() else {
            return Err(Refusal::new(
                Code::RateLimited,
                format!("{REQUESTS_PER_DEVICE} requests of this device are under way. Wait for one to end."),
            )
            .retry_after(1));
        };
        Ok(Self { identity, entry, _request: request })
    }
}

/// The device is not in the database.
pub fn unknown() -> Refusal {
    Refusal::new(Code::UnknownDevice, "This backend knows no such device. Enrol it again.")
}

/// The device was revoked.
pub fn revoked() -> Refusal {
    Refusal::new(Code::Revoked, "An administrator revoked this device. Enrol it again with a new token.")
}
