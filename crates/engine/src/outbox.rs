//! Records that wait to be taken. When nobody takes them, the newest are dropped and counted,
//! and the count is itself a record.

use toktra_protocol::event::Dropped;
use toktra_protocol::{EventBody, Minute};

use crate::Record;

/// Records made and not yet taken.
#[derive(Default)]
pub(crate) struct Outbox {
    records: Vec<Record>,
    dropped: u64,
    dropped_at: Option<Minute>,
    /// Dropped since the start.
    dropped_ever: u64,
}

impl Outbox {
    /// Adds a record, or counts it.
    pub(crate) fn push(&mut self, limit: usize, record: Record) {
        if self.records.len() < limit {
            self.records.push(record);
        } else {
            self.lose(record.minute);
        }
    }

    /// Counts a record that could not be made.
    pub(crate) fn lose(&mut self, minute: Minute) {
        self.dropped = self.dropped.saturating_add(1);
        self.dropped_ever = self.dropped_ever.saturating_add(1);
        self.dropped_at = Some(minute);
    }

    /// All of them, and what was dropped.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.records);
        if let Some(minute) = self.dropped_at.take() {
            let events = std::mem::take(&mut self.dropped).min(i64::MAX as u64);
            let body = EventBody::Dropped(Dropped { events, place: "engine".to_owned() });
            records.push(Record { minute, body });
        }
        records
    }

    /// Dropped since the start.
    pub(crate) fn dropped_ever(&self) -> u64 {
        self.dropped_ever
    }
}
