//! What a device holds once it is enrolled: its key and the certificate for it, whose it
//! is, and whom it believes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use toktra_protocol::enrol::EnrolResponse;
use toktra_protocol::event::TEXT_LIMIT;
use toktra_protocol::{DeviceId, ToktraDomain, UnixSeconds};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use crate::{DeviceKey, DirectiveKey, KeyError};

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
}

/// The device's credential. Its certificate is for its key.
#[derive(Clone, Debug)]
pub struct Credential {
    key: DeviceKey,
    enrolled: Enrolled,
    chain: Vec<CertificateDer<'static>>,
    directive_key: DirectiveKey,
    valid_until: UnixSeconds,
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
    /// Joins a key with what the backend answered to its request at `now`, by the device's clock.
    pub fn new(
        key: DeviceKey,
        domain: ToktraDomain,
        ca: Option<String>,
        response: EnrolResponse,
        now: UnixSeconds,
    ) -> Result<Self, CredentialError> {
        let EnrolResponse { device, organisation, department, certificate_chain, directive_key, .. } =
            response;
        let enrolled = Enrolled {
            domain,
            device,
            organisation,
            department,
            certificate_chain,
            directive_key,
            ca,
            enrolled_at: now,
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
        let valid_until = certificate.validity().not_after.timestamp();
        let valid_until = UnixSeconds(u64::try_from(valid_until).map_err(|_| CredentialError::Chain)?);
        let names = std::iter::once(&enrolled.organisation).chain(&enrolled.department);
        if names.into_iter().any(|name| name.len() > TEXT_LIMIT || name.chars().any(char::is_control)) {
            return Err(CredentialError::Name);
        }
        let directive_key =
            DirectiveKey::from_base64(&enrolled.directive_key).ok_or(CredentialError::DirectiveKey)?;
        Ok(Self { key, enrolled, chain, directive_key, valid_until })
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
        self.valid_until
    }

    /// Key and chain as TLS uses them.
    pub fn certified_key(&self) -> Result<CertifiedKey, CredentialError> {
        Ok(CertifiedKey::new(self.chain.clone(), self.key.tls_key()?))
    }

    /// The stored form: JSON, with the key in it.
    pub(crate) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let key = Zeroizing::new(STANDARD.encode(self.key.pkcs8()));
        let stored = StoredRef { version: VERSION, enrolled: &self.enrolled, key: &key };
        // With room for all of it, so that growing leaves no copy of the key behind.
        let mut json = Zeroizing::new(Vec::with_capacity(256 * 1024));
        serde_json::to_writer_pretty(&mut *json, &stored).map_err(|_| CredentialError::Malformed)?;
        Ok(json)
    }

    pub(crate) fn from_json(json: &[u8]) -> Result<Self, CredentialError> {
        let mut stored: Stored = serde_json::from_slice(json).map_err(|_| CredentialError::Malformed)?;
        let pkcs8 = STANDARD.decode(stored.key.as_bytes()).map(Zeroizing::new);
        stored.key.zeroize();
        if stored.version != VERSION {
            return Err(CredentialError::Malformed);
        }
        let key = DeviceKey::from_pkcs8(pkcs8.map_err(|_| CredentialError::Malformed)?)?;
        Self::check(key, stored.enrolled)
    }
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
