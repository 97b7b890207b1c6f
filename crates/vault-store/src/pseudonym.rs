//! The name under which the backend knows a member.

use std::fmt;

use ring::digest::{SHA256, digest};
use ring::rand::{self, Random, SystemRandom};
use toktra_protocol::personal::Member;

use crate::VaultError;

/// SHA-256 of a member's secret, or a random name that is nobody's; hexadecimal. Prints nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// A member's.
    pub fn of(member: &Member) -> Self {
        Self(hexadecimal(digest(&SHA256, member.bytes()).as_ref()))
    }

    /// Nobody's.
    pub(crate) fn random() -> Result<Self, VaultError> {
        let bytes: Random<[u8; 32]> =
            rand::generate(&SystemRandom::new()).map_err(|_| VaultError::Randomness)?;
        Ok(Self(hexadecimal(&bytes.expose())))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonym")
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
