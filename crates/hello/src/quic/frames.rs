//! Frames of an Initial packet (RFC 9000, 12.4): picks out the CRYPTO frames.
//!
//! Invariant: the first frame that is broken or forbidden here ends the packet.

use core::ops::Range;

use super::packet::varint;

const PADDING: u8 = 0x00;
const PING: u8 = 0x01;
const ACK: u8 = 0x02;
const ACK_ECN: u8 = 0x03;
const CRYPTO: u8 = 0x06;
/// The number in Google's own versions; elsewhere it is STREAM, which an Initial packet never holds.
const GOOGLE_CRYPTO: u8 = 0x08;
const CONNECTION_CLOSE: u8 = 0x1c;

/// A piece of the CRYPTO stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crypto {
    /// Where it belongs in the stream.
    pub(super) position: u64,
    /// Where it lies in the packet.
    pub(super) at: Range<usize>,
}

/// Goes over the CRYPTO frames of a packet.
pub(super) struct CryptoFrames<'a> {
    pub(super) frames: &'a [u8],
    pub(super) at: usize,
}

impl Iterator for CryptoFrames<'_> {
    type Item = Crypto;

    fn next(&mut self) -> Option<Crypto> {
        loop {
            let rest = self.frames.get(self.at..)?;
            self.at += rest.iter().take_while(|byte| **byte == PADDING).count();
            let kind = *self.frames.get(self.at)?;
            self.at += 1;
            match kind {
                PING => {}
                ACK | ACK_ECN => self.skip_ack(kind)?,
                CRYPTO | GOOGLE_CRYPTO => return self.crypto(),
                CONNECTION_CLOSE => self.skip_close()?,
                _ => return None,
            }
        }
    }
}

impl CryptoFrames<'_> {
    fn varint(&mut self) -> Option<usize> {
        varint(self.frames, &mut self.at)
    }

    fn crypto(&mut self) -> Option<Crypto> {
        let position = self.varint()? as u64;
        let length = self.varint()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.frames.len())?;
        let at = self.at..end;
        self.at = end;
        Some(Crypto { position, at })
    }

    fn skip_ack(&mut self, kind: u8) -> Option<()> {
        let (_largest, _delay) = (self.varint()?, self.varint()?);
        let ranges = self.varint()?;
        let _first_range = self.varint()?;
        let counts = if kind == ACK_ECN { 3 } else { 0 };
        for _ in 0..ranges.checked_mul(2)?.checked_add(counts)? {
            self.varint()?;
        }
        Some(())
    }

    fn skip_close(&mut self) -> Option<()> {
        let (_error, _frame) = (self.varint()?, self.varint()?);
        let reason_length = self.varint()?;
        self.at = self.at.checked_add(reason_length)?;
        Some(())
    }
}
