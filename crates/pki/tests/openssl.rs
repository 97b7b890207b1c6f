//! OpenSSL's opinion of our certificates, chains, revocation lists and encrypted keys.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use support::{HOST, House, device, openssl, said};
use toktra_pki::RevokedCertificate;
use toktra_pki::rotation::{Line, Step};
use toktra_protocol::UnixSeconds;

/// OpenSSL judges by the machine's clock.
fn house() -> House {
    House::founded(UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// What comes after the leaf in a chain.
fn above(chain_pem: &str) -> &str {
    let end = "-----END CERTIFICATE-----\n";
    &chain_pem[chain_pem.find(end).unwrap() + end.len()..]
}

/// Verifies a leaf strictly; a purpose beside the roots and the chain.
fn verify(
    house: &House,
    purpose: &str,
    roots: &str,
    untrusted: &str,
    leaf: &str,
    more: &[&str],
) -> (bool, String) {
    let roots = house.write("roots.pem", roots).display().to_string();
    let untrusted = house.write("untrusted.pem", untrusted).display().to_string();
    let leaf = house.write("leaf.pem", leaf).display().to_string();
    let fixed = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &roots, "-untrusted", &untrusted];
    let output = openssl(&[&fixed[..], more, &[&leaf]].concat());
    (output.status.success(), said(&output))
}

#[test]
fn openssl_verifies_devices_and_hosts_under_the_root_and_only_for_their_purpose() {
    let house = house();
    let authority = house.open();
    let roots = authority.roots_pem().to_owned();
    let made = device(&authority, 1, house.now);
    let check = |purpose| verify(&house, purpose, &roots, above(&made.chain_pem), &made.chain_pem, &[]);
    let (good, said) = check("sslclient");
    assert!(good, "{said}");
    assert!(!check("sslserver").0);

    let host = authority.issue_server(HOST, house.now).unwrap();
    let (leaf, ca) = (pem(&host.chain[0]), pem(&host.chain[1]));
    let check = |purpose| verify(&house, purpose, &roots, &ca, &leaf, &["-verify_hostname", HOST]);
    let (good, said) = check("sslserver");
    assert!(good, "{said}");
    assert!(!check("sslclient").0);
}

#[test]
fn openssl_verifies_the_chain_over_the_cross_certificate_and_without_it() {
    let house = house();
    let old = house.open().roots_pem().to_owned();
    house.take_all(Line::Root, &[Step::Prepare, Step::Distribute, Step::Switch]);
    let authority = house.open();
    let new = authority.roots_pem().strip_prefix(&old).unwrap().to_owned();
    let made = device(&authority, 1, house.now);
    for roots in [&old, &new] {
        let (good, said) = verify(&house, "sslclient", roots, above(&made.chain_pem), &made.chain_pem, &[]);
        assert!(good, "{said}");
    }
    house.take_all(Line::Root, &[Step::Retire]);
    let made = device(&house.open(), 2, house.now);
    assert!(!verify(&house, "sslclient", &old, above(&made.chain_pem), &made.chain_pem, &[]).0);
    assert!(verify(&house, "sslclient", &new, above(&made.chain_pem), &made.chain_pem, &[]).0);
}

#[test]
fn openssl_takes_a_revocation_list_and_refuses_what_is_on_it() {
    let house = house();
    let authority = house.open();
    let (revoked, other) = (device(&authority, 1, house.now), device(&authority, 2, house.now));
    let entries = [RevokedCertificate { serial: revoked.serial.clone(), revoked_at: house.now }];
    let crl = authority.crl(authority.issuer_id(), &entries, 7, house.now).unwrap().unwrap();
    let der = house.write("list.crl", &crl).display().to_string();
    let ca = house.write("ca.pem", above(&revoked.chain_pem)).display().to_string();
    let text = said(&openssl(&["crl", "-inform", "DER", "-in", &der, "-CAfile", &ca, "-noout", "-text"]));
    assert!(text.contains("verify OK"), "{text}");
    assert!(text.contains(&revoked.serial.to_uppercase()), "{text}");
    assert!(text.contains("Privilege Withdrawn") && text.contains("X509v3 CRL Number"), "{text}");

    let list = house.data().join("list.pem");
    let list = list.to_str().unwrap();
    assert!(openssl(&["crl", "-inform", "DER", "-in", &der, "-out", list]).status.success());
    let check = |made: &toktra_pki::DeviceCertificate| {
        let roots = authority.roots_pem();
        let with_list = ["-crl_check", "-CRLfile", list];
        verify(&house, "sslclient", roots, above(&made.chain_pem), &made.chain_pem, &with_list)
    };
    let (good, said) = check(&revoked);
    assert!(!good && said.contains("certificate revoked"), "{said}");
    let (good, said) = check(&other);
    assert!(good, "{said}");
}

#[test]
fn an_empty_list_is_a_list_and_a_damaged_serial_is_no_entry() {
    let house = house();
    let authority = house.open();
    assert!(authority.crl(authority.issuer_id(), &[], 1, house.now).unwrap().is_some());
    for serial in ["", "xyz", "-1", "00112233445566778899aabbccddeeff0011223344"] {
        let entries = [RevokedCertificate { serial: serial.into(), revoked_at: house.now }];
        assert!(authority.crl(authority.issuer_id(), &entries, 1, house.now).is_err(), "{serial}");
    }
}

#[test]
fn openssl_opens_an_encrypted_key_with_the_passphrase_alone() {
    let house = house();
    let key = house.data().join("authority/devices.key").display().to_string();
    let open = |passphrase: &str| {
        openssl(&["pkey", "-in", &key, "-passin", &format!("pass:{passphrase}"), "-noout", "-text_pub"])
    };
    assert!(open(house.passphrase.read().unwrap().reveal()).status.success());
    assert!(!open("another passphrase").status.success());
}
