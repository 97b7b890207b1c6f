//! An authority on disk: what it makes, what it refuses, and who passes for a device.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use toktra_pki::{
    Authority, AuthorityError, Founding, IdentityError, Passphrase, PassphraseError, PassphraseFile,
    VerifiedCsr,
};
use toktra_protocol::{DeviceId, Directive, UnixSeconds};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const DAY_S: u64 = 86_400;

fn create(data: &Path) -> Result<PassphraseFile, AuthorityError> {
    let file = PassphraseFile::Own(data.join("passphrase"));
    let founding = Founding {
        domain: &"acme.example".parse().unwrap(),
        passphrase: &file.read_or_make().unwrap().0,
        root_passphrase: &Passphrase::generate().unwrap(),
        root_directory: &Authority::offline_directory(data),
    };
    Authority::create(data, &founding, NOW).map(|()| file)
}

fn authority(data: &Path) -> Authority {
    Authority::open(data, &create(data).unwrap()).unwrap()
}

/// A request that asks for everything it should not get.
fn greedy_csr() -> VerifiedCsr {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["api.acme.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    VerifiedCsr::from_der(params.serialize_request(&key).unwrap().der()).unwrap()
}

#[test]
fn a_device_gets_its_own_name_and_nothing_that_it_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let authority = authority(data.path());
    let (organisation, device) = (Uuid::from_u128(1), DeviceId::from_u128(2));
    let made = authority.issue_device(&greedy_csr(), organisation, device, NOW).unwrap();
    let identity = authority.trust().identify(&made.der).unwrap();
    assert_eq!((identity.organisation, identity.device), (organisation, device));
    assert_eq!(identity.serial, made.serial);
    assert_eq!(identity.not_before, UnixSeconds(NOW.0 - 300));
    assert_eq!(identity.not_after, UnixSeconds(NOW.0 + 90 * DAY_S));

    let (_, certificate) = X509Certificate::from_der(&made.der).unwrap();
    assert!(!certificate.is_ca());
    let text = String::from_utf8_lossy(&made.der);
    assert!(!text.contains("admin") && !text.contains("acme"));
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert_eq!(certificate.raw_serial().len(), 16);
    assert!(certificate.raw_serial()[0] < 0x80, "a serial number is positive");
}

#[test]
fn validity_is_judged_by_the_request_and_not_by_the_chain() {
    let data = tempfile::tempdir().unwrap();
    let authority = authority(data.path());
    let made = authority.issue_device(&greedy_csr(), Uuid::nil(), DeviceId::nil(), NOW).unwrap();
    let identity = authority.trust().identify(&made.der).unwrap();
    assert!(identity.is_valid_at(NOW));
    assert!(!identity.is_valid_at(UnixSeconds(NOW.0 - 301)));
    assert!(!identity.is_valid_at(UnixSeconds(NOW.0 + 90 * DAY_S + 1)));
}

#[test]
fn certificates_of_another_authority_of_the_root_and_of_servers_are_no_devices() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (authority, stranger) = (authority(data.path()), self::authority(other.path()));
    let foreign = stranger.issue_device(&greedy_csr(), Uuid::nil(), DeviceId::nil(), NOW).unwrap();
    let server = authority.issue_server("api.acme.example", NOW).unwrap();
    let root = CertificateDer::from_pem_file(Authority::root_certificate_file(data.path())).unwrap();
    for certificate in [&foreign.der, &server.chain[0], &server.chain[1], &root] {
        let result = authority.trust().identify(certificate);
        assert!(matches!(result, Err(IdentityError::UnknownIssuer)), "{result:?}");
    }
    let garbage = authority.trust().identify(&CertificateDer::from_slice(b"\x30\x00"));
    assert!(matches!(garbage, Err(IdentityError::Unreadable)));
}

#[test]
fn the_server_ca_can_name_no_host_outside_the_domain() {
    let data = tempfile::tempdir().unwrap();
    let authority = authority(data.path());
    let root = CertificateDer::from_pem_file(Authority::root_certificate_file(data.path())).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let verify = |host: &'static str| {
        let made = authority.issue_server(host, NOW).unwrap();
        let name = ServerName::try_from(host).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(NOW.0));
        verifier.verify_server_cert(&made.chain[0], &made.chain[1..], &name, &[], at).is_ok()
    };
    assert!(verify("api.acme.example"));
    assert!(verify("ingest.acme.example"));
    assert!(!verify("bank.example"));
    assert!(!verify("api.notacme.example"));
}

#[test]
fn keys_are_the_owners_alone_and_an_authority_is_never_overwritten() {
    let data = tempfile::tempdir().unwrap();
    authority(data.path());
    let mode = |file: &str| std::fs::metadata(data.path().join(file)).unwrap().permissions().mode() & 0o777;
    for key in ["root/root.key", "authority/devices.key", "authority/server.key", "authority/directive.key"] {
        assert_eq!(mode(key), 0o600, "{key}");
    }
    assert_eq!((mode("root"), mode("authority")), (0o700, 0o700));
    let before = std::fs::read(data.path().join("authority/devices.key")).unwrap();
    assert!(create(data.path()).is_err());
    assert_eq!(std::fs::read(data.path().join("authority/devices.key")).unwrap(), before);
}

#[test]
fn the_server_does_without_the_roots_key() {
    let data = tempfile::tempdir().unwrap();
    let passphrase = create(data.path()).unwrap();
    std::fs::remove_dir_all(Authority::offline_directory(data.path())).unwrap();
    let authority = Authority::open(data.path(), &passphrase).unwrap();
    assert!(authority.issue_device(&greedy_csr(), Uuid::nil(), DeviceId::nil(), NOW).is_ok());
}

#[test]
fn keys_on_disk_open_with_the_passphrase_alone_and_every_way_to_miss_it_says_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let file = create(data.path()).unwrap();
    for key in ["root/root.key", "authority/devices.key", "authority/server.key", "authority/directive.key"] {
        let text = std::fs::read_to_string(data.path().join(key)).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{key}");
    }
    assert!(Authority::open(data.path(), &file).unwrap().plain_keys().is_empty());
    let other = PassphraseFile::Own(data.path().join("other"));
    let missing = Authority::open(data.path(), &other).unwrap_err();
    assert!(matches!(missing, AuthorityError::Passphrase(PassphraseError::Missing(_))));
    other.read_or_make().unwrap();
    let wrong = Authority::open(data.path(), &other).unwrap_err();
    assert!(matches!(&wrong, AuthorityError::WrongPassphrase(path) if path.ends_with("devices.key")));
    assert!(wrong.to_string().contains("--passphrase-file"));
}

#[test]
fn an_older_directory_with_keys_in_the_clear_opens_and_is_encrypted_once() {
    let data = tempfile::tempdir().unwrap();
    let file = create(data.path()).unwrap();
    let secret = file.read().unwrap();
    let online = data.path().join("authority");
    for key in ["devices.key", "server.key", "directive.key"] {
        let path = online.join(key);
        let (_, document) =
            pkcs8::SecretDocument::from_pem(std::fs::read_to_string(&path).unwrap().trim_end()).unwrap();
        let encrypted = pkcs8::EncryptedPrivateKeyInfo::try_from(document.as_bytes()).unwrap();
        let plain = encrypted.decrypt(secret.reveal()).unwrap();
        std::fs::write(&path, &*plain.to_pem("PRIVATE KEY", pkcs8::LineEnding::LF).unwrap()).unwrap();
    }
    std::fs::remove_file(online.join("state.json")).unwrap();
    std::fs::remove_file(online.join("root.pem")).unwrap();
    let absent = PassphraseFile::Own(data.path().join("absent"));
    let old = Authority::open(data.path(), &absent).unwrap();
    assert_eq!(old.plain_keys().len(), 3);
    let issuer = old.issuer_id().to_owned();

    let encrypted = Authority::encrypt(data.path(), &secret, &Passphrase::generate().unwrap()).unwrap();
    assert_eq!(encrypted.len(), 3);
    let wrong = Authority::encrypt(data.path(), &Passphrase::generate().unwrap(), &secret);
    assert!(matches!(wrong, Err(AuthorityError::WrongPassphrase(_))));
    assert!(Authority::open(data.path(), &absent).is_err());
    let new = Authority::open(data.path(), &file).unwrap();
    assert_eq!((new.issuer_id(), new.plain_keys().len()), (issuer.as_str(), 0));
}

#[test]
fn an_authority_says_until_when_it_can_issue() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(authority(data.path()).expires_at(), UnixSeconds(NOW.0 + 730 * DAY_S));
}

#[test]
fn nothing_secret_prints() {
    let data = tempfile::tempdir().unwrap();
    let authority = authority(data.path());
    let server = authority.issue_server("api.acme.example", NOW).unwrap();
    assert_eq!(format!("{authority:?}"), "Authority { .. }");
    assert_eq!(format!("{:?}", authority.directive()), "DirectiveSigner { .. }");
    assert!(!format!("{server:?}").contains("key"));
}

#[test]
fn a_directives_signature_covers_its_context_and_every_byte() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let data = tempfile::tempdir().unwrap();
    let authority = authority(data.path());
    let directive = Directive {
        version: 7,
        device: DeviceId::nil(),
        issued_at: NOW,
        valid_until: NOW.plus(900),
        lock: None,
        block: None,
        flags: std::collections::BTreeMap::new(),
        budgets: Vec::new(),
        counted: 0,
        renew_before: None,
        perks: None,
    };
    let mut signed = authority.directive().sign(&directive).unwrap();
    let key = STANDARD.decode(authority.directive().public_key()).unwrap();
    let signature = STANDARD.decode(&signed.signature).unwrap();
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
    key.verify(&signed.signed_bytes(), &signature).unwrap();
    assert!(key.verify(signed.payload.as_bytes(), &signature).is_err());
    assert_eq!(signed.document().unwrap(), directive);
    signed.payload = signed.payload.replace("\"version\":7", "\"version\":8");
    assert!(key.verify(&signed.signed_bytes(), &signature).is_err());
}
