//! What a device holds once it is enrolled: its key and the certificate for it, whose it
//! is, and whom it believes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use toktra_protocol::enrol::{EnrolResponse, RenewResponse};
use toktra_protocol::event::TEXT_LIMIT;
use toktra_protocol::{DeviceId, ToktraDomain, UnixSeconds};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use crate::life::Term;
use crate::{DeviceKey, DirectiveKey, KeyError, machine};

/// Most certificates in a chain.
const CHAIN_LIMIT: usize = 8;
/// Version of the stored form.
const VERSION: u32 = 1;

/// What the backend said at enrolment, and which backend that was. No secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The domain that the device is enrolled with.
    pub domain: ToktraDomain,
    /// The device's identifier.
    pub device: DeviceId,
    /// The organisation's name.
    pub organisation: String,
    /// The department's name.
    pub department: Option<String>,
    /// Leaf and intermediate, PEM, leaf first.
    pub certificate_chain: String,
    /// Ed25519 public key that signs directives, raw, base64.
    pub directive_key: String,
    /// PEM of the authorities to trust instead of the machine's own.
    pub ca: Option<String>,
    /// When the device enrolled, by its own clock: what it saw before is nobody's.
    pub enrolled_at: UnixSeconds,
    /// The organisation's name at enrolment, if it has another by now: whose the device's events are
    /// must not change with a name that is for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_as: Option<String>,
}

impl Enrolled {
    /// Whose the events of this device are. Does not change as long as it stays enrolled.
    pub fn tenant(&self) -> String {
        format!("{}/{}", self.domain, self.enrolled_as.as_ref().unwrap_or(&self.organisation))
    }
}

/// The device's credential. Its certificate is for its key.
#[derive(Clone, Debug)]
pub struct Credential {
    key: DeviceKey,
    enrolled: Enrolled,
    chain: Vec<CertificateDer<'static>>,
    directive_key: DirectiveKey,
    term: Term,
}

/// Why what was stored or received is not a credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The stored form is not what this version writes.
    #[error(
        "the stored credential is damaged or of another version; enrol the device again with a new token"
    )]
    Malformed,
    /// The chain is not one to eight PEM certificates.
    #[error("the backend's certificate chain cannot be read")]
    Chain,
    /// The certificate is for another key.
    #[error(
        "the certificate is for another key than the device's own; enrol the device again with a new token"
    )]
    OtherKey,
    /// The key that signs directives is not 32 bytes in base64.
    #[error("the backend's directive key cannot be read")]
    DirectiveKey,
    /// A name is too long or holds control characters.
    #[error("the backend's name for the organisation or department is not acceptable")]
    Name,
}

impl Credential {
    /// Joins a key with what the backend answered to its request at `now`, by the device's clock. A
    /// device that was given its authorities believes those of the answer from now on.
    pub fn new(
        key: DeviceKey,
        domain: ToktraDomain,
        ca: Option<String>,
        response: EnrolResponse,
        now: UnixSeconds,
    ) -> Result<Self, CredentialError> {
        let EnrolResponse {
            device, organisation, department, certificate_chain, directive_key, roots, ..
        } = response;
        let enrolled = Enrolled {
            domain,
            device,
            organisation,
            department,
            certificate_chain,
            directive_key,
            ca: told(ca, roots),
            enrolled_at: now,
            enrolled_as: None,
        };
        Self::check(key, enrolled)
    }

    /// The same device with the key that a renewal has certified. A device that was given its
    /// authorities at enrolment believes those of the answer from now on.
    pub fn renewed(&self, key: DeviceKey, response: RenewResponse) -> Result<Self, CredentialError> {
        let RenewResponse { certificate_chain, organisation, department, roots, .. } = response;
        let before = self.enrolled.clone();
        let enrolled_as =
            before.enrolled_as.or(Some(before.organisation)).filter(|name| *name != organisation);
        let enrolled = Enrolled {
            organisation,
            department,
            certificate_chain,
            ca: told(before.ca, roots),
            enrolled_as,
            ..self.enrolled.clone()
        };
        Self::check(key, enrolled)
    }

    fn check(key: DeviceKey, enrolled: Enrolled) -> Result<Self, CredentialError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(enrolled.certificate_chain.as_bytes())
            .take(CHAIN_LIMIT + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| CredentialError::Chain)?;
        let leaf = chain.first().filter(|_| chain.len() <= CHAIN_LIMIT).ok_or(CredentialError::Chain)?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| CredentialError::Chain)?;
        if certificate.public_key().subject_public_key.data != key.public_key()?.as_slice() {
            return Err(CredentialError::OtherKey);
        }
        let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).map_err(|_| CredentialError::Chain);
        let spread = ring::digest::digest(&ring::digest::SHA256, certificate.raw_serial());
        let spread = spread.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        let validity = certificate.validity();
        let (from, until) = (seconds(validity.not_before)?, seconds(validity.not_after)?);
        let term = Term { from: UnixSeconds(from), until: UnixSeconds(until), spread };
        let names = std::iter::once(&enrolled.organisation).chain(&enrolled.department);
        if names.into_iter().any(|name| name.len() > TEXT_LIMIT || name.chars().any(char::is_control)) {
            return Err(CredentialError::Name);
        }
        let directive_key =
            DirectiveKey::from_base64(&enrolled.directive_key).ok_or(CredentialError::DirectiveKey)?;
        Ok(Self { key, enrolled, chain, directive_key, term })
    }

    /// Who the device is and with whom.
    pub fn enrolled(&self) -> &Enrolled {
        &self.enrolled
    }

    /// The key that directives must be signed with.
    pub fn directive_key(&self) -> &DirectiveKey {
        &self.directive_key
    }

    /// End of the certificate's validity.
    pub fn valid_until(&self) -> UnixSeconds {
        self.term.until
    }

    /// The certificate's term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether both come of one enrolment: one is the other renewed, or the same.
    pub fn is_of_one_enrolment(&self, other: &Self) -> bool {
        let of = |credential: &Self| {
            let enrolled = &credential.enrolled;
            (enrolled.device, enrolled.enrolled_at, enrolled.directive_key.clone(), enrolled.domain.clone())
        };
        of(self) == of(other)
    }

    /// Whether both have the same certificate.
    pub fn has_certificate_of(&self, other: &Self) -> bool {
        self.chain.first() == other.chain.first()
    }

    /// Key and chain as TLS uses them.
    pub fn certified_key(&self) -> Result<CertifiedKey, CredentialError> {
        Ok(CertifiedKey::new(self.chain.clone(), self.key.tls_key()?))
    }

    /// Whether the certificate is for this key.
    pub(crate) fn has_key(&self, key: &DeviceKey) -> bool {
        self.key.pkcs8() == key.pkcs8()
    }

    /// The stored form: JSON, with the key in it.
    pub(crate) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let key = encode(&self.key);
        to_json(&StoredRef { version: VERSION, enrolled: &self.enrolled, key: &key })
    }

    pub(crate) fn from_json(json: &[u8]) -> Result<Self, CredentialError> {
        let stored: Stored = serde_json::from_slice(json).map_err(|_| CredentialError::Malformed)?;
        Self::check(decode(stored.version, stored.key)?, stored.enrolled)
    }
}

/// Whom to believe, of what was known and what the backend said.
fn told(known: Option<String>, roots: String) -> Option<String> {
    known.map(|known| if roots.trim().is_empty() { known } else { roots })
}

/// What a device asks to be enrolled with, kept until the backend has decided. The token in it is a
/// secret: `Debug` leaves it out.
#[derive(Clone)]
pub struct Application {
    /// The backend's domain.
    pub domain: ToktraDomain,
    /// PEM of the authorities to trust instead of the machine's own.
    pub ca: Option<String>,
    /// The token.
    pub token: Zeroizing<String>,
    /// The key that is to be certified: the same one each time, so that a lost answer costs nothing.
    pub key: DeviceKey,
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Application {
    pub(crate) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let key = encode(&self.key);
        to_json(&StoredApplicationRef {
            version: VERSION,
            domain: &self.domain,
            ca: self.ca.as_deref(),
            token: &self.token,
            key: &key,
            hardware: machine::hardware(),
        })
    }

    /// The application, and whether it was made on this machine as far as that can be told.
    pub(crate) fn from_json(json: &[u8]) -> Result<(Self, bool), CredentialError> {
        let stored: StoredApplication =
            serde_json::from_slice(json).map_err(|_| CredentialError::Malformed)?;
        let StoredApplication { version, domain, ca, token, key, hardware } = stored;
        let token = Zeroizing::new(token);
        let here = hardware.is_none_or(|made_on| machine::hardware().is_none_or(|this| this == made_on));
        Ok((Self { domain, ca, token, key: decode(version, key)? }, here))
    }
}

/// The stored form of a key that is to be certified at the next renewal of this device.
pub(crate) fn candidate_to_json(
    device: DeviceId,
    key: &DeviceKey,
) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    to_json(&StoredCandidateRef { version: VERSION, device, key: &encode(key) })
}

/// Whose it is, and the key.
pub(crate) fn candidate_from_json(json: &[u8]) -> Result<(DeviceId, DeviceKey), CredentialError> {
    let stored: StoredCandidate = serde_json::from_slice(json).map_err(|_| CredentialError::Malformed)?;
    Ok((stored.device, decode(stored.version, stored.key)?))
}

fn encode(key: &DeviceKey) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(key.pkcs8()))
}

fn decode(version: u32, mut key: String) -> Result<DeviceKey, CredentialError> {
    let pkcs8 = STANDARD.decode(key.as_bytes()).map(Zeroizing::new);
    key.zeroize();
    match pkcs8 {
        Ok(pkcs8) if version == VERSION => Ok(DeviceKey::from_pkcs8(pkcs8)?),
        _ => Err(CredentialError::Malformed),
    }
}

fn to_json(stored: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    // With room for all of it, so that growing leaves no copy of a secret behind.
    let mut json = Zeroizing::new(Vec::with_capacity(256 * 1024));
    serde_json::to_writer_pretty(&mut *json, stored).map_err(|_| CredentialError::Malformed)?;
    Ok(json)
}

#[derive(Serialize)]
struct StoredRef<'a> {
    version: u32,
    #[serde(flatten)]
    enrolled: &'a Enrolled,
    key: &'a str,
}

#[derive(Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    enrolled: Enrolled,
    key: String,
}

#[derive(Serialize)]
struct StoredCandidateRef<'a> {
    version: u32,
    device: DeviceId,
    key: &'a str,
}

#[derive(Deserialize)]
struct StoredCandidate {
    version: u32,
    device: DeviceId,
    key: String,
}

#[derive(Serialize)]
struct StoredApplicationRef<'a> {
    version: u32,
    domain: &'a ToktraDomain,
    ca: Option<&'a str>,
    token: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardware: Option<String>,
}

#[derive(Deserialize)]
struct StoredApplication {
    version: u32,
    domain: ToktraDomain,
    ca: Option<String>,
    token: String,
    key: String,
    hardware: Option<String>,
}
