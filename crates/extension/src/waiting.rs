//! Records that the agent has not acknowledged, in the order of their numbers. Invariant: numbers are 1, 2,
//! 3… without a gap, so what found no room never had a number.

use std::collections::VecDeque;

/// A record with a number within the run.
pub trait Numbered {
    /// The number.
    fn number(&self) -> u64;
}

/// Numbered records that wait.
#[derive(Debug)]
pub struct Waiting<R> {
    records: VecDeque<R>,
    last_number: u64,
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self { records: VecDeque::new(), last_number: 0 }
    }
}

impl<R: Numbered> Waiting<R> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds the record that has the next number.
    pub fn push(&mut self, record: impl FnOnce(u64) -> R) {
        self.last_number += 1;
        self.records.push_back(record(self.last_number));
    }

    /// The agent has everything up to this number on disk.
    pub fn acknowledge(&mut self, number: u64) {
        while self.records.front().is_some_and(|record| record.number() <= number) {
            self.records.pop_front();
        }
    }

    /// The first record after this number that still waits.
    pub fn after(&self, number: u64) -> Option<&R> {
        let first = self.records.front()?.number();
        let index = number.saturating_add(1).saturating_sub(first);
        self.records.get(usize::try_from(index).ok()?)
    }
}
