//! Batches of events: JSON, zstd-compressed, with a limit before and after decompression.
//!
//! `POST {ingest}/v1/events`, `content-type: application/json`, `content-encoding: zstd`;
//! the answer is an [`Ack`] once everything up to it is durable.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::Event;
use crate::event::EventError;

/// Path of the endpoint, on the ingest host.
pub const EVENTS_PATH: &str = "/v1/events";
/// Path of the directive's long poll, on the ingest host: `?after=VERSION&applied=VERSION`.
pub const DIRECTIVE_PATH: &str = "/v1/directive";
/// Largest compressed batch, in bytes.
pub const COMPRESSED_LIMIT: usize = 256 * 1024;
/// Largest batch after decompression, in bytes.
pub const DECOMPRESSED_LIMIT: usize = 2 * 1024 * 1024;
/// Most events in a batch. An agent sends at most 50 unless it catches up.
pub const EVENTS_LIMIT: usize = 1000;

/// Contiguous events of one device; the certificate says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// In order of their sequence numbers, without a gap.
    pub events: Vec<Event>,
}

/// The server's answer to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Highest contiguous sequence number that is durably stored.
    pub acknowledged: u64,
}

/// Why bytes are not a batch.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// More than [`COMPRESSED_LIMIT`] or [`DECOMPRESSED_LIMIT`] bytes, or [`EVENTS_LIMIT`] events.
    #[error(
        "the batch exceeds {COMPRESSED_LIMIT} bytes compressed, {DECOMPRESSED_LIMIT} bytes decompressed or {EVENTS_LIMIT} events; send fewer events at once"
    )]
    TooLarge,
    /// Not a zstd frame (RFC 8878).
    #[error("the body is not a zstd frame")]
    Zstd(#[source] std::io::Error),
    /// Not the JSON of a batch.
    #[error("the body is not the JSON of a batch")]
    Json(#[source] serde_json::Error),
    /// Sequence numbers leave a gap, repeat, or start at zero.
    #[error("the batch's sequence numbers are not contiguous from 1 upwards")]
    Order,
    /// An event breaks a rule.
    #[error("the batch holds an unacceptable event")]
    Event(#[source] EventError),
}

impl Batch {
    /// JSON, compressed.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let json = serde_json::to_vec(self).map_err(CodecError::Json)?;
        let body = zstd::bulk::compress(&json, 3).map_err(CodecError::Zstd)?;
        if json.len() > DECOMPRESSED_LIMIT || body.len() > COMPRESSED_LIMIT {
            return Err(CodecError::TooLarge);
        }
        Ok(body)
    }

    /// Reads and checks a compressed batch from a peer that is not trusted.
    pub fn decode(body: &[u8]) -> Result<Self, CodecError> {
        if body.len() > COMPRESSED_LIMIT {
            return Err(CodecError::TooLarge);
        }
        Self::from_json(&decompress(body)?)
    }

    /// Reads and checks an uncompressed batch from a peer that is not trusted.
    pub fn from_json(json: &[u8]) -> Result<Self, CodecError> {
        let batch: Self = serde_json::from_slice(json).map_err(CodecError::Json)?;
        batch.check()?;
        Ok(batch)
    }

    fn check(&self) -> Result<(), CodecError> {
        if self.events.len() > EVENTS_LIMIT {
            return Err(CodecError::TooLarge);
        }
        let contiguous = |pair: &[Event]| pair[0].sequence.checked_add(1) == Some(pair[1].sequence);
        let starts = self.events.first().is_some_and(|first| first.sequence > 0);
        if !starts || !self.events.windows(2).all(contiguous) {
            return Err(CodecError::Order);
        }
        self.events.iter().try_for_each(|event| event.check().map_err(CodecError::Event))
    }
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(CodecError::Zstd)?;
    // A frame may ask for a window of its own choice; ours never needs more than the limit.
    decoder.window_log_max(21).map_err(CodecError::Zstd)?;
    let mut json = Vec::new();
    let read =
        decoder.take(DECOMPRESSED_LIMIT as u64 + 1).read_to_end(&mut json).map_err(CodecError::Zstd)?;
    if read > DECOMPRESSED_LIMIT {
        return Err(CodecError::TooLarge);
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Dropped;
    use crate::{EventBody, Minute};

    fn dropped(sequence: u64) -> Event {
        let body = EventBody::Dropped(Dropped { events: 1, place: "spool".into() });
        Event { sequence, minute: Minute(1), body }
    }

    fn batch(sequences: &[u64]) -> Vec<u8> {
        Batch { events: sequences.iter().copied().map(dropped).collect() }.encode().unwrap()
    }

    #[test]
    fn a_batch_survives_the_wire() {
        assert_eq!(Batch::decode(&batch(&[7, 8, 9])).unwrap().events, [dropped(7), dropped(8), dropped(9)]);
    }

    #[test]
    fn gaps_repeats_zero_and_nothing_are_refused() {
        for sequences in [&[1, 3][..], &[1, 1], &[2, 1], &[0, 1], &[]] {
            assert!(matches!(Batch::decode(&batch(sequences)), Err(CodecError::Order)), "{sequences:?}");
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_at_the_limit() {
        let bomb = zstd::bulk::compress(&vec![b' '; 64 * 1024 * 1024], 19).unwrap();
        assert!(bomb.len() < COMPRESSED_LIMIT);
        assert!(matches!(Batch::decode(&bomb), Err(CodecError::TooLarge | CodecError::Zstd(_))));
    }

    #[test]
    fn control_characters_and_long_texts_are_refused() {
        for place in ["a\nb".to_owned(), "x".repeat(300)] {
            let body = EventBody::Dropped(Dropped { events: 1, place });
            let bytes =
                Batch { events: vec![Event { sequence: 1, minute: Minute(1), body }] }.encode().unwrap();
            assert!(matches!(Batch::decode(&bytes), Err(CodecError::Event(_))));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Batch::decode(&bytes);
            let _ = Batch::from_json(&bytes);
        }
    }
}
