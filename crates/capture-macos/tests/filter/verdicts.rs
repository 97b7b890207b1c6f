//! What is answered to a new flow and to its bytes.

use toktra_capture_macos::told::NewFlow;
use toktra_capture_macos::{DataVerdict, FIRST_PEEK};
use toktra_engine::{FlowId, Policy};
use toktra_protocol::{EventBody, NameSource};

use crate::hellos::{hello, quic_hello};
use crate::host::{Host, Standing, blocked, endpoint, locked, tcp, udp};
use crate::message::Hello;

const PROVIDER: &str = "api.openai.com";

#[test]
fn a_providers_flow_is_counted_and_nobodys_leaves_no_trace() {
    let host = Host::new();
    let ours = host.connect(1, PROVIDER);
    assert!(matches!(ours.standing, Standing::Counted(_)));
    let theirs = host.connect(2, "www.example.org");
    assert_eq!(theirs.standing, Standing::Allowed);
    assert_eq!(host.known(), 1, "of the other there is no entry");
    host.close(&theirs, 10_000, 10_000);
    host.close(&ours, 10_000, 20_000);
    let usages = host.usages();
    assert_eq!(usages.len(), 1);
    let usage = &usages[0];
    assert_eq!((usage.host.as_str(), usage.name_source), (PROVIDER, NameSource::Sni));
    assert_eq!(usage.user_account.as_deref(), Some("ada"));
    assert_eq!(usage.application.as_deref(), Some("com.example.chat"));
    assert_eq!(usage.bytes_out + usage.bytes_in + usage.bytes_handshake, 30_000);
    assert_eq!(host.known(), 0);
}

#[test]
fn inbound_flows_other_protocols_and_other_ports_are_not_looked_at() {
    let host = Host::new();
    let allowed = |new: NewFlow| host.open(9, new).standing == Standing::Allowed;
    assert!(allowed(NewFlow { outbound: false, ..tcp() }));
    assert!(allowed(NewFlow { protocol: 1, ..tcp() }));
    let mut elsewhere = tcp();
    elsewhere.remote.as_mut().unwrap().port = "22".into();
    assert!(allowed(elsewhere));
    assert_eq!(host.known(), 0);
    assert!(!allowed(tcp()));
}

#[test]
fn a_hello_in_pieces_of_any_size_is_read_and_each_piece_but_the_last_leaves_at_once() {
    let hello = hello(Some(PROVIDER), false);
    for piece in 1..=hello.len() {
        let host = Host::new();
        let mut flow = host.open(1, tcp());
        let mut written = 0;
        for bytes in hello.chunks(piece) {
            host.write(&mut flow, bytes);
            written += bytes.len();
            assert_eq!(flow.passed, written, "pieces of {piece}: a client that waits for an answer gets one");
        }
        assert!(matches!(flow.standing, Standing::Counted(_)), "pieces of {piece}");
    }
}

#[test]
fn a_post_quantum_hello_of_two_segments_is_read() {
    let message = Hello::like_a_browser(PROVIDER).with_post_quantum_share().message();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let record = [&[22, 3, 1][..], &length, &message].concat();
    assert!(record.len() > 1_460);
    let host = Host::new();
    let mut flow = host.open(1, tcp());
    host.write_in(&mut flow, &record, 1_460);
    assert!(matches!(flow.standing, Standing::Counted(_)));
    assert_eq!(flow.shown, 2);
}

#[test]
fn bytes_that_are_shown_again_are_not_taken_for_new_ones() {
    let host = Host::new();
    let hello = hello(Some(PROVIDER), false);
    let mut flow = host.open(1, tcp());
    for end in [10, 50, 70] {
        let before = flow.passed;
        host.write(&mut flow, &hello[before..end]);
        let again = host.show_again(&mut flow);
        assert_eq!(again, DataVerdict::Pass { pass: end, peek: FIRST_PEEK });
    }
    host.write(&mut flow, &hello[70..]);
    host.close(&flow, 5_000, 6_000);
    let usage = &host.usages()[0];
    assert_eq!(usage.bytes_out + usage.bytes_in + usage.bytes_handshake, 11_000);
}

#[test]
fn a_flow_that_shows_nothing_new_for_ever_is_let_through() {
    let host = Host::new();
    let mut flow = host.open(1, tcp());
    host.write(&mut flow, &hello(Some(PROVIDER), false)[..20]);
    let mut calls = 0;
    while host.show_again(&mut flow) != DataVerdict::Allow {
        calls += 1;
        assert!(calls < 10_000);
    }
    assert_eq!(host.known(), 0);
}

#[test]
fn a_stream_that_never_says_a_hello_is_given_up_within_sixteen_kibibytes() {
    let host = Host::new();
    let mut flow = host.open(1, tcp());
    // A record that claims a handshake message longer than any hello.
    let start = [22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    host.write(&mut flow, &start);
    let mut written = start.len();
    while matches!(flow.standing, Standing::Peeked(_)) {
        host.write(&mut flow, &[0x5a; 1_000]);
        written += 1_000;
        assert!(written <= 17 * 1024, "{written} bytes were shown");
    }
    assert_eq!((flow.standing, host.known()), (Standing::Allowed, 0));
}

#[test]
fn what_is_no_tls_is_let_through_with_its_first_bytes() {
    let host = Host::new();
    let mut flow = host.open(1, tcp());
    host.write(&mut flow, b"SSH-2.0-OpenSSH_9.8\r\n");
    assert_eq!((flow.standing, flow.shown), (Standing::Allowed, 1));
}

#[test]
fn an_endpoint_that_is_not_known_at_first_is_taken_when_data_flows_and_may_never_be() {
    let host = Host::new();
    for (key, later) in [(1, endpoint("192.0.2.9")), (2, None)] {
        let mut flow = host.open(key, NewFlow { remote: None, ..tcp() });
        flow.remote = later;
        host.write(&mut flow, &hello(Some(PROVIDER), false));
        assert!(matches!(flow.standing, Standing::Counted(_)), "{key}");
    }
}

#[test]
fn the_name_that_was_asked_for_counts_only_where_there_is_none_in_the_hello() {
    let host = Host::new();
    let asked = |key, hostname: &str, name: Option<&str>| {
        let mut flow = host.open(key, NewFlow { hostname: Some(hostname.into()), ..tcp() });
        host.write(&mut flow, &hello(name, false));
        flow.standing
    };
    assert!(matches!(asked(1, PROVIDER, None), Standing::Counted(_)));
    assert_eq!(asked(2, PROVIDER, Some("www.example.org")), Standing::Allowed);
    assert_eq!(asked(3, "192.0.2.7", None), Standing::Allowed);
    host.filter.stop();
    // A flow that carried nothing makes no record; its block does.
    host.apply(locked());
    asked(4, PROVIDER, None);
    let sources: Vec<NameSource> = host
        .bodies()
        .into_iter()
        .filter_map(
            |body| if let EventBody::Blocked(blocked) = body { Some(blocked.name_source) } else { None },
        )
        .collect();
    assert_eq!(sources, [NameSource::Asked]);
}

#[test]
fn under_a_lock_a_hello_is_dropped_whole_and_what_waits_behind_it_too() {
    let host = Host::new();
    host.apply(locked());
    let mut flow = host.open(1, tcp());
    let early_data = [hello(Some(PROVIDER), false), vec![0x5a; 3_000]].concat();
    host.write(&mut flow, &early_data);
    assert_eq!((flow.standing, flow.passed), (Standing::Dropped, 0));
    assert_eq!(host.connect(2, "www.example.org").standing, Standing::Allowed);
    assert_eq!(host.known(), 0, "nothing more is told of what was dropped");
    let bodies = host.bodies();
    assert!(matches!(&bodies[..], [EventBody::Blocked(blocked)] if !blocked.cut), "{bodies:?}");
    assert_eq!(host.joint.lock().unwrap().health().flows_blocked, 1);
}

#[test]
fn the_backends_own_hosts_pass_under_a_lock() {
    let host = Host::new();
    host.apply(Policy { own_hosts: vec![PROVIDER.into()], ..locked() });
    assert_eq!(host.connect(1, PROVIDER).standing, Standing::Allowed);
}

#[test]
fn quic_over_several_datagrams_is_read_and_a_datagram_is_never_held_back() {
    let host = Host::new();
    let mut flow = host.open(1, udp());
    let [first, second] = quic_hello();
    host.send(&mut flow, &first);
    assert_eq!(flow.passed, first.len());
    host.send(&mut flow, &second);
    assert!(matches!(flow.standing, Standing::Counted(_)));
    host.close(&flow, 4_000, 5_000);
    let usage = &host.usages()[0];
    assert_eq!((usage.host.as_str(), usage.name_source), ("chatgpt.com", NameSource::QuicSni));
}

#[test]
fn quic_without_a_readable_name_is_dropped_only_while_its_program_is_kept_from_a_provider() {
    let host = Host::new();
    let nameless = |key| {
        let mut flow = host.open(key, udp());
        // A short header: a connection whose beginning nobody saw.
        host.send(&mut flow, &[0x40; 40]);
        flow
    };
    let ours = host.connect(1, PROVIDER);
    let before = nameless(2);
    assert!(matches!(before.standing, Standing::Watched(_)));
    host.effects();
    host.apply(blocked(host.now().wall.plus(3_600)));
    let mut cut = host.cuts();
    cut.sort_unstable();
    let mut expected: Vec<FlowId> = vec![ours.id(), before.id()];
    expected.sort_unstable();
    assert_eq!(cut, expected);
    assert_eq!(nameless(3).standing, Standing::Dropped);
    host.apply(Policy::default());
    assert!(matches!(nameless(4).standing, Standing::Watched(_)));
}

#[test]
fn what_looks_like_no_quic_is_nobodys() {
    let host = Host::new();
    let mut flow = host.open(1, udp());
    // STUN (RFC 8489): the first two bits are zero.
    host.send(&mut flow, &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    assert_eq!((flow.standing, host.known()), (Standing::Allowed, 0));
}

#[test]
fn a_call_that_fails_allows_and_is_counted_and_the_next_works() {
    let host = Host::new();
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let new = host.filter.new_flow(|| panic!("an object of the framework's is not what it should be"));
    let data = host.filter.outbound(0, b"", || panic!("the same"));
    host.filter.report(|| panic!("the same"));
    std::panic::set_hook(quiet);
    assert_eq!((new, data), (toktra_capture_macos::NewVerdict::Allow, DataVerdict::Allow));
    let health = host.joint.lock().unwrap().health();
    assert!(health.degraded.iter().any(|words| words.starts_with("3 calls")), "{:?}", health.degraded);
    assert!(matches!(host.connect(1, PROVIDER).standing, Standing::Counted(_)));
}
