//! Personal mode under whatever happens, in whatever order: lock, cap, stop, privacy hours, sleeps of the
//! machine. A model that knows only when what was in force says where each byte belongs.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::*;
use toktra_engine::{
    Counters, Engine, FlowEvent, FlowId, Hours, Opened, PersonalRecord, Policy, Record, Verdict,
};
use toktra_policy::hours::parse;
use toktra_protocol::personal::local::PersonalMode;
use toktra_protocol::{Block, BlockReason, EventBody, Lock, UnixSeconds};

/// The minutes after [`WALL`] in which privacy hours last.
const PRIVATE_MS: std::ops::Range<u64> = 10 * 60_000..20 * 60_000;

#[derive(Clone, Debug)]
enum Action {
    /// A connection opens, and sends its hello whole, or the first half of it.
    Open {
        whole: bool,
    },
    /// One of them sends the rest, is read, or closes.
    Hello(prop::sample::Index),
    Read {
        which: prop::sample::Index,
        sent: u64,
        came: u64,
        turns: u32,
    },
    Close(prop::sample::Index),
    Wait {
        ms: u64,
    },
    Apply {
        lock: bool,
        cap: bool,
        mode: Option<Mode>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Mode {
    /// Seconds from the moment at which it is switched on.
    lasts_s: Option<u64>,
    stopped: bool,
}

fn action() -> impl Strategy<Value = Action> {
    let which = || any::<prop::sample::Index>();
    let mode = (proptest::option::of(0..400u64), prop::bool::weighted(0.2))
        .prop_map(|(lasts_s, stopped)| Mode { lasts_s, stopped });
    prop_oneof![
        4 => prop::bool::weighted(0.8).prop_map(|whole| Action::Open { whole }),
        1 => which().prop_map(Action::Hello),
        8 => (which(), 0..5_000u64, 0..500_000u64, 0..3u32)
            .prop_map(|(which, sent, came, turns)| Action::Read { which, sent, came, turns }),
        2 => which().prop_map(Action::Close),
        6 => prop_oneof![4 => 0..3_000u64, 1 => 0..900_000u64].prop_map(|ms| Action::Wait { ms }),
        4 => (prop::bool::weighted(0.15), prop::bool::weighted(0.25), proptest::option::of(mode))
            .prop_map(|(lock, cap, mode)| Action::Apply { lock, cap, mode }),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Half of its hello is sent.
    Half,
    Open,
    Refused,
    Cut,
}

/// What the model knows of a connection. Its application's name is its number.
#[derive(Debug)]
struct Connection {
    number: u64,
    state: State,
    counters: Counters,
    /// All bytes at the last counts; `None`: there has been a private moment since.
    last: Option<u64>,
    /// Personal mode has lasted at a moment since the last counts, or does.
    personal: bool,
}

/// An engine, and what it should record.
struct World {
    engine: Engine,
    now_ms: u64,
    mode: Option<(Option<u64>, bool)>,
    live: Vec<Connection>,
    opened: u64,
    /// By application: the organisation's bytes, the user's own, and attempts that are told.
    expected: BTreeMap<String, (u64, u64, u64)>,
    corporate: Vec<Record>,
    personal: Vec<PersonalRecord>,
    /// How what flows in personal mode differs from what the action says.
    noise: u64,
}

impl World {
    fn new(noise: u64) -> Self {
        let (engine, live) = (Engine::new(), Vec::new());
        let mut world = Self {
            engine,
            now_ms: 0,
            mode: None,
            live,
            opened: 0,
            expected: BTreeMap::new(),
            corporate: Vec::new(),
            personal: Vec::new(),
            noise,
        };
        world.apply(false, false, None);
        world
    }

    fn is_private(&self) -> bool {
        PRIVATE_MS.contains(&self.now_ms)
    }

    fn is_personal(&self) -> bool {
        self.mode.is_some_and(|(until_s, _)| until_s.is_none_or(|until_s| self.now_ms / 1000 < until_s))
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Wait { ms } => self.wait(*ms),
            Action::Open { whole } => self.open(*whole),
            Action::Apply { lock, cap, mode } => {
                let now_s = self.now_ms / 1000;
                let mode = mode.map(|mode| (mode.lasts_s.map(|lasts_s| now_s + lasts_s), mode.stopped));
                self.apply(*lock, *cap, mode);
            }
            Action::Hello(which) if !self.live.is_empty() => self.hello(which.index(self.live.len())),
            Action::Close(which) if !self.live.is_empty() => self.close(which.index(self.live.len())),
            Action::Read { which, sent, came, turns } if !self.live.is_empty() => {
                self.read(which.index(self.live.len()), *sent, *came, *turns);
            }
            Action::Hello(_) | Action::Close(_) | Action::Read { .. } => {}
        }
        self.take();
    }

    fn wait(&mut self, ms: u64) {
        // Whether anybody looks within or not, as after a sleep of the machine.
        if self.now_ms < PRIVATE_MS.end && self.now_ms + ms >= PRIVATE_MS.start {
            self.live.iter_mut().for_each(|one| one.last = None);
        }
        self.now_ms += ms;
        let cut = self.engine.tick(at(self.now_ms));
        self.note_cut(&cut);
    }

    fn apply(&mut self, lock: bool, cap: bool, mode: Option<(Option<u64>, bool)>) {
        let block = Block {
            reason: BlockReason::Budget,
            message: String::new(),
            providers: Vec::new(),
            until: None,
            budget: None,
        };
        let personal = mode.map(|(until_s, stopped)| PersonalMode {
            account: "ada".into(),
            until: until_s.map(|until_s| UnixSeconds(WALL + until_s)),
            stopped,
        });
        let policy = Policy {
            lock: lock.then(|| Lock { message: String::new() }),
            block: cap.then_some(block),
            hours: Hours::new(parse(&["00:10-00:20"]).unwrap(), jiff::tz::TimeZone::UTC),
            personal,
            ..Policy::default()
        };
        self.mode = mode;
        let personal = self.is_personal();
        self.live.iter_mut().for_each(|one| one.personal |= personal);
        let cut = self.engine.apply(at(self.now_ms), policy);
        self.note_cut(&cut);
    }

    fn open(&mut self, whole: bool) {
        self.opened += 1;
        let number = self.opened;
        let application = number.to_string();
        let opened = Opened { application: Some(&application), ..opened(address(number as u8)) };
        self.engine.handle(at(self.now_ms), FlowId(number), FlowEvent::Opened(opened));
        let (last, personal) = ((!self.is_private()).then_some(0), self.is_personal());
        let counters = counters(0, 0, 0);
        self.live.push(Connection { number, state: State::Half, counters, last, personal });
        let bytes = hello(Some("api.openai.com"), false);
        let first = FlowEvent::Outbound { position: 0, bytes: &bytes[..50] };
        assert_eq!(self.engine.handle(at(self.now_ms), FlowId(number), first), Verdict::NeedMore);
        if whole {
            self.hello(self.live.len() - 1);
        }
    }

    fn hello(&mut self, index: usize) {
        let private = self.is_private();
        let one = &mut self.live[index];
        if one.state != State::Half {
            return;
        }
        let bytes = hello(Some("api.openai.com"), false);
        let rest = FlowEvent::Outbound { position: 50, bytes: &bytes[50..] };
        let verdict = self.engine.handle(at(self.now_ms), FlowId(one.number), rest);
        one.state = match verdict {
            Verdict::Meter => State::Open,
            Verdict::Block => State::Refused,
            // Its hello took more than a minute.
            Verdict::Ignore | Verdict::NeedMore => {
                self.live.remove(index);
                return;
            }
        };
        if verdict == Verdict::Block && !private && !one.personal {
            self.expected.entry(one.number.to_string()).or_default().2 += 1;
        }
    }

    fn read(&mut self, index: usize, sent: u64, came: u64, turns: u32) {
        let one = &mut self.live[index];
        let noise = if one.personal { self.noise } else { 0 };
        one.counters.bytes_out += sent + noise;
        one.counters.bytes_in += came + 9 * noise;
        one.counters.turns = one.counters.turns.map(|before| before + turns + noise as u32 % 3);
        one.counters.inbound_active_ms = Some(one.counters.bytes_in / 50);
        // The kernel tells of a flow that was cut only its end.
        if one.state == State::Cut {
            return self.close(index);
        }
        if one.state != State::Half {
            let event = FlowEvent::Counters(one.counters);
            self.engine.handle(at(self.now_ms), FlowId(one.number), event);
            self.book(index);
        }
    }

    fn close(&mut self, index: usize) {
        let one = &self.live[index];
        let event = FlowEvent::Closed(one.counters);
        self.engine.handle(at(self.now_ms), FlowId(one.number), event);
        self.book(index);
        self.live.remove(index);
    }

    /// Where what came since the last counts belongs.
    fn book(&mut self, index: usize) {
        let (private, personal) = (self.is_private(), self.is_personal());
        let one = &mut self.live[index];
        if !matches!(one.state, State::Open | State::Cut) || private {
            return;
        }
        let total = one.counters.bytes_out + one.counters.bytes_in;
        let grown = one.last.map_or(0, |last| total - last);
        let expected = self.expected.entry(one.number.to_string()).or_default();
        *if one.personal { &mut expected.1 } else { &mut expected.0 } += grown;
        (one.last, one.personal) = (Some(total), personal);
    }

    fn note_cut(&mut self, cut: &[FlowId]) {
        let private = self.is_private();
        for one in self.live.iter_mut().filter(|one| cut.contains(&FlowId(one.number))) {
            assert_eq!(one.state, State::Open);
            one.state = State::Cut;
            if !private && !one.personal {
                self.expected.entry(one.number.to_string()).or_default().2 += 1;
            }
        }
    }

    fn take(&mut self) {
        self.corporate.extend(self.engine.take_records());
        self.personal.extend(self.engine.take_personal());
    }

    fn end(&mut self) {
        while !self.live.is_empty() {
            self.close(0);
        }
        self.take();
        self.expected.retain(|_, what| *what != (0, 0, 0));
    }

    fn recorded(&self) -> BTreeMap<String, (u64, u64, u64)> {
        let mut recorded: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
        for record in &self.corporate {
            match &record.body {
                EventBody::Usage(usage) => {
                    let one = recorded.entry(usage.application.clone().unwrap()).or_default();
                    one.0 += usage.bytes_out + usage.bytes_in + usage.bytes_handshake;
                }
                EventBody::Blocked(blocked) => {
                    recorded.entry(blocked.application.clone().unwrap()).or_default().2 += 1;
                }
                EventBody::Dropped(dropped) => panic!("{dropped:?}"),
            }
        }
        for PersonalRecord { usage, lost, .. } in &self.personal {
            assert_eq!(*lost, 0);
            let one = recorded.entry(usage.application.clone().unwrap()).or_default();
            one.1 += usage.bytes_out + usage.bytes_in + usage.bytes_handshake;
        }
        recorded
    }
}

fn run(actions: &[Action], noise: u64) -> World {
    let mut world = World::new(noise);
    actions.iter().for_each(|action| world.act(action));
    world.end();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_byte_outside_privacy_hours_is_in_exactly_one_ledger_and_no_attempt_of_personal_mode_is_told(
        actions in proptest::collection::vec(action(), 1..80),
    ) {
        let world = run(&actions, 0);
        prop_assert_eq!(world.recorded(), world.expected);
        let minutes = world.corporate.iter().map(|record| record.minute);
        for minute in minutes.chain(world.personal.iter().map(|record| record.minute)) {
            prop_assert!(!PRIVATE_MS.contains(&((minute.0 * 60 - WALL) * 1000)));
        }
    }

    #[test]
    fn the_organisations_records_are_the_same_whatever_flows_in_personal_mode(
        actions in proptest::collection::vec(action(), 1..80),
        noise in 1..100_000u64,
    ) {
        prop_assert_eq!(run(&actions, 0).corporate, run(&actions, noise).corporate);
    }
}
