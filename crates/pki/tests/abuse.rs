//! What a stranger, a thief and an impatient device try at the gate: each is told apart from a
//! device of ours, and nothing that a request asks for is granted.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use support::{House, NOW, device};
use toktra_pki::{Authority, CsrError, IdentityError, VerifiedCsr};
use toktra_protocol::{DeviceId, UnixSeconds};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const URI: &str = "spiffe://00000000-0000-0000-0000-000000000001.toktra.internal/device/00000000-0000-0000-0000-000000000002";

/// A certificate for a device, signed with the house's own intermediate, as a fault of ours would make it.
fn issued(house: &House, adjust: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let file = house.data().join("authority/devices.key");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, document) = pkcs8::SecretDocument::from_pem(text.trim_end()).unwrap();
    let encrypted = pkcs8::EncryptedPrivateKeyInfo::try_from(document.as_bytes()).unwrap();
    let plain = encrypted.decrypt(house.passphrase.read().unwrap().reveal()).unwrap();
    let key = KeyPair::try_from(plain.as_bytes()).unwrap();
    let certificate = CertificateDer::from_pem_file(house.data().join("authority/devices.pem")).unwrap();
    signed(&Issuer::from_ca_cert_der(&certificate, key).unwrap(), adjust)
}

fn signed(
    issuer: &Issuer<'_, KeyPair>,
    adjust: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(URI.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![Purpose::ClientAuth];
    adjust(&mut params);
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    params.signed_by(&key, issuer).unwrap().into()
}

fn judge(authority: &Authority, certificate: &CertificateDer<'_>) -> Result<DeviceId, IdentityError> {
    authority.trust().identify(certificate).map(|identity| identity.device)
}

#[test]
fn the_forgers_own_method_makes_a_device_when_nothing_is_wrong() {
    let house = House::new();
    assert_eq!(judge(&house.open(), &issued(&house, |_| ())).unwrap(), DeviceId::from_u128(2));
}

#[test]
fn another_authority_is_foreign_even_under_our_intermediates_name() {
    let (house, other) = (House::new(), House::new());
    let authority = house.open();
    let foreign = device(&other.open(), 2, NOW);
    assert!(matches!(judge(&authority, &foreign.der), Err(IdentityError::UnknownIssuer)));

    // The name is public; the key is not.
    let intermediate = CertificateDer::from_pem_file(house.data().join("authority/devices.pem")).unwrap();
    let forger = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let forged = signed(&Issuer::from_ca_cert_der(&intermediate, forger).unwrap(), |_| ());
    assert!(matches!(judge(&authority, &forged), Err(IdentityError::Foreign(_))));
}

#[test]
fn a_certificate_without_client_use_is_no_device() {
    let house = House::new();
    let authority = house.open();
    for usages in [vec![Purpose::ServerAuth], vec![Purpose::CodeSigning, Purpose::EmailProtection]] {
        let certificate = issued(&house, |params| params.extended_key_usages = usages);
        assert!(matches!(judge(&authority, &certificate), Err(IdentityError::Foreign(_))));
    }
}

#[test]
fn a_ca_or_what_a_leaf_signed_is_no_device() {
    let house = House::new();
    let authority = house.open();
    let ca = issued(&house, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(matches!(judge(&authority, &ca), Err(IdentityError::Foreign(_))));

    // A device signs a certificate for another device with its own key.
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let csr = VerifiedCsr::from_der(request.der()).unwrap();
    let own = authority.issue_device(&csr, Uuid::from_u128(1), DeviceId::from_u128(9), NOW).unwrap();
    let mut claimed = CertificateParams::default();
    claimed.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let of_leaf = signed(&Issuer::from_params(&claimed, key), |_| ());
    assert!(judge(&authority, &own.der).is_ok());
    assert!(matches!(judge(&authority, &of_leaf), Err(IdentityError::UnknownIssuer)));
}

#[test]
fn before_and_after_its_time_a_certificate_names_its_device_but_is_not_valid() {
    let house = House::new();
    let authority = house.open();
    let made = device(&authority, 2, NOW);
    let identity = authority.trust().identify(&made.der).unwrap();
    assert!(identity.is_valid_at(made.not_before) && identity.is_valid_at(made.not_after));
    assert!(!identity.is_valid_at(UnixSeconds(made.not_before.0 - 1)), "not yet valid");
    assert!(!identity.is_valid_at(made.not_after.plus(1)), "expired");
}

#[test]
fn only_exactly_one_name_in_exactly_our_form_is_a_device() {
    let house = House::new();
    let authority = house.open();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = || SanType::DnsName("api.acme.example".try_into().unwrap());
    for names in [
        vec![],
        vec![dns()],
        vec![uri(URI), dns()],
        vec![uri(URI), uri(URI)],
        vec![uri(&URI.to_uppercase())],
        vec![uri(&URI.replace('-', ""))],
        vec![uri(&format!("{URI}/"))],
        vec![uri(&format!("{URI}?x"))],
        vec![uri(&URI.replace("spiffe", "https"))],
        vec![uri(&URI.replace(".toktra.internal", ""))],
        vec![uri(&URI.replace("toktra.internal", "toktra.evil"))],
    ] {
        let certificate = issued(&house, |params| params.subject_alt_names = names.clone());
        assert!(matches!(judge(&authority, &certificate), Err(IdentityError::Unreadable)), "{names:?}");
    }
}

#[test]
fn bytes_after_a_certificate_or_within_its_signature_are_refused() {
    let house = House::new();
    let authority = house.open();
    let made = device(&authority, 2, NOW);
    let mut longer = made.der.to_vec();
    longer.push(0);
    assert!(judge(&authority, &CertificateDer::from(longer)).is_err());
    for position in 0..made.der.len() {
        let mut bad = made.der.to_vec();
        bad[position] ^= 1;
        assert!(judge(&authority, &CertificateDer::from(bad)).is_err(), "byte {position}");
    }
}

/// A request with everything that it should not ask for.
fn greedy(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["api.acme.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(URI.try_into().unwrap()));
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::CodeSigning];
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // BasicConstraints { cA: TRUE }, critical.
    let mut constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    constraints.set_criticality(true);
    params.custom_extensions.push(constraints);
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn a_request_for_another_name_or_for_a_ca_gets_a_plain_device() {
    let house = House::new();
    let authority = house.open();
    let der = greedy(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    let csr = VerifiedCsr::from_der(&der).unwrap();
    let made = authority.issue_device(&csr, Uuid::from_u128(1), DeviceId::from_u128(7), NOW).unwrap();
    assert_eq!(judge(&authority, &made.der).unwrap(), DeviceId::from_u128(7));

    let (_, certificate) = X509Certificate::from_der(&made.der).unwrap();
    assert_eq!(certificate.subject().iter().count(), 0, "no name but the URI");
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.code_signing && !usage.any);
    assert!(!certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "with an empty subject the name is critical (RFC 5280, 4.1.2.6)");
    assert_eq!(names.value.general_names.len(), 1);
    let text = String::from_utf8_lossy(&made.der);
    assert!(!text.contains("admin") && !text.contains("acme"));
}

#[test]
fn a_request_with_bytes_after_it_or_another_keys_signature_is_refused() {
    let (key, other) =
        (KeyPair::generate_for(&PKCS_ED25519).unwrap(), KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let mut trailing = greedy(&key);
    trailing.extend_from_slice(b"more");
    assert_eq!(VerifiedCsr::from_der(&trailing).unwrap_err(), CsrError::TrailingBytes);
    // Somebody else's key in a request that the first one signed.
    let mut swapped = greedy(&key);
    let own = key.public_key_raw();
    let at = swapped.windows(own.len()).position(|window| window == own).unwrap();
    swapped[at..at + own.len()].copy_from_slice(other.public_key_raw());
    assert_eq!(VerifiedCsr::from_der(&swapped).unwrap_err(), CsrError::Signature);
}
