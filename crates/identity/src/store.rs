//! Where the credential and the newest directive are kept.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use toktra_protocol::SignedDirective;

use crate::{Credential, CredentialError, FileError, private_file};

/// Keeps the credential and the newest directive. On Linux a [`FileStore`].
pub trait Store {
    /// The credential; `None` before enrolment.
    fn credential(&self) -> Result<Option<Credential>, StoreError>;
    /// Replaces the credential, as a whole and durably, and forgets the directive.
    fn save_credential(&self, credential: &Credential) -> Result<(), StoreError>;
    /// The newest directive. Its signature is still to be checked.
    fn directive(&self) -> Result<Option<SignedDirective>, StoreError>;
    /// Replaces the directive, as a whole and durably.
    fn save_directive(&self, directive: &SignedDirective) -> Result<(), StoreError>;
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written, or is not private.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is stored is no credential.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// What is stored is no directive.
    #[error("the stored directive cannot be read; delete directive.json and the backend will send it again")]
    Directive(#[source] serde_json::Error),
}

/// Files in a directory of the agent's account: `credential.json` and `directive.json`, 0600.
#[derive(Clone, Debug)]
pub struct FileStore {
    directory: PathBuf,
}

impl FileStore {
    /// A store in this directory, which is made at the first write.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The credential's file.
    pub fn credential_path(&self) -> PathBuf {
        self.directory.join("credential.json")
    }

    fn directive_path(&self) -> PathBuf {
        self.directory.join("directive.json")
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Store for FileStore {
    fn credential(&self) -> Result<Option<Credential>, StoreError> {
        let content = private_file::read(&self.credential_path())?;
        Ok(content.map(|content| Credential::from_json(&content)).transpose()?)
    }

    fn save_credential(&self, credential: &Credential) -> Result<(), StoreError> {
        private_file::make_directory(&self.directory)?;
        // First, because a directive of a former enrolment must not outlive it.
        private_file::remove(&self.directive_path())?;
        Ok(private_file::replace(&self.credential_path(), &credential.to_json()?)?)
    }

    fn directive(&self) -> Result<Option<SignedDirective>, StoreError> {
        let content = private_file::read(&self.directive_path())?;
        content.map(|content| serde_json::from_slice(&content).map_err(StoreError::Directive)).transpose()
    }

    fn save_directive(&self, directive: &SignedDirective) -> Result<(), StoreError> {
        let content = serde_json::to_vec(directive).map_err(StoreError::Directive)?;
        Ok(private_file::replace(&self.directive_path(), &content)?)
    }
}

/// A store that forgets everything with the process, for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<(Option<Credential>, Option<SignedDirective>)>,
}

impl Store for MemoryStore {
    fn credential(&self) -> Result<Option<Credential>, StoreError> {
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).0.clone())
    }

    fn save_credential(&self, credential: &Credential) -> Result<(), StoreError> {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = (Some(credential.clone()), None);
        Ok(())
    }

    fn directive(&self) -> Result<Option<SignedDirective>, StoreError> {
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).1.clone())
    }

    fn save_directive(&self, directive: &SignedDirective) -> Result<(), StoreError> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(directive.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use toktra_protocol::enrol::EnrolResponse;
    use toktra_protocol::{DeviceId, UnixSeconds};

    use super::*;
    use crate::DeviceKey;

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
        private_file::replace(&store.credential_path(), b"{}").unwrap();
        assert!(store.credential().unwrap_err().to_string().contains("enrol the device again"));
    }
}
