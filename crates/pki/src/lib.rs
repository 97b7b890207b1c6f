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
//! pass [`DeviceTrust`]. A private key is zeroised when dropped and never printed.

mod authority;
mod csr;
mod directive;
mod files;
mod trust;

pub use authority::{Authority, AuthorityError, DeviceCertificate, ServerCertificate, Signer};
pub use csr::{CSR_LIMIT, CsrError, VerifiedCsr};
pub use directive::DirectiveSigner;
pub use trust::{DeviceIdentity, DeviceTrust, IdentityError};
