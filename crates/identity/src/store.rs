//! What a device keeps of its identity, on any [`KeyStore`]: the credential, the key of the next
//! one, an application for enrolment, and the newest directive.
//!
//! A renewal survives a crash at any point: the candidate is kept before it is sent and until the
//! credential that has its key is, and until then it is what is asked with again.

use std::path::{Path, PathBuf};

use toktra_protocol::SignedDirective;

use crate::keystore::{Cause, FileKeys, Item, KeyStore, KeyStoreError, MemoryKeys};
use crate::{Application, Credential, CredentialError, DeviceKey, credential};

/// Keeps the identity and the newest directive. On Linux a [`FileStore`].
pub trait Store {
    /// The credential; `None` before enrolment.
    fn credential(&self) -> Result<Option<Credential>, StoreError>;
    /// Keeps the credential of a new enrolment, as a whole and durably, and forgets everything of a
    /// former one: directive, candidate, application.
    fn save_credential(&self, credential: &Credential) -> Result<(), StoreError>;
    /// Keeps the renewed credential of the same enrolment, and forgets its candidate.
    fn save_renewed(&self, credential: &Credential) -> Result<(), StoreError>;
    /// The key that is to be certified at the next renewal of this credential: the one kept, or a new
    /// one that is kept from now on.
    fn candidate(&self, of: &Credential) -> Result<DeviceKey, StoreError>;
    /// Forgets the candidate.
    fn forget_candidate(&self) -> Result<(), StoreError>;
    /// The application that waits for the backend's decision. None whose key has been certified: the
    /// crash that left it is over; and one that came with another machine's disk has a key of its own.
    fn application(&self) -> Result<Option<Application>, StoreError>;
    /// Keeps an application.
    fn save_application(&self, application: &Application) -> Result<(), StoreError>;
    /// Forgets the application, and its token with it.
    fn forget_application(&self) -> Result<(), StoreError>;
    /// The newest directive. Its signature is still to be checked.
    fn directive(&self) -> Result<Option<SignedDirective>, StoreError>;
    /// Replaces the directive, as a whole and durably.
    fn save_directive(&self, directive: &SignedDirective) -> Result<(), StoreError>;
    /// Differs when the credential or the application was replaced, by whomever.
    fn mark(&self) -> Mark;
}

/// See [`Store::mark`].
pub type Mark = (Option<u64>, Option<u64>);

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key store did not answer.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// What is stored is no credential.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// What is stored is no directive.
    #[error("the stored directive cannot be read; delete directive.json and the backend will send it again")]
    Directive(#[source] serde_json::Error),
}

impl StoreError {
    /// What it means.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Keys(error) => error.cause(),
            Self::Credential(_) | Self::Directive(_) => Cause::Damaged,
        }
    }
}

/// A [`Store`] over a key store.
#[derive(Debug, Default)]
pub struct KeyedStore<K> {
    keys: K,
}

/// Files in a directory of the agent's account, 0600.
pub type FileStore = KeyedStore<FileKeys>;
/// A store that forgets everything with the process, for tests.
pub type MemoryStore = KeyedStore<MemoryKeys>;

/// The store of the platform.
#[cfg(not(target_os = "macos"))]
pub type DeviceStore = FileStore;
/// The store of the platform: the System keychain, and files where it does not work.
#[cfg(target_os = "macos")]
pub type DeviceStore = KeyedStore<crate::keystore::Fallback<crate::keychain::Keychain, FileKeys>>;

#[cfg(target_os = "macos")]
impl DeviceStore {
    /// The System keychain, and files in this directory, which is made at the first write.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::over(crate::keystore::Fallback::new(crate::keychain::Keychain, FileKeys::new(directory)))
    }
}

impl<K: KeyStore> KeyedStore<K> {
    /// A store over this.
    pub fn over(keys: K) -> Self {
        Self { keys }
    }
}

impl FileStore {
    /// A store in this directory, which is made at the first write.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::over(FileKeys::new(directory))
    }

    /// The credential's file.
    pub fn credential_path(&self) -> PathBuf {
        self.keys.path(Item::Credential)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.keys.directory()
    }
}

impl<K: KeyStore> Store for KeyedStore<K> {
    fn credential(&self) -> Result<Option<Credential>, StoreError> {
        let content = self.keys.load(Item::Credential)?;
        Ok(content.map(|content| Credential::from_json(&content)).transpose()?)
    }

    fn save_credential(&self, credential: &Credential) -> Result<(), StoreError> {
        // First, because a directive of a former enrolment must not outlive it.
        self.keys.remove(Item::Directive)?;
        self.keys.save(Item::Credential, &credential.to_json()?)?;
        self.keys.remove(Item::Candidate)?;
        Ok(self.keys.remove(Item::Application)?)
    }

    fn save_renewed(&self, credential: &Credential) -> Result<(), StoreError> {
        self.keys.save(Item::Credential, &credential.to_json()?)?;
        Ok(self.keys.remove(Item::Candidate)?)
    }

    fn candidate(&self, of: &Credential) -> Result<DeviceKey, StoreError> {
        let device = of.enrolled().device;
        if let Some(content) = self.keys.load(Item::Candidate)? {
            match credential::candidate_from_json(&content) {
                Ok((owner, key)) if owner == device && !of.has_key(&key) => return Ok(key),
                // Of a former enrolment, or certified already, or of no use.
                _ => {}
            }
        }
        let key = DeviceKey::generate().map_err(CredentialError::from)?;
        self.keys.save(Item::Candidate, &credential::candidate_to_json(device, &key)?)?;
        Ok(key)
    }

    fn forget_candidate(&self) -> Result<(), StoreError> {
        Ok(self.keys.remove(Item::Candidate)?)
    }

    fn application(&self) -> Result<Option<Application>, StoreError> {
        let Some(content) = self.keys.load(Item::Application)? else { return Ok(None) };
        let (mut application, here) = Application::from_json(&content)?;
        if self.credential().is_ok_and(|held| held.is_some_and(|held| held.has_key(&application.key))) {
            // Asked with again, it would make another device.
            self.forget_application()?;
            return Ok(None);
        }
        if !here {
            // Every machine made from the same image has it.
            application.key = DeviceKey::generate().map_err(CredentialError::from)?;
            self.save_application(&application)?;
        }
        Ok(Some(application))
    }

    fn save_application(&self, application: &Application) -> Result<(), StoreError> {
        Ok(self.keys.save(Item::Application, &application.to_json()?)?)
    }

    fn forget_application(&self) -> Result<(), StoreError> {
        Ok(self.keys.remove(Item::Application)?)
    }

    fn directive(&self) -> Result<Option<SignedDirective>, StoreError> {
        let content = self.keys.load(Item::Directive)?;
        content.map(|content| serde_json::from_slice(&content).map_err(StoreError::Directive)).transpose()
    }

    fn save_directive(&self, directive: &SignedDirective) -> Result<(), StoreError> {
        let content = serde_json::to_vec(directive).map_err(StoreError::Directive)?;
        Ok(self.keys.save(Item::Directive, &content)?)
    }

    fn mark(&self) -> Mark {
        (self.keys.mark(Item::Credential), self.keys.mark(Item::Application))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use toktra_protocol::enrol::{EnrolResponse, RenewResponse};
    use toktra_protocol::{DeviceId, UnixSeconds};

    use zeroize::Zeroizing;

    use super::*;

    /// What a backend answers to a key's request.
    fn response(key: &DeviceKey) -> EnrolResponse {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), ca_key);
        let der = key.certificate_signing_request().unwrap();
        let mut request = rcgen::CertificateSigningRequestParams::from_der(&der.as_slice().into()).unwrap();
        request.params.not_after = rcgen::date_time_ymd(2033, 5, 18);
        EnrolResponse {
            device: DeviceId::from_u128(7),
            organisation: "Acme".into(),
            department: Some("Research".into()),
            certificate_chain: request.signed_by(&issuer).unwrap().pem(),
            directive_key: STANDARD.encode([3; 32]),
            roots: "roots".into(),
            server_time: UnixSeconds(1),
        }
    }

    fn credential() -> Credential {
        let key = DeviceKey::generate().unwrap();
        let response = response(&key);
        Credential::new(key, "acme.example".parse().unwrap(), None, response, UnixSeconds(1)).unwrap()
    }

    fn keeps(store: &dyn Store) {
        assert!(store.credential().unwrap().is_none());
        let credential = credential();
        store.save_credential(&credential).unwrap();
        let again = store.credential().unwrap().unwrap();
        assert_eq!(again.enrolled(), credential.enrolled());
        assert_eq!(again.valid_until(), UnixSeconds(1_999_987_200));
        again.certified_key().unwrap().keys_match().unwrap();
        let directive = SignedDirective { payload: "{}".into(), signature: String::new() };
        store.save_directive(&directive).unwrap();
        assert_eq!(store.directive().unwrap(), Some(directive));
        store.save_credential(&credential).unwrap();
        assert_eq!(store.directive().unwrap(), None);
    }

    #[test]
    fn both_stores_keep_what_they_are_given() {
        let directory = tempfile::tempdir().unwrap();
        keeps(&FileStore::new(directory.path().join("state")));
        keeps(&MemoryStore::default());
    }

    /// What a backend answers to a renewal with this key.
    fn renewal(key: &DeviceKey, organisation: &str) -> RenewResponse {
        RenewResponse {
            certificate_chain: response(key).certificate_chain,
            organisation: organisation.into(),
            department: None,
            roots: "new roots".into(),
            server_time: UnixSeconds(1),
        }
    }

    #[test]
    fn a_candidate_stays_until_it_is_certified_and_the_directive_outlives_that() {
        let store = MemoryStore::default();
        let credential = credential();
        store.save_credential(&credential).unwrap();
        let directive = SignedDirective { payload: "{}".into(), signature: String::new() };
        store.save_directive(&directive).unwrap();
        let key = store.candidate(&credential).unwrap();
        assert_eq!(key.pkcs8(), store.candidate(&credential).unwrap().pkcs8());
        let renewed = credential.renewed(key.clone(), renewal(&key, "Acme")).unwrap();
        assert!(renewed.is_of_one_enrolment(&credential) && !renewed.has_certificate_of(&credential));
        // A crash between the two writes leaves the candidate: it is not asked with again.
        store.keys.save(Item::Credential, &renewed.to_json().unwrap()).unwrap();
        assert_ne!(key.pkcs8(), store.candidate(&renewed).unwrap().pkcs8());
        store.save_renewed(&renewed).unwrap();
        assert_eq!(store.directive().unwrap(), Some(directive));
        assert!(store.keys.load(Item::Candidate).unwrap().is_none());
    }

    #[test]
    fn a_candidate_of_another_device_or_a_damaged_one_is_replaced() {
        let store = MemoryStore::default();
        let credential = credential();
        let key = DeviceKey::generate().unwrap();
        let other = credential::candidate_to_json(DeviceId::from_u128(8), &key).unwrap();
        for content in [other.as_slice(), b"{}"] {
            store.keys.save(Item::Candidate, content).unwrap();
            assert_ne!(store.candidate(&credential).unwrap().pkcs8(), key.pkcs8());
        }
    }

    #[test]
    fn a_renewal_changes_names_and_given_roots_but_not_whose_the_events_are() {
        let enrolled = credential();
        let key = DeviceKey::generate().unwrap();
        let twice =
            |credential: &Credential, name| credential.renewed(key.clone(), renewal(&key, name)).unwrap();
        let renamed = twice(&enrolled, "Acme International");
        assert_eq!(renamed.enrolled().organisation, "Acme International");
        assert_eq!(renamed.enrolled().tenant(), enrolled.enrolled().tenant());
        assert_eq!(twice(&renamed, "Third").enrolled().tenant(), enrolled.enrolled().tenant());
        // The machine's own authorities were trusted, and are.
        assert_eq!(renamed.enrolled().ca, None);
        let key = DeviceKey::generate().unwrap();
        let given = |response| {
            let (domain, ca) = ("acme.example".parse().unwrap(), Some("given".into()));
            Credential::new(key.clone(), domain, ca, response, UnixSeconds(1)).unwrap()
        };
        let told = given(response(&key));
        assert_eq!(told.enrolled().ca.as_deref(), Some("roots"));
        assert_eq!(twice(&told, "Acme").enrolled().ca.as_deref(), Some("new roots"));
        let untold = given(EnrolResponse { roots: String::new(), ..response(&key) });
        assert_eq!(untold.enrolled().ca.as_deref(), Some("given"), "a backend from before there were roots");
    }

    #[test]
    fn an_application_survives_the_store_goes_with_the_enrolment_and_prints_no_token() {
        let store = MemoryStore::default();
        let key = DeviceKey::generate().unwrap();
        let application = Application {
            domain: "acme.example".parse().unwrap(),
            ca: None,
            token: Zeroizing::new("the-token".into()),
            key,
        };
        assert!(!format!("{application:?}").contains("the-token"));
        store.save_application(&application).unwrap();
        let again = store.application().unwrap().unwrap();
        assert_eq!((again.token.as_str(), again.key.pkcs8()), ("the-token", application.key.pkcs8()));
        store.save_credential(&credential()).unwrap();
        assert!(store.application().unwrap().is_none());
    }

    #[test]
    fn machines_of_one_image_do_not_ask_with_one_key() {
        let store = MemoryStore::default();
        let key = DeviceKey::generate().unwrap();
        let (domain, token) = ("acme.example".parse().unwrap(), Zeroizing::new("the-token".to_owned()));
        store.save_application(&Application { domain, ca: None, token, key: key.clone() }).unwrap();
        assert_eq!(store.application().unwrap().unwrap().key.pkcs8(), key.pkcs8());
        let json = store.keys.load(Item::Application).unwrap().unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        if json.get("hardware").is_none() {
            return;
        }
        json["hardware"] = "another".into();
        store.keys.save(Item::Application, json.to_string().as_bytes()).unwrap();
        let here = store.application().unwrap().unwrap();
        assert_ne!(here.key.pkcs8(), key.pkcs8());
        assert_eq!(store.application().unwrap().unwrap().key.pkcs8(), here.key.pkcs8());
        assert_eq!(here.token.as_str(), "the-token");
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let response = response(&DeviceKey::generate().unwrap());
        let key = DeviceKey::generate().unwrap();
        let result = Credential::new(key, "acme.example".parse().unwrap(), None, response, UnixSeconds(1));
        assert!(matches!(result, Err(CredentialError::OtherKey)));
    }

    #[test]
    fn a_credential_prints_nothing_of_its_key() {
        let credential = credential();
        let json = String::from_utf8(credential.to_json().unwrap().to_vec()).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let key = json["key"].as_str().unwrap();
        assert!(!format!("{credential:?}").contains(&key[24..]));
    }

    #[test]
    fn a_damaged_credential_is_an_error_that_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path());
        store.keys.save(Item::Credential, b"{}").unwrap();
        let error = store.credential().unwrap_err();
        assert!(error.to_string().contains("enrol the device again") && error.cause() == Cause::Damaged);
    }
}
