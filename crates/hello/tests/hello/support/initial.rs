//! QUIC packets, sealed by rustls: an implementation of the keys that shares nothing with ours.

use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

/// A client's packet to be sealed.
#[derive(Clone)]
pub struct Initial {
    pub version: u32,
    /// The identifier in the header.
    pub destination_id: Vec<u8>,
    /// The identifier that the keys are derived from.
    pub key_id: Vec<u8>,
    pub token: Vec<u8>,
    pub number: u32,
    pub frames: Vec<u8>,
}

impl Initial {
    /// A first packet of version 1.
    pub fn new(destination_id: &[u8], frames: Vec<u8>) -> Self {
        Self {
            version: 1,
            destination_id: destination_id.to_vec(),
            key_id: destination_id.to_vec(),
            token: Vec::new(),
            number: 0,
            frames,
        }
    }

    /// Padded so that the packet, which then fills a datagram, has this length.
    pub fn padded_to(mut self, length: usize) -> Self {
        let missing = length.saturating_sub(self.seal().len());
        self.frames.extend(vec![0; missing]);
        self
    }

    /// The protected packet, with a packet number of four bytes.
    pub fn seal(&self) -> Vec<u8> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
        let keys = Keys::initial(self.rustls_version(), suite.suite, suite.quic, &self.key_id, Side::Client);
        let mut packet = self.header();
        let number_at = packet.len() - 4;
        let mut payload = self.frames.clone();
        payload.extend(vec![0; 4_usize.saturating_sub(payload.len())]);
        let tag = keys.local.packet.encrypt_in_place(u64::from(self.number), &packet, &mut payload).unwrap();
        packet.extend(&payload);
        packet.extend(tag.as_ref());
        let sample = packet[number_at + 4..number_at + 20].to_vec();
        let (head, tail) = packet.split_at_mut(number_at);
        keys.local.header.encrypt_in_place(&sample, &mut head[0], &mut tail[..4]).unwrap();
        packet
    }

    fn rustls_version(&self) -> Version {
        match self.version {
            0x6b33_43cf => Version::V2,
            0xff00_001d..=0xff00_0020 => Version::V1Draft,
            _ => Version::V1,
        }
    }

    fn header(&self) -> Vec<u8> {
        let first = if self.version == 0x6b33_43cf { 0xd3 } else { 0xc3 };
        let mut header = long_header(first, self.version, &self.destination_id);
        header.extend(varint(self.token.len()));
        header.extend(&self.token);
        header.extend(varint_of_two_bytes(4 + self.frames.len().max(4) + 16));
        header.extend(self.number.to_be_bytes());
        header
    }
}

/// A long-header packet with a length but without a token, whose content nobody can open: 0-RTT or Handshake.
pub fn opaque(first: u8, version: u32, destination_id: &[u8], length: usize) -> Vec<u8> {
    let mut packet = long_header(first, version, destination_id);
    packet.extend(varint_of_two_bytes(length));
    packet.extend(vec![0xee; length]);
    packet
}

/// The header that all versions share, with an empty source identifier.
pub fn long_header(first: u8, version: u32, destination_id: &[u8]) -> Vec<u8> {
    let mut header = vec![first];
    header.extend(version.to_be_bytes());
    header.push(destination_id.len() as u8);
    header.extend(destination_id);
    header.push(0);
    header
}

/// A CRYPTO frame.
pub fn crypto(position: usize, content: &[u8]) -> Vec<u8> {
    [vec![6], varint(position), varint(content.len()), content.to_vec()].concat()
}

fn varint(value: usize) -> Vec<u8> {
    if value < 64 { vec![value as u8] } else { varint_of_two_bytes(value) }
}

fn varint_of_two_bytes(value: usize) -> Vec<u8> {
    assert!(value < 1 << 14);
    (value as u16 | 0x4000).to_be_bytes().to_vec()
}
