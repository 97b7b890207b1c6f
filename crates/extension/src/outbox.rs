//! The organisation's records that the agent has not acknowledged. Invariants: at most [`LIMIT`] of them; how
//! many found no room is said in a record of its own as soon as there is room again.

use toktra_protocol::event::Dropped;
use toktra_protocol::local::Record;
use toktra_protocol::{EventBody, Minute};

use crate::waiting::{Numbered, Waiting};

/// Most records that wait, some 5 MiB.
pub const LIMIT: usize = 10_000;

/// Records in the order of their numbers.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Waiting<Record>,
    dropped: u64,
    dropped_unsaid: u64,
}

impl Outbox {
    /// Numbers a record and keeps it, or counts it as dropped.
    pub fn push(&mut self, minute: Minute, body: EventBody) {
        if self.dropped_unsaid > 0 && self.waiting.len() + 1 < LIMIT {
            let dropped = Dropped { events: self.dropped_unsaid, place: "extension".into() };
            self.dropped_unsaid = 0;
            self.number(minute, EventBody::Dropped(dropped));
        }
        if self.waiting.len() < LIMIT {
            self.number(minute, body);
        } else {
            let events = match &body {
                EventBody::Dropped(dropped) => dropped.events,
                EventBody::Usage(_) | EventBody::Blocked(_) => 1,
            };
            self.dropped = self.dropped.saturating_add(events);
            self.dropped_unsaid = self.dropped_unsaid.saturating_add(events);
        }
    }

    /// The agent's spool has everything up to this number.
    pub fn acknowledge(&mut self, number: u64) {
        self.waiting.acknowledge(number);
    }

    /// The first record after this number that still waits.
    pub fn after(&self, number: u64) -> Option<&Record> {
        self.waiting.after(number)
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.waiting.len() == 0
    }

    /// Records that found no room since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn number(&mut self, minute: Minute, body: EventBody) {
        self.waiting.push(|number| Record { number, minute, body });
    }
}

impl Numbered for Record {
    fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(events: u64) -> EventBody {
        EventBody::Dropped(Dropped { events, place: "engine".into() })
    }

    #[test]
    fn what_is_not_acknowledged_can_be_sent_again() {
        let mut outbox = Outbox::default();
        (1..=3).for_each(|events| outbox.push(Minute(1), body(events)));
        assert_eq!(outbox.after(0).unwrap().number, 1);
        assert_eq!(outbox.after(2).unwrap().number, 3);
        assert!(outbox.after(3).is_none());
        outbox.acknowledge(2);
        assert_eq!(outbox.after(0).unwrap().number, 3);
        outbox.acknowledge(3);
        assert!(outbox.is_empty() && outbox.after(0).is_none());
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said_when_there_is_room() {
        let mut outbox = Outbox::default();
        (0..LIMIT + 7).for_each(|_| outbox.push(Minute(1), body(1)));
        assert_eq!(outbox.dropped(), 7);
        outbox.acknowledge(2);
        outbox.push(Minute(2), body(9));
        let said = outbox.after(LIMIT as u64).unwrap();
        assert_eq!(said.body, EventBody::Dropped(Dropped { events: 7, place: "extension".into() }));
        assert_eq!(outbox.after(LIMIT as u64 + 1).unwrap().number, LIMIT as u64 + 2);
    }

    #[test]
    fn a_report_of_drops_that_finds_no_room_counts_as_what_it_reports() {
        let mut outbox = Outbox::default();
        (0..LIMIT).for_each(|_| outbox.push(Minute(1), body(1)));
        outbox.push(Minute(1), body(40));
        assert_eq!(outbox.dropped(), 40);
    }

    #[test]
    fn an_acknowledgement_of_any_number_is_borne() {
        let mut outbox = Outbox::default();
        outbox.push(Minute(1), body(1));
        assert!(outbox.after(u64::MAX).is_none());
    }
}
