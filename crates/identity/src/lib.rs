//! Who the device is: its key, its certificate, the directive it last accepted, and the
//! store that keeps them.
//!
//! Invariants: a private key leaves this room only as a signature or as a rustls signing
//! key, is zeroised when dropped and prints as nothing; a [`Credential`] exists only if its
//! certificate is for its key; a directive is only ever returned after its signature was
//! checked. No clock and no network here. Renewal will put a new [`Credential`] through
//! [`Store::save_credential`]; nothing else needs to change for it.

mod credential;
mod directive;
mod key;
pub mod life;
mod private_file;
mod store;

pub use credential::{Credential, CredentialError, Enrolled};
pub use directive::{DirectiveError, DirectiveKey};
pub use key::{DeviceKey, KeyError};
pub use private_file::FileError;
pub use store::{FileStore, MemoryStore, Store, StoreError};
