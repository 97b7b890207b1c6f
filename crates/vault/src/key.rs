//! The user's key and what is derived from it. Nothing can be derived back.

use std::fmt;

use hpke::Deserializable as _;
use hpke::Serializable as _;
use hpke::kem::{Kem, X25519HkdfSha256};
use ring::{digest, hkdf};
use toktra_protocol::personal::Member;
use zeroize::Zeroizing;

/// Length of the key and of all that is derived from it, in bytes.
const LENGTH: usize = 32;
/// Put before the organisation when a member is derived, so that no other derivation gives the same.
const MEMBER_CONTEXT: &[u8] = b"toktra personal member v1\0";
/// Put before the public key when a fingerprint is made of it.
const FINGERPRINT_CONTEXT: &[u8] = b"toktra personal recipient v1\0";

/// The user's private key: an X25519 private key (RFC 7748), and the entropy of the recovery phrase.
/// `Debug` prints nothing of it.
#[derive(Clone)]
pub struct UserKey(Zeroizing<[u8; LENGTH]>);

impl UserKey {
    /// The key of these bytes, which must be uniformly random.
    pub fn new(entropy: Zeroizing<[u8; LENGTH]>) -> Self {
        Self(entropy)
    }

    /// What records are sealed to.
    pub fn recipient(&self) -> Recipient {
        Recipient(X25519HkdfSha256::sk_to_pk(&self.private()).to_bytes().into())
    }

    /// The secret under which an organisation's backend files this user's records, the same on each of
    /// the user's devices and another one for each organisation: HKDF-SHA256 (RFC 5869) of the key,
    /// without salt. `organisation` is what never changes about it.
    pub fn member(&self, organisation: &str) -> Member {
        let info = [MEMBER_CONTEXT, organisation.as_bytes()];
        let mut member = Zeroizing::new([0; LENGTH]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.0[..]);
        #[allow(clippy::expect_used, reason = "a hash's length is one of those that HKDF can give")]
        let expanded = extracted.expand(&info, hkdf::HKDF_SHA256).expect("32 bytes of HKDF-SHA256");
        #[allow(clippy::expect_used, reason = "the member is as long as what was asked for")]
        expanded.fill(&mut member[..]).expect("32 bytes");
        Member::new(*member)
    }

    pub(crate) fn entropy(&self) -> &[u8; LENGTH] {
        &self.0
    }

    #[allow(clippy::expect_used, reason = "any 32 bytes are an X25519 private key")]
    pub(crate) fn private(&self) -> <X25519HkdfSha256 as Kem>::PrivateKey {
        <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0[..]).expect("32 bytes")
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserKey")
    }
}

/// The user's public key (X25519). No secret, but nothing that leaves the device, either: who has it can
/// seal a record that looks like the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient([u8; LENGTH]);

impl Recipient {
    /// The recipient of these bytes, as [`bytes`](Self::bytes) gave them.
    pub fn new(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    /// The public key.
    pub fn bytes(&self) -> [u8; LENGTH] {
        self.0
    }

    /// Tells one recipient's records from another's, and nothing of the key.
    pub(crate) fn fingerprint(&self) -> [u8; 8] {
        let digest = digest::digest(&digest::SHA256, &[FINGERPRINT_CONTEXT, &self.0].concat());
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&digest.as_ref()[..8]);
        fingerprint
    }

    #[allow(clippy::expect_used, reason = "any 32 bytes are an X25519 public key")]
    pub(crate) fn public(&self) -> <X25519HkdfSha256 as Kem>::PublicKey {
        <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0).expect("32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> UserKey {
        UserKey::new(Zeroizing::new([byte; LENGTH]))
    }

    #[test]
    fn a_member_is_the_users_and_the_organisations() {
        assert_eq!(key(1).member("acme.example/Acme"), key(1).member("acme.example/Acme"));
        assert_ne!(key(1).member("acme.example/Acme"), key(2).member("acme.example/Acme"));
        assert_ne!(key(1).member("acme.example/Acme"), key(1).member("other.example/Acme"));
        assert_ne!(key(1).member("").bytes()[..], key(1).0[..], "a member is not the key");
    }

    #[test]
    fn the_recipient_is_the_public_key_of_x25519() {
        // As OpenSSL has it.
        let public = "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209";
        let ours: String = key(1).recipient().bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(ours, public);
    }

    #[test]
    fn a_key_prints_as_nothing() {
        assert_eq!(format!("{:?}", key(1)), "UserKey");
    }
}
