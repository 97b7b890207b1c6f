//! Who the device is: its key, its certificate, the directive it last accepted, and the
//! store that keeps them.
//!
//! Invariants: a private key leaves this room only as a signature or as a rustls signing
//! key, is zeroised when dropped and prints as nothing; a [`Credential`] exists only if its
//! certificate is for its key; a directive is only ever returned after its signature was
//! checked; secrets are kept only where nobody else can read or change them. No clock and no
//! network here: [`life`] says when something is to be asked, and the agent asks.

mod credential;
mod directive;
mod key;
#[cfg(target_os = "macos")]
pub mod keychain;
pub mod keystore;
pub mod life;
mod machine;
mod private_file;
mod store;
mod timeless;

pub use credential::{Application, Credential, CredentialError, Enrolled};
pub use directive::{DirectiveError, DirectiveKey};
pub use key::{DeviceKey, KeyError};
pub use keystore::{Cause, Item, KeyStore, KeyStoreError};
pub use machine::hardware;
pub use private_file::FileError;
pub use store::{DeviceStore, FileStore, KeyedStore, Mark, MemoryStore, Store, StoreError};
pub use timeless::Timeless;
