//! A machine that loses power at any step of an enrolment or a renewal comes back as the same device:
//! it asks again with the key that it asked with, or holds the certificate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use toktra_identity::keystore::MemoryKeys;
use toktra_identity::{
    Application, Credential, DeviceKey, FileError, Item, KeyStore, KeyStoreError, KeyedStore, Store as _,
};
use toktra_protocol::enrol::{EnrolResponse, RenewResponse};
use toktra_protocol::{DeviceId, SignedDirective, UnixSeconds};
use zeroize::Zeroizing;

/// A disk that takes so many more changes before the power fails.
struct Disk {
    kept: Arc<MemoryKeys>,
    left: AtomicUsize,
}

impl Disk {
    fn change(&self) -> Result<(), KeyStoreError> {
        let had = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        had.map(drop).map_err(|_| FileError::NotAFile("without power".into()).into())
    }
}

impl KeyStore for Disk {
    fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
        self.kept.load(item)
    }

    fn save(&self, item: Item, value: &[u8]) -> Result<(), KeyStoreError> {
        self.change()?;
        self.kept.save(item, value)
    }

    fn remove(&self, item: Item) -> Result<(), KeyStoreError> {
        self.change()?;
        self.kept.remove(item)
    }
}

fn store(kept: &Arc<MemoryKeys>, changes: usize) -> KeyedStore<Disk> {
    KeyedStore::over(Disk { kept: Arc::clone(kept), left: AtomicUsize::new(changes) })
}

/// A chain for the key: an authority's leaf.
fn chain(key: &DeviceKey) -> String {
    static ISSUER: OnceLock<rcgen::Issuer<'static, rcgen::KeyPair>> = OnceLock::new();
    let issuer = ISSUER.get_or_init(|| {
        rcgen::Issuer::new(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap())
    });
    let der = key.certificate_signing_request().unwrap();
    let request = rcgen::CertificateSigningRequestParams::from_der(&der.as_slice().into()).unwrap();
    request.signed_by(issuer).unwrap().pem()
}

fn enrolled(key: &DeviceKey) -> Credential {
    let response = EnrolResponse {
        device: DeviceId::from_u128(7),
        organisation: "Acme".into(),
        department: None,
        certificate_chain: chain(key),
        directive_key: STANDARD.encode([3; 32]),
        roots: String::new(),
        server_time: UnixSeconds(1),
    };
    let domain = "acme.example".parse().unwrap();
    Credential::new(key.clone(), domain, None, response, UnixSeconds(1)).unwrap()
}

fn renewed(former: &Credential, key: &DeviceKey) -> Credential {
    let response = RenewResponse {
        certificate_chain: chain(key),
        organisation: "Acme".into(),
        department: None,
        roots: String::new(),
        server_time: UnixSeconds(1),
    };
    former.renewed(key.clone(), response).unwrap()
}

fn public(key: &DeviceKey) -> Vec<u8> {
    key.public_key().unwrap()
}

#[test]
fn power_that_fails_at_any_step_of_a_renewal_costs_neither_the_identity_nor_a_second_key() {
    for changes in 0.. {
        let kept = Arc::new(MemoryKeys::default());
        let before = enrolled(&DeviceKey::generate().unwrap());
        let directive = SignedDirective { payload: "{}".into(), signature: String::new() };
        let healthy = store(&kept, usize::MAX);
        healthy.save_credential(&before).unwrap();
        healthy.save_directive(&directive).unwrap();
        // What the backend was asked for.
        let mut asked = None;
        let failing = store(&kept, changes);
        let done = failing.candidate(&before).and_then(|key| {
            asked = Some(public(&key));
            failing.save_renewed(&renewed(&before, &key))
        });
        let held = healthy.credential().unwrap().unwrap();
        assert_eq!(healthy.directive().unwrap(), Some(directive));
        if held.has_certificate_of(&before) {
            let again = public(&healthy.candidate(&before).unwrap());
            assert!(asked.is_none_or(|asked| asked == again), "after {changes} changes");
        } else {
            assert!(held.is_of_one_enrolment(&before));
            // The next renewal has a key of its own.
            assert_ne!(asked, Some(public(&healthy.candidate(&held).unwrap())), "after {changes} changes");
        }
        if done.is_ok() {
            assert!(!held.has_certificate_of(&before) && changes == 3);
            return;
        }
    }
}

#[test]
fn power_that_fails_at_any_step_of_an_enrolment_makes_no_second_device() {
    for changes in 0.. {
        let kept = Arc::new(MemoryKeys::default());
        let application = Application {
            domain: "acme.example".parse().unwrap(),
            ca: None,
            token: Zeroizing::new("the-token".into()),
            key: DeviceKey::generate().unwrap(),
        };
        let (failing, healthy) = (store(&kept, changes), store(&kept, usize::MAX));
        let mut asked = false;
        let done = failing.save_application(&application).and_then(|()| {
            asked = true;
            failing.save_credential(&enrolled(&application.key))
        });
        match (healthy.credential().unwrap(), healthy.application().unwrap()) {
            (None, None) => assert!(!asked),
            (None, Some(again)) => assert_eq!(public(&again.key), public(&application.key)),
            (Some(_), None) => {}
            (Some(_), Some(_)) => panic!("it would ask again, after {changes} changes"),
        }
        if done.is_ok() {
            assert_eq!(changes, 5);
            return;
        }
    }
}
