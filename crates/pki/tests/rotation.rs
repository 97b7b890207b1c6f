//! Rotations: what is in force after each step, what each step can be undone to, and what a
//! verifier with only the old or only the new root makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use support::{HOST, House, NOW, device};
use toktra_pki::rotation::{Dependants, Line, Phase, RotationError, Status, Step, StepError, dependants};
use toktra_pki::{Authority, AuthorityError, IdentityError, Passphrase, PassphraseFile};
use toktra_protocol::UnixSeconds;

const DAY_S: u64 = 86_400;

/// What is in force, as far as anybody can tell from outside.
fn in_force(house: &House) -> (String, Vec<String>, String, String) {
    let authority = house.open();
    let trusted = authority.trusted_issuers().map(str::to_owned).collect();
    (authority.issuer_id().to_owned(), trusted, authority.roots_pem().to_owned(), authority.ca_pem())
}

/// Whether who believes these roots believes the hosts' certificates.
fn believes(roots_pem: &str, authority: &Authority) -> bool {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let made = authority.issue_server(HOST, NOW).unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(NOW.0));
    verifier.verify_server_cert(&made.chain[0], &made.chain[1..], &name, &[], at).is_ok()
}

#[test]
fn devices_of_both_intermediates_are_taken_from_trust_to_retire() {
    let house = House::new();
    let old = house.open();
    let (old_id, old_device) = (old.issuer_id().to_owned(), device(&old, 1, NOW));

    house.take_all(Line::Devices, &[Step::Prepare]);
    assert_eq!(house.open().trusted_issuers().collect::<Vec<_>>(), [&old_id]);
    house.take_all(Line::Devices, &[Step::Trust]);
    let both = house.open();
    assert_eq!((both.issuer_id(), both.trusted_issuers().count()), (old_id.as_str(), 2));
    assert_eq!(both.renew_before(), None);

    house.take_all(Line::Devices, &[Step::Issue]);
    let issuing = house.open();
    let new_device = device(&issuing, 2, NOW);
    assert_ne!(new_device.issuer, old_id);
    assert_eq!(issuing.trust().identify(&old_device.der).unwrap().issuer, old_id);
    assert_eq!(issuing.trust().identify(&new_device.der).unwrap().issuer, new_device.issuer);
    assert!(matches!(old.trust().identify(&new_device.der), Err(IdentityError::UnknownIssuer)));
    // The new certificate is not asked to be renewed at once, the old one is from the next second on.
    assert_eq!(issuing.renew_before(), Some(new_device.not_before));

    let hanging = dependants(&house.data(), Line::Devices, Step::Retire).unwrap();
    assert_eq!(hanging, Dependants::OfIssuer(old_id.clone()));
    house.take_all(Line::Devices, &[Step::Retire]);
    let retired = house.open();
    assert_eq!(retired.trusted_issuers().collect::<Vec<_>>(), [&new_device.issuer]);
    assert!(retired.trust().takes(&new_device.issuer) && !retired.trust().takes(&old_id));
    assert!(matches!(retired.trust().identify(&old_device.der), Err(IdentityError::UnknownIssuer)));
    assert!(!house.data().join("authority/devices.key").exists(), "the old key is gone");
    assert!(retired.crl(&old_id, &[], 1, NOW).unwrap().is_none());
    house.take_all(Line::Devices, &[Step::Prepare]);
}

#[test]
fn every_step_but_the_last_can_be_undone() {
    let lines: [(Line, &[Step]); 3] = [
        (Line::Devices, &[Step::Prepare, Step::Trust, Step::Issue]),
        (Line::Server, &[Step::Prepare, Step::Issue]),
        (Line::Root, &[Step::Prepare, Step::Distribute, Step::Switch]),
    ];
    for (line, steps) in lines {
        let house = House::new();
        let mut before = vec![in_force(&house)];
        for &step in steps {
            house.take_all(line, &[step]);
            before.push(in_force(&house));
        }
        let roots = || std::fs::read_to_string(Authority::root_certificate_file(&house.data())).unwrap();
        assert_eq!(before.pop().unwrap().2, roots());
        while let Some(expected) = before.pop() {
            house.take_all(line, &[Step::Rollback]);
            assert_eq!(in_force(&house), expected, "{line:?}");
            assert_eq!(roots(), expected.2);
        }
        let again = house.take(line, Step::Rollback);
        assert!(matches!(again, Err(RotationError::Step(StepError::NotBegun { .. }))), "{again:?}");
        let keys = |house: &House| {
            house
                .files()
                .into_iter()
                .filter(|(path, _)| path.extension().is_some_and(|end| end == "key"))
                .count()
        };
        assert_eq!(keys(&house), keys(&House::new()), "{line:?} left a key behind");
    }
}

#[test]
fn devices_that_know_only_the_old_root_believe_the_hosts_until_it_is_retired() {
    let house = House::new();
    let before = house.open();
    let (old_root, old_device) = (before.roots_pem().to_owned(), device(&before, 1, NOW));
    house.take_all(Line::Root, &[Step::Prepare, Step::Distribute]);
    let both = house.open().roots_pem().to_owned();
    let new_root = both.strip_prefix(&old_root).unwrap().to_owned();
    assert!(house.open().renew_before().is_some());
    assert!(believes(&old_root, &house.open()) && believes(&both, &house.open()));
    assert!(!believes(&new_root, &house.open()));
    let announced = dependants(&house.data(), Line::Root, Step::Switch).unwrap();
    assert_eq!(announced, Dependants::None);

    house.take_all(Line::Root, &[Step::Switch]);
    let switched = house.open();
    assert!([&old_root, &both, &new_root].into_iter().all(|roots| believes(roots, &switched)));
    let last = dependants(&house.data(), Line::Root, Step::Retire).unwrap();
    assert_eq!(last, Dependants::NotToldOf(switched.newest_root().to_owned()));
    assert_ne!(switched.newest_root(), before.newest_root());
    // The intermediate's key is the same: no device is affected.
    assert_eq!(switched.trust().identify(&old_device.der).unwrap().issuer, before.issuer_id());
    assert_eq!(CertificateDer::pem_slice_iter(device(&switched, 2, NOW).chain_pem.as_bytes()).count(), 3);

    house.take_all(Line::Root, &[Step::Retire]);
    let retired = house.open();
    assert_eq!(retired.roots_pem(), new_root);
    assert!(believes(&new_root, &retired) && !believes(&old_root, &retired));
    assert!(retired.trust().identify(&old_device.der).is_ok());
    // And once more, from the root that was the next.
    house.take_all(Line::Root, &[Step::Prepare, Step::Distribute, Step::Switch]);
    assert!(believes(&new_root, &house.open()));
    house.take_all(Line::Root, &[Step::Retire]);
    house.take_all(Line::Devices, &[Step::Prepare, Step::Trust, Step::Issue, Step::Retire]);
    house.take_all(Line::Server, &[Step::Prepare, Step::Issue, Step::Retire]);
    assert!(!believes(&new_root, &house.open()) && believes(house.open().roots_pem(), &house.open()));
}

#[test]
fn the_hosts_are_believed_at_every_step_of_the_server_cas_rotation() {
    let house = House::new();
    let roots = house.open().roots_pem().to_owned();
    let chain = |house: &House| house.open().issue_server(HOST, NOW).unwrap().chain[1].clone();
    let old = chain(&house);
    for (step, is_old) in [(Step::Prepare, true), (Step::Issue, false), (Step::Retire, false)] {
        house.take_all(Line::Server, &[step]);
        assert!(believes(&roots, &house.open()), "{step:?}");
        assert_eq!(chain(&house) == old, is_old, "{step:?}");
    }
}

#[test]
fn a_rehearsal_checks_everything_and_changes_nothing() {
    let house = House::new();
    for (line, step) in [(Line::Devices, Step::Prepare), (Line::Root, Step::Prepare)] {
        let before = house.files();
        let said = house.ceremony(|ceremony| ceremony.rehearse(line, step, NOW)).unwrap();
        assert!(!said.is_empty());
        assert_eq!(house.files(), before);
    }
    let out_of_turn = house.ceremony(|ceremony| ceremony.rehearse(Line::Devices, Step::Issue, NOW));
    assert!(matches!(out_of_turn, Err(RotationError::Step(StepError::NotBegun { .. }))));
    let nowhere = house.ceremony_with(&house.data(), None, |it| it.rehearse(Line::Root, Step::Prepare, NOW));
    assert!(matches!(nowhere, Err(RotationError::RootKey(_))));
}

#[test]
fn a_step_that_the_roots_key_must_sign_says_what_it_misses() {
    let house = House::new();
    let try_with = |file| {
        house.ceremony_with(&house.root_directory(), file, |it| it.take(Line::Devices, Step::Prepare, NOW))
    };
    assert!(matches!(try_with(None), Err(RotationError::RootPassphrase)));
    let wrong = try_with(Some(&house.passphrase));
    assert!(matches!(wrong, Err(RotationError::Authority(AuthorityError::WrongPassphrase(_)))));
    // Another authority's root.
    let other = House::new();
    let strange = house.ceremony_with(&other.root_directory(), Some(&other.root_passphrase), |it| {
        it.take(Line::Devices, Step::Prepare, NOW)
    });
    assert!(matches!(strange, Err(RotationError::Authority(AuthorityError::OtherKey { .. }))));
    assert!(try_with(Some(&house.root_passphrase)).is_ok());
    let second = house.take(Line::Server, Step::Prepare);
    assert!(matches!(second, Err(RotationError::Step(StepError::OtherRotation("devices")))));
}

#[test]
fn the_status_names_what_is_in_force_and_what_can_follow() {
    let house = House::new();
    let roles = |house: &House| {
        let status = Status::read(&house.data()).unwrap();
        let roles: Vec<_> = status.certificates.iter().map(|one| (one.line, one.role)).collect();
        (roles, status.rotation.map(|(line, phase, _, next)| (line, phase, next)))
    };
    let idle = vec![(Line::Root, "root"), (Line::Devices, "issues"), (Line::Server, "issues")];
    assert_eq!(roles(&house), (idle, None));
    house.take_all(Line::Devices, &[Step::Prepare, Step::Trust]);
    let (now, rotation) = roles(&house);
    assert_eq!(now[1..3], [(Line::Devices, "issues"), (Line::Devices, "trusted")]);
    assert_eq!(rotation, Some((Line::Devices, Phase::Announced, Step::Issue)));
}

#[test]
fn no_leaf_outlives_its_issuer_and_an_expired_issuer_issues_nothing() {
    let house = House::new();
    let authority = house.open();
    let late = UnixSeconds(NOW.0 + 700 * DAY_S);
    assert_eq!(device(&authority, 1, late).not_after, authority.expires_at());
    assert_eq!(authority.issue_server(HOST, late).unwrap().not_after, authority.expires_at());
    let after = UnixSeconds(NOW.0 + 731 * DAY_S);
    assert!(matches!(authority.issue_server(HOST, after), Err(AuthorityError::Expired)));
}

#[test]
fn the_passphrase_changes_for_every_key_and_an_interrupted_change_goes_on() {
    let house = House::new();
    house.take(Line::Devices, Step::Prepare).unwrap();
    let old = house.passphrase.read().unwrap();
    let new = Passphrase::generate().unwrap();
    let wrong = Passphrase::generate().unwrap();
    assert!(Authority::change_passphrase(&house.data(), &wrong, &new).is_err());
    assert_eq!(house.open().trusted_issuers().count(), 1, "nothing was changed");
    let device_key = house.data().join("authority/devices.key");
    let before = std::fs::read_to_string(&device_key).unwrap();
    assert_eq!(Authority::change_passphrase(&house.data(), &old, &new).unwrap(), 4);
    // As if it had ended before this one.
    std::fs::write(&device_key, before).unwrap();
    assert_eq!(Authority::change_passphrase(&house.data(), &old, &new).unwrap(), 1);
    assert!(matches!(
        Authority::open(&house.data(), &house.passphrase),
        Err(AuthorityError::WrongPassphrase(_))
    ));
    let file = house.write("new.passphrase", new.reveal());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(Authority::open(&house.data(), &PassphraseFile::Own(file)).is_ok());
}
