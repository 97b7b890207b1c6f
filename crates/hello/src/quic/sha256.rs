//! HMAC (RFC 2104) and HKDF (RFC 5869) on SHA-256, cut down to what Initial keys need.
//!
//! Invariants: a key has at most 64 bytes and a message at most 55, so that each is one block; both are ours
//! or checked by the caller, and longer ones are cut.

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

const BLOCK: usize = 64;
/// Bytes of a digest.
pub(super) const DIGEST: usize = 32;
/// Longest message: a block less the end mark and the length.
const MAX_MESSAGE: usize = BLOCK - 9;

const INITIAL_STATE: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// HMAC with its key absorbed: the states after the two padded key blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mac {
    pub(super) inner: [u32; 8],
    pub(super) outer: [u32; 8],
}

impl Mac {
    /// Absorbs a key.
    pub(super) fn new(key: &[u8]) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK];
            for (byte, key_byte) in block.iter_mut().zip(key) {
                *byte ^= key_byte;
            }
            let mut state = INITIAL_STATE;
            compress(&mut state, block);
            state
        };
        Self { inner: padded(0x36), outer: padded(0x5c) }
    }

    /// The code of a message (also HKDF-Extract, with the salt as key).
    pub(super) fn of(&self, message: &[u8]) -> [u8; DIGEST] {
        let inner = finish(self.inner, message);
        finish(self.outer, &inner)
    }

    /// HKDF-Expand-Label (RFC 8446, 7.1) with an empty context, for at most one digest of output.
    pub(super) fn expand_label<const N: usize>(&self, label: &[u8]) -> [u8; N] {
        const PREFIX: &[u8] = b"tls13 ";
        let mut info = [0; MAX_MESSAGE];
        let label = &label[..label.len().min(16)];
        let end = 3 + PREFIX.len() + label.len();
        info[1] = N as u8;
        info[2] = (PREFIX.len() + label.len()) as u8;
        info[3..3 + PREFIX.len()].copy_from_slice(PREFIX);
        info[3 + PREFIX.len()..end].copy_from_slice(label);
        info[end + 1] = 1; // after an empty context, the counter of HKDF-Expand
        let digest = self.of(&info[..end + 2]);
        core::array::from_fn(|at| digest.get(at).copied().unwrap_or_default())
    }
}

/// The digest of a message that follows one block.
fn finish(mut state: [u32; 8], message: &[u8]) -> [u8; DIGEST] {
    let message = &message[..message.len().min(MAX_MESSAGE)];
    let mut block = [0; BLOCK];
    block[..message.len()].copy_from_slice(message);
    block[message.len()] = 0x80;
    let bits = ((BLOCK + message.len()) * 8) as u64;
    block[BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
    compress(&mut state, block);
    let mut digest = [0; DIGEST];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn compress(state: &mut [u32; 8], block: [u8; BLOCK]) {
    compress256(state, &[GenericArray::from(block)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_known_message_is_the_one_of_rfc_4231() {
        let code = Mac::new(b"Jefe").of(b"what do ya want for nothing?");
        assert_eq!(code[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        assert_eq!(code[28..], [0x64, 0xec, 0x38, 0x43]);
    }
}
