//! The System keychain of macOS: one generic password under [`SERVICE`] for each item. It opens for
//! root only, and no question is ever put to a user: what would need one is refused as locked.
//!
//! A daemon has no data-protection keychain, and the file-based one takes no Ed25519 key as a key,
//! so it is kept as a password. Whoever is root can take it out, as from a file.

use security_framework::os::macos::keychain::SecKeychain;
use zeroize::Zeroizing;

use crate::keystore::{Cause, Item, KeyStore, KeyStoreError};

/// The service that the items are filed under.
pub const SERVICE: &str = "com.toktra.agent";
/// The keychain of the machine rather than of a user.
const SYSTEM_KEYCHAIN: &str = "/Library/Keychains/System.keychain";

// MacErrors.h and SecBase.h.
const FILE_NOT_FOUND: i32 = -43; // fnfErr
const WRITE_PERMISSION: i32 = -61; // errSecWrPerm
const NOT_AVAILABLE: i32 = -25_291; // errSecNotAvailable
const READ_ONLY: i32 = -25_292; // errSecReadOnly
const AUTHORISATION: i32 = -25_293; // errSecAuthFailed
const NO_SUCH_KEYCHAIN: i32 = -25_294; // errSecNoSuchKeychain
const INVALID_KEYCHAIN: i32 = -25_295; // errSecInvalidKeychain
const ITEM_NOT_FOUND: i32 = -25_300; // errSecItemNotFound
const NO_ACCESS: i32 = -25_243; // errSecNoAccessForItem
const INTERACTION: i32 = -25_308; // errSecInteractionNotAllowed
const DECODE: i32 = -26_275; // errSecDecode

/// The System keychain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keychain;

type Status = security_framework::base::Error;

impl Keychain {
    fn with<T>(item: Item, act: impl FnOnce(&SecKeychain) -> Result<T, Status>) -> Result<T, KeyStoreError> {
        let outcome = SecKeychain::disable_user_interaction().and_then(|_quiet| {
            let keychain = SecKeychain::open(SYSTEM_KEYCHAIN)?;
            act(&keychain)
        });
        outcome.map_err(|error| KeyStoreError::Keychain {
            item: item.name(),
            cause: cause(error.code()),
            status: error.code(),
            message: error.message().unwrap_or_default(),
        })
    }
}

impl KeyStore for Keychain {
    fn load(&self, item: Item) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
        Self::with(item, |keychain| match keychain.find_generic_password(SERVICE, item.name()) {
            Ok((password, _)) => Ok(Some(Zeroizing::new(password.to_vec()))),
            Err(error) if error.code() == ITEM_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn save(&self, item: Item, value: &[u8]) -> Result<(), KeyStoreError> {
        Self::with(item, |keychain| {
            match keychain.find_generic_password(SERVICE, item.name()) {
                Ok((_, mut found)) => match found.set_password(value) {
                    // Put there by a program of another signature: ours takes its place.
                    Err(error) if [WRITE_PERMISSION, NO_ACCESS].contains(&error.code()) => found.delete(),
                    outcome => return outcome,
                },
                Err(error) if error.code() == ITEM_NOT_FOUND => {}
                Err(error) => return Err(error),
            }
            keychain.add_generic_password(SERVICE, item.name(), value)
        })
    }

    fn remove(&self, item: Item) -> Result<(), KeyStoreError> {
        Self::with(item, |keychain| match keychain.find_generic_password(SERVICE, item.name()) {
            Ok((_, found)) => {
                found.delete();
                Ok(())
            }
            Err(error) if error.code() == ITEM_NOT_FOUND => Ok(()),
            Err(error) => Err(error),
        })
    }
}

fn cause(status: i32) -> Cause {
    match status {
        FILE_NOT_FOUND | NO_SUCH_KEYCHAIN => Cause::Missing,
        WRITE_PERMISSION | READ_ONLY | AUTHORISATION | NO_ACCESS => Cause::Denied,
        INVALID_KEYCHAIN | DECODE => Cause::Damaged,
        INTERACTION => Cause::Locked,
        NOT_AVAILABLE => Cause::Unavailable,
        _ => Cause::Unavailable,
    }
}
