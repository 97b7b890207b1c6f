//! What our certificates say (RFC 5280). One place for names, lifetimes and extensions.
//!
//! Every serial number has 126 random bits in 16 octets and is positive. Every certificate
//! begins five minutes before it was made, since laptops' clocks drift, and ends no later than
//! its issuer. A leaf's subject is empty and its alternative name therefore critical: what a
//! device is stands in one URI, and there is no common name that somebody could rely on. CAs are
//! named after their key, so that two that live at once have two names.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyIdMethod, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use toktra_protocol::{DeviceId, ToktraDomain, UnixSeconds};
use uuid::Uuid;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::AuthorityError;

const DAY_S: u64 = 24 * 60 * 60;
const ROOT_DAYS: u64 = 3653;
const INTERMEDIATE_DAYS: u64 = 730;
const LEAF_DAYS: u64 = 90;
/// Laptops' clocks drift.
pub(crate) const BACKDATED_S: u64 = 5 * 60;

/// From when to when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before: UnixSeconds,
    pub(crate) not_after: UnixSeconds,
}

impl Validity {
    fn new(now: UnixSeconds, days: u64, end: UnixSeconds) -> Self {
        let not_before = UnixSeconds(now.0.saturating_sub(BACKDATED_S));
        Self { not_before, not_after: now.plus(days * DAY_S).min(end) }
    }
}

/// Whom a CA's certificate is about: its name and its key's identifier.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) id: Vec<u8>,
}

impl Subject {
    /// A new CA: what it is, and the beginning of its key's identifier.
    pub(crate) fn new(what: &str, key: &impl PublicKeyData) -> Self {
        let id = key_identifier(key);
        Self { name: format!("{what} {}", &hexadecimal(&id)[..8]), id }
    }

    /// The one that a certificate is about.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })?;
        (id.len() >= 4).then_some(Self { name, id })
    }

    /// The key's identifier, hexadecimal.
    pub(crate) fn id(&self) -> String {
        hexadecimal(&self.id)
    }
}

/// A root, also under the name of the one before it, which ends then. Without a limit of the
/// path, so that it can certify the next root.
pub(crate) fn root(
    subject: &Subject,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<CertificateParams, AuthorityError> {
    ca(subject, BasicConstraints::Unconstrained, Validity::new(now, ROOT_DAYS, end))
}

/// What issues devices.
pub(crate) fn device_ca(
    subject: &Subject,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<CertificateParams, AuthorityError> {
    ca(subject, BasicConstraints::Constrained(0), Validity::new(now, INTERMEDIATE_DAYS, end))
}

/// What issues the hosts' certificates, and no name outside the domain.
pub(crate) fn server_ca(
    subject: &Subject,
    domain: &ToktraDomain,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = device_ca(subject, now, end)?;
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.host().to_owned())],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

/// A device.
pub(crate) fn device(
    key: &impl PublicKeyData,
    organisation: Uuid,
    device: DeviceId,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<(CertificateParams, Validity), AuthorityError> {
    let name = SanType::URI(device_uri(organisation, device).try_into()?);
    leaf(key, name, ExtendedKeyUsagePurpose::ClientAuth, now, end)
}

/// One of the backend's hosts.
pub(crate) fn host(
    key: &impl PublicKeyData,
    name: &str,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<(CertificateParams, Validity), AuthorityError> {
    leaf(key, SanType::DnsName(name.try_into()?), ExtendedKeyUsagePurpose::ServerAuth, now, end)
}

/// Makes an organisation's identifier a trust domain: the host of a URI in a certificate is fully
/// qualified (RFC 5280, 4.2.1.6), and `internal` is nobody's.
pub(crate) const TRUST_DOMAIN: &str = ".toktra.internal";

/// What a device's certificate says it is (SPIFFE-ID, the organisation as trust domain).
pub(crate) fn device_uri(organisation: Uuid, device: DeviceId) -> String {
    format!("spiffe://{organisation}{TRUST_DOMAIN}/device/{device}")
}

/// A key's identifier, hexadecimal.
pub(crate) fn key_id(key: &impl PublicKeyData) -> String {
    hexadecimal(&key_identifier(key))
}

/// Of SHA-256 over the public key the first 160 bits (RFC 7093, 2, method 1).
fn key_identifier(key: &impl PublicKeyData) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, key.der_bytes()).as_ref()[..20].to_vec()
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixSeconds> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok().map(UnixSeconds)
}

/// The public key of a certificate.
pub(crate) fn key_of(
    certificate: &CertificateDer<'_>,
) -> Result<rcgen::SubjectPublicKeyInfo, AuthorityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| AuthorityError::Key)?;
    Ok(rcgen::SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?)
}

pub(crate) fn pem(certificate: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn ca(
    subject: &Subject,
    constraints: BasicConstraints,
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = common(validity, subject.id.clone())?;
    params.distinguished_name.push(DnType::CommonName, &subject.name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(
    key: &impl PublicKeyData,
    name: SanType,
    purpose: ExtendedKeyUsagePurpose,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<(CertificateParams, Validity), AuthorityError> {
    let validity = Validity::new(now, LEAF_DAYS, end);
    let mut params = common(validity, key_identifier(key))?;
    // Not only says that it is none: it also gets a subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![name];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    Ok((params, validity))
}

fn common(validity: Validity, id: Vec<u8>) -> Result<CertificateParams, AuthorityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = epoch + Duration::from_secs(validity.not_before.0);
    params.not_after = epoch + Duration::from_secs(validity.not_after.0);
    params.serial_number = Some(serial()?);
    params.key_identifier_method = KeyIdMethod::PreSpecified(id);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 126 random bits below the bits 01: positive, and always 16 octets.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| AuthorityError::Randomness)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
