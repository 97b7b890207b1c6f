//! Keys of a client's Initial packets (RFC 9001, 5), which follow from the first destination connection
//! identifier and are no secret.
//!
//! Invariant: a packet is opened only if its authentication tag is right.

use alloc::vec::Vec;
use core::ops::Range;

use aes::Aes128Enc;
use aes::cipher::consts::U12;
use aes::cipher::{BlockEncrypt, KeyInit};
use aes_gcm::{AeadInPlace, AesGcm};

use super::packet::Long;
use super::sha256::Mac;
use super::version::Version;

const TAG: usize = 16;
const SAMPLE: usize = 16;
/// Header protection samples as if the packet number had four bytes (RFC 9001, 5.4.2).
const SAMPLE_OFFSET: usize = 4;

/// AEAD_AES_128_GCM. Counter mode only ever encrypts, which spares the schedule for decryption.
type Aes128Gcm = AesGcm<Aes128Enc, U12>;

/// The keys of one connection.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    key: [u8; 16],
    iv: [u8; 12],
    hp: [u8; 16],
}

impl Keys {
    /// Derives them from the destination identifier of the client's first packet.
    pub(super) fn derive(version: &Version, destination_id: &[u8]) -> Self {
        let initial_secret = Mac::new(&version.salt.mac.of(destination_id));
        let client_secret = Mac::new(&initial_secret.expand_label::<32>(b"client in"));
        Self {
            key: client_secret.expand_label(version.key_label),
            iv: client_secret.expand_label(version.iv_label),
            hp: client_secret.expand_label(version.hp_label),
        }
    }

    /// Opens a packet into `scratch`; where its frames lie there, or `None` if these are not its keys.
    pub(super) fn open(&self, packet: &Long<'_>, scratch: &mut Vec<u8>) -> Option<Range<usize>> {
        let number_at = packet.number_at;
        let sample = packet.bytes.get(number_at + SAMPLE_OFFSET..)?.first_chunk::<SAMPLE>()?;
        let mut mask = (*sample).into();
        Aes128Enc::new(&self.hp.into()).encrypt_block(&mut mask);

        scratch.clear();
        scratch.extend_from_slice(packet.bytes);
        let first = scratch.first_mut()?;
        *first ^= mask[0] & 0x0f;
        let number_length = usize::from(*first & 3) + 1;
        let mut nonce = self.iv;
        for offset in 0..number_length {
            let byte = scratch.get_mut(number_at + offset)?;
            *byte ^= mask[1 + offset];
            nonce[12 - number_length + offset] ^= *byte;
        }

        let frames_at = number_at + number_length;
        let tag_at = scratch.len().checked_sub(TAG).filter(|at| *at >= frames_at)?;
        let (header, protected) = scratch.split_at_mut(frames_at);
        let (frames, tag) = protected.split_at_mut(tag_at - frames_at);
        let cipher = Aes128Gcm::new(&self.key.into());
        cipher.decrypt_in_place_detached(&nonce.into(), header, frames, (&*tag).into()).ok()?;
        Some(frames_at..tag_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(digits: &str) -> [u8; N] {
        core::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
    }

    fn derived(version: u32) -> Keys {
        Keys::derive(Version::of(version).unwrap(), &hex::<8>("8394c8f03e515708"))
    }

    #[test]
    fn the_keys_of_version_1_are_those_of_rfc_9001() {
        let keys = derived(1);
        assert_eq!(keys.key, hex("1f369613dd76d5467730efcbe3b1a22d"));
        assert_eq!(keys.iv, hex("fa044b2f42a3fd3b46fb255c"));
        assert_eq!(keys.hp, hex("9f50449e04a0e810283a1e9933adedd2"));
    }

    #[test]
    fn the_keys_of_version_2_are_those_of_rfc_9369() {
        let keys = derived(0x6b33_43cf);
        assert_eq!(keys.key, hex("8b1a0bc121284290a29e0971b5cd045d"));
        assert_eq!(keys.iv, hex("91f73e2351d8fa91660e909f"));
        assert_eq!(keys.hp, hex("45b95e15235d6f45a6b19cbcb0294ba9"));
    }
}
