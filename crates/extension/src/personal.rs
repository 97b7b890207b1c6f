//! The user's own records that the agent has not acknowledged. Invariants: at most [`LIMIT`] of them; how many
//! found no room is said by the next one that does, to the user alone.

use toktra_protocol::Minute;
use toktra_protocol::personal::local::{PersonalRecord, PersonalUsage};

use crate::waiting::{Numbered, Waiting};

/// Most records that wait, some 5 MiB.
const LIMIT: usize = 10_000;

/// Records in the order of their numbers.
#[derive(Debug, Default)]
pub struct PersonalOutbox {
    waiting: Waiting<PersonalRecord>,
    lost: u64,
}

impl PersonalOutbox {
    /// Numbers a record, before which so many others were lost, and keeps it, or counts it as lost too.
    pub fn push(&mut self, minute: Minute, lost: u64, usage: PersonalUsage) {
        self.lost = self.lost.saturating_add(lost);
        if self.waiting.len() >= LIMIT {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        self.waiting.push(|number| PersonalRecord { number, minute, lost, usage });
    }

    /// Everything up to this number is sealed and on the agent's disk.
    pub fn acknowledge(&mut self, number: u64) {
        self.waiting.acknowledge(number);
    }

    /// The first record after this number that still waits.
    pub fn after(&self, number: u64) -> Option<&PersonalRecord> {
        self.waiting.after(number)
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.len() == 0
    }
}

impl Numbered for PersonalRecord {
    fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use toktra_protocol::personal::local::PersonalEstimate;

    use super::*;

    fn push(outbox: &mut PersonalOutbox, lost: u64) {
        let usage = PersonalUsage {
            provider: "openai".into(),
            service: "openai-api".into(),
            host: "api.openai.com".into(),
            application: None,
            exchanges: 1,
            bytes_out: 1,
            bytes_in: 1,
            bytes_handshake: 0,
            duration_s: 1,
            streaming: false,
            partial: false,
            tokens_in: PersonalEstimate::default(),
            tokens_out: PersonalEstimate::default(),
            calibration: "none".into(),
        };
        outbox.push(Minute(1), lost, usage);
    }

    #[test]
    fn what_finds_no_room_is_said_by_the_next_that_does() {
        let mut outbox = PersonalOutbox::default();
        (0..LIMIT + 7).for_each(|_| push(&mut outbox, 0));
        push(&mut outbox, 2);
        outbox.acknowledge(1);
        push(&mut outbox, 1);
        let said = outbox.after(LIMIT as u64).unwrap();
        assert_eq!((said.number, said.lost), (LIMIT as u64 + 1, 7 + 3 + 1));
        outbox.acknowledge(2);
        push(&mut outbox, 0);
        assert_eq!(outbox.after(LIMIT as u64 + 1).unwrap().lost, 0);
    }

    #[test]
    fn what_is_not_acknowledged_can_be_sent_again() {
        let mut outbox = PersonalOutbox::default();
        (0..3).for_each(|_| push(&mut outbox, 0));
        outbox.acknowledge(2);
        assert_eq!(outbox.after(0).unwrap().number, 3);
        assert!(outbox.after(u64::MAX).is_none() && !outbox.is_empty());
        outbox.acknowledge(3);
        assert!(outbox.is_empty() && outbox.after(0).is_none());
    }
}
