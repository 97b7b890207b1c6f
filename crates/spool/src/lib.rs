//! A crash-safe queue of events on disk, between the extension's socket and the uplink.
//!
//! # Promises
//!
//! - What [`Spool::append`] has returned for is on disk, and will be sent or counted as dropped.
//! - A record that comes again (same run, same number) is not stored again, also after a crash.
//! - A sequence number that may have been seen by the backend always means the same record.
//! - Numbers leave no gap: 1, 2, 3…, whatever had to be dropped.
//! - Damage costs what was damaged, is counted, and never keeps the spool from opening.
//!
//! # Numbers
//!
//! The backend takes a batch only if it follows on what it has. So a record gets its
//! sequence number not when it is appended but when it is about to be sent for the first
//! time: [`Spool::peek`] *freezes* the oldest records, which persists their numbers, before
//! it returns them. Frozen records are never dropped or renumbered. A limit drops the oldest
//! records that are not frozen; as they have no numbers yet, no gap arises. What was dropped
//! is counted in the state, and the next `peek` appends one `Dropped` event for all of it,
//! which is numbered in its turn like any other.
//!
//! # On disk
//!
//! A directory (0700) with a lock file and segments (0600) of about [`Limits::segment_bytes`].
//! A segment is a sequence of frames (see `frame.rs`), each with a checksum: records, the
//! spool's own reports of drops, and *marks*, which hold the whole state (see `state.rs`).
//! Every segment begins with a mark, so that older segments can go without loss.
//!
//! | operation | writes | fsync |
//! | --- | --- | --- |
//! | append | the records, together | before it returns |
//! | peek | a mark, if it froze records | before it returns |
//! | acknowledge | a mark | only before a segment is deleted: a lost mark means that a batch is sent again, under the same numbers |
//! | drop | a mark | before a segment is deleted |
//!
//! Opening replays the frames in order and begins a new segment, so nothing is ever written
//! behind a torn tail.
//!
//! # Limits and failures
//!
//! - [`Limits::total_bytes`]: the oldest unnumbered segments are dropped. The newest segment
//!   and what is frozen (at most one batch) stay, so the limit may be exceeded by these.
//! - A record whose JSON exceeds [`RECORD_LIMIT`] is stored as `Dropped`.
//! - After a failed write or fsync (disk full, I/O error) the segment is cut back to what was
//!   good and abandoned, the call fails, nothing is acknowledged; the next call starts a new one.
//! - On a full disk no record is taken, but sending goes on: the marks that it needs use the
//!   room of a file `reserve`, which is kept for that and made again when segments go.
//! - A damaged record without a number is dropped and counted with its like; one with a
//!   number goes out as `Dropped`, so that its number is covered.
//! - Loss of power may lose records that were *not* acknowledged to the extension but lie
//!   before others that reached the disk; these are counted as dropped.
//! - If every mark is damaged the numbering starts again, and the backend's answers put it
//!   right ([`Spool::acknowledge`] beyond what was sent, [`Spool::rewind`] below).
//! - Another owner of the directory's events (device enrolled anew): see [`Spool::open`].

mod batch;
mod frame;
mod segment;
mod spent;
mod state;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use toktra_protocol::EventBody;
use toktra_protocol::event::Dropped;
use toktra_protocol::local::Record;
use uuid::Uuid;

use batch::Entry;
use frame::{Frame, Reader};
use segment::Segment;
pub use spent::Spent;
pub use state::Owner;
use state::State;

/// Largest JSON of a record, in bytes.
pub const RECORD_LIMIT: usize = 16 * 1024;
/// A segment of which nothing lives is replaced at this length, in bytes, so that what was
/// sent does not stay on disk for long.
const IDLE_BYTES: u64 = 64 * 1024;

/// How large the spool may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All segments together, in bytes.
    pub total_bytes: u64,
    /// One segment, in bytes.
    pub segment_bytes: u64,
}

impl Default for Limits {
    /// 64 MiB in segments of 256 KiB.
    fn default() -> Self {
        Self { total_bytes: 64 * 1024 * 1024, segment_bytes: 256 * 1024 }
    }
}

/// Why the spool did not do what it was asked. Nothing was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("the spool in {} is in use by another process; stop the other toktra-agent first", .0.display())]
    Locked(PathBuf),
    /// The file system failed.
    #[error("cannot {doing} the spool in {}; check free space, ownership and permissions there", .directory.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A record cannot be written as JSON.
    #[error("a record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The number was never given to an event, or exceeds what a backend can store.
    #[error("sequence number {0} belongs to no event that waits")]
    Sequence(u64),
}

/// The queue. One process, one owner.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limits: Limits,
    segments: Vec<Segment>,
    /// The last segment's file; none after a failure.
    active: Option<File>,
    next_id: u64,
    state: State,
    spent: spent::Ledger,
    _lock: File,
}

impl Spool {
    /// Opens the spool in a directory, which is made if need be.
    ///
    /// If what lies there belongs to another device of the same tenant (the machine was
    /// enrolled anew), records without a number stay and are sent as this device's; records
    /// with a number, which the backend may have, are dropped and counted, lest they count
    /// twice. What belongs to another tenant is dropped.
    pub fn open(directory: &Path, owner: &Owner, limits: Limits) -> Result<Self, SpoolError> {
        let failed = |doing| move |source| SpoolError::Io { doing, directory: directory.to_owned(), source };
        segment::make_directory(directory).map_err(failed("create"))?;
        let lock = segment::open_private(&directory.join("lock")).map_err(failed("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::Locked(directory.to_owned()))?;
        let ids = segment::list(directory).map_err(failed("list"))?;
        let next_id = ids.last().map_or(1, |last| last.saturating_add(1));
        let mut spool = Self {
            directory: directory.to_owned(),
            limits,
            segments: Vec::with_capacity(ids.len()),
            active: None,
            next_id,
            state: State::default(),
            spent: spent::Ledger::default(),
            _lock: lock,
        };
        spool.replay(&ids);
        spool.begin_segment()?;
        spool.hand_over(owner)?;
        Ok(spool)
    }

    /// Stores records of a run, durably and in order; leaves out what is stored already.
    /// Returns the highest number of the run that is stored.
    pub fn append(&mut self, run: Uuid, records: &[Record]) -> Result<u64, SpoolError> {
        let mut highest = self.state.highest(run);
        let mut frames = Vec::with_capacity(records.len());
        let mut index = self.state.next;
        for record in records.iter().filter(|record| record.number > 0) {
            if record.number <= highest {
                continue;
            }
            highest = record.number;
            let body = if fits(&record.body)? { record.body.clone() } else { lost(1, "spool") };
            frames.push(Frame::Record { index, run, number: record.number, minute: record.minute, body });
            index += 1;
        }
        // All at once would make a segment of any size.
        for part in frames.chunks(256) {
            self.commit(part, true)?;
        }
        self.shrink()?;
        Ok(highest)
    }

    /// The backend has every event up to this number: they are deleted. A number beyond what
    /// was sent is adopted, because the backend's count is the one that holds.
    pub fn acknowledge(&mut self, up_to: u64) -> Result<(), SpoolError> {
        if up_to <= self.state.acknowledged {
            return Ok(());
        }
        if up_to > i64::MAX as u64 {
            return Err(SpoolError::Sequence(up_to));
        }
        let mut state = self.state.clone();
        state.cursor += (up_to - state.acknowledged).min(state.numbered());
        state.acknowledged = up_to;
        state.void.retain(|&index| index >= state.cursor);
        state.skip_to(state.resume);
        let before = self.state.clone();
        self.commit(&[Frame::Mark(state)], false)?;
        self.spent.acknowledge(&before, &self.state);
        self.remove_dead()
    }

    /// The backend has events up to this number only, fewer than it acknowledged once (it
    /// was restored from a backup): the numbering goes on from there, and what it lost is
    /// counted as dropped.
    pub fn rewind(&mut self, acknowledged: u64) -> Result<(), SpoolError> {
        if acknowledged >= self.state.acknowledged {
            return self.acknowledge(acknowledged);
        }
        let mut state = self.state.clone();
        state.lose(state.acknowledged - acknowledged);
        state.acknowledged = acknowledged;
        self.commit(&[Frame::Mark(state)], true)
    }

    /// The backend refuses this event and will always refuse it: from now on a `Dropped`
    /// goes out in its place, under its number.
    pub fn quarantine(&mut self, sequence: u64) -> Result<(), SpoolError> {
        let place = sequence.checked_sub(self.state.acknowledged + 1);
        let place =
            place.filter(|&place| place < self.state.numbered()).ok_or(SpoolError::Sequence(sequence))?;
        self.void(&[self.state.cursor + place])
    }

    /// Highest record number of a run that is stored; 0 for a run never seen.
    pub fn highest(&self, run: Uuid) -> u64 {
        self.state.highest(run)
    }

    /// Highest sequence number that the backend has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.state.acknowledged
    }

    /// Events on disk that are not acknowledged, a report that is yet to be made included.
    pub fn waiting(&self) -> u64 {
        self.state.numbered() + (self.state.next - self.state.resume) + u64::from(self.state.pending > 0)
    }

    /// Events dropped since enrolment, here or before they came here.
    pub fn dropped(&self) -> u64 {
        self.state.dropped
    }

    /// What the events have spent that wait, or that were acknowledged since the spool was opened and
    /// not [forgotten](Self::forget_spent).
    pub fn spent(&mut self) -> Vec<Spent> {
        self.spent.list(&self.state)
    }

    /// Forgets what the events up to this number have spent; the backend tells.
    pub fn forget_spent(&mut self, counted: u64) {
        self.spent.forget(counted);
    }

    /// Length of all segments, in bytes.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Takes up what lies in the directory.
    fn replay(&mut self, ids: &[u64]) {
        for &id in ids {
            // What cannot be read is missed as a gap in the indices, and counted then.
            let bytes = segment::read(&self.directory, id).unwrap_or_default();
            let mut reader = Reader::new(&bytes);
            let mut first = None;
            for (frame, _) in reader.by_ref() {
                if let Frame::Record { index, .. } | Frame::Report { index, .. } = frame {
                    first.get_or_insert(index);
                }
                self.state.apply(&frame);
                self.spent.note(&frame);
            }
            let first = first.unwrap_or(self.state.next);
            self.segments.push(Segment { id, first, len: bytes.len() as u64 });
        }
    }

    /// Makes the events this owner's.
    fn hand_over(&mut self, owner: &Owner) -> Result<(), SpoolError> {
        let Some(before) = self.state.owner.replace(owner.clone()) else {
            return self.commit(&[Frame::Mark(self.state.clone())], true);
        };
        if before.device == owner.device {
            return Ok(());
        }
        let mut state =
            State { runs: self.state.runs.clone(), owner: Some(owner.clone()), ..State::default() };
        state.next = self.state.next;
        if before.tenant == owner.tenant {
            state.lose(self.state.numbered());
            state.pending = state.pending.saturating_add(self.state.pending);
            state.skip_to(self.state.resume);
        } else {
            state.skip_to(self.state.next);
        }
        self.commit(&[Frame::Mark(state)], true)?;
        self.spent.forget(u64::MAX);
        self.remove_dead()
    }

    /// Index after the last record of a segment.
    fn end(&self, place: usize) -> u64 {
        self.segments.get(place + 1).map_or(self.state.next, |after| after.first)
    }

    /// Sends these numbered records as `Dropped`.
    fn void(&mut self, indices: &[u64]) -> Result<(), SpoolError> {
        let mut state = self.state.clone();
        for &index in indices {
            if !state.void.contains(&index) {
                state.void.push(index);
                state.dropped = state.dropped.saturating_add(1);
            }
        }
        self.commit(&[Frame::Mark(state)], true)
    }

    /// Drops the oldest records without a number until the limit holds.
    fn shrink(&mut self) -> Result<(), SpoolError> {
        while self.bytes() > self.limits.total_bytes {
            let last = self.segments.len().saturating_sub(1);
            let Some(place) = (0..last).find(|&place| self.end(place) > self.state.resume) else { break };
            let (from, until) = (self.state.resume, self.end(place));
            let entries = self.read(from, until, usize::MAX, usize::MAX)?;
            let mut state = self.state.clone();
            // Reports and others' drops were counted as dropped before; they need a new report only.
            let again: Vec<u64> = entries.iter().filter_map(Entry::drops).collect();
            state.lose(until - from - again.len() as u64);
            state.pending = state.pending.saturating_add(again.iter().sum());
            state.skip_to(until);
            self.commit(&[Frame::Mark(state)], true)?;
            self.remove_dead()?;
        }
        Ok(())
    }

    /// Writes frames, then applies them: what is in memory is what a replay would give. Where
    /// the disk is full, all but records may use the reserve, so that sending goes on.
    fn commit(&mut self, frames: &[Frame], durable: bool) -> Result<(), SpoolError> {
        match self.write(frames, durable) {
            Err(SpoolError::Io { source, .. })
                if source.kind() == io::ErrorKind::StorageFull
                    && !frames.iter().any(|frame| matches!(frame, Frame::Record { .. }))
                    && segment::release_reserve(&self.directory) =>
            {
                self.write(frames, durable)
            }
            outcome => outcome,
        }
    }

    fn write(&mut self, frames: &[Frame], durable: bool) -> Result<(), SpoolError> {
        if frames.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for frame in frames {
            frame::encode(frame, &mut bytes)?;
        }
        if self.is_full() {
            self.begin_segment()?;
        }
        let (Some(file), Some(segment)) = (self.active.as_mut(), self.segments.last_mut()) else {
            return Err(self.failed("write", io::ErrorKind::NotFound.into()));
        };
        let written = file.write_all(&bytes).and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            let _ = file.set_len(segment.len);
            self.active = None;
            return Err(self.failed("write", error));
        }
        segment.len += bytes.len() as u64;
        for frame in frames {
            self.state.apply(frame);
            self.spent.note(frame);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let len = self.segments.last().map_or(0, |segment| segment.len);
        let idle = self.waiting() == 0 && len >= IDLE_BYTES.min(self.limits.segment_bytes);
        self.active.is_none() || len >= self.limits.segment_bytes || idle
    }

    /// Begins a segment with a mark; what is older and of no more use goes.
    fn begin_segment(&mut self) -> Result<(), SpoolError> {
        if let Some(file) = &self.active {
            file.sync_data().map_err(|error| self.failed("write", error))?;
        }
        let mut head = Vec::new();
        frame::encode(&Frame::Mark(self.state.clone()), &mut head)?;
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        let file =
            segment::create(&self.directory, id, &head).map_err(|error| self.failed("write", error))?;
        self.active = Some(file);
        self.segments.push(Segment { id, first: self.state.next, len: head.len() as u64 });
        self.unlink_dead();
        Ok(())
    }

    /// Deletes segments of which nothing lives, after making sure that the disk knows so.
    fn remove_dead(&mut self) -> Result<(), SpoolError> {
        if !self.segments.is_empty() && (0..self.segments.len() - 1).any(|place| !self.is_alive(place)) {
            if let Some(file) = &self.active {
                file.sync_data().map_err(|error| self.failed("write", error))?;
            }
            self.unlink_dead();
        }
        Ok(())
    }

    fn unlink_dead(&mut self) {
        let alive: Vec<bool> = (0..self.segments.len()).map(|place| self.is_alive(place)).collect();
        let last = self.segments.len().saturating_sub(1);
        let mut place = 0;
        let directory = &self.directory;
        self.segments.retain(|segment| {
            let keep = place == last || alive[place] || !segment::remove(directory, segment.id);
            place += 1;
            keep
        });
        segment::keep_reserve(directory);
    }

    fn is_alive(&self, place: usize) -> bool {
        let (from, until) = (self.segments[place].first, self.end(place));
        from < until && self.state.lives(from, until)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> SpoolError {
        SpoolError::Io { doing, directory: self.directory.clone(), source }
    }
}

fn lost(events: u64, place: &str) -> EventBody {
    EventBody::Dropped(Dropped { events, place: place.to_owned() })
}

fn fits(body: &EventBody) -> Result<bool, SpoolError> {
    Ok(serde_json::to_vec(body)?.len() <= RECORD_LIMIT)
}
