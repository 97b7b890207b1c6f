//! What the spool's events have spent, each at the place that the backend will book it under: so
//! that the agent can add to the backend's count what the backend does not count yet. In memory
//! only: what was acknowledged before a restart is the backend's to tell.
//!
//! Invariants: an event is here at most once, and no longer once it cannot be sent as usage;
//! at most [`LIMIT`] events, the newest, so that the sum is never more than was spent.

use std::collections::VecDeque;

use toktra_protocol::{Estimate, EventBody, Minute};

use crate::frame::Frame;
use crate::state::State;

/// Most events that are remembered.
const LIMIT: usize = 8192;

/// What one event has spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Its sequence number; of an event that has none yet, the one it gets if nothing is dropped.
    pub sequence: u64,
    /// The minute in which it was made.
    pub minute: Minute,
    /// Tokens, sent and received.
    pub tokens: Estimate,
}

/// Usage that waits, by index, and usage that was acknowledged of late, by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    waiting: VecDeque<(u64, Spent)>,
    sent: VecDeque<Spent>,
}

impl Ledger {
    /// A frame was written, or is read again.
    pub(crate) fn note(&mut self, frame: &Frame) {
        if let Frame::Record { index, minute, body: EventBody::Usage(usage), .. } = frame {
            let tokens = usage.tokens_in.plus(usage.tokens_out);
            self.waiting.push_back((*index, Spent { sequence: 0, minute: *minute, tokens }));
            if self.waiting.len() > LIMIT {
                self.waiting.pop_front();
            }
        }
    }

    /// The state is about to move on to `after`: numbered events that it leaves behind were acknowledged.
    pub(crate) fn acknowledge(&mut self, before: &State, after: &State) {
        let sent = self.waiting.iter().filter(|(index, _)| *index < after.cursor);
        let sent =
            sent.filter_map(|&(index, spent)| Some(Spent { sequence: place(before, index)?, ..spent }));
        self.sent.extend(sent);
        let surplus = self.sent.len().saturating_sub(LIMIT);
        self.sent.drain(..surplus);
        self.waiting.retain(|(index, _)| *index >= after.cursor);
    }

    /// The backend counts every event up to this number: they need not be remembered.
    pub(crate) fn forget(&mut self, counted: u64) {
        self.sent.retain(|spent| spent.sequence > counted);
    }

    /// Everything that is left, in order.
    pub(crate) fn list(&mut self, state: &State) -> Vec<Spent> {
        self.waiting.retain(|(index, _)| place(state, *index).is_some());
        let waiting = self
            .waiting
            .iter()
            .filter_map(|&(index, spent)| Some(Spent { sequence: place(state, index)?, ..spent }));
        self.sent.iter().copied().chain(waiting).collect()
    }
}

/// The number that a record has or gets; none if it was dropped or goes out as `Dropped`.
fn place(state: &State, index: u64) -> Option<u64> {
    let ahead = if (state.cursor..state.frozen).contains(&index) {
        index - state.cursor
    } else if index >= state.resume {
        state.numbered() + (index - state.resume)
    } else {
        return None;
    };
    let sequence = state.acknowledged.saturating_add(1).saturating_add(ahead);
    (!state.void.contains(&index)).then_some(sequence)
}
