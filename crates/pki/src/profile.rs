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
    IsCa, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use toktra_protocol::{DeviceId, ToktraDomain, UnixSeconds};
use uuid::Uuid;
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

/// A root. Without a limit of the path, so that it can certify the next root.
pub(crate) fn root(key: &impl PublicKeyData, now: UnixSeconds) -> Result<CertificateParams, AuthorityError> {
    let validity = Validity::new(now, ROOT_DAYS, UnixSeconds(u64::MAX));
    ca(&name("Toktra Root CA", key), BasicConstraints::Unconstrained, validity)
}

/// The next root's key, certified by a root that ends then.
pub(crate) fn cross(
    key: &impl PublicKeyData,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<CertificateParams, AuthorityError> {
    let validity = Validity::new(now, ROOT_DAYS, end);
    ca(&name("Toktra Root CA", key), BasicConstraints::Unconstrained, validity)
}

/// What issues devices.
pub(crate) fn device_ca(
    name: &str,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<CertificateParams, AuthorityError> {
    ca(name, BasicConstraints::Constrained(0), Validity::new(now, INTERMEDIATE_DAYS, end))
}

/// What issues the hosts' certificates, and no name outside the domain.
pub(crate) fn server_ca(
    name: &str,
    domain: &ToktraDomain,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = device_ca(name, now, end)?;
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.host().to_owned())],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

/// A device.
pub(crate) fn device(
    organisation: Uuid,
    device: DeviceId,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<(CertificateParams, Validity), AuthorityError> {
    let name = SanType::URI(device_uri(organisation, device).try_into()?);
    leaf(name, ExtendedKeyUsagePurpose::ClientAuth, now, end)
}

/// One of the backend's hosts.
pub(crate) fn host(
    name: &str,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<(CertificateParams, Validity), AuthorityError> {
    leaf(SanType::DnsName(name.try_into()?), ExtendedKeyUsagePurpose::ServerAuth, now, end)
}

/// A CA's name: what it is, and the beginning of its key's identifier.
pub(crate) fn name(what: &str, key: &impl PublicKeyData) -> String {
    format!("{what} {}", &key_id(key)[..8])
}

/// What a device's certificate says it is (SPIFFE-ID, the organisation as trust domain).
pub(crate) fn device_uri(organisation: Uuid, device: DeviceId) -> String {
    format!("spiffe://{organisation}/device/{device}")
}

/// A key's identifier, as the certificates carry it; hexadecimal.
pub(crate) fn key_id(key: &impl PublicKeyData) -> String {
    hexadecimal(&CertificateParams::default().key_identifier(key))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn end_of(certificate: &CertificateDer<'_>) -> Option<UnixSeconds> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok().map(UnixSeconds)
}

pub(crate) fn common_name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    parsed.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
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
    name: &str,
    constraints: BasicConstraints,
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = common(validity)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(
    name: SanType,
    purpose: ExtendedKeyUsagePurpose,
    now: UnixSeconds,
    end: UnixSeconds,
) -> Result<(CertificateParams, Validity), AuthorityError> {
    let validity = Validity::new(now, LEAF_DAYS, end);
    let mut params = common(validity)?;
    // Not only says that it is none: it also gets a subject key identifier.
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![name];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    Ok((params, validity))
}

fn common(validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = epoch + Duration::from_secs(validity.not_before.0);
    params.not_after = epoch + Duration::from_secs(validity.not_after.0);
    params.serial_number = Some(serial()?);
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
