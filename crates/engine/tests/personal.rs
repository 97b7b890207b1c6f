//! Personal mode: a flow's bytes go into exactly one of two ledgers, on whatever side of a switch they flow;
//! nothing of what it covers is in a record of the organisation's, whatever happens in whatever order.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code")]

mod support;

use support::*;
use toktra_engine::{
    Counters, Engine, FlowEvent, FlowId, Hours, Limits, Now, Opened, PersonalRecord, Policy, Transport,
    Verdict,
};
use toktra_policy::hours::parse;
use toktra_protocol::personal::local::PersonalMode;
use toktra_protocol::{Block, BlockReason, EventBody, Lock, UnixSeconds};

const FLOW: FlowId = FlowId(7);
const NAME: &str = "api.openai.com";
const QUIC_OF_UNKNOWN_VERSION: &[u8] = &[0xcf, 0xfa, 0xce, 0xb0, 0x0c, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];

fn mode(account: &str) -> Option<PersonalMode> {
    Some(PersonalMode { account: account.into(), until: None, stopped: false })
}

fn on() -> Policy {
    Policy { personal: mode("ada"), ..Policy::default() }
}

fn stopped() -> Policy {
    Policy { personal: mode("ada").map(|mode| PersonalMode { stopped: true, ..mode }), ..Policy::default() }
}

fn capped(policy: Policy) -> Policy {
    let block = Block {
        reason: BlockReason::Budget,
        message: "spent".into(),
        providers: Vec::new(),
        until: None,
        budget: None,
    };
    Policy { block: Some(block), ..policy }
}

fn locked(policy: Policy) -> Policy {
    Policy { lock: Some(Lock { message: "locked".into() }), ..policy }
}

fn read(engine: &mut Engine, now: Now, counters: Counters) -> Verdict {
    engine.handle(now, FLOW, FlowEvent::Counters(counters))
}

fn close(engine: &mut Engine, now: Now, flow: FlowId, counters: Counters) {
    engine.handle(now, flow, FlowEvent::Closed(counters));
}

/// Bytes out and in of the user's own records, handshake set apart.
fn personal(engine: &mut Engine) -> (u64, u64) {
    let sum =
        |(sent, came), record: PersonalRecord| (sent + record.usage.bytes_out, came + record.usage.bytes_in);
    engine.take_personal().into_iter().fold((0, 0), sum)
}

fn attempts(engine: &mut Engine) -> usize {
    bodies(engine).iter().filter(|body| matches!(body, EventBody::Blocked(_))).count()
}

fn nameless(engine: &mut Engine, now: Now, flow: u64) -> Verdict {
    let opened = Opened { transport: Transport::Udp, ..opened(address(9)) };
    engine.handle(now, FlowId(flow), FlowEvent::Opened(opened));
    engine.handle(now, FlowId(flow), FlowEvent::Datagram(QUIC_OF_UNKNOWN_VERSION))
}

#[test]
fn a_connection_is_split_at_both_switches_and_what_spans_one_is_the_users_own() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), NAME);
    read(&mut engine, at(500), counters(1, 1_000, 50_000));
    assert!(engine.apply(at(700), on()).is_empty());
    let before = usages(&mut engine);
    assert_eq!((before.len(), before[0].bytes_out, before[0].bytes_in), (1, 1_000, 50_000));
    assert_eq!(before[0].bytes_handshake, 4_600);

    read(&mut engine, at(1_000), counters(1, 1_100, 60_000));
    read(&mut engine, at(1_500), counters(2, 1_700, 70_000));
    engine.apply(at(1_600), Policy::default());
    read(&mut engine, at(2_000), counters(2, 1_800, 75_000));
    assert_eq!(personal(&mut engine), (800, 25_000));
    assert!(bodies(&mut engine).is_empty());

    read(&mut engine, at(2_500), counters(3, 2_800, 76_000));
    close(&mut engine, at(3_000), FLOW, counters(3, 2_800, 80_000));
    let after = usages(&mut engine);
    assert_eq!((after.len(), after[0].bytes_out, after[0].bytes_in), (1, 1_000, 5_000));
    assert_eq!((after[0].exchanges, after[0].bytes_handshake), (1, 0));
    assert!(engine.take_personal().is_empty());
}

#[test]
fn it_ends_by_itself_by_the_clock_on_the_wall() {
    let until = Some(UnixSeconds(WALL + 60));
    let mut engine = Engine::new();
    engine.apply(at(0), Policy { personal: mode("ada").map(|mode| PersonalMode { until, ..mode }), ..on() });
    connect(&mut engine, at(0), FLOW, address(1), NAME);
    read(&mut engine, at(59_500), counters(1, 1_000, 50_000));
    read(&mut engine, at(60_000), counters(1, 1_500, 50_000));
    assert_eq!(personal(&mut engine), (1_500, 50_000));
    read(&mut engine, at(60_500), counters(1, 1_700, 50_000));
    close(&mut engine, at(61_000), FLOW, counters(1, 1_700, 51_000));
    let after = usages(&mut engine);
    assert_eq!((after[0].bytes_out, after[0].bytes_in), (200, 1_000));
    assert!(engine.take_personal().is_empty());
}

#[test]
fn it_covers_its_account_alone() {
    let mut engine = Engine::new();
    engine.apply(at(0), capped(on()));
    assert_eq!(connect(&mut engine, at(0), FLOW, address(1), NAME), Verdict::Meter);
    for (flow, account) in [(1, Some("bob")), (2, None), (3, Some("Ada"))] {
        let opened = Opened { user_account: account, ..opened(address(1)) };
        engine.handle(at(0), FlowId(flow), FlowEvent::Opened(opened));
        let hello = hello(Some(NAME), false);
        let event = FlowEvent::Outbound { position: 0, bytes: &hello };
        assert_eq!(engine.handle(at(0), FlowId(flow), event), Verdict::Block, "{account:?}");
    }
    assert_eq!(attempts(&mut engine), 3);
    // The mode becomes another's: nothing that was read of the first is given to the second.
    read(&mut engine, at(500), counters(1, 1_000, 50_000));
    engine.apply(at(600), Policy { personal: mode("bob"), ..Policy::default() });
    close(&mut engine, at(1_000), FLOW, counters(1, 1_000, 60_000));
    assert_eq!(personal(&mut engine), (1_000, 60_000));
    assert!(bodies(&mut engine).is_empty());
}

#[test]
fn whatever_blocks_it_blocks_without_a_record() {
    for (policy, blocks) in
        [(capped(on()), false), (locked(on()), true), (stopped(), true), (locked(stopped()), true)]
    {
        let mut engine = Engine::new();
        engine.apply(at(0), on());
        connect(&mut engine, at(0), FLOW, address(1), NAME);
        read(&mut engine, at(500), counters(1, 1_000, 50_000));
        let cut: &[FlowId] = if blocks { &[FLOW] } else { &[] };
        assert_eq!(engine.apply(at(600), policy.clone()), cut, "{policy:?}");
        assert_eq!(engine.is_strict(at(600)), policy.is_blocking(UnixSeconds(WALL), false));
        let verdict = connect(&mut engine, at(700), FlowId(8), address(1), NAME);
        assert_eq!(verdict == Verdict::Block, blocks, "{policy:?}");
        close(&mut engine, at(800), FLOW, counters(1, 1_000, 51_000));
        close(&mut engine, at(800), FlowId(8), counters(0, 0, 0));
        assert_eq!(personal(&mut engine).1, 51_000, "{policy:?}");
        assert!(bodies(&mut engine).is_empty(), "{policy:?}");
        assert_eq!(engine.limits_hit().records, 0);
    }
}

#[test]
fn where_a_cap_holds_its_end_cuts_what_is_open_without_a_record() {
    let mut engine = Engine::new();
    engine.apply(at(0), capped(on()));
    connect(&mut engine, at(0), FLOW, address(1), NAME);
    read(&mut engine, at(500), counters(1, 1_000, 50_000));
    assert_eq!(engine.apply(at(600), capped(Policy::default())), [FLOW]);
    close(&mut engine, at(700), FLOW, counters(1, 1_000, 51_000));
    assert_eq!(personal(&mut engine), (1_000, 51_000));
    assert!(bodies(&mut engine).is_empty());
    // What is tried from now on is told.
    assert_eq!(connect(&mut engine, at(800), FlowId(8), address(1), NAME), Verdict::Block);
    assert_eq!(attempts(&mut engine), 1);
}

#[test]
fn a_hello_of_which_a_part_was_sent_within_is_the_users_own() {
    for (after, verdict) in [(Policy::default(), Verdict::Meter), (capped(Policy::default()), Verdict::Block)]
    {
        let mut engine = Engine::new();
        let bytes = hello(Some(NAME), false);
        engine.handle(at(0), FLOW, FlowEvent::Opened(opened(address(1))));
        engine.apply(at(1), on());
        engine.handle(at(2), FLOW, FlowEvent::Outbound { position: 0, bytes: &bytes[..50] });
        engine.apply(at(3), after);
        let rest = FlowEvent::Outbound { position: 50, bytes: &bytes[50..] };
        assert_eq!(engine.handle(at(4), FLOW, rest), verdict);
        read(&mut engine, at(500), counters(1, 1_000, 50_000));
        let carried = if verdict == Verdict::Meter { (1_000, 50_000) } else { (0, 0) };
        assert_eq!(personal(&mut engine), carried);
        close(&mut engine, at(1_000), FLOW, counters(1, 1_000, 50_000));
        assert!(bodies(&mut engine).is_empty());
    }
}

#[test]
fn in_privacy_hours_neither_ledger_grows() {
    let hours = Hours::new(parse(&["00:10-00:20"]).unwrap(), jiff::tz::TimeZone::UTC);
    let mut engine = Engine::new();
    engine.apply(at(0), Policy { hours: hours.clone(), ..on() });
    connect(&mut engine, at(599_000), FLOW, address(1), NAME);
    read(&mut engine, at(599_500), counters(1, 1_000, 50_000));
    read(&mut engine, at(600_000), counters(1, 1_500, 60_000));
    let records = engine.take_personal();
    assert_eq!(records[0].minute.0, WALL / 60 + 9, "the last minute before the window");
    assert_eq!((records[0].usage.bytes_out, records[0].usage.bytes_in), (1_000, 50_000));
    // The mode ends within: what came since nobody counts.
    engine.apply(at(700_000), Policy { hours, ..Policy::default() });
    read(&mut engine, at(1_200_400), counters(1, 9_000, 90_000));
    close(&mut engine, at(1_200_900), FLOW, counters(1, 9_000, 91_000));
    assert!(engine.take_personal().is_empty());
    let after = usages(&mut engine);
    assert_eq!((after[0].bytes_out, after[0].bytes_in), (0, 1_000));
}

#[test]
fn what_is_lost_of_it_is_said_to_its_user_alone() {
    let mut engine = Engine::with_limits(Limits { attributed: 1, records: 1, ..Limits::default() });
    engine.apply(at(0), on());
    connect(&mut engine, at(0), FLOW, address(1), NAME);
    // No room in the table, then none for a record.
    connect(&mut engine, at(0), FlowId(8), address(1), NAME);
    close(&mut engine, at(100), FLOW, counters(1, 100, 100));
    connect(&mut engine, at(200), FLOW, address(1), NAME);
    close(&mut engine, at(300), FLOW, counters(1, 100, 100));
    let told =
        |engine: &mut Engine| engine.take_personal().iter().map(|record| record.lost).collect::<Vec<_>>();
    assert_eq!(told(&mut engine), [1]);
    connect(&mut engine, at(400), FLOW, address(1), NAME);
    close(&mut engine, at(500), FLOW, counters(1, 100, 100));
    assert_eq!(told(&mut engine), [1]);
    assert!(bodies(&mut engine).is_empty());
    assert_eq!(engine.limits_hit().records, 0);
}

#[test]
fn nobody_elses_connection_is_named_by_what_it_showed() {
    let mut engine = Engine::new();
    engine.apply(at(0), on());
    let old = |account| Opened { preexisting: true, user_account: Some(account), ..opened(address(1)) };
    engine.handle(at(0), FlowId(1), FlowEvent::Opened(old("bob")));
    connect(&mut engine, at(1), FLOW, address(1), NAME);
    assert!(engine.take_found().is_empty());
    assert_eq!(engine.handle(at(2), FlowId(2), FlowEvent::Opened(old("bob"))), Verdict::Ignore);
    // What the organisation knows of an address may well say what the user's own is.
    engine.handle(at(3), FlowId(3), FlowEvent::Opened(old("ada")));
    let bob = Opened { user_account: Some("bob"), ..opened(address(1)) };
    engine.handle(at(4), FlowId(4), FlowEvent::Opened(bob));
    let bytes = hello(Some(NAME), false);
    engine.handle(at(4), FlowId(4), FlowEvent::Outbound { position: 0, bytes: &bytes });
    let mut found = engine.take_found();
    found.sort();
    assert_eq!(found, [FlowId(1), FlowId(2), FlowId(3)]);
    engine.handle(at(500), FlowId(3), FlowEvent::Counters(counters(1, 10, 10)));
    engine.handle(at(600), FlowId(3), FlowEvent::Closed(counters(1, 10, 10)));
    assert!(bodies(&mut engine).is_empty() && engine.take_personal().len() == 1);
}

#[test]
fn quic_without_a_name_passes_where_a_cap_is_lifted_and_is_dropped_where_it_stops() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), NAME);
    assert_eq!(engine.apply(at(1), capped(Policy::default())), [FLOW]);
    assert_eq!(nameless(&mut engine, at(2), 1), Verdict::Block);
    engine.apply(at(3), capped(on()));
    assert_eq!(engine.take_freed(), [FlowId(1)]);
    assert_eq!(nameless(&mut engine, at(4), 2), Verdict::Ignore);
    let mut cut = engine.apply(at(5), capped(stopped()));
    cut.sort();
    assert_eq!(cut, [FlowId(1), FlowId(2)]);
    assert_eq!(nameless(&mut engine, at(6), 3), Verdict::Block);
    engine.apply(at(7), Policy::default());
    let mut freed = engine.take_freed();
    freed.sort();
    assert_eq!(freed, [FlowId(1), FlowId(2), FlowId(3)]);
}

#[test]
fn what_a_program_showed_within_is_forgotten_at_the_end() {
    let mut engine = Engine::new();
    engine.apply(at(0), on());
    connect(&mut engine, at(0), FLOW, address(1), NAME);
    assert_eq!(nameless(&mut engine, at(1), 1), Verdict::Ignore);
    assert_eq!(engine.apply(at(2), stopped()), [FLOW, FlowId(1)]);
    engine.apply(at(3), capped(Policy::default()));
    assert_eq!(engine.take_freed(), [FlowId(1)]);
    assert_eq!(nameless(&mut engine, at(4), 2), Verdict::Ignore);
}

#[test]
fn a_datagram_flow_that_was_stopped_is_the_users_own_up_to_its_next_counts() {
    let mut engine = Engine::new();
    engine.apply(at(0), on());
    let opened = Opened { transport: Transport::Udp, ..opened(address(1)) };
    engine.handle(at(0), FLOW, FlowEvent::Opened(opened));
    for datagram in quic_hello() {
        engine.handle(at(0), FLOW, FlowEvent::Datagram(&datagram));
    }
    read(&mut engine, at(500), counters(1, 1_000, 50_000));
    assert_eq!(engine.apply(at(600), stopped()), [FLOW]);
    engine.apply(at(700), Policy::default());
    assert_eq!(engine.take_found(), [FLOW]);
    read(&mut engine, at(1_000), counters(1, 1_200, 50_000));
    assert_eq!(personal(&mut engine), (1_200, 50_000));
    close(&mut engine, at(2_000), FLOW, counters(1, 1_200, 50_700));
    assert_eq!(usages(&mut engine)[0].bytes_in, 700);
}
