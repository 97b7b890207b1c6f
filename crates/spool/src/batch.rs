//! The way out: which events the next batch holds, how they get their numbers, and how they are
//! read from the segments. Invariants: a number is durable before its event is given out; what
//! is missing under a number goes out as `Dropped`; every call is bounded in events and bytes.

use toktra_protocol::{Event, EventBody, Minute};

use crate::frame::{Frame, Reader};
use crate::{RECORD_LIMIT, Spool, SpoolError, lost, segment};

impl Spool {
    /// The oldest events that are not acknowledged: at most `max_events`, and of about
    /// `max_bytes` of JSON, but at least one if there is one. Their numbers are durable
    /// when this returns. `now` dates a report of what was dropped.
    pub fn peek(
        &mut self,
        max_events: usize,
        max_bytes: usize,
        now: Minute,
    ) -> Result<Vec<Event>, SpoolError> {
        if self.state.pending > 0 {
            let report = Frame::Report { index: self.state.next, minute: now, events: self.state.pending };
            self.commit(&[report], false)?;
        }
        let mut batch = self.numbered(max_events, max_bytes, now)?;
        let whole = batch.len() as u64 == self.state.numbered();
        if whole && (batch.is_empty() || self.state.frozen == self.state.resume) {
            let bytes = batch.iter().map(|(_, bytes)| bytes).sum();
            self.freeze(&mut batch, bytes, max_events, max_bytes)?;
        }
        Ok(batch.into_iter().map(|(event, _)| event).collect())
    }

    /// The events that wait, from this place in the queue, each with its place: for looking only, no number
    /// becomes durable. One without a number has the number that it gets if nothing is dropped before it.
    pub fn list(&self, from: u64, max_events: usize) -> Result<Vec<(u64, Event)>, SpoolError> {
        let state = &self.state;
        let numbered = self.read(from.max(state.cursor), state.frozen, max_events, usize::MAX)?;
        let room = max_events - numbered.len();
        let others = if room > 0 {
            self.read(from.max(state.resume), state.next, room, usize::MAX)?
        } else {
            Vec::new()
        };
        let listed = numbered.into_iter().chain(others).map(|Entry { index, minute, body, .. }| {
            let ahead = if index < state.frozen {
                index - state.cursor
            } else {
                state.numbered() + (index - state.resume)
            };
            let body = if state.void.contains(&index) { lost(weight(&body), "quarantine") } else { body };
            (index, Event { sequence: state.acknowledged + 1 + ahead, minute, body })
        });
        Ok(listed.collect())
    }

    /// The numbered events, within limits, each with its size. Missing ones become `Dropped`.
    fn numbered(
        &mut self,
        max_events: usize,
        max_bytes: usize,
        now: Minute,
    ) -> Result<Vec<(Event, usize)>, SpoolError> {
        let (cursor, frozen) = (self.state.cursor, self.state.frozen);
        let mut found = self.read(cursor, frozen, max_events, max_bytes)?.into_iter().peekable();
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut missing = Vec::new();
        for index in (cursor..frozen).take(max_events) {
            let (minute, body, size) = match found.next_if(|entry| entry.index == index) {
                Some(entry) => (entry.minute, entry.body, entry.bytes),
                // Nothing further was read: the limit, unless all is missing from here on.
                None if found.peek().is_none() && bytes > 0 && bytes >= max_bytes => break,
                None => {
                    missing.push(index);
                    (now, lost(1, "spool"), RECORD_LIMIT / 64)
                }
            };
            if !batch.is_empty() && bytes + size > max_bytes {
                break;
            }
            bytes += size;
            let sequence = self.state.acknowledged + 1 + (index - cursor);
            let body =
                if self.state.void.contains(&index) { lost(weight(&body), "quarantine") } else { body };
            batch.push((Event { sequence, minute, body }, size));
        }
        missing.retain(|index| !self.state.void.contains(index));
        if !missing.is_empty() {
            self.void(&missing)?;
        }
        Ok(batch)
    }

    /// Gives numbers to the next records that wait, and adds them to the batch.
    fn freeze(
        &mut self,
        batch: &mut Vec<(Event, usize)>,
        mut bytes: usize,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<(), SpoolError> {
        let room = max_events.saturating_sub(batch.len());
        let mut state = self.state.clone();
        let entries =
            if room > 0 { self.read(state.resume, state.next, room, max_bytes)? } else { Vec::new() };
        if batch.is_empty() && room > 0 {
            let start = entries.first().map_or(state.next, |entry| entry.index);
            state.lose(start - state.resume);
            state.skip_to(start);
        }
        for entry in entries {
            let full = !batch.is_empty() && bytes + entry.bytes > max_bytes;
            if full || entry.index != state.resume {
                break;
            }
            bytes += entry.bytes;
            let sequence = state.acknowledged + 1 + state.numbered();
            batch.push((Event { sequence, minute: entry.minute, body: entry.body }, entry.bytes));
            state.frozen += 1;
            state.resume += 1;
        }
        if state != self.state {
            self.commit(&[Frame::Mark(state)], true)?;
        }
        Ok(())
    }

    /// Readable entries with `from <= index < until`, in order, within limits but at least one.
    pub(crate) fn read(
        &self,
        from: u64,
        until: u64,
        max: usize,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, SpoolError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut expected = from;
        for (place, segment) in self.segments.iter().enumerate() {
            if segment.first >= until || self.end(place) <= from {
                continue;
            }
            let content = segment::read(&self.directory, segment.id).map_err(|e| self.failed("read", e))?;
            for entry in Reader::new(&content).filter_map(Entry::of) {
                if entry.index < expected || entry.index >= until {
                    continue;
                }
                if entries.len() >= max || (bytes >= max_bytes && !entries.is_empty()) {
                    return Ok(entries);
                }
                bytes += entry.bytes;
                expected = entry.index + 1;
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}

/// A record or report as it is read again.
pub(crate) struct Entry {
    pub(crate) index: u64,
    minute: Minute,
    body: EventBody,
    bytes: usize,
}

impl Entry {
    fn of((frame, bytes): (Frame, usize)) -> Option<Self> {
        match frame {
            Frame::Record { index, minute, body, .. } => Some(Self { index, minute, body, bytes }),
            Frame::Report { index, minute, events } => {
                Some(Self { index, minute, body: lost(events, "spool"), bytes })
            }
            Frame::Mark(_) => None,
        }
    }

    /// How many events it reports as dropped; `None` for anything else.
    pub(crate) fn drops(&self) -> Option<u64> {
        matches!(self.body, EventBody::Dropped(_)).then(|| weight(&self.body))
    }
}

/// How many events a body stands for.
fn weight(body: &EventBody) -> u64 {
    match body {
        EventBody::Dropped(dropped) => dropped.events,
        EventBody::Usage(_) | EventBody::Blocked(_) => 1,
    }
}
