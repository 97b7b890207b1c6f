//! What the backend counts and what the spool adds to it: together never more than was spent, and
//! exactly that as long as the spool stays open and nothing is dropped.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use toktra_protocol::event::Usage;
use toktra_protocol::local::Record;
use toktra_protocol::{Estimate, Event, EventBody, Minute, NameSource};
use toktra_spool::{Limits, Owner, Spool};
use uuid::Uuid;

const NOW: Minute = Minute(29_000_000);

#[derive(Clone, Debug)]
enum Action {
    Append(u8),
    Send {
        events: u8,
        arrives: bool,
        answered: bool,
    },
    /// The backend tells what it counts, and the device what it need not remember.
    Count,
    Quarantine,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1u8..12).prop_map(Action::Append),
        4 => (1u8..20, any::<bool>(), any::<bool>())
            .prop_map(|(events, arrives, answered)| Action::Send { events, arrives, answered }),
        2 => Just(Action::Count),
        1 => Just(Action::Quarantine),
        1 => Just(Action::Reopen),
    ]
}

fn record(number: u64) -> Record {
    let tokens = |point: u64| Estimate { low: point, point, high: point };
    let body = EventBody::Usage(Usage {
        provider: "openai".into(),
        service: "openai-api".into(),
        host: "api.openai.com".into(),
        name_source: NameSource::Sni,
        user_account: None,
        application: Some("curl".into()),
        exchanges: 1,
        bytes_out: 10,
        bytes_in: 10,
        bytes_handshake: 10,
        duration_s: 1,
        streaming: false,
        partial: false,
        tokens_in: tokens(number * 10),
        tokens_out: tokens(number),
        calibration: "test".into(),
    });
    Record { number, minute: NOW, body }
}

fn low(event: &Event) -> u64 {
    match &event.body {
        EventBody::Usage(usage) => usage.tokens_in.low + usage.tokens_out.low,
        _ => 0,
    }
}

struct World {
    directory: tempfile::TempDir,
    limits: Limits,
    spool: Option<Spool>,
    stored: Vec<Event>,
    made: u64,
    /// In all, those that cannot be sent left out.
    spent: u64,
    /// Something was dropped or forgotten, so that the sum may be less.
    less: bool,
}

impl World {
    fn new(limits: Limits) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut world =
            Self { directory, limits, spool: None, stored: Vec::new(), made: 0, spent: 0, less: false };
        world.reopen();
        world
    }

    fn reopen(&mut self) {
        self.spool = None;
        let owner = Owner { device: Uuid::from_u128(7), tenant: "acme.example/Acme".into() };
        self.spool = Some(Spool::open(self.directory.path(), &owner, self.limits).unwrap());
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Append(count) => {
                let records: Vec<Record> =
                    (1..=u64::from(count)).map(|ahead| record(self.made + ahead)).collect();
                self.made += u64::from(count);
                self.spent += records.iter().map(|record| record.number * 11).sum::<u64>();
                self.spool().append(Uuid::from_u128(1), &records).unwrap();
            }
            Action::Send { events, arrives, answered } => {
                let batch = self.spool().peek(events.into(), 1 << 20, NOW).unwrap();
                if arrives {
                    let have = self.stored.len() as u64;
                    self.stored.extend(batch.into_iter().filter(|event| event.sequence > have));
                    let have = self.stored.len() as u64;
                    if answered {
                        self.spool().acknowledge(have).unwrap();
                    }
                }
            }
            Action::Count => {
                let counted = self.stored.len() as u64;
                self.spool().forget_spent(counted);
            }
            Action::Quarantine => {
                let have = self.stored.len() as u64;
                let next = self.spool().peek(1, 1 << 20, NOW).unwrap();
                if let Some(event) = next.first().filter(|event| event.sequence > have) {
                    self.spool().quarantine(event.sequence).unwrap();
                    self.spent -= low(event);
                }
            }
            Action::Reopen => {
                self.less = true;
                self.reopen();
            }
        }
    }

    /// At any moment, whatever of its events the backend says that it counts.
    fn check(&mut self, counted: u64) {
        let booked: u64 = self.stored.iter().take(counted as usize).map(low).sum();
        let own = self.spool().spent();
        let own: u64 = own.iter().filter(|one| one.sequence > counted).map(|one| one.tokens.low).sum();
        let dropped = self.spool().dropped() > 0;
        assert!(booked + own <= self.spent, "{booked} + {own} exceed {}", self.spent);
        if !self.less && !dropped && counted == self.stored.len() as u64 {
            assert_eq!(booked + own, self.spent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_token_is_counted_twice(actions in prop::collection::vec(action(), 1..40), tight: bool) {
        let total_bytes = if tight { 12_000 } else { 64 << 20 };
        let mut world = World::new(Limits { total_bytes, segment_bytes: 2_000 });
        for action in &actions {
            world.act(action);
            let stored = world.stored.len() as u64;
            for counted in [0, stored / 2, stored] {
                world.check(counted);
            }
        }
    }
}
