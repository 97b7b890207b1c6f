//! Drives the real spool and a model of the whole chain (an extension that sends again, a
//! backend that takes only what follows on what it has) with the same random actions,
//! crashes at any byte included. The promise: every record that was acknowledged arrives
//! once, in order, or is counted as dropped once.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use toktra_protocol::event::{Blocked, Dropped};
use toktra_protocol::local::Record;
use toktra_protocol::{BlockReason, Event, EventBody, Minute, NameSource};
use toktra_spool::{Limits, Owner, Spool, SpoolError};
use uuid::Uuid;

const NOW: Minute = Minute(29_000_000);
const ROOMY: Limits = Limits { total_bytes: 64 << 20, segment_bytes: 2_000 };
const TIGHT: Limits = Limits { total_bytes: 12_000, segment_bytes: 1_500 };

#[derive(Clone, Debug)]
enum Action {
    Append(u8),
    AppendAgain(u8),
    NewRun,
    Send { events: u8, kilobytes: u8, arrives: bool, answered: bool },
    Quarantine(u8),
    Reopen,
    CrashInAppend { records: u8, cut: u16 },
    CrashInPeek { events: u8, cut: u16 },
    CrashInAcknowledge { cut: u16 },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (1u8..12).prop_map(Action::Append),
        1 => (1u8..12).prop_map(Action::AppendAgain),
        1 => Just(Action::NewRun),
        6 => (1u8..20, 1u8..9, any::<bool>(), any::<bool>()).prop_map(|(events, kilobytes, arrives, answered)| {
            Action::Send { events, kilobytes, arrives, answered }
        }),
        1 => any::<u8>().prop_map(Action::Quarantine),
        1 => Just(Action::Reopen),
        2 => (1u8..12, any::<u16>()).prop_map(|(records, cut)| Action::CrashInAppend { records, cut }),
        1 => (1u8..20, any::<u16>()).prop_map(|(events, cut)| Action::CrashInPeek { events, cut }),
        1 => any::<u16>().prop_map(|cut| Action::CrashInAcknowledge { cut }),
    ]
}

/// In memory where there is such a place: thousands of fsyncs are made here.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn owner() -> Owner {
    Owner { device: Uuid::from_u128(7), tenant: "acme.example/Acme".into() }
}

fn body(run: Uuid, number: u64) -> EventBody {
    EventBody::Blocked(Blocked {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: format!("{}-{number}", run.as_u128()),
        name_source: NameSource::Sni,
        user_account: None,
        application: Some("curl".into()),
        reason: BlockReason::Budget,
        cut: false,
    })
}

/// What the backend does: takes what follows, ignores what it has.
#[derive(Default)]
struct Backend {
    stored: Vec<Event>,
    /// Numbers that the test quarantined: their content may change once.
    void: BTreeSet<u64>,
}

impl Backend {
    fn take(&mut self, batch: &[Event]) -> u64 {
        for event in batch {
            let have = self.stored.len() as u64;
            assert!(event.sequence <= have + 1, "a gap: {} after {have}", event.sequence);
            if event.sequence == have + 1 {
                event.check().unwrap();
                self.stored.push(event.clone());
            } else if !self.void.contains(&event.sequence) {
                let before = &self.stored[event.sequence as usize - 1];
                assert_eq!(before.body, event.body, "number {} changed its meaning", event.sequence);
            }
        }
        self.stored.len() as u64
    }

    fn hosts(&self) -> Vec<&str> {
        let host = |event: &'_ Event| matches!(event.body, EventBody::Blocked(_));
        self.stored
            .iter()
            .filter(|event| host(event))
            .map(|event| match &event.body {
                EventBody::Blocked(blocked) => blocked.host.as_str(),
                _ => unreachable!(),
            })
            .collect()
    }

    fn dropped(&self) -> u64 {
        self.stored
            .iter()
            .map(|event| match &event.body {
                EventBody::Dropped(Dropped { events, .. }) => *events,
                _ => 0,
            })
            .sum()
    }
}

struct Chain {
    directory: PathBuf,
    limits: Limits,
    spool: Option<Spool>,
    backend: Backend,
    run: Uuid,
    number: u64,
    made: Vec<String>,
}

impl Chain {
    fn new(directory: &Path, limits: Limits) -> Self {
        let mut chain = Self {
            directory: directory.to_owned(),
            limits,
            spool: None,
            backend: Backend::default(),
            run: Uuid::from_u128(1),
            number: 0,
            made: Vec::new(),
        };
        chain.reopen();
        chain
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.spool = None;
        self.spool = Some(Spool::open(&self.directory, &owner(), self.limits).unwrap());
    }

    fn make(&mut self, count: u8) -> Vec<Record> {
        (0..count)
            .map(|_| {
                self.number += 1;
                self.made.push(format!("{}-{}", self.run.as_u128(), self.number));
                Record { number: self.number, minute: NOW, body: body(self.run, self.number) }
            })
            .collect()
    }

    fn append(&mut self, records: &[Record]) {
        let run = self.run;
        let highest = self.spool().append(run, records).unwrap();
        assert_eq!(highest, self.number);
    }

    fn send(&mut self, events: u8, kilobytes: u8, arrives: bool, answered: bool) {
        let batch = self.spool().peek(events.into(), usize::from(kilobytes) << 10, NOW).unwrap();
        assert!(batch.len() <= events.into());
        if arrives && !batch.is_empty() {
            let acknowledged = self.backend.take(&batch);
            if answered {
                self.spool().acknowledge(acknowledged).unwrap();
                assert_eq!(self.spool().acknowledged(), acknowledged);
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "spool")).collect()
    }

    fn newest(&self) -> (PathBuf, u64) {
        let newest = self.files().into_iter().max().unwrap();
        let length = newest.metadata().unwrap().len();
        (newest, length)
    }

    /// Does something, loses any part of what it wrote last, and opens anew.
    fn crash_in(&mut self, cut: u16, act: impl FnOnce(&mut Self)) {
        let (before, files) = (self.newest(), self.files().len());
        act(self);
        self.spool = None;
        let after = self.newest();
        // A file is deleted only after what makes it superfluous has reached the disk.
        if self.files().len() >= files && after.0 == before.0 && after.1 > before.1 {
            let keep = before.1 + u64::from(cut) % (after.1 - before.1 + 1);
            OpenOptions::new().write(true).open(&after.0).unwrap().set_len(keep).unwrap();
        }
        self.reopen();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Append(count) => {
                let records = self.make(count);
                self.append(&records);
            }
            Action::AppendAgain(back) => {
                let first = self.number.saturating_sub(back.into()) + 1;
                let records: Vec<_> = (first..=self.number)
                    .map(|number| Record { number, minute: NOW, body: body(self.run, number) })
                    .collect();
                self.append(&records);
            }
            Action::NewRun => {
                self.run = Uuid::from_u128(self.run.as_u128() + 1);
                self.number = 0;
            }
            Action::Send { events, kilobytes, arrives, answered } => {
                self.send(events, kilobytes, arrives, answered);
            }
            Action::Quarantine(which) => {
                let batch = self.spool().peek(20, 1 << 20, NOW).unwrap();
                let stored = self.backend.stored.len() as u64;
                // A backend refuses only what it has not stored.
                let refused: Vec<_> = batch.iter().filter(|event| event.sequence > stored).collect();
                if !refused.is_empty() {
                    let sequence = refused[usize::from(which) % refused.len()].sequence;
                    self.backend.void.insert(sequence);
                    self.spool().quarantine(sequence).unwrap();
                }
            }
            Action::Reopen => self.reopen(),
            Action::CrashInAppend { records, cut } => {
                let records = self.make(records);
                self.crash_in(cut, |chain| chain.append(&records));
                // The extension sends again what was not acknowledged.
                self.append(&records);
            }
            Action::CrashInPeek { events, cut } => self.crash_in(cut, |chain| {
                chain.spool().peek(events.into(), 1 << 20, NOW).unwrap();
            }),
            Action::CrashInAcknowledge { cut } => {
                let batch = self.spool().peek(20, 1 << 20, NOW).unwrap();
                if !batch.is_empty() {
                    let acknowledged = self.backend.take(&batch);
                    self.crash_in(cut, |chain| chain.spool().acknowledge(acknowledged).unwrap());
                }
            }
        }
    }

    fn drain(&mut self) {
        while self.spool().waiting() > 0 {
            self.send(20, 8, true, true);
        }
        assert!(self.spool().peek(20, 1 << 20, NOW).unwrap().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_arrives_once_and_in_order(actions in proptest::collection::vec(action(), 1..60)) {
        let directory = directory();
        let mut chain = Chain::new(directory.path(), ROOMY);
        for action in actions {
            chain.act(action);
        }
        chain.drain();
        let void = chain.backend.void.len() as u64;
        let arrived: Vec<String> = chain.backend.hosts().into_iter().map(str::to_owned).collect();
        prop_assert_eq!(chain.backend.dropped(), void);
        prop_assert_eq!(arrived.len() as u64 + void, chain.made.len() as u64);
        let mut rest = chain.made.iter();
        prop_assert!(arrived.iter().all(|host| rest.any(|made| made == host)), "out of order");
    }

    #[test]
    fn what_does_not_arrive_for_want_of_room_is_counted(actions in proptest::collection::vec(action(), 1..80)) {
        let directory = directory();
        let mut chain = Chain::new(directory.path(), TIGHT);
        for action in actions {
            chain.act(action);
            let frozen = 20 * 400;
            prop_assert!(chain.spool().bytes() <= TIGHT.total_bytes + 3 * TIGHT.segment_bytes + frozen + 12 * 400);
        }
        chain.drain();
        let arrived = chain.backend.hosts();
        let unique: BTreeSet<_> = arrived.iter().collect();
        prop_assert_eq!(unique.len(), arrived.len());
        prop_assert_eq!(arrived.len() as u64 + chain.backend.dropped(), chain.made.len() as u64);
    }

    #[test]
    fn damage_never_keeps_it_from_opening(
        actions in proptest::collection::vec(action(), 1..30),
        damage in proptest::collection::vec((any::<u16>(), any::<u16>(), 1u8..), 1..8),
    ) {
        let directory = directory();
        let mut chain = Chain::new(directory.path(), ROOMY);
        for action in actions {
            chain.act(action);
        }
        chain.spool = None;
        let mut files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "spool")).collect();
        files.sort();
        for (file, at, bits) in damage {
            let path = &files[usize::from(file) % files.len()];
            let mut bytes = fs::read(path).unwrap();
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= bits;
            fs::write(path, bytes).unwrap();
        }
        chain.reopen();
        let mut last = chain.spool().acknowledged();
        while chain.spool().waiting() > 0 {
            for event in chain.spool().peek(50, 1 << 20, NOW).unwrap() {
                prop_assert_eq!(event.sequence, last + 1);
                last += 1;
            }
            chain.spool().acknowledge(last).unwrap();
        }
    }
}

fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    numbers.map(|number| Record { number, minute: NOW, body: body(Uuid::nil(), number) }).collect()
}

#[test]
fn a_damaged_record_between_others_is_counted() {
    let directory = directory();
    let mut spool = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    spool.append(Uuid::nil(), &records(1..=5)).unwrap();
    drop(spool);
    let path = directory.path().join("0000000000000001.spool");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|part| part == b"0-3").unwrap();
    bytes[at] = b'9';
    fs::write(&path, bytes).unwrap();
    let mut chain = Chain::new(directory.path(), ROOMY);
    chain.drain();
    assert_eq!(chain.backend.hosts(), ["0-1", "0-2", "0-4", "0-5"]);
    assert_eq!(chain.backend.dropped(), 1);
    assert_eq!(chain.spool().dropped(), 1);
}

#[test]
fn a_second_process_is_told_why_it_is_locked_out() {
    let directory = directory();
    let _first = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    let second = Spool::open(directory.path(), &owner(), ROOMY);
    assert!(matches!(second, Err(SpoolError::Locked(_))));
}

#[test]
fn a_directory_open_to_others_is_closed_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _spool = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory.path()), 0o700);
    for file in fs::read_dir(directory.path()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn a_device_enrolled_anew_starts_at_one_and_sends_nothing_twice() {
    let directory = directory();
    let mut spool = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    spool.append(Uuid::nil(), &records(1..=5)).unwrap();
    assert_eq!(spool.peek(2, 1 << 20, NOW).unwrap().len(), 2);
    drop(spool);
    let anew = Owner { device: Uuid::from_u128(8), ..owner() };
    let mut spool = Spool::open(directory.path(), &anew, ROOMY).unwrap();
    let batch = spool.peek(50, 1 << 20, NOW).unwrap();
    let mut backend = Backend::default();
    backend.take(&batch);
    assert_eq!(backend.hosts(), ["0-3", "0-4", "0-5"]);
    assert_eq!(backend.dropped(), 2);
}

#[test]
fn nothing_made_for_one_tenant_reaches_another() {
    let directory = directory();
    let mut spool = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    spool.append(Uuid::nil(), &records(1..=5)).unwrap();
    drop(spool);
    let other = Owner { device: Uuid::from_u128(8), tenant: "other.example/Other".into() };
    let mut spool = Spool::open(directory.path(), &other, ROOMY).unwrap();
    assert!(spool.peek(50, 1 << 20, NOW).unwrap().is_empty());
    assert_eq!((spool.waiting(), spool.dropped()), (0, 0));
    assert_eq!(spool.highest(Uuid::nil()), 5);
}

#[test]
fn a_backend_restored_from_a_backup_is_followed() {
    let directory = directory();
    let mut spool = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    spool.append(Uuid::nil(), &records(1..=5)).unwrap();
    spool.peek(4, 1 << 20, NOW).unwrap();
    spool.acknowledge(4).unwrap();
    spool.rewind(1).unwrap();
    let batch = spool.peek(50, 1 << 20, NOW).unwrap();
    let sequences: Vec<_> = batch.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, [2, 3]);
    assert_eq!(batch[1].body, EventBody::Dropped(Dropped { events: 3, place: "spool".into() }));
}

#[test]
fn a_number_beyond_what_was_sent_is_adopted() {
    let directory = directory();
    let mut spool = Spool::open(directory.path(), &owner(), ROOMY).unwrap();
    spool.append(Uuid::nil(), &records(1..=5)).unwrap();
    spool.peek(2, 1 << 20, NOW).unwrap();
    spool.acknowledge(100).unwrap();
    assert_eq!(spool.peek(50, 1 << 20, NOW).unwrap()[0].sequence, 101);
    assert!(matches!(spool.acknowledge(u64::MAX), Err(SpoolError::Sequence(_))));
}

#[test]
fn what_was_sent_does_not_stay_on_disk() {
    let directory = directory();
    let mut chain = Chain::new(directory.path(), Limits::default());
    for _ in 0..40 {
        let records = chain.make(100);
        chain.append(&records);
        chain.drain();
    }
    assert!(chain.spool().bytes() < 128 * 1024, "{}", chain.spool().bytes());
}
