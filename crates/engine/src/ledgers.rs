//! The two ledgers, the organisation's and a user's own, and the records that wait to be taken from each.
//! When nobody takes them, the newest are dropped and counted; of the organisation's the count is itself a
//! record, of the user's own the next record tells it.
//!
//! Invariants: what is made is an [`Entry`] of one ledger from the start, and there is no way from one to
//! the other; what the user's own loses is in no count of the organisation's.

use toktra_protocol::event::Dropped;
use toktra_protocol::personal::local::PersonalUsage;
use toktra_protocol::{EventBody, Minute};

use crate::attempts::{Attempts, Tell};
use crate::{PersonalRecord, Record};

/// Into which ledger a flow's counts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ledger {
    /// The organisation's.
    Corporate,
    /// Its user's own.
    Personal,
    /// Its user's own up to the next counts, which may hold what flowed before personal mode ended; the
    /// organisation's from there on.
    Leaving,
}

/// What is to be recorded, and where.
pub(crate) enum Entry {
    Corporate(EventBody),
    Personal(PersonalUsage),
}

/// Records made and not yet taken.
#[derive(Default)]
pub(crate) struct Ledgers {
    attempts: Attempts,
    corporate: Vec<Record>,
    dropped: u64,
    dropped_at: Option<Minute>,
    /// Dropped since the start.
    dropped_ever: u64,
    personal: Vec<PersonalRecord>,
    /// Not told yet.
    personal_lost: u64,
}

impl Ledgers {
    /// Adds a record, unless there are `limit` in its ledger, or the like of it was told already.
    pub(crate) fn record(&mut self, limit: usize, minute: Minute, entry: Entry) {
        match entry {
            Entry::Corporate(body) => self.record_corporate(limit, minute, body),
            Entry::Personal(usage) if self.personal.len() < limit => {
                let lost = std::mem::take(&mut self.personal_lost);
                self.personal.push(PersonalRecord { minute, lost, usage });
            }
            Entry::Personal(_) => self.lose(minute, Ledger::Personal),
        }
    }

    /// Counts a record that could not be made.
    pub(crate) fn lose(&mut self, minute: Minute, ledger: Ledger) {
        match ledger {
            Ledger::Corporate => {
                self.dropped = self.dropped.saturating_add(1);
                self.dropped_ever = self.dropped_ever.saturating_add(1);
                self.dropped_at = Some(minute);
            }
            Ledger::Personal | Ledger::Leaving => {
                self.personal_lost = self.personal_lost.saturating_add(1);
            }
        }
    }

    /// All of the organisation's, and what was dropped.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.corporate);
        if let Some(minute) = self.dropped_at.take() {
            let events = std::mem::take(&mut self.dropped).min(i64::MAX as u64);
            let body = EventBody::Dropped(Dropped { events, place: "engine".to_owned() });
            records.push(Record { minute, body });
        }
        records
    }

    /// All of the user's own.
    pub(crate) fn take_personal(&mut self) -> Vec<PersonalRecord> {
        std::mem::take(&mut self.personal)
    }

    /// Of the organisation's, dropped since the start.
    pub(crate) fn dropped_ever(&self) -> u64 {
        self.dropped_ever
    }

    fn record_corporate(&mut self, limit: usize, minute: Minute, body: EventBody) {
        if let EventBody::Blocked(blocked) = &body {
            match self.attempts.tell(minute, blocked) {
                Tell::Yes => {}
                Tell::Told => return,
                Tell::TooMany => return self.lose(minute, Ledger::Corporate),
            }
        }
        if self.corporate.len() < limit {
            self.corporate.push(Record { minute, body });
        } else {
            self.lose(minute, Ledger::Corporate);
        }
    }
}
