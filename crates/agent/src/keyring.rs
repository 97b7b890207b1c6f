//! Where a user's own key is kept, in the user's session and out of the daemon's reach: the desktop's
//! Secret Service where there is one, else a file that only the user may read; on macOS the login keychain.
//! Kept as its recovery phrase, whose checksum tells damage from a key.
//!
//! Invariants: nothing here runs in the daemon; a key goes from here into the hands of the command that
//! the user gave, and nowhere else; what cannot be read is left as it is.

mod file;
#[cfg(target_os = "macos")]
mod login_keychain;
#[cfg(target_os = "linux")]
mod secret_service;

use toktra_vault::{PhraseError, UserKey};
use zeroize::Zeroizing;

pub use file::KeyFile;
#[cfg(target_os = "macos")]
pub use login_keychain::LoginKeychain;
#[cfg(target_os = "linux")]
pub use secret_service::SecretService;

/// Under which name a desktop shows the key.
pub const LABEL: &str = "Toktra: key of your personal records";

/// Why a key was not read or kept. Names the place and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is locked, and nobody unlocked it.
    #[error("{0} is locked; unlock it, then try again")]
    Locked(String),
    /// It does not work.
    #[error("{place}: {reason}")]
    Failed {
        /// Which keyring.
        place: String,
        /// What it said, and what to do.
        reason: String,
    },
    /// What is in it is no key.
    #[error(
        "what {place} holds is no key of yours: {error}. It is left as it is; import the recovery phrase where it is to be replaced"
    )]
    Damaged {
        /// Which keyring.
        place: String,
        /// What is wrong with it.
        error: PhraseError,
    },
}

/// Keeps one key.
pub trait Keyring {
    /// What it is, for the user.
    fn place(&self) -> String;
    /// The phrase that it holds, if any.
    fn phrase(&self) -> Result<Option<Zeroizing<String>>, KeyringError>;
    /// Keeps a phrase in place of what it holds.
    fn keep(&self, phrase: &str) -> Result<(), KeyringError>;
    /// Holds nothing from now on.
    fn remove(&self) -> Result<(), KeyringError>;
}

/// The keyrings of this session, the best first.
pub struct Session(Vec<Box<dyn Keyring>>);

impl Session {
    /// Those that there are.
    pub fn open() -> Result<Self, KeyringError> {
        let mut keyrings: Vec<Box<dyn Keyring>> = Vec::new();
        #[cfg(target_os = "macos")]
        keyrings.push(Box::new(LoginKeychain));
        #[cfg(target_os = "linux")]
        if let Some(service) = SecretService::of_session()? {
            keyrings.push(Box::new(service));
        }
        keyrings.extend(KeyFile::of_user().map(|file| Box::new(file) as Box<dyn Keyring>));
        if keyrings.is_empty() {
            let reason =
                "there is no Secret Service in this session and no home directory for a file".to_owned();
            return Err(KeyringError::Failed { place: "the keyring".to_owned(), reason });
        }
        Ok(Self(keyrings))
    }

    /// Those of a test's choice.
    pub fn of(keyrings: Vec<Box<dyn Keyring>>) -> Self {
        Self(keyrings)
    }

    /// The key, and where it was.
    pub fn load(&self) -> Result<Option<(UserKey, String)>, KeyringError> {
        for keyring in &self.0 {
            if let Some(phrase) = keyring.phrase()? {
                let place = keyring.place();
                return match UserKey::from_phrase(&phrase) {
                    Ok(key) => Ok(Some((key, place))),
                    Err(error) => Err(KeyringError::Damaged { place, error }),
                };
            }
        }
        Ok(None)
    }

    /// Keeps a key in the best place; where that is.
    pub fn keep(&self, key: &UserKey) -> Result<String, KeyringError> {
        let best = &self.0[0];
        best.keep(&key.phrase())?;
        // What another place holds must not come back later.
        for other in &self.0[1..] {
            other.remove()?;
        }
        Ok(best.place())
    }

    /// Removes the key wherever it is.
    pub fn remove(&self) -> Result<(), KeyringError> {
        self.0.iter().try_for_each(|keyring| keyring.remove())
    }
}
