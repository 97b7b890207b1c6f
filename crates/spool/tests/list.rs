//! A listing shows what will be sent, as it will be sent, and changes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use toktra_protocol::event::Dropped;
use toktra_protocol::local::Record;
use toktra_protocol::{Event, EventBody, Minute};
use toktra_spool::{Limits, Owner, Spool};
use uuid::Uuid;

const NOW: Minute = Minute(29_000_000);

#[derive(Clone, Debug)]
enum Action {
    Append(u8),
    Send { events: u8, answered: bool },
    Quarantine(prop::sample::Index),
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1u8..12).prop_map(Action::Append),
        3 => (1u8..20, any::<bool>()).prop_map(|(events, answered)| Action::Send { events, answered }),
        1 => any::<prop::sample::Index>().prop_map(Action::Quarantine),
        1 => Just(Action::Reopen),
    ]
}

struct World {
    directory: tempfile::TempDir,
    spool: Option<Spool>,
    made: u64,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut world = Self { directory, spool: None, made: 0 };
        world.reopen();
        world
    }

    fn reopen(&mut self) {
        self.spool = None;
        let owner = Owner { device: Uuid::from_u128(7), tenant: "acme.example/Acme".into() };
        let limits = Limits { total_bytes: 64 << 20, segment_bytes: 2_000 };
        self.spool = Some(Spool::open(self.directory.path(), &owner, limits).unwrap());
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn append(&mut self, count: u64) {
        let body = |number| EventBody::Dropped(Dropped { events: number, place: "a".repeat(100) });
        let records: Vec<Record> = (self.made + 1..=self.made + count)
            .map(|number| Record { number, minute: NOW, body: body(number) })
            .collect();
        self.made += count;
        self.spool().append(Uuid::from_u128(1), &records).unwrap();
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Append(count) => self.append(u64::from(*count)),
            Action::Send { events, answered } => {
                let batch = self.spool().peek(usize::from(*events), 1 << 20, NOW).unwrap();
                if let (true, Some(last)) = (answered, batch.last()) {
                    self.spool().acknowledge(last.sequence).unwrap();
                }
            }
            Action::Quarantine(which) => {
                let batch = self.spool().peek(20, 1 << 20, NOW).unwrap();
                if !batch.is_empty() {
                    self.spool().quarantine(batch[which.index(batch.len())].sequence).unwrap();
                }
            }
            Action::Reopen => self.reopen(),
        }
    }

    fn list(&mut self) -> Vec<(u64, Event)> {
        self.spool().list(0, 10_000).unwrap()
    }

    /// What a backend gets from here on.
    fn drain(&mut self) -> Vec<Event> {
        let mut sent = Vec::new();
        loop {
            let batch = self.spool().peek(7, 1 << 20, NOW).unwrap();
            let Some(last) = batch.last() else { return sent };
            self.spool().acknowledge(last.sequence).unwrap();
            sent.extend(batch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_listed_is_what_will_be_sent(
        actions in prop::collection::vec(action(), 1..30),
        page in 1..9usize,
    ) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
            let listed = world.list();
            prop_assert_eq!(listed.len() as u64, world.spool().waiting());
            prop_assert_eq!(&world.list(), &listed, "looking changes nothing");
            // In pages, each from the place after the last.
            let (mut paged, mut from) = (Vec::new(), 0);
            loop {
                let next = world.spool().list(from, page).unwrap();
                let Some((last, _)) = next.last() else { break };
                from = last + 1;
                paged.extend(next);
            }
            prop_assert_eq!(&paged, &listed);
        }
        let listed: Vec<Event> = world.list().into_iter().map(|(_, event)| event).collect();
        world.reopen();
        prop_assert_eq!(world.drain(), listed);
        prop_assert!(world.list().is_empty());
    }
}

#[test]
fn a_listing_makes_no_number_durable() {
    let mut world = World::new();
    world.append(3);
    assert_eq!(world.list().iter().map(|(_, event)| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    world.reopen();
    let batch = world.spool().peek(2, 1 << 20, NOW).unwrap();
    assert_eq!(batch.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_is_kept_back_is_listed_as_it_leaves_and_not_as_it_was() {
    let mut world = World::new();
    world.append(3);
    world.spool().peek(3, 1 << 20, NOW).unwrap();
    world.spool().quarantine(2).unwrap();
    let listed = world.list();
    let EventBody::Dropped(dropped) = &listed[1].1.body else { unreachable!() };
    assert_eq!((listed[1].1.sequence, dropped.place.as_str()), (2, "quarantine"));
}
