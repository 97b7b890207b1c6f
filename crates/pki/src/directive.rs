//! Signing directives with the Ed25519 key that devices pin at enrolment.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use toktra_protocol::{Directive, SignedDirective};

use crate::AuthorityError;

/// The key that signs directives. Prints nothing.
pub struct DirectiveSigner {
    key: Ed25519KeyPair,
}

impl DirectiveSigner {
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| AuthorityError::Key)?;
        Ok(Self { key })
    }

    /// The public key, raw 32 bytes in base64, as `EnrolResponse` carries it.
    pub fn public_key(&self) -> String {
        STANDARD.encode(self.key.public_key())
    }

    /// Signs a directive.
    pub fn sign(&self, directive: &Directive) -> Result<SignedDirective, serde_json::Error> {
        let mut signed =
            SignedDirective { payload: serde_json::to_string(directive)?, signature: String::new() };
        signed.signature = STANDARD.encode(self.key.sign(&signed.signed_bytes()));
        Ok(signed)
    }
}

impl fmt::Debug for DirectiveSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectiveSigner").finish_non_exhaustive()
    }
}
