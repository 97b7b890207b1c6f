//! The spool's state: a few numbers that every frame changes in the same way, whether it
//! has just been written or is read again after a crash. No I/O.
//!
//! Invariants: `cursor <= frozen <= resume <= next`. The records from `cursor` to `frozen`
//! have sequence numbers, `acknowledged + 1` and so on; those from `frozen` to `resume`
//! are gone; those from `resume` to `next` wait without a number.

use serde::{Deserialize, Serialize};
use toktra_protocol::{DeviceId, EventBody};
use uuid::Uuid;

use crate::frame::Frame;

/// Runs of the extension that are remembered; the one used longest ago is forgotten first.
const RUNS_LIMIT: usize = 16;

/// For whom the events are: sequence numbers belong to the device, and no event made for
/// one tenant is ever sent to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The device, whose numbering starts at 1.
    pub device: DeviceId,
    /// Domain and organisation.
    pub tenant: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) owner: Option<Owner>,
    /// Highest sequence number that the backend has.
    pub(crate) acknowledged: u64,
    /// Index of the first record with a number.
    pub(crate) cursor: u64,
    /// Index after the last record with a number.
    pub(crate) frozen: u64,
    /// Index of the first record that waits without a number.
    pub(crate) resume: u64,
    /// Index that the next record gets.
    pub(crate) next: u64,
    /// Dropped, but not yet reported by an event.
    pub(crate) pending: u64,
    /// Dropped since enrolment.
    pub(crate) dropped: u64,
    /// Numbered records that go out as `Dropped`, by index.
    pub(crate) void: Vec<u64>,
    /// Highest record number of each run, the run used last at the end.
    pub(crate) runs: Vec<(Uuid, u64)>,
}

impl State {
    /// What a frame changes.
    pub(crate) fn apply(&mut self, frame: &Frame) {
        match frame {
            Frame::Record { index, run, number, body, .. } => {
                self.next = self.next.max(index.saturating_add(1));
                self.note(*run, *number);
                if let EventBody::Dropped(dropped) = body {
                    self.dropped = self.dropped.saturating_add(dropped.events);
                }
            }
            Frame::Report { index, events, .. } => {
                self.next = self.next.max(index.saturating_add(1));
                self.pending = self.pending.saturating_sub(*events);
            }
            Frame::Mark(state) => *self = state.clone().sound(),
        }
    }

    /// Highest record number of a run; 0 for a run never seen.
    pub(crate) fn highest(&self, run: Uuid) -> u64 {
        self.runs.iter().find(|(known, _)| *known == run).map_or(0, |&(_, number)| number)
    }

    fn note(&mut self, run: Uuid, number: u64) {
        let number = number.max(self.highest(run));
        self.runs.retain(|(known, _)| *known != run);
        self.runs.push((run, number));
        if self.runs.len() > RUNS_LIMIT {
            self.runs.remove(0);
        }
    }

    /// Records with a number.
    pub(crate) fn numbered(&self) -> u64 {
        self.frozen - self.cursor
    }

    /// Whether a record is still of use.
    pub(crate) fn lives(&self, from: u64, until: u64) -> bool {
        (from < self.frozen && until > self.cursor) || until > self.resume
    }

    /// Counts events as dropped, to be reported.
    pub(crate) fn lose(&mut self, events: u64) {
        self.pending = self.pending.saturating_add(events);
        self.dropped = self.dropped.saturating_add(events);
    }

    /// Goes on at `index`, when no record has a number.
    pub(crate) fn skip_to(&mut self, index: u64) {
        self.resume = index;
        if self.numbered() == 0 {
            self.cursor = index;
            self.frozen = index;
        }
    }

    /// Whatever was read, the invariants hold.
    fn sound(mut self) -> Self {
        self.frozen = self.frozen.max(self.cursor);
        self.resume = self.resume.max(self.frozen);
        self.next = self.next.max(self.resume);
        self.runs.truncate(RUNS_LIMIT);
        self
    }
}
