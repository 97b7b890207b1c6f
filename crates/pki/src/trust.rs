//! Telling devices from strangers on a mutual TLS connection.
//!
//! The handshake proves only that the peer holds the key of the certificate it shows; it
//! does not judge the certificate, so that a stranger or a device whose certificate has
//! expired is told so with a documented HTTP status rather than a bare TLS alert. The
//! judgement is [`DeviceTrust::identify`], the only way to a [`DeviceIdentity`], and no
//! request is served on the ingest host without one. Validity and revocation are checked
//! anew with every request, since a connection may outlive both.

use std::fmt;
use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, SignatureScheme};
use toktra_protocol::{DeviceId, UnixSeconds};
use uuid::Uuid;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::profile::{TRUST_DOMAIN, device_uri, hexadecimal};

/// Most certificates and bytes of a certificate that a peer may show.
const CHAIN_LIMIT: usize = 4;
const CERTIFICATE_LIMIT: usize = 8 * 1024;

/// A device, as its certificate proves. Says nothing of time or revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// The organisation in whose name it was issued.
    pub organisation: Uuid,
    /// The device.
    pub device: DeviceId,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Key identifier of the intermediate that issued it, hexadecimal.
    pub issuer: String,
    /// Start of its validity.
    pub not_before: UnixSeconds,
    /// End of its validity.
    pub not_after: UnixSeconds,
}

impl DeviceIdentity {
    /// Whether the certificate's time has come and is not over.
    pub fn is_valid_at(&self, now: UnixSeconds) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Why a certificate proves no device of ours.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Its issuer has not the name of an intermediate that is trusted: another authority's, or one
    /// that was retired.
    #[error("the certificate's issuer is not, or is no longer, an intermediate of this backend")]
    UnknownIssuer,
    /// It bears our intermediate's name, which did not issue it, or not to a client.
    #[error("the certificate was not issued to a device by this backend's intermediate")]
    Foreign(#[source] webpki::Error),
    /// It cannot be read, or does not name exactly one device.
    #[error("the certificate does not name a device")]
    Unreadable,
}

/// The intermediates that may issue devices: one, or two while it is rotated.
#[derive(Clone)]
pub struct DeviceTrust {
    intermediates: Vec<Intermediate>,
}

#[derive(Clone)]
struct Intermediate {
    id: String,
    /// The name as certificates carry it, DER.
    name: DistinguishedName,
    anchor: TrustAnchor<'static>,
}

impl fmt::Debug for DeviceTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTrust")
            .field("intermediates", &self.intermediates.len())
            .finish_non_exhaustive()
    }
}

impl DeviceTrust {
    pub(crate) fn new<'a>(
        intermediates: impl Iterator<Item = (String, &'a CertificateDer<'static>)>,
    ) -> Result<Self, webpki::Error> {
        let intermediates = intermediates.map(|(id, certificate)| {
            let anchor = webpki::anchor_from_trusted_cert(certificate)?.to_owned();
            let name = DistinguishedName::in_sequence(&anchor.subject);
            Ok(Intermediate { id, name, anchor })
        });
        Ok(Self { intermediates: intermediates.collect::<Result<_, webpki::Error>>()? })
    }

    /// For the handshake: asks for a certificate and takes proof of its key, no more.
    pub fn proof_of_possession(&self, provider: &CryptoProvider) -> Arc<dyn ClientCertVerifier> {
        Arc::new(ProofOfPossession {
            hints: self.intermediates.iter().map(|one| one.name.clone()).collect(),
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// Whether devices of this intermediate are taken; one may be retired while a connection is open.
    pub fn takes(&self, issuer: &str) -> bool {
        self.intermediates.iter().any(|one| one.id == issuer)
    }

    /// Which device a certificate proves.
    pub fn identify(&self, leaf: &CertificateDer<'_>) -> Result<DeviceIdentity, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Unreadable)?;
        let seconds = |timestamp: i64| u64::try_from(timestamp).map(UnixSeconds);
        let validity = parsed.validity();
        let not_before = seconds(validity.not_before.timestamp()).map_err(|_| IdentityError::Unreadable)?;
        let not_after = seconds(validity.not_after.timestamp()).map_err(|_| IdentityError::Unreadable)?;
        let issuer = self.issuer_of(leaf, &parsed, not_after)?;
        let (organisation, device) = names(&parsed).ok_or(IdentityError::Unreadable)?;
        let serial = hexadecimal(parsed.raw_serial());
        Ok(DeviceIdentity { organisation, device, serial, issuer, not_before, not_after })
    }

    fn issuer_of(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        not_after: UnixSeconds,
    ) -> Result<String, IdentityError> {
        // Whether the time is right is asked with every request.
        let within = UnixTime::since_unix_epoch(std::time::Duration::from_secs(not_after.0));
        let named = |one: &&Intermediate| one.name.as_ref() == parsed.issuer().as_raw();
        let mut outcome = Err(IdentityError::UnknownIssuer);
        for intermediate in self.intermediates.iter().filter(named) {
            let judged = EndEntityCert::try_from(leaf).and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        &[webpki::ring::ECDSA_P256_SHA256],
                        std::slice::from_ref(&intermediate.anchor),
                        &[],
                        within,
                        KeyUsage::client_auth(),
                        None,
                        None,
                    )
                    .map(drop)
            });
            match judged {
                Ok(()) => return Ok(intermediate.id.clone()),
                Err(error) => outcome = Err(IdentityError::Foreign(error)),
            }
        }
        outcome
    }
}

/// Reads the one URI, in exactly the form that we write.
fn names(certificate: &X509Certificate<'_>) -> Option<(Uuid, DeviceId)> {
    let names = certificate.subject_alternative_name().ok()??;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else { return None };
    let (organisation, device) = uri.strip_prefix("spiffe://")?.split_once("/device/")?;
    let organisation = organisation.strip_suffix(TRUST_DOMAIN)?;
    let (organisation, device) = (organisation.parse().ok()?, device.parse().ok()?);
    (device_uri(organisation, device) == *uri).then_some((organisation, device))
}

#[derive(Debug)]
struct ProofOfPossession {
    hints: Vec<DistinguishedName>,
    algorithms: rustls::crypto::WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ProofOfPossession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let fits = |certificate: &CertificateDer<'_>| certificate.len() <= CERTIFICATE_LIMIT;
        if intermediates.len() < CHAIN_LIMIT && fits(end_entity) && intermediates.iter().all(fits) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
