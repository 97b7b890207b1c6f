//! What is still known of flows that were decided: eight bytes each, in a table of fixed size
//! where the newest displaces the oldest of its set. One lookup touches one cache line.

/// Sets; with eight flows each, about the last 65,000 decided flows are known, in half a megabyte, which stays
/// in a processor's cache.
const SETS: usize = 1 << 13;
const WAYS: usize = 8;
/// Low bits of an entry hold the mark, the others the flow's hash.
const MARK_BITS: u32 = 24;

/// Flows that were decided.
#[derive(Debug)]
pub(crate) struct Decided {
    sets: Vec<Set>,
}

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Set([u64; WAYS]);

impl Decided {
    pub(crate) fn new() -> Self {
        Self { sets: vec![Set([0; WAYS]); SETS] }
    }

    /// The mark that the flow was remembered with, cut to its low 24 bits.
    pub(crate) fn mark(&self, hash: u64) -> Option<u32> {
        let Set(ways) = self.sets.get(index(hash))?;
        let entry = ways.iter().find(|&&entry| is_of(entry, hash))?;
        Some((entry & ((1 << MARK_BITS) - 1)) as u32)
    }

    /// Whether the flow is remembered.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.mark(hash).is_some()
    }

    /// Remembers a flow with a mark.
    pub(crate) fn remember(&mut self, hash: u64, mark: u32) {
        let entry = tag(hash) << MARK_BITS | u64::from(mark) & ((1 << MARK_BITS) - 1);
        let Some(Set(ways)) = self.sets.get_mut(index(hash)) else { return };
        let place = ways.iter().position(|&entry| is_of(entry, hash)).unwrap_or(WAYS - 1);
        ways.copy_within(..place, 1);
        ways[0] = entry;
    }

    /// Forgets a flow.
    pub(crate) fn forget(&mut self, hash: u64) {
        let Some(Set(ways)) = self.sets.get_mut(index(hash)) else { return };
        for entry in ways.iter_mut().filter(|entry| is_of(**entry, hash)) {
            *entry = 0;
        }
    }
}

/// Whether the mark of a remembered flow may be this one.
pub(crate) fn is_same_mark(remembered: u32, mark: u32) -> bool {
    remembered == mark & ((1 << MARK_BITS) - 1)
}

fn index(hash: u64) -> usize {
    hash as usize % SETS
}

/// Never 0, which is an empty place.
fn tag(hash: u64) -> u64 {
    (hash >> MARK_BITS).max(1)
}

fn is_of(entry: u64, hash: u64) -> bool {
    entry >> MARK_BITS == tag(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_forgets_its_oldest_flow() {
        let mut decided = Decided::new();
        let hash = |number: u64| (number + 1) << 32;
        for number in 0..9 {
            decided.remember(hash(number), number as u32);
        }
        assert!(!decided.contains(hash(0)));
        for number in 1..9 {
            assert_eq!(decided.mark(hash(number)), Some(number as u32));
        }
        decided.forget(hash(3));
        assert!(!decided.contains(hash(3)));
    }

    #[test]
    fn remembering_again_replaces_the_mark() {
        let mut decided = Decided::new();
        decided.remember(1 << 40, 1);
        decided.remember(1 << 40, 0xff00_0002);
        assert_eq!(decided.mark(1 << 40), Some(2));
        assert!(is_same_mark(2, 0xff00_0002));
        decided.forget(1 << 40);
        assert!(!decided.contains(1 << 40));
    }
}
