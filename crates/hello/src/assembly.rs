//! Pieces of a stream, put together: they may come in any order, overlap and repeat.
//!
//! Invariants: the first copy of a byte wins; nothing beyond [`LIMIT`] is kept; at most
//! [`MAX_ISLANDS`] pieces wait beyond a gap, and further ones are dropped.

use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use crate::LIMIT;

/// Most separate pieces beyond the first gap.
const MAX_ISLANDS: usize = 256;

/// A stream's first bytes, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    bytes: Vec<u8>,
    /// Bytes known without a gap from the start.
    prefix: usize,
    /// What is known beyond the gap: sorted, apart from each other.
    islands: Vec<Range<usize>>,
}

impl Assembly {
    /// Adds a piece at a position counted from the stream's first byte.
    pub(crate) fn insert(&mut self, position: u64, piece: &[u8]) {
        let Some(piece_start) = usize::try_from(position).ok().filter(|start| *start < LIMIT) else { return };
        let end = piece_start.saturating_add(piece.len()).min(LIMIT);
        let start = piece_start.max(self.prefix);
        if end <= start {
            return;
        }
        let piece = &piece[start - piece_start..end - piece_start];
        if start == self.prefix && self.islands.is_empty() {
            self.bytes.extend_from_slice(piece);
            self.prefix = end;
        } else {
            self.insert_beyond_a_gap(start..end, piece);
        }
    }

    /// The bytes that are known without a gap.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix]
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn insert_beyond_a_gap(&mut self, range: Range<usize>, piece: &[u8]) {
        // Those which touch the new piece become one with it.
        let first = self.islands.partition_point(|island| island.end < range.start);
        let last = self.islands.partition_point(|island| island.start <= range.end);
        let is_island = first == last && range.start > self.prefix;
        if is_island && self.islands.len() >= MAX_ISLANDS {
            return;
        }
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        let mut at = range.start;
        for island in &self.islands[first..last] {
            fill_gap(&mut self.bytes, at..island.start, range.start, piece);
            at = at.max(island.end);
        }
        fill_gap(&mut self.bytes, at..range.end, range.start, piece);

        let touching = &self.islands[first..last];
        let start = touching.first().map_or(range.start, |island| island.start.min(range.start));
        let end = touching.last().map_or(range.end, |island| island.end.max(range.end));
        self.islands.splice(first..last, iter::once(start..end));
        if self.islands[0].start <= self.prefix {
            self.prefix = self.islands.remove(0).end;
        }
    }
}

/// Copies the part of a piece that belongs in a gap; `start` is where the piece begins.
fn fill_gap(bytes: &mut [u8], gap: Range<usize>, start: usize, piece: &[u8]) {
    if gap.start < gap.end {
        bytes[gap.clone()].copy_from_slice(&piece[gap.start - start..gap.end - start]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_copy_of_a_byte_wins() {
        let mut assembly = Assembly::default();
        assembly.insert(2, b"CD");
        assembly.insert(6, b"GH");
        assembly.insert(0, b"abcdefghij");
        assembly.insert(0, b"xxxxxxxxxxx");
        assert_eq!(assembly.prefix(), b"abCDefGHijx");
    }

    #[test]
    fn a_gap_ends_the_prefix_until_it_is_filled() {
        let mut assembly = Assembly::default();
        assembly.insert(3, b"def");
        assert_eq!(assembly.prefix(), b"");
        assembly.insert(0, b"ab");
        assert_eq!(assembly.prefix(), b"ab");
        assembly.insert(2, b"c");
        assert_eq!(assembly.prefix(), b"abcdef");
    }

    #[test]
    fn no_piece_makes_it_grow_beyond_the_limit() {
        let mut assembly = Assembly::default();
        assembly.insert(u64::MAX, b"x");
        assembly.insert(LIMIT as u64, b"x");
        assert!(assembly.is_empty());
        assembly.insert(LIMIT as u64 - 1, b"xyz");
        assembly.insert(0, &[7; LIMIT * 2]);
        assert_eq!(assembly.prefix().len(), LIMIT);
    }

    #[test]
    fn pieces_beyond_the_limit_of_islands_are_dropped() {
        let mut assembly = Assembly::default();
        for position in 0..1000_u64 {
            assembly.insert(2 + position * 2, b"x");
        }
        assert_eq!(assembly.islands.len(), MAX_ISLANDS);
        assembly.insert(0, b"y");
        assert_eq!(assembly.prefix(), b"y");
        assembly.insert(0, &[b'y'; 4096]);
        assert_eq!(assembly.prefix().len(), 4096);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_model(pieces in prop::collection::vec((0_usize..80, 0_usize..20, any::<u8>()), 0..60)) {
            let mut assembly = Assembly::default();
            let mut model = [None; 128];
            for (position, length, byte) in pieces {
                assembly.insert(position as u64, &alloc::vec![byte; length]);
                for slot in &mut model[position..position + length] {
                    slot.get_or_insert(byte);
                }
                let expected: Vec<u8> = model.iter().map_while(|slot| *slot).collect();
                prop_assert_eq!(assembly.prefix(), &expected[..]);
            }
        }
    }
}
