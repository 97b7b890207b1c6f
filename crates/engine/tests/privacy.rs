//! Privacy hours: what is within is counted nowhere, what is outside is, on whatever side of an edge a
//! connection began; a lock holds, a cap does not, and neither leaves a record.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code")]

mod support;

use proptest::prelude::*;
use support::*;
use toktra_engine::{Counters, Engine, FlowEvent, FlowId, Hours, Now, Opened, Policy, Transport, Verdict};
use toktra_policy::hours::parse;
use toktra_protocol::{Block, BlockReason, EventBody, Lock, UnixSeconds, Usage};

const FLOW: FlowId = FlowId(7);
/// The minutes after [`WALL`] in which privacy hours last.
const FROM_MS: u64 = 10 * 60_000;
const UNTIL_MS: u64 = 20 * 60_000;

/// Windows from so many to so many minutes after [`WALL`], which is a midnight by UTC.
fn hours(windows: &[&str]) -> Hours {
    Hours::new(parse(windows).unwrap(), jiff::tz::TimeZone::UTC)
}

fn private() -> Policy {
    Policy { hours: hours(&["00:10-00:20"]), ..Policy::default() }
}

fn engine(policy: Policy) -> Engine {
    let mut engine = Engine::new();
    engine.apply(at(0), policy);
    engine
}

fn cap() -> Policy {
    let block = Block {
        reason: BlockReason::Budget,
        message: "spent".into(),
        providers: Vec::new(),
        until: None,
        budget: None,
    };
    Policy { block: Some(block), ..private() }
}

fn read(engine: &mut Engine, now: Now, flow: FlowId, counters: Counters) -> Verdict {
    engine.handle(now, flow, FlowEvent::Counters(counters))
}

fn close(engine: &mut Engine, now: Now, flow: FlowId, counters: Counters) {
    engine.handle(now, flow, FlowEvent::Closed(counters));
}

fn bytes(usages: &[Usage]) -> (u64, u64) {
    usages.iter().fold((0, 0), |(sent, came), usage| (sent + usage.bytes_out, came + usage.bytes_in))
}

#[test]
fn a_connection_across_a_whole_window_is_counted_before_and_after_it_only() {
    assert_eq!(WALL % 86_400, 0);
    let mut engine = engine(private());
    assert_eq!(connect(&mut engine, at(FROM_MS - 9000), FLOW, address(1), "api.openai.com"), Verdict::Meter);
    read(&mut engine, at(FROM_MS - 500), FLOW, counters(1, 1_000, 50_000));
    // The last reading before the edge counts, whatever the first one after it says.
    assert_eq!(read(&mut engine, at(FROM_MS), FLOW, counters(1, 1_100, 60_000)), Verdict::Meter);
    let records = engine.take_records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].minute.0, WALL / 60 + 9, "the last minute before the window");
    let EventBody::Usage(usage) = &records[0].body else { panic!("{records:?}") };
    assert_eq!((usage.bytes_out, usage.bytes_in, usage.bytes_handshake), (1_000, 50_000, 4_600));

    for second in (0..600).step_by(5) {
        let now = at(FROM_MS + second * 1000);
        read(&mut engine, now, FLOW, counters(2 + second as u32, 2_000 * second, 90_000 + second));
        assert!(engine.tick(now).is_empty());
        assert!(engine.take_records().is_empty(), "{second}");
    }
    read(&mut engine, at(UNTIL_MS - 1), FLOW, counters(700, 5_000_000, 8_000_000));
    // The first reading after the edge is where counting begins.
    read(&mut engine, at(UNTIL_MS + 400), FLOW, counters(701, 5_000_100, 8_000_500));
    read(&mut engine, at(UNTIL_MS + 900), FLOW, counters(702, 5_000_700, 8_010_500));
    close(&mut engine, at(UNTIL_MS + 1400), FLOW, counters(702, 5_000_700, 8_020_500));
    let after = usages(&mut engine);
    assert_eq!(bytes(&after), (600, 20_000));
    assert_eq!((after[0].exchanges, after[0].bytes_handshake, after[0].partial), (1, 0, false));
}

#[test]
fn connections_that_are_within_leave_no_record_and_no_trace_of_who_speaks_to_whom() {
    let mut engine = engine(private());
    for number in 0..20_000 {
        let now = at(FROM_MS + number);
        let flow = FlowId(number);
        connect(&mut engine, now, flow, address(1), "api.openai.com");
        if number < 100 {
            close(&mut engine, now, flow, counters(1, 900, 70_000));
        }
    }
    assert!(engine.take_records().is_empty());
    assert_eq!(engine.limits_hit().records, 0);
    // What goes to the same address later is not known by what was learned within.
    let old = Opened { preexisting: true, ..opened(address(1)) };
    let verdict = engine.handle(at(UNTIL_MS), FlowId(99_999), FlowEvent::Opened(old));
    assert_eq!(verdict, Verdict::Ignore);
    assert!(engine.take_records().is_empty());
}

#[test]
fn a_connection_that_begins_within_is_counted_from_the_end_on() {
    let mut engine = engine(private());
    connect(&mut engine, at(UNTIL_MS - 5000), FLOW, address(1), "api.openai.com");
    // Its hello is whole only after the window.
    let late = FlowId(8);
    let whole = hello(Some("api.anthropic.com"), false);
    engine.handle(at(UNTIL_MS - 10), late, FlowEvent::Opened(opened(address(2))));
    engine.handle(at(UNTIL_MS - 10), late, FlowEvent::Outbound { position: 0, bytes: &whole[..50] });
    let rest = FlowEvent::Outbound { position: 50, bytes: &whole[50..] };
    assert_eq!(engine.handle(at(UNTIL_MS + 10), late, rest), Verdict::Meter);
    for flow in [FLOW, late] {
        read(&mut engine, at(UNTIL_MS + 100), flow, counters(3, 9_000, 900_000));
        close(&mut engine, at(UNTIL_MS + 600), flow, counters(4, 9_500, 901_000));
    }
    let after = usages(&mut engine);
    assert_eq!(
        after.iter().map(|usage| usage.host.as_str()).collect::<Vec<_>>(),
        ["api.openai.com", "api.anthropic.com"]
    );
    assert_eq!(bytes(&after), (1_000, 2_000));
}

#[test]
fn a_connection_that_ends_unread_after_the_window_leaves_nothing() {
    let mut engine = engine(private());
    connect(&mut engine, at(FROM_MS - 1), FLOW, address(1), "api.openai.com");
    // Nobody looked within: the machine slept.
    close(&mut engine, at(UNTIL_MS + 1), FLOW, counters(1, 1_000, 50_000));
    assert!(engine.take_records().is_empty());
}

#[test]
fn a_cap_is_lifted_within_and_cuts_at_the_end() {
    let mut engine = engine(cap());
    assert_eq!(connect(&mut engine, at(0), FlowId(1), address(1), "api.openai.com"), Verdict::Block);
    assert_eq!(bodies(&mut engine).len(), 1);
    assert!(engine.is_strict(at(0)));
    assert!(engine.tick(at(FROM_MS)).is_empty());
    assert!(!engine.is_strict(at(FROM_MS)));
    assert_eq!(connect(&mut engine, at(FROM_MS), FLOW, address(1), "api.openai.com"), Verdict::Meter);
    read(&mut engine, at(UNTIL_MS - 1), FLOW, counters(1, 1_000, 50_000));
    assert!(bodies(&mut engine).is_empty());
    assert_eq!(engine.tick(at(UNTIL_MS)), [FLOW]);
    let EventBody::Blocked(blocked) = &bodies(&mut engine)[..][0] else { panic!("no attempt is told") };
    assert!(blocked.cut && blocked.reason == BlockReason::Budget);
}

#[test]
fn a_lock_holds_within_and_its_attempts_are_not_recorded() {
    let mut engine = engine(private());
    connect(&mut engine, at(FROM_MS), FLOW, address(1), "api.openai.com");
    let lock = Some(Lock { message: "locked".into() });
    assert_eq!(engine.apply(at(FROM_MS + 1), Policy { lock, ..private() }), [FLOW]);
    assert!(engine.is_strict(at(FROM_MS + 1)));
    let now = at(FROM_MS + 2);
    assert_eq!(connect(&mut engine, now, FlowId(9), address(1), "api.openai.com"), Verdict::Block);
    assert!(engine.take_records().is_empty());
    assert_eq!(connect(&mut engine, at(UNTIL_MS), FlowId(10), address(1), "api.openai.com"), Verdict::Block);
    assert_eq!(bodies(&mut engine).len(), 1);
}

#[test]
fn as_long_as_nobody_knows_the_schedule_nothing_is_recorded() {
    let mut engine = engine(Policy { hours: Hours::Unknown, ..Policy::default() });
    connect(&mut engine, at(1), FLOW, address(1), "api.openai.com");
    read(&mut engine, at(2), FLOW, counters(1, 1_000, 50_000));
    connect(&mut engine, at(2), FlowId(8), address(2), "api.openai.com");
    close(&mut engine, at(3), FlowId(8), counters(1, 1_000, 50_000));
    engine.apply(at(1000), Policy::default());
    read(&mut engine, at(1500), FLOW, counters(1, 1_100, 60_000));
    close(&mut engine, at(2000), FLOW, counters(1, 1_100, 61_000));
    assert_eq!(bytes(&usages(&mut engine)), (0, 1_000));
}

#[test]
fn a_clock_that_is_set_and_a_schedule_that_changes_decide_at_once() {
    let mut engine = engine(private());
    let wall = |monotonic_ms: u64, wall_ms: u64| Now { monotonic_ms, ..at(wall_ms) };
    connect(&mut engine, at(0), FLOW, address(1), "api.openai.com");
    read(&mut engine, at(10), FLOW, counters(1, 1_000, 1_000));
    // Forward into the window, back before it, and over it.
    read(&mut engine, wall(20, FROM_MS + 1), FLOW, counters(1, 1_000, 2_000));
    read(&mut engine, wall(30, 5), FLOW, counters(1, 1_000, 3_000));
    read(&mut engine, wall(40, 6), FLOW, counters(1, 1_000, 3_500));
    read(&mut engine, wall(50, UNTIL_MS + 1), FLOW, counters(1, 1_000, 3_600));
    engine.apply(wall(60, UNTIL_MS + 2), Policy { hours: hours(&["00:00-24:00"]), ..Policy::default() });
    read(&mut engine, wall(70, UNTIL_MS + 3), FLOW, counters(1, 1_000, 9_000));
    close(&mut engine, wall(80, UNTIL_MS + 4), FLOW, counters(1, 1_000, 9_000));
    assert_eq!(bytes(&usages(&mut engine)), (1_000, 1_500));
}

/// One reading of a connection, after so many milliseconds and bytes.
fn readings() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    prop::collection::vec((0u64..300_000, 0u64..5_000, 0u64..500_000), 1..40)
}

proptest! {
    #[test]
    fn a_byte_is_counted_if_and_only_if_it_flowed_between_two_readings_with_no_moment_within_between_them(
        start_ms in 0..UNTIL_MS + 120_000,
        readings in readings(),
        udp: bool,
    ) {
        let within = |ms: u64| (FROM_MS..UNTIL_MS).contains(&ms);
        let mut engine = engine(private());
        if udp {
            let opened = Opened { transport: Transport::Udp, ..opened(address(1)) };
            engine.handle(at(start_ms), FLOW, FlowEvent::Opened(opened));
            for datagram in quic_hello() {
                engine.handle(at(start_ms), FLOW, FlowEvent::Datagram(&datagram));
            }
        } else {
            connect(&mut engine, at(start_ms), FLOW, address(1), "api.openai.com");
        }
        let (mut now_ms, mut sent, mut came, mut expected) = (start_ms, 0, 0, 0);
        let mut last = (!within(start_ms)).then_some(0);
        let mut records = Vec::new();
        for (turn, (after_ms, out, back)) in (1..).zip(readings) {
            // Whether anybody looked within or not, as after a sleep of the machine.
            if now_ms < FROM_MS && now_ms + after_ms >= FROM_MS {
                last = None;
            }
            now_ms += after_ms;
            (sent, came) = (sent + out, came + back);
            let counters = counters(turn, sent, came);
            let total = counters.bytes_out + counters.bytes_in;
            read(&mut engine, at(now_ms), FLOW, counters);
            engine.tick(at(now_ms));
            expected += last.filter(|_| !within(now_ms)).map_or(0, |last| total - last);
            last = (!within(now_ms)).then_some(total);
            records.extend(engine.take_records());
        }
        engine.handle(at(now_ms), FLOW, FlowEvent::Closed(counters(40, sent, came)));
        records.extend(engine.take_records());
        let mut counted = 0;
        for record in records {
            let minute_ms = (record.minute.0 * 60 - WALL) * 1000;
            prop_assert!(!within(minute_ms), "a record of a minute within: {:?}", record);
            let EventBody::Usage(usage) = record.body else { panic!("{:?}", record.body) };
            counted += usage.bytes_out + usage.bytes_in + usage.bytes_handshake;
        }
        prop_assert_eq!(counted, expected);
    }
}

#[test]
fn the_policy_has_no_hours_unless_told() {
    assert_eq!(Policy::default().hours, Hours::Never);
    assert_eq!(Hours::Never.at(UnixSeconds(WALL)).until, None);
}
