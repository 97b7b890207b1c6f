//! Sealed records on disk, between the extension's socket and the backend's vault: `personal-queue` in the
//! state directory, one folder for each member, in it one file for each record and one `state`.
//!
//! # Promises
//!
//! - What [`Queue::append`] has returned for is on disk, and its tokens are in the month's total.
//! - A record that comes again (same run, same number) is not stored again and counts once, also after a
//!   crash: `state` is replaced as a whole after the records are durable, and what lies there that it does
//!   not know is deleted on opening.
//! - Numbers of a slot leave no gap: 1, 2, 3…, in the order in which records came. Whatever would break
//!   them (a damaged file, a backend that was set back) begins a new slot.
//!
//! # Limits and failures
//!
//! At most [`RECORDS_LIMIT`] records wait; one that finds no room is dropped and counted, since those that
//! lie there may have a number already. Its tokens count all the same. A `state` that cannot be read costs
//! the totals of this device and nothing else: what waits is kept and sent in a new slot.
//!
//! Nothing here can be opened by the agent.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toktra_protocol::personal::local::PersonalEstimate;
use toktra_protocol::personal::{Month, Sealed, Slot};
use uuid::Uuid;

/// Name of the directory in the state directory.
pub const DIRECTORY: &str = "personal-queue";
/// Most records that wait.
pub const RECORDS_LIMIT: usize = 10_000;
/// Runs of the extension whose highest numbers are remembered.
const RUNS: usize = 8;
/// Months whose totals are remembered: this one, and the one before until the backend has it.
const MONTHS: usize = 3;
/// Far more than the state takes, in bytes.
const STATE_LIMIT: u64 = 64 * 1024;
const STATE: &str = "state";
const EXTENSION: &str = "sealed";
const NEW: &str = ".new-";

/// A record on its way into the queue.
#[derive(Debug)]
pub struct Incoming {
    /// Its number in the extension's run.
    pub number: u64,
    /// The month in which it counts, if the organisation gives anything.
    pub month: Option<Month>,
    /// What it spent.
    pub tokens: PersonalEstimate,
    /// Records that were lost before it.
    pub lost: u64,
    /// The record.
    pub sealed: Sealed,
}

/// The next records to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which of the user's devices this is.
    pub slot: Slot,
    /// Number of the first.
    pub first: u64,
    /// The records.
    pub records: Vec<Sealed>,
}

/// A month's total of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Total {
    /// The month.
    pub month: Month,
    /// Tokens since the slot began.
    pub used: PersonalEstimate,
    /// The best guess that the backend has been told.
    pub told: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    slot: Slot,
    /// Highest number of the slot that the backend has.
    acknowledged: u64,
    /// Place of the first file that waits.
    first: u64,
    /// Place of the next file.
    next: u64,
    /// Highest numbers of the extension's runs, the newest last.
    runs: Vec<(Uuid, u64)>,
    dropped: u64,
    totals: Vec<Total>,
}

/// The queue. One process.
#[derive(Debug)]
pub struct Queue {
    directory: PathBuf,
    state: State,
    /// Places of the files that wait.
    waiting: VecDeque<u64>,
}

impl Queue {
    /// Opens a member's queue. `slot` must be new and random: it is taken where there is none.
    pub fn open(directory: &Path, slot: Slot) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        sweep(directory)?;
        let mut places = list(directory)?;
        let kept = read_state(&directory.join(STATE));
        let state = match &kept {
            Ok(Some(state)) => state.clone(),
            Ok(None) | Err(_) => State {
                slot,
                acknowledged: 0,
                first: places.first().copied().unwrap_or_default(),
                next: places.last().map_or(0, |last| last + 1),
                runs: Vec::new(),
                dropped: 0,
                totals: Vec::new(),
            },
        };
        if let Err(error) = &kept {
            tracing::error!("The state of the personal queue is begun anew: {error}");
        }
        // Records that were never acknowledged to the extension, and those that the backend has.
        for place in places.extract_if(.., |place| !(state.first..state.next).contains(place)) {
            fs::remove_file(path(directory, place))?;
        }
        let mut queue = Self { directory: directory.to_owned(), state, waiting: places.into() };
        let missing = queue.state.next - queue.state.first - queue.waiting.len() as u64;
        if missing > 0 && kept.is_ok_and(|state| state.is_some()) {
            queue.begin_slot(slot, missing)?;
        } else {
            queue.keep(queue.state.clone())?;
        }
        Ok(queue)
    }

    /// Stores records of a run, durably and in order; leaves out what is stored already. Returns the
    /// highest number of the run that is stored.
    pub fn append(&mut self, run: Uuid, entries: Vec<Incoming>) -> io::Result<u64> {
        let mut state = self.state.clone();
        let mut highest = self.highest(run);
        let mut places = Vec::new();
        for entry in entries {
            if entry.number <= highest {
                continue;
            }
            highest = entry.number;
            state.dropped = state.dropped.saturating_add(entry.lost);
            state.count(entry.month, entry.tokens);
            if self.waiting.len() + places.len() < RECORDS_LIMIT {
                write(&path(&self.directory, state.next), entry.sealed.bytes())?;
                places.push(state.next);
                state.next += 1;
            } else {
                state.dropped = state.dropped.saturating_add(1);
            }
        }
        state.runs.retain(|(other, _)| *other != run);
        state.runs.push((run, highest));
        let surplus = state.runs.len().saturating_sub(RUNS);
        state.runs.drain(..surplus);
        self.keep(state)?;
        self.waiting.extend(places);
        Ok(highest)
    }

    /// Highest number of a run that is stored; 0 for a run never seen.
    pub fn highest(&self, run: Uuid) -> u64 {
        self.state.runs.iter().find(|(other, _)| *other == run).map_or(0, |(_, highest)| *highest)
    }

    /// The oldest records, at most so many; none if nothing waits. A file that cannot be read as a record
    /// is dropped and counted, and `slot` taken.
    pub fn peek(&mut self, most: usize, slot: Slot) -> io::Result<Option<Batch>> {
        loop {
            let places: Vec<u64> = self.waiting.iter().copied().take(most).collect();
            let read = |place: u64| read(&path(&self.directory, place)).ok_or(place);
            match places.into_iter().map(read).collect::<Result<Vec<Sealed>, u64>>() {
                Ok(records) if records.is_empty() => return Ok(None),
                Ok(records) => {
                    let first = self.state.acknowledged + 1;
                    return Ok(Some(Batch { slot: self.state.slot, first, records }));
                }
                Err(damaged) => {
                    tracing::error!("A sealed record on disk is damaged and dropped.");
                    self.waiting.retain(|place| *place != damaged);
                    self.begin_slot(slot, 1)?;
                    let _ = fs::remove_file(path(&self.directory, damaged));
                }
            }
        }
    }

    /// The backend has every record of this slot up to this number: they are deleted. A number beyond what
    /// was sent is adopted, because the backend's count is the one that holds.
    pub fn acknowledge(&mut self, slot: Slot, up_to: u64) -> io::Result<()> {
        if slot != self.state.slot || up_to <= self.state.acknowledged {
            return Ok(());
        }
        let count = usize::try_from(up_to - self.state.acknowledged).unwrap_or(usize::MAX);
        let mut state = self.state.clone();
        let count = count.min(self.waiting.len());
        state.acknowledged = up_to;
        state.first = self.waiting.get(count).copied().unwrap_or(state.next);
        self.keep(state)?;
        for place in self.waiting.drain(..count) {
            // What stays is deleted on opening.
            let _ = fs::remove_file(path(&self.directory, place));
        }
        Ok(())
    }

    /// Sends what waits, and counts what comes, as another device would: the backend has lost this one's
    /// numbers. What it has of the totals, it says with the other devices'.
    pub fn begin_slot(&mut self, slot: Slot, dropped: u64) -> io::Result<()> {
        let mut state = self.state.clone();
        (state.slot, state.acknowledged, state.totals) = (slot, 0, Vec::new());
        state.dropped = state.dropped.saturating_add(dropped);
        // Without the gaps that damage leaves.
        let count = self.waiting.len() as u64;
        let (first, next) = (state.next, state.next + count);
        for (place, to) in self.waiting.iter().zip(first..next) {
            fs::copy(path(&self.directory, *place), path(&self.directory, to))?;
            File::open(path(&self.directory, to))?.sync_all()?;
        }
        (state.first, state.next) = (first, next);
        self.keep(state)?;
        for place in std::mem::replace(&mut self.waiting, (first..next).collect()) {
            let _ = fs::remove_file(path(&self.directory, place));
        }
        Ok(())
    }

    /// Which of the user's devices this is.
    pub fn slot(&self) -> Slot {
        self.state.slot
    }

    /// Records that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Records that a limit or damage dropped.
    pub fn dropped(&self) -> u64 {
        self.state.dropped
    }

    /// Records that wait beyond a place, at most so many, each with its place.
    pub fn list(&self, after: u64, most: usize) -> Vec<(u64, Sealed)> {
        // Places begin at 0, and 0 is the beginning.
        let beyond = self.waiting.iter().filter(|place| **place + 1 > after).take(most);
        beyond.filter_map(|place| Some((place + 1, read(&path(&self.directory, *place))?))).collect()
    }

    /// Totals of this device, by month.
    pub fn totals(&self) -> &[Total] {
        &self.state.totals
    }

    /// The backend has been told so many tokens of a month.
    pub fn set_told(&mut self, slot: Slot, month: Month, used: u64) -> io::Result<()> {
        let mut state = self.state.clone();
        if slot != state.slot {
            return Ok(());
        }
        for total in state.totals.iter_mut().filter(|total| total.month == month) {
            total.told = Some(used);
        }
        self.keep(state)
    }

    /// Deletes everything of this member's.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)
    }

    fn keep(&mut self, state: State) -> io::Result<()> {
        write(&self.directory.join(STATE), &serde_json::to_vec(&state)?)?;
        // The records of the same call, too.
        File::open(&self.directory)?.sync_all()?;
        self.state = state;
        Ok(())
    }
}

impl State {
    fn count(&mut self, month: Option<Month>, tokens: PersonalEstimate) {
        let Some(month) = month else { return };
        if !self.totals.iter().any(|total| total.month == month) {
            self.totals.push(Total { month, used: PersonalEstimate::default(), told: None });
            self.totals.sort_by_key(|total| total.month);
            let surplus = self.totals.len().saturating_sub(MONTHS);
            self.totals.drain(..surplus);
        }
        for total in self.totals.iter_mut().filter(|total| total.month == month) {
            total.used = sum(total.used, tokens);
        }
    }
}

/// Both together.
pub fn sum(one: PersonalEstimate, other: PersonalEstimate) -> PersonalEstimate {
    PersonalEstimate {
        low: one.low.saturating_add(other.low),
        point: one.point.saturating_add(other.point),
        high: one.high.saturating_add(other.high),
    }
}

fn path(directory: &Path, place: u64) -> PathBuf {
    directory.join(format!("{place:020}.{EXTENSION}"))
}

/// Deletes what a crash left half written.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(NEW) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Places of the records that lie there, in order.
fn list(directory: &Path) -> io::Result<Vec<u64>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let place = Path::new(&name).file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        let is_record = Path::new(&name).extension().is_some_and(|extension| extension == EXTENSION);
        places.extend(place.filter(|_| is_record));
    }
    places.sort_unstable();
    Ok(places)
}

fn read(file: &Path) -> Option<Sealed> {
    let bytes = file.metadata().ok()?.len();
    (bytes <= toktra_vault::SEALED_LIMIT as u64).then(|| Sealed::new(fs::read(file).ok()?).ok()).flatten()
}

fn read_state(file: &Path) -> Result<Option<State>, String> {
    match file.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > STATE_LIMIT => return Err("it is too large".to_owned()),
        _ => {}
    }
    let json = fs::read(file).map_err(|error| error.to_string())?;
    let state: State = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    if state.first <= state.next { Ok(Some(state)) } else { Err("its places are out of order".to_owned()) }
}

/// Writes a file as a whole; durable once its directory is.
fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().prefix(NEW).tempfile_in(directory)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests;
