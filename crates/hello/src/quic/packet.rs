//! Long-header packets (RFC 8999, 5.1; RFC 9000, 17.2), as far as they can be read without keys.
//!
//! Invariant: every length is checked against the datagram; nothing is copied.

use super::version::Version;

/// Longest connection identifier of the versions that are known.
pub(super) const MAX_ID: usize = 20;
/// Smallest datagram in which a client may send an Initial packet (RFC 9000, 14.1).
const MIN_INITIAL_DATAGRAM: usize = 1200;

/// The kinds of long-header packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Initial,
    ZeroRtt,
    Handshake,
    Retry,
}

/// What stands at the start of a datagram, or after a coalesced packet.
#[derive(Debug)]
pub(super) enum Packet<'a> {
    /// A packet of a known version.
    Long(Long<'a>),
    /// A packet of a version that is not known but may well be QUIC.
    UnknownVersion,
    /// Nothing that can be read: a short header, padding, another protocol.
    Other,
}

/// A long-header packet.
#[derive(Debug)]
pub(super) struct Long<'a> {
    pub(super) kind: Kind,
    pub(super) version: &'static Version,
    pub(super) destination_id: &'a [u8],
    /// The packet from its first byte to its last.
    pub(super) bytes: &'a [u8],
    /// Where the packet number begins, which is protected.
    pub(super) number_at: usize,
    /// What follows it in the datagram.
    pub(super) rest: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the packet at the start of `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let Some((header, long)) = Header::parse(bytes) else { return Self::Other };
        match Version::of(header.version) {
            Some(version) => long.packet(version, header.type_bits).map_or(Self::Other, Self::Long),
            None if Version::is_reserved(header.version) => Self::UnknownVersion,
            None if header.version != 0 && bytes.len() >= MIN_INITIAL_DATAGRAM => Self::UnknownVersion,
            None => Self::Other,
        }
    }
}

/// What all versions have in common.
struct Header {
    type_bits: u8,
    version: u32,
}

/// The rest of a packet, to be read by version.
struct AfterHeader<'a> {
    bytes: &'a [u8],
    destination_id: &'a [u8],
    at: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<(Self, AfterHeader<'_>)> {
        let [first, version @ ..] = *bytes.first_chunk::<5>()?;
        if first & 0x80 == 0 {
            return None;
        }
        let mut at = 5;
        let destination_id = id(bytes, &mut at)?;
        let _source_id = id(bytes, &mut at)?;
        let header = Self { type_bits: first >> 4 & 3, version: u32::from_be_bytes(version) };
        Some((header, AfterHeader { bytes, destination_id, at }))
    }
}

impl<'a> AfterHeader<'a> {
    fn packet(mut self, version: &'static Version, type_bits: u8) -> Option<Long<'a>> {
        let kind = version.kinds[usize::from(type_bits & 3)];
        if kind == Kind::Retry {
            return None; // only servers send these, and they have no length
        }
        if kind == Kind::Initial {
            let token_length = varint(self.bytes, &mut self.at)?;
            self.at = self.at.checked_add(token_length)?;
        }
        let length = varint(self.bytes, &mut self.at)?;
        let end = self.at.checked_add(length)?;
        let (bytes, rest) = self.bytes.split_at_checked(end)?;
        Some(Long { kind, version, destination_id: self.destination_id, bytes, number_at: self.at, rest })
    }
}

/// A connection identifier with its length in one byte.
fn id<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = usize::from(*bytes.get(*at)?);
    let id = bytes.get(*at + 1..)?.get(..length).filter(|id| id.len() <= MAX_ID)?;
    *at += 1 + length;
    Some(id)
}

/// A variable-length integer (RFC 9000, 16).
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let rest = bytes.get(*at..)?;
    let first = *rest.first()?;
    let length = 1_usize << (first >> 6);
    let mut value = u64::from(first & 0x3f);
    for byte in rest.get(1..length)? {
        value = value << 8 | u64::from(*byte);
    }
    *at += length;
    usize::try_from(value).ok()
}
