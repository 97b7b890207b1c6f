//! One frame of a segment: a header of twelve bytes and the JSON of a [`Frame`].
//!
//! ```text
//! FE 54 4B 01 | length u32 LE | CRC-32 u32 LE of length and JSON | JSON
//! ```
//!
//! The first byte never occurs in UTF-8, so no text inside a frame can pass for the
//! beginning of another. Reading goes on at the next whole frame after damage.

use serde::{Deserialize, Serialize};
use toktra_protocol::{EventBody, Minute};
use uuid::Uuid;

use crate::state::State;

const MAGIC: [u8; 4] = [0xfe, b'T', b'K', 1];
const HEADER: usize = 12;
/// Largest JSON of a frame, in bytes. A state with every list full stays below it.
pub(crate) const PAYLOAD_LIMIT: usize = 64 * 1024;

/// What a segment holds, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frame {
    /// A record of the extension.
    Record {
        /// Place in the queue: 0, 1, 2… since the directory was made.
        index: u64,
        /// The extension's run.
        run: Uuid,
        /// The record's number within the run.
        number: u64,
        /// The minute in which it was made.
        minute: Minute,
        /// What happened.
        body: EventBody,
    },
    /// The spool's own report of what it had to drop; takes that many off the pending count.
    Report {
        /// Place in the queue.
        index: u64,
        /// The minute in which it was made.
        minute: Minute,
        /// How many events.
        events: u64,
    },
    /// The whole state, as of here.
    Mark(State),
}

/// Appends a frame to `buffer`.
pub(crate) fn encode(frame: &Frame, buffer: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let start = buffer.len();
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&[0; 8]);
    serde_json::to_writer(&mut *buffer, frame)?;
    let length = ((buffer.len() - start - HEADER) as u32).to_le_bytes();
    let crc = checksum(length, &buffer[start + HEADER..]).to_le_bytes();
    buffer[start + 4..start + 8].copy_from_slice(&length);
    buffer[start + 8..start + HEADER].copy_from_slice(&crc);
    Ok(())
}

fn checksum(length: [u8; 4], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(json);
    hasher.finalize()
}

/// The whole frames of a segment's bytes, and where the last of them ends.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// End of the last whole frame.
    pub(crate) end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: 0 }
    }

    /// The frame that begins exactly at `at`, and its end.
    fn frame_at(&self, at: usize) -> Option<(Option<Frame>, usize)> {
        let header = self.bytes.get(at..)?.first_chunk::<HEADER>()?;
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (length, crc) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*length) as usize;
        if *magic != MAGIC || size > PAYLOAD_LIMIT {
            return None;
        }
        let start = at + HEADER;
        let json = self.bytes.get(start..start + size)?;
        if checksum(*length, json).to_le_bytes() != crc {
            return None;
        }
        Some((serde_json::from_slice(json).ok(), start + size))
    }
}

impl Iterator for Reader<'_> {
    /// A frame and the length of its JSON in bytes.
    type Item = (Frame, usize);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.bytes.len() {
            match self.frame_at(self.at) {
                Some((frame, end)) => {
                    let size = end - self.at - HEADER;
                    self.at = end;
                    self.end = end;
                    // A whole frame that this version cannot read counts as lost, like a damaged one.
                    if let Some(frame) = frame {
                        return Some((frame, size));
                    }
                }
                None => {
                    let rest = &self.bytes[self.at + 1..];
                    let skip = rest.iter().position(|&byte| byte == MAGIC[0]);
                    self.at = skip.map_or(self.bytes.len(), |skip| self.at + 1 + skip);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(index: u64) -> Frame {
        Frame::Report { index, minute: Minute(1), events: 3 }
    }

    fn three() -> (Vec<u8>, [usize; 3]) {
        let mut bytes = Vec::new();
        let ends = [0, 1, 2].map(|index| {
            encode(&report(index), &mut bytes).unwrap();
            bytes.len()
        });
        (bytes, ends)
    }

    #[test]
    fn every_cut_leaves_the_whole_frames_before_it() {
        let (bytes, ends) = three();
        for cut in 0..=bytes.len() {
            let mut reader = Reader::new(&bytes[..cut]);
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            assert_eq!(reader.by_ref().count(), whole);
            assert_eq!(reader.end, if whole == 0 { 0 } else { ends[whole - 1] });
        }
    }

    #[test]
    fn any_damaged_byte_costs_only_its_own_frame() {
        let (bytes, ends) = three();
        for at in ends[0]..ends[1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let read: Vec<_> = Reader::new(&damaged).map(|(frame, _)| frame).collect();
            assert_eq!(read, [report(0), report(2)], "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(0xfe), Just(b'T'), Just(b'K'), Just(1), any::<u8>()], 0..256)) {
            let _ = Reader::new(&bytes).count();
        }
    }
}
