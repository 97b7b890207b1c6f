//! Flows that are not decided yet, by their hash. Bounded three ways: no flow outlives
//! [`FLOWS_LIMIT`] flows that began after it, nor [`AGE_LIMIT_US`] of the capture's time, and all
//! together hold no more than [`BYTES_LIMIT`]. Whatever the limit, the oldest goes first.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Most undecided flows of a transport.
pub(crate) const FLOWS_LIMIT: usize = 1 << 16;
/// Longest that a flow may stay undecided, in microseconds.
const AGE_LIMIT_US: u64 = 600 * 1_000_000;
/// Most bytes that the flows of a transport may hold.
const BYTES_LIMIT: usize = 16 * 1024 * 1024;

/// The flows.
#[derive(Debug)]
pub(crate) struct Undecided<F> {
    flows: HashTable<Slot<F>>,
    begun: VecDeque<Begun>,
    serial: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Slot<F> {
    hash: u64,
    serial: u64,
    bytes: usize,
    flow: F,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    hash: u64,
    serial: u64,
    at_us: u64,
}

impl<F> Undecided<F> {
    pub(crate) fn new() -> Self {
        Self { flows: HashTable::new(), begun: VecDeque::new(), serial: 0, bytes: 0 }
    }

    /// The flow with this hash of which `is_it` holds.
    pub(crate) fn find(&mut self, hash: u64, is_it: impl Fn(&F) -> bool) -> Option<&mut F> {
        self.flows.find_mut(hash, |slot| is_it(&slot.flow)).map(|slot| &mut slot.flow)
    }

    /// The flow with this hash of which `is_it` holds, or a new one; gives back through `evicted`
    /// what had to go for it.
    pub(crate) fn find_or_insert(
        &mut self,
        hash: u64,
        is_it: impl Fn(&F) -> bool,
        make: impl FnOnce() -> F,
        now_us: u64,
        mut evicted: impl FnMut(F),
    ) -> &mut F {
        while self.begun.len() >= FLOWS_LIMIT
            || self.begun.front().is_some_and(|begun| begun.at_us.saturating_add(AGE_LIMIT_US) < now_us)
        {
            self.evict_oldest(&mut evicted);
        }
        let entry = self.flows.entry(hash, |slot| is_it(&slot.flow), |slot| slot.hash).or_insert_with(|| {
            self.serial += 1;
            let serial = self.serial;
            self.begun.push_back(Begun { hash, serial, at_us: now_us });
            Slot { hash, serial, bytes: 0, flow: make() }
        });
        &mut entry.into_mut().flow
    }

    /// Notes that a flow holds so many bytes more; makes room when all hold too much.
    pub(crate) fn charge(
        &mut self,
        hash: u64,
        is_it: impl Fn(&F) -> bool,
        bytes: usize,
        mut evicted: impl FnMut(F),
    ) {
        let Some(slot) = self.flows.find_mut(hash, |slot| is_it(&slot.flow)) else { return };
        slot.bytes += bytes;
        self.bytes += bytes;
        while self.bytes > BYTES_LIMIT && !self.begun.is_empty() {
            self.evict_oldest(&mut evicted);
        }
    }

    /// Takes a flow out.
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl Fn(&F) -> bool) -> Option<F> {
        let entry = self.flows.entry(hash, |slot| is_it(&slot.flow), |slot| slot.hash);
        let Entry::Occupied(entry) = entry else { return None };
        let (slot, _) = entry.remove();
        self.bytes -= slot.bytes;
        Some(slot.flow)
    }

    /// Takes every flow out, the oldest first.
    pub(crate) fn evict_all(&mut self, mut evicted: impl FnMut(F)) {
        while !self.begun.is_empty() {
            self.evict_oldest(&mut evicted);
        }
    }

    fn evict_oldest(&mut self, evicted: &mut impl FnMut(F)) {
        let Some(begun) = self.begun.pop_front() else { return };
        let Ok(entry) = self.flows.find_entry(begun.hash, |slot| slot.serial == begun.serial) else {
            return;
        };
        let (slot, _) = entry.remove();
        self.bytes -= slot.bytes;
        evicted(slot.flow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_flow_goes_when_there_are_too_many() {
        let mut flows = Undecided::new();
        let mut gone = Vec::new();
        for number in 0..=FLOWS_LIMIT {
            flows.find_or_insert(number as u64, |&flow| flow == number, || number, 0, |flow| gone.push(flow));
        }
        assert_eq!(gone, [0]);
        assert!(flows.find(1, |&flow| flow == 1).is_some());
    }

    #[test]
    fn the_oldest_flows_go_when_all_hold_too_many_bytes() {
        let mut flows = Undecided::new();
        let mut gone = Vec::new();
        for number in 0..3 {
            flows.find_or_insert(number, |&flow| flow == number, || number, 0, |_| ());
            flows.charge(number, |&flow| flow == number, BYTES_LIMIT / 2, |flow| gone.push(flow));
        }
        assert_eq!(gone, [0]);
    }

    #[test]
    fn a_flow_that_is_too_old_goes_when_the_next_begins() {
        let mut flows = Undecided::new();
        let mut gone = Vec::new();
        flows.find_or_insert(1, |&flow| flow == 1, || 1, 0, |_| ());
        flows.find_or_insert(2, |&flow| flow == 2, || 2, AGE_LIMIT_US, |flow| gone.push(flow));
        flows.find_or_insert(3, |&flow| flow == 3, || 3, AGE_LIMIT_US + 1, |flow| gone.push(flow));
        assert_eq!(gone, [1]);
        assert_eq!(flows.remove(1, |&flow| flow == 1), None);
    }
}
