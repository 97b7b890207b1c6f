//! The authority: root, intermediate, issuing. The only room that sees a CA key.
//!
//! ```text
//! Toktra Root CA (P-256, 10 years; its key is taken offline)
//! ├── Toktra Intermediate CA (P-256, 2 years): device certificates, 90 days, client only
//! └── Toktra Server CA (P-256, 2 years, only names under the domain): server certificates
//! ```
//!
//! Invariants: of a certificate signing request nothing but the public key is ever taken,
//! and only after its signature was checked ([`VerifiedCsr`]); every name in a certificate
//! is ours. Only the intermediate can make a device: the server CA's certificates do not
//! pass [`DeviceTrust`]. A private key is encrypted at rest, zeroised when dropped and never
//! printed. What is in force is one file, replaced whole with every step of a [`rotation`].

mod authority;
mod crl;
mod csr;
mod directive;
mod files;
mod founding;
mod keys;
mod passphrase;
mod profile;
pub mod rotation;
mod state;
mod trust;

pub use authority::{Authority, AuthorityError, DeviceCertificate, ServerCertificate};
pub use crl::{CRL_VALID_S, RevokedCertificate};
pub use csr::{CSR_LIMIT, CsrError, VerifiedCsr};
pub use directive::DirectiveSigner;
pub use founding::Founding;
pub use keys::Signer;
pub use passphrase::{PASSPHRASE_MINIMUM, Passphrase, PassphraseError, PassphraseFile};
pub use trust::{DeviceIdentity, DeviceTrust, IdentityError};
