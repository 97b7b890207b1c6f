//! What a block does beyond refusing and cutting: attempts in a loop, QUIC that nobody can read, and
//! what happens when it ends.

mod support;

use support::*;
use toktra_engine::{Engine, FlowEvent, FlowId, Now, Opened, Policy, Transport, Verdict};
use toktra_protocol::{Block, BlockReason, EventBody, Lock, UnixSeconds};

const QUIC_OF_UNKNOWN_VERSION: &[u8] = &[0xcf, 0xfa, 0xce, 0xb0, 0x0c, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];

fn locked() -> Policy {
    Policy { lock: Some(Lock { message: "locked".into() }), ..Policy::default() }
}

fn blocked(provider: &str, until_s: u64) -> Policy {
    let block = Block {
        reason: BlockReason::Budget,
        message: "over budget".into(),
        providers: vec![provider.into()],
        until: None,
        budget: None,
    };
    Policy { block: Some(block), block_until: Some(UnixSeconds(WALL + until_s)), ..Policy::default() }
}

fn attempts(engine: &mut Engine) -> usize {
    bodies(engine).iter().filter(|body| matches!(body, EventBody::Blocked(_))).count()
}

fn datagram(engine: &mut Engine, now: Now, flow: u64, application: &str, bytes: &[u8]) -> Verdict {
    let application = Some(application);
    let opened = Opened { transport: Transport::Udp, application, ..opened(address(9)) };
    assert_eq!(engine.handle(now, FlowId(flow), FlowEvent::Opened(opened)), Verdict::NeedMore);
    engine.handle(now, FlowId(flow), FlowEvent::Datagram(bytes))
}

fn tcp(engine: &mut Engine, now: Now, flow: u64, application: &str, name: &str) -> Verdict {
    let opened = Opened { application: Some(application), ..opened(address(1)) };
    engine.handle(now, FlowId(flow), FlowEvent::Opened(opened));
    let bytes = hello(Some(name), false);
    engine.handle(now, FlowId(flow), FlowEvent::Outbound { position: 0, bytes: &bytes })
}

#[test]
fn a_client_that_tries_in_a_loop_is_told_of_once_a_minute_for_each_host_and_program() {
    let mut engine = Engine::new();
    engine.apply(at(0), locked());
    for flow in 0..1000 {
        assert_eq!(tcp(&mut engine, at(flow), flow, "curl", "api.openai.com"), Verdict::Block);
        engine.handle(at(flow), FlowId(flow), FlowEvent::Closed(counters(0, 0, 0)));
    }
    assert_eq!(attempts(&mut engine), 1);
    tcp(&mut engine, at(2000), 2000, "curl", "api.anthropic.com");
    tcp(&mut engine, at(2000), 2001, "python", "api.openai.com");
    assert_eq!(attempts(&mut engine), 2);
    tcp(&mut engine, at(60_000), 2002, "curl", "api.openai.com");
    assert_eq!(attempts(&mut engine), 1);
}

#[test]
fn hosts_without_end_are_counted_as_lost_and_not_recorded() {
    let mut engine = Engine::new();
    engine.apply(at(0), locked());
    for flow in 0..300 {
        let name = format!("customer{flow}.openai.azure.com");
        assert_eq!(tcp(&mut engine, at(0), flow, "curl", &name), Verdict::Block);
    }
    assert_eq!(attempts(&mut engine), 256);
    assert_eq!(engine.limits_hit().records, 300 - 256);
}

#[test]
fn quic_without_a_name_is_dropped_only_of_a_program_whose_provider_is_blocked() {
    let mut engine = Engine::new();
    tcp(&mut engine, at(0), 1, "browser", "api.openai.com");
    // Before the cap: it passes, whoever it is.
    assert_eq!(datagram(&mut engine, at(0), 2, "browser", QUIC_OF_UNKNOWN_VERSION), Verdict::Ignore);
    assert_eq!(datagram(&mut engine, at(0), 3, "game", QUIC_OF_UNKNOWN_VERSION), Verdict::Ignore);
    // Another provider is blocked, to which the browser does not speak.
    assert!(engine.apply(at(1), blocked("anthropic", 1000)).is_empty());
    // Its own is: the open connection is cut, and what has no name with it.
    assert_eq!(engine.apply(at(2), blocked("openai", 1000)), [FlowId(1), FlowId(2)]);
    assert_eq!(datagram(&mut engine, at(3), 4, "browser", QUIC_OF_UNKNOWN_VERSION), Verdict::Block);
    assert_eq!(datagram(&mut engine, at(3), 5, "game", QUIC_OF_UNKNOWN_VERSION), Verdict::Ignore);
    // Neither STUN nor DTLS nor what has a name of nobody's.
    assert_eq!(datagram(&mut engine, at(3), 6, "browser", &[0, 1, 0, 0, 0x21, 0x12]), Verdict::Ignore);
    assert_eq!(datagram(&mut engine, at(3), 7, "browser", &[22, 254, 253, 0, 0]), Verdict::Ignore);
    assert_eq!(tcp(&mut engine, at(3), 8, "browser", "www.example.org"), Verdict::Ignore);
    // A program that shows itself later to speak to it.
    assert_eq!(tcp(&mut engine, at(4), 9, "game", "api.openai.com"), Verdict::Block);
    let mut cut = engine.tick(at(5));
    cut.sort();
    assert_eq!(cut, [FlowId(3), FlowId(5)]);
}

#[test]
fn when_a_block_ends_nameless_quic_passes_again_and_a_datagram_flow_is_counted_again() {
    let ends: [fn(&mut Engine) -> Vec<FlowId>; 2] = [
        // Lifted; or its time is over.
        |engine| engine.apply(at(6_000), Policy::default()),
        |engine| engine.tick(at(10_000)),
    ];
    for end in ends {
        let mut engine = Engine::new();
        engine.apply(at(0), blocked("openai", 10));
        assert_eq!(tcp(&mut engine, at(1), 1, "browser", "api.openai.com"), Verdict::Block);
        assert_eq!(datagram(&mut engine, at(1), 2, "browser", QUIC_OF_UNKNOWN_VERSION), Verdict::Block);
        let opened = Opened { transport: Transport::Udp, ..opened(address(7)) };
        engine.handle(at(1), FlowId(3), FlowEvent::Opened(opened));
        let [first, second] = quic_hello();
        engine.handle(at(1), FlowId(3), FlowEvent::Datagram(&first));
        assert_eq!(engine.handle(at(1), FlowId(3), FlowEvent::Datagram(&second)), Verdict::Block);
        engine.tick(at(2));
        assert!(engine.is_strict(at(5_000)));
        assert!(end(&mut engine).is_empty());
        assert!(!engine.is_strict(at(10_000)));
        assert_eq!((engine.take_freed(), engine.take_found()), (vec![FlowId(2)], vec![FlowId(3)]));
        assert_eq!(tcp(&mut engine, at(11_000), 4, "browser", "api.openai.com"), Verdict::Meter);
        assert_eq!(
            engine.handle(at(12_000), FlowId(3), FlowEvent::Counters(counters(1, 500, 5_000))),
            Verdict::Meter
        );
    }
}
