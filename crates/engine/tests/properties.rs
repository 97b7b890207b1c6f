//! Whatever a capture sees, in whatever order.

mod support;

use std::collections::HashMap;

use proptest::prelude::*;
use support::*;
use toktra_catalog::Catalog;
use toktra_engine::{
    Counters, Engine, FlowEvent, FlowId, Handshake, Limits, Opened, Policy, Transport, Verdict,
};
use toktra_protocol::{Block, BlockReason, Event, EventBody, Lock, UnixSeconds};

const NAMES: &[&str] =
    &["api.openai.com", "claude.ai", "www.example.org", "intranet.acme.example", "cloudflare-ech.com"];

#[derive(Clone, Debug)]
enum Action {
    Open { flow: u64, remote: u8, udp: bool, preexisting: bool, asked: Option<usize> },
    Hello { flow: u64, name: usize, ech: bool, cut: usize },
    Bytes { flow: u64, position: u64, bytes: Vec<u8> },
    Datagram { flow: u64, bytes: Vec<u8> },
    Count { flow: u64, sent: u64, received: u64, turns: Option<u32>, told: bool },
    Close { flow: u64 },
    Tick,
    Apply { lock: bool, block: bool },
    Wait { ms: u64 },
    Take,
}

fn action() -> impl Strategy<Value = Action> {
    let flow = || 0..6u64;
    let bytes = || proptest::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        3 => (flow(), 0..3u8, prop::bool::weighted(0.2), prop::bool::weighted(0.2), proptest::option::of(0..NAMES.len()))
            .prop_map(|(flow, remote, udp, preexisting, asked)| Action::Open { flow, remote, udp, preexisting, asked }),
        4 => (flow(), 0..NAMES.len(), prop::bool::weighted(0.2), 0..80usize)
            .prop_map(|(flow, name, ech, cut)| Action::Hello { flow, name, ech, cut }),
        1 => (flow(), 0..40_000u64, bytes()).prop_map(|(flow, position, bytes)| Action::Bytes { flow, position, bytes }),
        1 => (flow(), bytes()).prop_map(|(flow, bytes)| Action::Datagram { flow, bytes }),
        5 => (flow(), 0..5_000u64, 0..200_000u64, proptest::option::of(0..3u32), any::<bool>())
            .prop_map(|(flow, sent, received, turns, told)| Action::Count { flow, sent, received, turns, told }),
        2 => flow().prop_map(|flow| Action::Close { flow }),
        2 => Just(Action::Tick),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(lock, block)| Action::Apply { lock, block }),
        2 => (0..90_000u64).prop_map(|ms| Action::Wait { ms }),
        1 => Just(Action::Take),
    ]
}

fn policy(lock: bool, block: bool) -> Policy {
    let budget = Block {
        reason: BlockReason::Budget,
        message: String::new(),
        providers: vec!["openai".into()],
        until: None,
        budget: None,
    };
    Policy {
        lock: lock.then(|| Lock { message: String::new() }),
        block: block.then_some(budget),
        block_until: Some(UnixSeconds(WALL + 600)),
        own_hosts: vec!["ingest.acme.example".into()],
        ..Policy::default()
    }
}

/// Every record names a provider's host by the catalogue, and would be accepted by the server.
fn check(engine: &mut Engine) -> Result<(), TestCaseError> {
    for record in engine.take_records() {
        let (host, provider, service) = match &record.body {
            EventBody::Usage(usage) => (&usage.host, &usage.provider, &usage.service),
            EventBody::Blocked(blocked) => (&blocked.host, &blocked.provider, &blocked.service),
            EventBody::Dropped(_) => continue,
        };
        let found = Catalog::builtin().lookup(host);
        prop_assert_eq!(found.map(|found| found.id.as_str()), Some(service.as_str()), "{}", host);
        prop_assert_eq!(found.map(|found| &Catalog::builtin().provider(found).id), Some(provider));
        prop_assert_ne!(host, "cloudflare-ech.com");
        let event = Event { sequence: 1, minute: record.minute, body: record.body };
        prop_assert!(event.check().is_ok());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_order_of_events_panics_or_names_a_stranger(actions in proptest::collection::vec(action(), 0..120), tight: bool) {
        let limits = if tight {
            Limits { undecided: 2, undecided_bytes: 200, attributed: 2, records: 4 }
        } else {
            Limits::default()
        };
        let mut engine = Engine::with_limits(limits);
        let mut now_ms = 0;
        let mut counts: HashMap<u64, Counters> = HashMap::new();
        for action in actions {
            match action {
                Action::Open { flow, remote, udp, preexisting, asked } => {
                    counts.remove(&flow);
                    let opened = Opened {
                        transport: if udp { Transport::Udp } else { Transport::Tcp },
                        asked_name: asked.map(|index| NAMES[index]),
                        preexisting,
                        ..opened(address(remote))
                    };
                    engine.handle(at(now_ms), FlowId(flow), FlowEvent::Opened(opened));
                }
                Action::Hello { flow, name, ech, cut } => {
                    let bytes = hello(Some(NAMES[name]), ech);
                    let (first, second) = bytes.split_at(cut.min(bytes.len()));
                    engine.handle(at(now_ms), FlowId(flow), FlowEvent::Outbound { position: cut as u64, bytes: second });
                    engine.handle(at(now_ms), FlowId(flow), FlowEvent::Outbound { position: 0, bytes: first });
                }
                Action::Bytes { flow, position, bytes } => {
                    engine.handle(at(now_ms), FlowId(flow), FlowEvent::Outbound { position, bytes: &bytes });
                }
                Action::Datagram { flow, bytes } => {
                    engine.handle(at(now_ms), FlowId(flow), FlowEvent::Datagram(&bytes));
                }
                Action::Count { flow, sent, received, turns, told } => {
                    let count = counts.entry(flow).or_default();
                    count.bytes_out += sent;
                    count.bytes_in += received;
                    count.turns = turns.map(|turns| count.turns.unwrap_or(0) + turns);
                    count.handshake = told.then_some(Handshake { bytes_out: 700, bytes_in: 3_000 });
                    engine.handle(at(now_ms), FlowId(flow), FlowEvent::Counters(*count));
                }
                Action::Close { flow } => {
                    let last = counts.remove(&flow).unwrap_or_default();
                    let verdict = engine.handle(at(now_ms), FlowId(flow), FlowEvent::Closed(last));
                    prop_assert_ne!(verdict, Verdict::NeedMore);
                    let after = engine.handle(at(now_ms), FlowId(flow), FlowEvent::Counters(last));
                    prop_assert_eq!(after, Verdict::Ignore, "a closed flow is forgotten");
                }
                Action::Tick => {
                    engine.tick(at(now_ms));
                    engine.take_found();
                }
                Action::Apply { lock, block } => {
                    engine.apply(at(now_ms), policy(lock, block));
                }
                Action::Wait { ms } => now_ms += ms,
                Action::Take => check(&mut engine)?,
            }
        }
        check(&mut engine)?;
    }

    #[test]
    fn every_byte_of_a_metered_flow_is_recorded_once(
        grown in proptest::collection::vec((0..5_000u64, 0..300_000u64, 0..70_000u64, any::<bool>()), 1..30),
        cut_after in proptest::option::of(0..30usize),
    ) {
        let mut engine = Engine::new();
        let flow = FlowId(7);
        prop_assert_eq!(connect(&mut engine, at(0), flow, address(1), "api.openai.com"), Verdict::Meter);
        let (mut now_ms, mut last) = (0, Counters::default());
        for (index, (sent, received, ms, turn)) in grown.into_iter().enumerate() {
            now_ms += ms;
            last.bytes_out += sent;
            last.bytes_in += received;
            last.turns = Some(last.turns.unwrap_or(0) + u32::from(turn));
            engine.handle(at(now_ms), flow, FlowEvent::Counters(last));
            engine.tick(at(now_ms));
            if cut_after == Some(index) {
                prop_assert_eq!(engine.apply(at(now_ms), policy(true, false)), [flow]);
            }
        }
        engine.handle(at(now_ms), flow, FlowEvent::Closed(last));
        let total: u64 = usages(&mut engine).iter().map(|u| u.bytes_out + u.bytes_in + u.bytes_handshake).sum();
        prop_assert_eq!(total, last.bytes_out + last.bytes_in);
    }

    #[test]
    fn a_stranger_is_always_let_through(name in "[a-z0-9-]{1,20}(\\.[a-z0-9-]{1,10}){0,3}", lock: bool, cut in 0..100usize) {
        prop_assume!(Catalog::builtin().lookup(&name).is_none());
        let mut engine = Engine::new();
        engine.apply(at(0), policy(lock, true));
        engine.handle(at(0), FlowId(1), FlowEvent::Opened(opened(address(1))));
        let bytes = hello(Some(&name), false);
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        engine.handle(at(0), FlowId(1), FlowEvent::Outbound { position: 0, bytes: first });
        let verdict = engine.handle(at(0), FlowId(1), FlowEvent::Outbound { position: first.len() as u64, bytes: second });
        prop_assert_eq!(verdict, Verdict::Ignore);
        engine.tick(at(100_000));
        prop_assert!(engine.take_records().is_empty());
    }
}
