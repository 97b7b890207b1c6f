//! While nothing may be recorded, nothing is delivered: the system's own rules are replaced.

use toktra_capture_macos::{Effect, Settings};
use toktra_engine::{Capture as _, Policy};

use crate::hellos::hello;
use crate::host::{Host, Standing, locked, private, tcp};

const PROVIDER: &str = "api.openai.com";

fn applied(host: &Host) -> Vec<Settings> {
    let settings = |effect| if let Effect::Apply(settings) = effect { Some(settings) } else { None };
    host.effects().into_iter().filter_map(settings).collect()
}

fn delivers(settings: &Settings) -> bool {
    settings.rules.iter().any(|rule| rule.delivers)
}

#[test]
fn until_the_agent_has_spoken_no_flow_is_delivered_and_what_comes_all_the_same_is_let_through() {
    let host = Host::silent();
    assert!(!delivers(&host.filter.settings()));
    let flow = host.connect(1, PROVIDER);
    assert_eq!((flow.standing, host.known()), (Standing::Allowed, 0));
    host.apply(private());
    assert!(applied(&host).iter().all(|settings| !delivers(settings)));
    host.apply(Policy::default());
    let applied = applied(&host);
    assert!(applied.len() == 1 && delivers(&applied[0]));
    assert_eq!(applied[0], host.filter.settings(), "a filter that starts now gets the same");
}

#[test]
fn privacy_hours_replace_the_rules_once_and_their_end_brings_them_back() {
    let host = Host::new();
    assert_eq!(applied(&host).len(), 1);
    host.apply(private());
    host.pass_ms(10_000);
    let begin = applied(&host);
    assert!(begin.len() == 1 && !delivers(&begin[0]), "{begin:?}");
    host.apply(Policy::default());
    host.pass_ms(10_000);
    let end = applied(&host);
    assert!(end.len() == 1 && delivers(&end[0]), "{end:?}");
}

#[test]
fn a_lock_in_privacy_hours_needs_flows_and_records_none() {
    let host = Host::new();
    host.apply(Policy { lock: locked().lock, ..private() });
    assert!(delivers(&host.filter.settings()));
    assert_eq!(host.connect(1, PROVIDER).standing, Standing::Dropped);
    assert!(host.bodies().is_empty());
}

#[test]
fn bytes_that_flow_within_are_never_counted_though_their_flow_began_before_and_ends_after() {
    let host = Host::new();
    let flow = host.connect(1, PROVIDER);
    host.statistics(&flow, 1_000, 5_000);
    host.pass_ms(5_000);
    host.apply(private());
    host.statistics(&flow, 500_000, 500_000);
    host.pass_ms(60_000);
    host.apply(Policy::default());
    host.statistics(&flow, 500_000, 500_000);
    host.close(&flow, 500_700, 500_300);
    let counted: Vec<u64> =
        host.usages().iter().map(|usage| usage.bytes_out + usage.bytes_in + usage.bytes_handshake).collect();
    assert_eq!(counted.iter().sum::<u64>(), 7_000, "{counted:?}");
}

#[test]
fn other_ports_are_watched_as_soon_as_the_agent_says_so() {
    let host = Host::new();
    let mut elsewhere = tcp();
    elsewhere.remote.as_mut().unwrap().port = "8443".into();
    assert_eq!(host.open(1, elsewhere.clone()).standing, Standing::Allowed);
    applied(&host);
    host.joint.lock().unwrap().capture.set_ports(&[8443]);
    let applied = applied(&host);
    assert!(applied.len() == 1 && applied[0].rules.iter().any(|rule| rule.port == 8443));
    let mut flow = host.open(2, elsewhere);
    host.write(&mut flow, &hello(Some(PROVIDER), false));
    assert!(matches!(flow.standing, Standing::Counted(_)));
    host.joint.lock().unwrap().capture.set_ports(&[8443]);
    assert!(host.effects().is_empty(), "the same once more is no change");
}
