//! The user's login keychain on macOS: one generic password under [`SERVICE`]. It is unlocked while the
//! user is logged in; what it would ask the user otherwise, it asks.

use security_framework::os::macos::keychain::SecKeychain;
use zeroize::Zeroizing;

use super::{Keyring, KeyringError};

/// The service that the key is filed under.
const SERVICE: &str = "com.toktra.agent";
/// The account that stands in the keychain for what the key is.
const ACCOUNT: &str = "personal-key";
// SecBase.h.
const ITEM_NOT_FOUND: i32 = -25_300; // errSecItemNotFound
const INTERACTION: i32 = -25_308; // errSecInteractionNotAllowed

/// The login keychain.
#[derive(Clone, Copy, Debug)]
pub struct LoginKeychain;

type Status = security_framework::base::Error;

impl LoginKeychain {
    fn with<T>(&self, act: impl FnOnce(&SecKeychain) -> Result<T, Status>) -> Result<T, KeyringError> {
        SecKeychain::default().and_then(|keychain| act(&keychain)).map_err(|error| match error.code() {
            INTERACTION => KeyringError::Locked(self.place()),
            _ => KeyringError::Failed { place: self.place(), reason: error.to_string() },
        })
    }
}

impl Keyring for LoginKeychain {
    fn place(&self) -> String {
        "the login keychain".to_owned()
    }

    fn phrase(&self) -> Result<Option<Zeroizing<String>>, KeyringError> {
        let found = self.with(|keychain| match keychain.find_generic_password(SERVICE, ACCOUNT) {
            Ok((password, _)) => Ok(Some(Zeroizing::new(password.to_vec()))),
            Err(error) if error.code() == ITEM_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        })?;
        // What is no text is no phrase, and is told so by its reader.
        Ok(found.map(|bytes| Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())))
    }

    fn keep(&self, phrase: &str) -> Result<(), KeyringError> {
        self.with(|keychain| keychain.set_generic_password(SERVICE, ACCOUNT, phrase.as_bytes()))
    }

    fn remove(&self) -> Result<(), KeyringError> {
        self.with(|keychain| match keychain.find_generic_password(SERVICE, ACCOUNT) {
            Ok((_, found)) => {
                found.delete();
                Ok(())
            }
            Err(error) if error.code() == ITEM_NOT_FOUND => Ok(()),
            Err(error) => Err(error),
        })
    }
}
