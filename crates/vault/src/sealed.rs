//! One record, sealed: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
//! ChaCha20-Poly1305, `info` as in [`CONTEXT`], no `aad`.
//!
//! | bytes | what |
//! | --- | --- |
//! | 17 | `toktra sealed v1` and a line feed: what it is, and of which version |
//! | 8 | whose it is: the beginning of a hash of the recipient, so that a wrong key is told from damage |
//! | 32 | the encapsulated key |
//! | a multiple of 1024 | the record, encrypted, with spaces behind it |
//! | 16 | the authentication tag |
//!
//! Spaces do as padding, since a record is a JSON object and JSON has no use for them behind it. Nothing
//! of where a record is filed is bound to it: a backend that was set back takes it under another number.
//! A record that comes twice is known by what is in it.

use std::convert::Infallible;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _, single_shot_open};
use toktra_protocol::personal::wire::SEALED_HEAD as HEAD;
use zeroize::Zeroizing;

use crate::{Recipient, UserKey};

/// What a record of ours is sealed for, so that nothing that was sealed for something else opens as one.
const CONTEXT: &[u8] = b"toktra personal record v1\0";
/// Lengths are multiples of this, in bytes.
const STEP: usize = 1024;
/// Longest record, in bytes.
pub const CONTENT_LIMIT: usize = 7 * STEP;
const FINGERPRINT: usize = 8;
const ENCAPSULATED: usize = 32;
const TAG: usize = 16;
/// Longest sealed record, in bytes.
pub const SEALED_LIMIT: usize = HEAD.len() + FINGERPRINT + ENCAPSULATED + CONTENT_LIMIT + TAG;

/// Why nothing was sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than [`CONTENT_LIMIT`].
    #[error("a record of {0} bytes exceeds the limit of {CONTENT_LIMIT}")]
    TooLarge(usize),
    /// It would not come out as it went in.
    #[error("a record must not end with a space")]
    Space,
    /// Nothing can be sealed to this recipient.
    #[error("the user's public key is damaged")]
    Recipient,
}

/// Why nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short, too long, or not of this version.
    #[error("it is no sealed record, or one of a later version")]
    Form,
    /// It was sealed to another key.
    #[error("it was sealed to another key")]
    OtherKey,
    /// It was changed since.
    #[error("it is damaged")]
    Damaged,
}

/// Seals a record, JSON as a rule. `entropy` must be uniformly random, and never the same twice.
pub fn seal(
    recipient: &Recipient,
    content: &[u8],
    entropy: Zeroizing<[u8; 32]>,
) -> Result<Vec<u8>, SealError> {
    if content.len() > CONTENT_LIMIT {
        return Err(SealError::TooLarge(content.len()));
    }
    if content.ends_with(b" ") {
        return Err(SealError::Space);
    }
    let mut padded = Zeroizing::new(Vec::with_capacity(CONTENT_LIMIT));
    padded.extend_from_slice(content);
    padded.resize(content.len().div_ceil(STEP).max(1) * STEP, b' ');
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &recipient.public(),
            CONTEXT,
            &padded,
            b"",
            &mut Entropy(entropy),
        )
        .map_err(|_| SealError::Recipient)?;
    Ok([HEAD, &recipient.fingerprint()[..], &encapsulated.to_bytes(), &ciphertext].concat())
}

/// Opens a record that was sealed to this key.
pub fn open(key: &UserKey, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if sealed.len() > SEALED_LIMIT {
        return Err(OpenError::Form);
    }
    let rest = sealed.strip_prefix(HEAD).ok_or(OpenError::Form)?;
    let (fingerprint, rest) = rest.split_first_chunk::<FINGERPRINT>().ok_or(OpenError::Form)?;
    let (encapsulated, ciphertext) = rest.split_first_chunk::<ENCAPSULATED>().ok_or(OpenError::Form)?;
    let padded_bytes = ciphertext.len().checked_sub(TAG).ok_or(OpenError::Form)?;
    if padded_bytes == 0 || padded_bytes % STEP != 0 {
        return Err(OpenError::Form);
    }
    if *fingerprint != key.recipient().fingerprint() {
        return Err(OpenError::OtherKey);
    }
    let encapsulated =
        <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| OpenError::Damaged)?;
    let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &key.private(),
        &encapsulated,
        CONTEXT,
        ciphertext,
        b"",
    );
    let mut content = Zeroizing::new(opened.map_err(|_| OpenError::Damaged)?);
    let length = content.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    content.truncate(length);
    Ok(content)
}

/// Gives out what it was given: what encapsulation draws, it draws at once.
struct Entropy(Zeroizing<[u8; 32]>);

impl TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        into.iter_mut().zip(self.0.iter()).for_each(|(byte, random)| *byte = *random);
        Ok(())
    }
}

impl TryCryptoRng for Entropy {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> UserKey {
        UserKey::new(Zeroizing::new([byte; 32]))
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        seal(&key(1).recipient(), content, Zeroizing::new([9; 32])).unwrap()
    }

    #[test]
    fn a_length_says_no_more_than_how_many_kib() {
        for (length, kib) in [(0, 1), (1, 1), (1024, 1), (1025, 2), (CONTENT_LIMIT, 7)] {
            assert_eq!(sealed(&vec![b'x'; length]).len(), 17 + 8 + 32 + kib * 1024 + 16, "{length}");
        }
        let seal = |content: &[u8]| seal(&key(1).recipient(), content, Zeroizing::new([9; 32])).unwrap_err();
        assert_eq!(seal(&[b'x'; CONTENT_LIMIT + 1]), SealError::TooLarge(CONTENT_LIMIT + 1));
        assert_eq!(seal(b"x "), SealError::Space);
    }

    #[test]
    fn a_wrong_key_and_damage_are_told_apart() {
        let whole = sealed(b"{}");
        assert_eq!(open(&key(1), &whole).unwrap()[..], *b"{}");
        assert_eq!(open(&key(2), &whole), Err(OpenError::OtherKey));
        for cut in 0..whole.len() {
            assert_eq!(open(&key(1), &whole[..cut]), Err(OpenError::Form), "{cut}");
        }
        assert_eq!(open(&key(1), &[0; SEALED_LIMIT + 1]), Err(OpenError::Form));
        let mut damaged = whole.clone();
        damaged[100] ^= 1;
        assert_eq!(open(&key(1), &damaged), Err(OpenError::Damaged));
    }

    #[test]
    fn two_records_alike_look_unlike() {
        let one = seal(&key(1).recipient(), b"{}", Zeroizing::new([8; 32])).unwrap();
        let two = sealed(b"{}");
        assert_ne!(one[25..57], two[25..57]);
        assert_ne!(one[57..], two[57..]);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(
            content in proptest::collection::vec(any::<u8>(), 0..3000),
            seed: [u8; 32], entropy: [u8; 32],
        ) {
            prop_assume!(!content.ends_with(b" "));
            let key = UserKey::new(Zeroizing::new(seed));
            let sealed = seal(&key.recipient(), &content, Zeroizing::new(entropy)).unwrap();
            prop_assert!(sealed.len() <= SEALED_LIMIT);
            prop_assert_eq!(&open(&key, &sealed).unwrap()[..], &content[..]);
        }

        #[test]
        fn a_changed_bit_is_noticed(bit in 0..(17 + 8 + 32 + 1024 + 16) * 8_usize) {
            let mut changed = sealed(b"{\"host\":\"api.openai.com\"}");
            changed[bit / 8] ^= 1 << (bit % 8);
            // X25519 ignores the highest bit of a public key (RFC 7748, 5), but HPKE hashes it too.
            prop_assert!(open(&key(1), &changed).is_err());
        }
    }
}
