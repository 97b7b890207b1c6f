//! The life of flows, from the first byte to the last record.

mod support;

use support::*;
use toktra_engine::{Counters, Engine, FlowEvent, FlowId, Limits, Now, Opened, Policy, Transport, Verdict};
use toktra_protocol::{Block, BlockReason, EventBody, Lock, NameSource, UnixSeconds};

const FLOW: FlowId = FlowId(1);
const OTHER: FlowId = FlowId(2);

fn locked() -> Policy {
    Policy { lock: Some(Lock { message: "locked".into() }), ..Policy::default() }
}

fn over_budget(providers: &[&str], until: u64) -> Policy {
    let block = Block {
        reason: BlockReason::Budget,
        message: "over budget".into(),
        providers: providers.iter().map(|id| (*id).to_owned()).collect(),
        until: None,
        budget: None,
    };
    Policy { block: Some(block), block_until: Some(UnixSeconds(until)), ..Policy::default() }
}

#[test]
fn a_providers_flow_is_metered_and_recorded_when_it_closes() {
    let mut engine = Engine::new();
    assert_eq!(connect(&mut engine, at(0), FLOW, address(1), "API.openai.com"), Verdict::Meter);
    assert_eq!(engine.handle(at(900), FLOW, FlowEvent::Counters(counters(1, 2_000, 0))), Verdict::Meter);
    engine.handle(at(4_000), FLOW, FlowEvent::Closed(counters(1, 2_000, 100_000)));
    let usage = usages(&mut engine).remove(0);
    assert_eq!((usage.provider.as_str(), usage.service.as_str()), ("openai", "openai-api"));
    assert_eq!((usage.host.as_str(), usage.name_source), ("api.openai.com", NameSource::Sni));
    assert_eq!((usage.bytes_out, usage.bytes_in, usage.bytes_handshake), (2_000, 100_000, 4_600));
    assert_eq!((usage.exchanges, usage.streaming, usage.partial), (1, true, false));
    assert_eq!(usage.user_account.as_deref(), Some("ada"));
    assert_eq!(usage.application.as_deref(), Some("curl"));
    assert_eq!(usage.calibration, "openai-chat-completions-2026-03");
    assert!(usage.tokens_out.low <= 300 && 300 <= usage.tokens_out.high, "{:?}", usage.tokens_out);
    assert!(engine.take_records().is_empty());
}

#[test]
fn what_is_nobodys_is_let_through_and_forgotten() {
    let mut engine = Engine::new();
    for name in ["www.example.org", "api.openai.com.evil.example"] {
        assert_eq!(connect(&mut engine, at(0), FLOW, address(1), name), Verdict::Ignore);
        assert_eq!(engine.handle(at(1), FLOW, FlowEvent::Counters(counters(1, 9, 9))), Verdict::Ignore);
    }
    engine.handle(at(2), FLOW, FlowEvent::Closed(counters(1, 9, 9)));
    engine.tick(at(100_000));
    assert!(engine.take_records().is_empty());
    assert_eq!(format!("{engine:?}"), "Engine { undecided: 0, attributed: 0, .. }");
}

#[test]
fn a_hello_in_pieces_is_put_together() {
    let bytes = hello(Some("claude.ai"), false);
    for cut in 1..bytes.len() {
        let mut engine = Engine::new();
        engine.handle(at(0), FLOW, FlowEvent::Opened(opened(address(1))));
        let (first, second) = bytes.split_at(cut);
        let late = FlowEvent::Outbound { position: cut as u64, bytes: second };
        assert_eq!(engine.handle(at(1), FLOW, late), Verdict::NeedMore, "{cut}");
        let early = FlowEvent::Outbound { position: 0, bytes: first };
        assert_eq!(engine.handle(at(2), FLOW, early), Verdict::Meter, "{cut}");
    }
}

#[test]
fn a_living_flow_is_recorded_at_least_once_a_minute() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), "api.anthropic.com");
    let mut recorded_ms = 0;
    for second in 1..=300 {
        engine.handle(at(second * 1000), FLOW, FlowEvent::Counters(counters(1, 2_000, second * 1_000)));
        engine.tick(at(second * 1000));
        if !usages(&mut engine).is_empty() {
            recorded_ms = second * 1000;
        }
        assert!(second * 1000 - recorded_ms <= 60_000);
    }
}

#[test]
fn an_idle_flow_makes_no_records() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), "api.anthropic.com");
    engine.handle(at(10), FLOW, FlowEvent::Counters(counters(1, 1, 1)));
    engine.tick(at(60_000));
    assert_eq!(usages(&mut engine).len(), 1);
    for minute in 2..10 {
        engine.handle(at(minute * 60_000), FLOW, FlowEvent::Counters(counters(1, 1, 1)));
        engine.tick(at(minute * 60_000));
    }
    assert!(engine.take_records().is_empty());
}

#[test]
fn under_a_lock_a_new_flow_is_blocked_and_recorded_once() {
    let mut engine = Engine::new();
    assert!(engine.apply(at(0), locked()).is_empty());
    assert!(engine.is_strict(at(0)));
    assert_eq!(connect(&mut engine, at(0), FLOW, address(1), "api.openai.com"), Verdict::Block);
    let more = FlowEvent::Outbound { position: 600, bytes: b"more" };
    assert_eq!(engine.handle(at(1), FLOW, more), Verdict::Block);
    engine.handle(at(2), FLOW, FlowEvent::Closed(counters(0, 0, 0)));
    let bodies = bodies(&mut engine);
    assert!(
        matches!(&bodies[..], [EventBody::Blocked(b)] if b.reason == BlockReason::Lock && !b.cut && b.host == "api.openai.com"),
        "{bodies:?}"
    );
    assert_eq!(connect(&mut engine, at(3), OTHER, address(2), "www.example.org"), Verdict::Ignore);
}

#[test]
fn a_cap_cuts_open_flows_of_its_providers_and_loses_no_byte() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), "api.openai.com");
    connect(&mut engine, at(0), OTHER, address(2), "api.anthropic.com");
    engine.handle(at(1_000), FLOW, FlowEvent::Counters(counters(1, 1_000, 10_000)));
    let cap = over_budget(&["openai"], WALL + 60);
    assert_eq!(engine.apply(at(2_000), cap.clone()), [FLOW]);
    assert!(engine.apply(at(2_001), cap).is_empty(), "a flow is cut once");
    engine.handle(at(2_100), FLOW, FlowEvent::Closed(counters(1, 1_000, 12_000)));
    let bodies = bodies(&mut engine);
    assert!(matches!(&bodies[1], EventBody::Blocked(b) if b.cut && b.reason == BlockReason::Budget));
    let received: u64 =
        bodies.iter().map(|body| if let EventBody::Usage(u) = body { u.bytes_in } else { 0 }).sum();
    assert_eq!((bodies.len(), received), (3, 12_000));
    assert_eq!(engine.handle(at(2_200), OTHER, FlowEvent::Counters(counters(1, 1, 1))), Verdict::Meter);
}

#[test]
fn a_block_lapses_and_a_lock_holds() {
    let mut engine = Engine::new();
    engine.apply(at(0), over_budget(&[], WALL + 10));
    assert_eq!(connect(&mut engine, at(9_000), FLOW, address(1), "api.openai.com"), Verdict::Block);
    assert!(!engine.is_strict(at(10_000)));
    assert_eq!(connect(&mut engine, at(10_000), OTHER, address(1), "api.openai.com"), Verdict::Meter);
    engine.apply(at(11_000), locked());
    assert!(engine.is_strict(at(1_000_000_000)));
}

#[test]
fn a_block_lapses_also_when_the_clock_is_set_back() {
    let mut engine = Engine::new();
    engine.apply(at(0), over_budget(&[], WALL + 60));
    let set_back = |monotonic_ms| Now { monotonic_ms, wall: UnixSeconds(WALL - 86_400) };
    engine.tick(set_back(59_000));
    assert!(engine.is_strict(set_back(59_000)));
    engine.apply(set_back(59_500), over_budget(&[], WALL + 60));
    engine.tick(set_back(60_000));
    assert!(!engine.is_strict(set_back(60_000)));
    assert_eq!(connect(&mut engine, set_back(60_001), FLOW, address(1), "api.openai.com"), Verdict::Meter);
}

#[test]
fn of_datagrams_a_day_of_silence_is_the_end_and_of_a_stream_only_its_close() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), "api.openai.com");
    let udp = Opened { transport: Transport::Udp, asked_name: Some("chatgpt.com"), ..opened(address(2)) };
    engine.handle(at(0), OTHER, FlowEvent::Opened(udp));
    assert_eq!(engine.handle(at(0), OTHER, FlowEvent::Datagram(&[0x40; 50])), Verdict::Meter);
    let day_ms = 24 * 60 * 60 * 1000;
    for now in [at(500), at(day_ms / 2), at(day_ms + 400)] {
        for flow in [FLOW, OTHER] {
            assert_eq!(
                engine.handle(now, flow, FlowEvent::Counters(counters(1, 2_000, 9_000))),
                Verdict::Meter
            );
        }
        engine.tick(now);
    }
    engine.tick(at(day_ms + 500));
    let same = FlowEvent::Counters(counters(1, 2_000, 9_000));
    assert_eq!(engine.handle(at(day_ms + 900), FLOW, same.clone()), Verdict::Meter);
    assert_eq!(engine.handle(at(day_ms + 900), OTHER, same), Verdict::Ignore);
}

#[test]
fn own_hosts_are_neither_blocked_nor_metered() {
    let mut engine = Engine::new();
    let own_hosts = vec!["api.openai.com".to_owned()];
    engine.apply(at(0), Policy { own_hosts: own_hosts.clone(), ..locked() });
    assert_eq!(connect(&mut engine, at(0), FLOW, address(1), "api.openai.com"), Verdict::Ignore);
    engine.apply(at(0), Policy::default());
    connect(&mut engine, at(0), OTHER, address(1), "api.openai.com");
    engine.apply(at(1), Policy { own_hosts, ..Policy::default() });
    engine.handle(at(2), OTHER, FlowEvent::Closed(counters(1, 1, 1)));
    assert!(engine.take_records().is_empty());
}

#[test]
fn the_outer_name_of_ech_attributes_nothing_and_grease_keeps_its_name() {
    let mut engine = Engine::new();
    let mut send = |flow, name, asked_name| {
        engine.handle(at(0), flow, FlowEvent::Opened(Opened { asked_name, ..opened(address(1)) }));
        engine.handle(at(0), flow, FlowEvent::Outbound { position: 0, bytes: &hello(Some(name), true) })
    };
    assert_eq!(send(FlowId(1), "cloudflare-ech.com", None), Verdict::Ignore);
    assert_eq!(send(FlowId(2), "cloudflare-ech.com", Some("chatgpt.com")), Verdict::Meter);
    assert_eq!(send(FlowId(3), "chatgpt.com", None), Verdict::Meter);
    for flow in 1..=3 {
        engine.handle(at(1), FlowId(flow), FlowEvent::Closed(counters(1, 1, 1)));
    }
    let sources: Vec<NameSource> = usages(&mut engine).iter().map(|usage| usage.name_source).collect();
    assert_eq!(sources, [NameSource::Asked, NameSource::EchOuter]);
}

#[test]
fn the_name_that_was_asked_for_counts_only_where_the_hello_has_none() {
    let mut engine = Engine::new();
    let mut send = |flow, bytes: &[u8], asked| {
        let asked_name = Some(asked);
        engine.handle(at(0), flow, FlowEvent::Opened(Opened { asked_name, ..opened(address(1)) }));
        engine.handle(at(0), flow, FlowEvent::Outbound { position: 0, bytes })
    };
    assert_eq!(send(FlowId(1), &hello(None, false), "api.openai.com"), Verdict::Meter);
    assert_eq!(send(FlowId(2), &hello(None, false), "192.0.2.1"), Verdict::Ignore);
    assert_eq!(send(FlowId(3), &hello(Some("www.example.org"), false), "api.openai.com"), Verdict::Ignore);
    assert_eq!(send(FlowId(4), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "api.openai.com"), Verdict::Meter);
    engine.handle(at(1), FlowId(1), FlowEvent::Closed(counters(1, 1, 1)));
    assert_eq!(usages(&mut engine)[0].name_source, NameSource::Asked);
}

fn old(remote: u8) -> FlowEvent<'static> {
    FlowEvent::Opened(Opened { preexisting: true, ..opened(address(remote)) })
}

#[test]
fn an_address_at_which_a_hidden_name_was_seen_attributes_nothing() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), OTHER, address(1), "api.anthropic.com");
    engine.handle(at(1), FlowId(3), FlowEvent::Opened(opened(address(1))));
    let hidden = hello(Some("cloudflare-ech.com"), true);
    engine.handle(at(1), FlowId(3), FlowEvent::Outbound { position: 0, bytes: &hidden });
    assert_eq!(engine.handle(at(2), FLOW, old(1)), Verdict::Ignore);
    assert!(engine.take_found().is_empty());
}

#[test]
fn an_old_flow_is_found_by_another_ones_address_and_counted_from_then_on() {
    let mut engine = Engine::new();
    assert_eq!(engine.handle(at(0), FLOW, old(1)), Verdict::Ignore);
    connect(&mut engine, at(10), OTHER, address(1), "api.anthropic.com");
    assert_eq!(engine.take_found(), [FLOW]);
    assert!(engine.take_found().is_empty());
    assert_eq!(engine.handle(at(20), FlowId(3), old(1)), Verdict::Meter, "the address is known now");
    for flow in [FLOW, FlowId(3)] {
        let counters = Counters { bytes_out: 2_000, bytes_in: 40_000, turns: Some(0), ..Counters::default() };
        engine.handle(at(900), flow, FlowEvent::Closed(counters));
    }
    for usage in usages(&mut engine) {
        assert_eq!((usage.name_source, usage.partial), (NameSource::Address, true));
        assert_eq!(
            (usage.exchanges, usage.bytes_out, usage.bytes_in, usage.bytes_handshake),
            (1, 2_000, 40_000, 0)
        );
        assert_eq!(usage.host, "api.anthropic.com");
    }
}

#[test]
fn an_address_that_serves_others_too_attributes_nothing() {
    for other in ["chatgpt.com", "www.example.org"] {
        let mut engine = Engine::new();
        connect(&mut engine, at(0), FLOW, address(1), "api.openai.com");
        connect(&mut engine, at(0), OTHER, address(1), other);
        assert_eq!(engine.handle(at(1), FlowId(3), old(1)), Verdict::Ignore, "{other}");
        assert_eq!(engine.handle(at(1), FlowId(4), old(2)), Verdict::Ignore, "another address");
    }
}

#[test]
fn what_was_learned_of_an_address_is_forgotten() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), "api.anthropic.com");
    assert_eq!(engine.handle(at(10 * 60_000), OTHER, old(1)), Verdict::Ignore);
}

#[test]
fn an_old_flow_found_under_a_lock_is_cut() {
    let mut engine = Engine::new();
    engine.handle(at(0), FLOW, old(1));
    engine.apply(at(1), locked());
    connect(&mut engine, at(2), OTHER, address(1), "api.anthropic.com");
    assert_eq!(engine.tick(at(3)), [FLOW]);
    let cuts =
        bodies(&mut engine).into_iter().filter(|body| matches!(body, EventBody::Blocked(b) if b.cut)).count();
    assert_eq!(cuts, 1);
}

#[test]
fn limits_let_through_and_count() {
    let limits = Limits { undecided: 2, undecided_bytes: 4_000, attributed: 1, records: 1 };
    let mut engine = Engine::with_limits(limits);
    connect(&mut engine, at(0), FLOW, address(1), "api.openai.com");
    assert_eq!(connect(&mut engine, at(0), OTHER, address(1), "api.openai.com"), Verdict::Ignore);
    let dropped = bodies(&mut engine);
    assert!(matches!(&dropped[..], [EventBody::Dropped(d)] if d.events == 1 && d.place == "engine"));
    for flow in 10..12 {
        engine.handle(at(1), FlowId(flow), FlowEvent::Opened(opened(address(2))));
    }
    assert_eq!(engine.handle(at(1), FlowId(12), FlowEvent::Opened(opened(address(2)))), Verdict::Ignore);
    let half = &[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3];
    engine.handle(at(1), FlowId(10), FlowEvent::Outbound { position: 0, bytes: half });
    let rest = FlowEvent::Outbound { position: half.len() as u64, bytes: &[0; 4_000] };
    assert_eq!(engine.handle(at(1), FlowId(10), rest), Verdict::Ignore);
    assert_eq!(engine.limits_hit().undecided, 2);
    engine.tick(at(120_000));
    assert_eq!(format!("{engine:?}"), "Engine { undecided: 0, attributed: 1, .. }");
}

#[test]
fn a_flow_that_never_says_hello_is_given_up() {
    let mut engine = Engine::new();
    engine.handle(at(0), FLOW, FlowEvent::Opened(opened(address(1))));
    assert_eq!(engine.handle(at(1), FLOW, FlowEvent::Counters(Counters::default())), Verdict::NeedMore);
    let mut verdict = Verdict::NeedMore;
    let mut position = 0;
    // A hello that never ends: a record header of 16 KiB, over and over.
    while verdict == Verdict::NeedMore {
        let bytes = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 1_000]].concat();
        verdict = engine.handle(at(2), FLOW, FlowEvent::Outbound { position, bytes: &bytes });
        position += bytes.len() as u64;
        assert!(position < 100_000);
    }
    assert_eq!(verdict, Verdict::Ignore);
}

#[test]
fn a_quic_hello_over_two_datagrams_in_either_order_names_its_flow() {
    let [start, end] = quic_hello();
    for (first, second) in [(&start, &end), (&end, &start)] {
        let mut engine = Engine::new();
        let udp = Opened { transport: Transport::Udp, ..opened(address(1)) };
        engine.handle(at(0), FLOW, FlowEvent::Opened(udp));
        assert_eq!(engine.handle(at(0), FLOW, FlowEvent::Datagram(first)), Verdict::NeedMore);
        assert_eq!(engine.handle(at(0), FLOW, FlowEvent::Datagram(second)), Verdict::Meter);
        assert_eq!(engine.handle(at(0), FLOW, FlowEvent::Datagram(second)), Verdict::Meter);
        engine.handle(at(9_000), FLOW, FlowEvent::Closed(counters(1, 2_000, 90_000)));
        let usage = usages(&mut engine).remove(0);
        assert_eq!((usage.service.as_str(), usage.name_source), ("chatgpt", NameSource::QuicSni));
        assert_eq!(usage.calibration, "uncalibrated-2026-11");
    }
}

#[test]
fn behind_a_proxy_the_name_is_found_and_the_proxys_address_is_nobodys() {
    let mut engine = Engine::new();
    engine.handle(at(0), FLOW, FlowEvent::Opened(opened(address(9))));
    let mut stream =
        b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com:443\r\n\r\n".to_vec();
    stream.extend(hello(Some("api.anthropic.com"), false));
    let outbound = FlowEvent::Outbound { position: 0, bytes: &stream };
    assert_eq!(engine.handle(at(0), FLOW, outbound), Verdict::Meter);
    assert_eq!(engine.handle(at(1), OTHER, old(9)), Verdict::Ignore);
}

#[test]
fn datagrams_that_are_not_quic_are_let_through() {
    let mut engine = Engine::new();
    let udp = Opened { transport: Transport::Udp, ..opened(address(1)) };
    engine.handle(at(0), FLOW, FlowEvent::Opened(udp));
    assert_eq!(engine.handle(at(0), FLOW, FlowEvent::Datagram(&[0; 40])), Verdict::Ignore);
}

#[test]
fn an_identifier_that_is_used_anew_ends_the_old_flow() {
    let mut engine = Engine::new();
    connect(&mut engine, at(0), FLOW, address(1), "api.openai.com");
    engine.handle(at(1), FLOW, FlowEvent::Counters(counters(1, 10, 10)));
    assert_eq!(connect(&mut engine, at(2), FLOW, address(1), "www.example.org"), Verdict::Ignore);
    assert_eq!(usages(&mut engine).len(), 1);
}
