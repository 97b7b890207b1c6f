//! Where secrets are kept, behind one trait: a [`KeyStore`] holds one value for each [`Item`] and
//! replaces it as a whole or not at all. On Linux files; on macOS the System keychain, with files
//! where it cannot be used; in tests memory.
//!
//! An error names its [`Cause`], so that a caller can tell what a person must do from what passes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::{FileError, private_file};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// Key, certificate and what the backend said at enrolment.
    Credential,
    /// The key that is to be certified at the next renewal.
    Candidate,
    /// The token and the key that the device asks to be enrolled with.
    Application,
    /// The newest directive. Signed, and no secret.
    Directive,
}

impl Item {
    /// Its name, which is also that of its file, less `.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Candidate => "candidate",
            Self::Application => "application",
            Self::Directive => "directive",
        }
    }

    /// Whether whoever reads it can do harm.
    pub fn is_secret(self) -> bool {
        self != Self::Directive
    }
}

/// Why a key store did not answer, in what it means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The store itself is not there.
    Missing,
    /// This process may not.
    Denied,
    /// Others could have read or changed what is kept.
    Permissions,
    /// What is kept is not what was put there.
    Damaged,
    /// The store is locked, and nobody is there to unlock it.
    Locked,
    /// The store is there, but does not work: a full disk, a service that is not running.
    Unavailable,
}

/// Why a key store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A keychain.
    #[error("the keychain does not give or take `{item}` ({message}, status {status}): {}", advice(*.cause))]
    Keychain {
        /// What was asked for.
        item: &'static str,
        /// What that means.
        cause: Cause,
        /// Security framework's status.
        status: i32,
        /// Its words.
        message: String,
    },
}

impl KeyStoreError {
    /// What it means.
    pub fn cause(&self) -> Cause {
        match self {
            Self::File(error) => error.cause(),
            Self::Keychain { cause, .. } => *cause,
        }
    }
}

fn advice(cause: Cause) -> &'static str {
    match cause {
        Cause::Missing => "there is no System keychain; a file is used in its place",
        Cause::Denied => "run the agent as root, and by the same signature as the one that put it there",
        Cause::Permissions => "others may have read or changed it; enrol the device again",
        Cause::Damaged => "repair the System keychain with Keychain Access, or enrol the device again",
        Cause::Locked => "unlock the System keychain",
        Cause::Unavailable => "it may work later; restart the machine if it does not",
    }
}

/// Keeps one value for each item. Values are replaced as a whole and durably.
pub trait KeyStore: Send + Sync {
    /// The value; `None` if there is none.
    fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError>;
    /// Replaces the value.
    fn save(&self, item: Item, value: &[u8]) -> Result<(), KeyStoreError>;
    /// Forgets the value, if there is one.
    fn remove(&self, item: Item) -> Result<(), KeyStoreError>;
    /// Something that differs after the value was replaced, by whomever; cheap enough for once a second.
    fn mark(&self, item: Item) -> Option<u64> {
        let value = self.load(item).ok()??;
        Some(digest(value.as_slice()))
    }
}

/// Files in a directory of the agent's account: `credential.json` and so on, 0600.
#[derive(Clone, Debug)]
pub struct FileKeys {
    directory: PathBuf,
}

impl FileKeys {
    /// A store in this directory, which is made at the first write.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The item's file.
    pub fn path(&self, item: Item) -> PathBuf {
        self.directory.join(item.name()).with_extension("json")
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl KeyStore for FileKeys {
    fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
        Ok(private_file::read(&self.path(item))?)
    }

    fn save(&self, item: Item, value: &[u8]) -> Result<(), KeyStoreError> {
        private_file::make_directory(&self.directory)?;
        Ok(private_file::replace(&self.path(item), value)?)
    }

    fn remove(&self, item: Item) -> Result<(), KeyStoreError> {
        Ok(private_file::remove(&self.path(item))?)
    }

    fn mark(&self, item: Item) -> Option<u64> {
        private_file::mark(&self.path(item)).map(digest)
    }
}

/// A store that forgets everything with the process, for tests.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    kept: Mutex<BTreeMap<Item, Zeroizing<Vec<u8>>>>,
}

impl KeyStore for MemoryKeys {
    fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
        Ok(self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&item).cloned())
    }

    fn save(&self, item: Item, value: &[u8]) -> Result<(), KeyStoreError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(item, Zeroizing::new(value.to_vec()));
        Ok(())
    }

    fn remove(&self, item: Item) -> Result<(), KeyStoreError> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&item);
        Ok(())
    }
}

/// Secrets in a first store where it works, in a second where it does not; what is no secret in the
/// second. A value in the second is the newer one, since it is there only if the first refused it.
#[derive(Debug)]
pub struct Fallback<A, B> {
    first: A,
    second: B,
}

impl<A: KeyStore, B: KeyStore> Fallback<A, B> {
    /// Of these two.
    pub fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<A: KeyStore, B: KeyStore> KeyStore for Fallback<A, B> {
    fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
        match self.second.load(item)? {
            None if item.is_secret() => match self.first.load(item) {
                // Then nothing was ever put there.
                Err(error) if error.cause() == Cause::Missing => Ok(None),
                outcome => outcome,
            },
            value => Ok(value),
        }
    }

    fn save(&self, item: Item, value: &[u8]) -> Result<(), KeyStoreError> {
        if item.is_secret() && self.first.save(item, value).is_ok() {
            return self.second.remove(item);
        }
        self.second.save(item, value)
    }

    fn remove(&self, item: Item) -> Result<(), KeyStoreError> {
        if item.is_secret() {
            match self.first.remove(item) {
                Err(error) if error.cause() != Cause::Missing => return Err(error),
                _ => {}
            }
        }
        self.second.remove(item)
    }

    fn mark(&self, item: Item) -> Option<u64> {
        self.second.mark(item).or_else(|| self.first.mark(item).filter(|_| item.is_secret()))
    }
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keychain that is not as it should be.
    struct Broken(Cause);

    impl Broken {
        fn error(&self, item: Item) -> KeyStoreError {
            KeyStoreError::Keychain {
                item: item.name(),
                cause: self.0,
                status: -1,
                message: "as the test says".into(),
            }
        }
    }

    impl KeyStore for Broken {
        fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
            Err(self.error(item))
        }
        fn save(&self, item: Item, _: &[u8]) -> Result<(), KeyStoreError> {
            Err(self.error(item))
        }
        fn remove(&self, item: Item) -> Result<(), KeyStoreError> {
            Err(self.error(item))
        }
    }

    #[test]
    fn every_store_keeps_replaces_and_forgets() {
        let directory = tempfile::tempdir().unwrap();
        let files = || FileKeys::new(directory.path().join("state"));
        let stores: [&dyn KeyStore; 3] =
            [&files(), &MemoryKeys::default(), &Fallback::new(MemoryKeys::default(), MemoryKeys::default())];
        for store in stores {
            for item in [Item::Credential, Item::Directive] {
                assert!(store.load(item).unwrap().is_none() && store.mark(item).is_none());
                store.save(item, b"one").unwrap();
                let mark = store.mark(item);
                store.save(item, b"two").unwrap();
                assert_ne!(store.mark(item), mark);
                assert_eq!(store.load(item).unwrap().unwrap().as_slice(), b"two");
                store.remove(item).unwrap();
                store.remove(item).unwrap();
                assert!(store.load(item).unwrap().is_none());
            }
        }
    }

    #[test]
    fn where_the_keychain_does_not_work_the_file_does_and_wins() {
        let store = Fallback::new(Broken(Cause::Unavailable), MemoryKeys::default());
        store.save(Item::Credential, b"one").unwrap();
        assert_eq!(store.load(Item::Credential).unwrap().unwrap().as_slice(), b"one");
        assert_eq!(store.load(Item::Candidate).unwrap_err().cause(), Cause::Unavailable);
        let missing = Fallback::new(Broken(Cause::Missing), MemoryKeys::default());
        assert!(missing.load(Item::Candidate).unwrap().is_none());
        missing.remove(Item::Candidate).unwrap();
    }

    #[test]
    fn what_the_keychain_takes_again_leaves_the_file() {
        let store = Fallback::new(MemoryKeys::default(), MemoryKeys::default());
        store.second.save(Item::Credential, b"old").unwrap();
        store.save(Item::Credential, b"new").unwrap();
        assert!(store.second.load(Item::Credential).unwrap().is_none());
        assert_eq!(store.load(Item::Credential).unwrap().unwrap().as_slice(), b"new");
        store.save(Item::Directive, b"signed").unwrap();
        assert!(store.first.load(Item::Directive).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_refused_names_the_cause() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let store = FileKeys::new(directory.path().join("state"));
        store.save(Item::Credential, b"secret").unwrap();
        let cause = || store.load(Item::Credential).unwrap_err().cause();
        let path = store.path(Item::Credential);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(cause(), Cause::Permissions);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert_eq!(cause(), Cause::Permissions);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(cause(), Cause::Damaged);
        let nowhere = FileKeys::new("/proc/nowhere");
        let refused = nowhere.save(Item::Credential, b"secret").unwrap_err();
        assert!(matches!(refused.cause(), Cause::Missing | Cause::Denied), "{refused:?}");
    }
}
