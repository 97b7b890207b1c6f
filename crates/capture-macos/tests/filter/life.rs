//! What becomes of a flow until its end, and of one whose end nobody tells.

use std::thread;

use toktra_capture_macos::Effect;
use toktra_capture_macos::told::{FlowKey, NewFlow};
use toktra_protocol::EventBody;

use crate::hellos::{hello, quic_hello};
use crate::host::{Host, Standing, blocked, tcp, udp};

const PROVIDER: &str = "api.openai.com";

/// Bytes of all usage.
fn bytes(host: &Host) -> u64 {
    host.usages().iter().map(|usage| usage.bytes_out + usage.bytes_in + usage.bytes_handshake).sum()
}

#[test]
fn cumulative_reports_add_up_to_the_last_one_whatever_came_between() {
    let host = Host::new();
    let flow = host.connect(1, PROVIDER);
    let mut counted = 0;
    for (sent, received) in [(600, 4_000), (2_000, 9_000), (1_000, 9_000), (2_000, 70_000), (2_500, 70_000)] {
        host.statistics(&flow, sent, received);
        host.pass_ms(30_000);
        counted += bytes(&host);
    }
    // The last report is lower than one before: counts never go backwards.
    host.close(&flow, 2_400, 70_100);
    assert_eq!(counted + bytes(&host), 2_500 + 70_100);
    assert_eq!(host.known(), 0);
}

#[test]
fn usage_of_a_flow_that_lives_is_told_within_a_minute() {
    let host = Host::new();
    let flow = host.connect(1, PROVIDER);
    host.statistics(&flow, 3_000, 30_000);
    host.pass_ms(60_000);
    assert_eq!(bytes(&host), 33_000);
}

#[test]
fn reports_after_the_end_and_of_flows_that_nobody_asked_about_say_nothing() {
    let host = Host::new();
    let flow = host.connect(1, PROVIDER);
    host.close(&flow, 1_000, 5_000);
    host.statistics(&flow, 9_000, 90_000);
    host.close(&flow, 9_000, 90_000);
    let stranger = host.connect(2, "www.example.org");
    host.close(&stranger, 9_000, 90_000);
    assert_eq!(bytes(&host), 6_000);
}

#[test]
fn a_name_that_is_used_anew_is_another_flow_and_the_former_keeps_what_it_carried() {
    let host = Host::new();
    let first = host.connect(1, PROVIDER);
    host.statistics(&first, 1_000, 5_000);
    let second = host.connect(1, "api.anthropic.com");
    assert_ne!(first.id(), second.id());
    assert!(host.effects().contains(&Effect::Forget(first.id())));
    host.close(&second, 2_000, 7_000);
    let mut hosts: Vec<(String, u64)> = host
        .usages()
        .into_iter()
        .map(|usage| (usage.host, usage.bytes_out + usage.bytes_in + usage.bytes_handshake))
        .collect();
    hosts.sort();
    assert_eq!(hosts, [("api.anthropic.com".to_owned(), 9_000), (PROVIDER.to_owned(), 6_000)]);
}

#[test]
fn a_cap_cuts_an_open_flow_and_its_last_counts_still_count() {
    let host = Host::new();
    let flow = host.connect(1, PROVIDER);
    host.statistics(&flow, 1_000, 5_000);
    host.effects();
    host.apply(blocked(host.now().wall.plus(3_600)));
    assert_eq!(host.cuts(), [flow.id()]);
    host.close(&flow, 1_000, 6_500);
    assert_eq!(host.effects(), [Effect::Forget(flow.id())]);
    let bodies = host.bodies();
    assert_eq!(bodies.iter().filter(|body| matches!(body, EventBody::Blocked(_))).count(), 1);
    let counted: u64 = bodies
        .iter()
        .filter_map(|body| if let EventBody::Usage(usage) = body { Some(usage) } else { None })
        .map(|usage| usage.bytes_out + usage.bytes_in + usage.bytes_handshake)
        .sum();
    assert_eq!(counted, 7_500);
}

#[test]
fn a_flow_that_was_cut_and_whose_end_is_not_reported_is_forgotten_soon() {
    let host = Host::new();
    let flow = host.connect(1, PROVIDER);
    host.apply(blocked(host.now().wall.plus(3_600)));
    assert_eq!(host.known(), 1);
    host.pass_ms(11_000);
    assert_eq!(host.known(), 0);
    assert!(host.effects().contains(&Effect::Forget(flow.id())));
}

#[test]
fn udp_that_never_closes_is_counted_to_the_last_report_and_forgotten_after_a_day() {
    let host = Host::new();
    let mut flow = host.open(1, udp());
    quic_hello().iter().for_each(|datagram| host.send(&mut flow, datagram));
    host.statistics(&flow, 4_000, 50_000);
    host.pass_ms(60_000);
    assert_eq!(bytes(&host), 54_000);
    host.pass_ms(24 * 60 * 60 * 1_000);
    host.statistics(&flow, 4_000, 50_000);
    assert_eq!((host.known(), bytes(&host)), (0, 0));
}

#[test]
fn flows_that_never_send_and_nameless_ones_do_not_stay_for_ever() {
    let host = Host::new();
    host.open(1, tcp());
    let mut nameless = host.open(2, udp());
    host.send(&mut nameless, &[0x40; 40]);
    assert_eq!(host.known(), 2);
    host.pass_ms(16 * 60 * 1_000);
    assert_eq!(host.known(), 1);
    host.pass_ms(60 * 60 * 1_000);
    assert_eq!(host.known(), 0);
}

#[test]
fn a_browser_that_connects_early_and_asks_minutes_later_is_read() {
    let host = Host::new();
    let mut flow = host.open(1, tcp());
    host.pass_ms(5 * 60 * 1_000);
    host.write(&mut flow, &hello(Some(PROVIDER), false));
    assert!(matches!(flow.standing, Standing::Counted(_)));
}

#[test]
fn a_client_that_ends_its_side_within_its_hello_is_let_go() {
    let host = Host::new();
    let mut flow = host.open(1, tcp());
    host.write(&mut flow, &hello(Some(PROVIDER), false)[..30]);
    let verdict = host.filter.outbound_complete(|| flow.key);
    assert_eq!((verdict, host.known()), (toktra_capture_macos::DataVerdict::Allow, 0));
    assert_eq!(
        host.filter.outbound_complete(|| FlowKey([77; 16])),
        toktra_capture_macos::DataVerdict::Allow,
        "of a flow that is not known"
    );
}

#[test]
fn when_the_filter_stops_every_flow_is_told_with_its_last_counts() {
    let host = Host::new();
    let flows: Vec<_> = (1..=20).map(|key| host.connect(key, PROVIDER)).collect();
    for (index, flow) in flows.iter().enumerate() {
        host.statistics(flow, 1_000, 100 * index as u64);
    }
    host.filter.stop();
    assert_eq!(bytes(&host), 20 * 1_000 + 100 * (0..20).sum::<u64>());
    assert_eq!(host.known(), 0);
    // The same process may be asked to start once more.
    assert!(matches!(host.connect(1, PROVIDER).standing, Standing::Counted(_)));
}

#[test]
fn flows_in_parallel_from_many_threads_lose_no_byte() {
    const THREADS: u8 = 8;
    const EACH: u32 = 200;
    let host = Host::new();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let filter = host.filter.clone();
            scope.spawn(move || {
                let hello = hello(Some(PROVIDER), false);
                for number in 0..EACH {
                    let mut name = [thread; 16];
                    name[..4].copy_from_slice(&number.to_be_bytes());
                    let key = FlowKey(name);
                    filter.new_flow(|| (key, NewFlow { account: Some(format!("user{thread}")), ..tcp() }));
                    let (start, end) = hello.split_at(hello.len() / 2);
                    filter.outbound(0, start, || (key, None));
                    filter.outbound(start.len() as u64, end, || (key, None));
                    filter.report(|| {
                        let (bytes_out, bytes_in) = (1_000, u64::from(number));
                        Some((key, toktra_capture_macos::Report::Closed { bytes_out, bytes_in }))
                    });
                }
            });
        }
    });
    let flows = u64::from(THREADS) * u64::from(EACH);
    let each: u64 = (0..EACH).map(u64::from).sum();
    assert_eq!(bytes(&host), flows * 1_000 + u64::from(THREADS) * each);
    assert_eq!((host.known(), host.joint.lock().unwrap().health().flows_metered), (0, flows));
}
