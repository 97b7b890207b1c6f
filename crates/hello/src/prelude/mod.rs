//! What a client may send in the clear before its ClientHello: a proxy's prelude or a request to start TLS.
//!
//! Invariants: one outbound stream is read, as if every reply had been favourable, for a client goes on to
//! its hello only then; a prelude is passed over, never kept; it alone never gives a name.

mod proxy;
mod starttls;
mod text;

use crate::Prelude;

/// What the bytes at the start of a stream, or after an earlier prelude, are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A prelude of so many bytes.
    Past(usize, Prelude),
    /// No prelude that is known.
    Other,
}

/// Reads one prelude; `None` when more bytes are needed.
pub(crate) fn read(bytes: &[u8]) -> Option<Step> {
    match bytes.first()? {
        0x04 => proxy::socks4(bytes),
        0x05 => proxy::socks5(bytes),
        0x0d => proxy::proxy_protocol_v2(bytes),
        0x00 => starttls::postgresql(bytes),
        0x03 => starttls::rdp(bytes),
        0x20 => starttls::mysql(bytes),
        0x30 => starttls::ldap(bytes),
        0x21..=0x7e => text::read(bytes),
        _ => Some(Step::Other),
    }
}

/// Reads fields one after the other; `None` when the bytes end.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(taken)
    }

    /// Passes over what follows up to a NUL, of which at most `limit` bytes are looked at.
    fn until_nul(&mut self, limit: usize) -> Option<bool> {
        for _ in 0..limit {
            if self.byte()? == 0 {
                return Some(true);
            }
        }
        Some(false)
    }
}

/// Whether bytes begin with a pattern; `None` while they are a part of it.
fn begins_with(bytes: &[u8], pattern: &[u8]) -> Option<bool> {
    let length = bytes.len().min(pattern.len());
    match bytes[..length] == pattern[..length] {
        false => Some(false),
        true if length == pattern.len() => Some(true),
        true => None,
    }
}
