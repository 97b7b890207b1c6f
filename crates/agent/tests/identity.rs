//! The life of a device's certificate, lived by the agent against a backend that judges certificates
//! after the handshake and whose clock a test moves.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use support::{Authority, Backend, DAY, Device, Extension, TOKEN};
use toktra_agent::clock::{BackendTime, Clock};
use toktra_agent::enrolment;
use toktra_identity::{Application, DeviceKey, FileStore, Store as _};
use toktra_protocol::local::{IdentityPhase, Status};
use toktra_protocol::{Code, Minute};
use zeroize::Zeroizing;

/// A certificate that is due for renewal, with twenty days left.
const DUE: (i64, i64) = (-70 * DAY, 20 * DAY);
/// One that expired ten days ago.
const EXPIRED: (i64, i64) = (-100 * DAY, -10 * DAY);
const MINUTE: Duration = Duration::from_secs(60);

fn phase(status: &Status) -> IdentityPhase {
    status.identity.phase
}

fn issued(backend: &Backend) -> usize {
    backend.books().register.issued.len()
}

fn device_with(backend: &Backend, term: (i64, i64)) -> Device {
    backend.change(|books| books.register.terms.push_back(term));
    Device::enrolled(backend)
}

fn connected(device: &Device) -> Extension {
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    extension
}

/// Sends everything; whether that succeeded.
fn flush(device: &Device) -> bool {
    device.command(&["flush"]).status.success()
}

#[test]
fn a_certificate_is_renewed_with_a_new_key_and_the_session_goes_on() {
    let backend = Backend::start();
    backend.change(|books| books.directive = 3);
    let mut device = device_with(&backend, DUE);
    device.start();
    let mut extension = connected(&device);
    let long =
        |status: &Status| status.certificate_until.unwrap().0 > Clock::System.now().0 + 80 * DAY as u64;
    let status =
        device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled && long(status));
    assert!(status.identity.renews_at.unwrap() > Clock::System.now());
    // The same connection, and the directive is not forgotten.
    extension.deliver(60);
    backend.until("all events", |books| books.stored.len() == 60);
    let status = device.until("all is acknowledged", |status| status.acknowledged == 60);
    assert_eq!(status.directive_version, Some(3));
    assert!(status.degraded.is_empty(), "{:?}", status.degraded);
    let books = backend.books();
    assert_eq!((books.register.issued.len(), books.register.issued[1].recovered), (2, false));
    assert_ne!(books.register.asked[0], books.register.asked[1]);
    assert!(!device.path("state/candidate.json").exists());
}

#[test]
fn an_answer_that_is_lost_costs_a_repetition_with_the_same_key_also_across_a_crash() {
    let backend = Backend::start();
    let device = device_with(&backend, DUE);
    backend.change(|books| books.register.lose = 2);
    let inside = device.start_inside(0);
    backend.until("the first is lost", |books| books.register.lose == 1);
    drop(inside);
    let inside = device.start_inside(0);
    backend.until("the second is lost", |books| books.register.lose == 0);
    inside.sleep(MINUTE);
    device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled);
    let books = backend.books();
    assert_eq!((books.register.issued.len(), books.register.asked.len()), (2, 4));
    assert!(books.register.asked[1..].iter().all(|key| *key == books.register.asked[1]));
}

#[test]
fn an_enrolment_whose_answer_is_lost_is_repeated_with_the_same_key() {
    let backend = Backend::start();
    backend.change(|books| books.register.lose = 1);
    let device = Device::configured(&backend);
    let lost = device.command(&["enroll"]);
    assert_eq!(lost.status.code(), Some(5), "{lost:?}");
    let _inside = device.start_inside(0);
    device.until("it is enrolled", |status| phase(status) == IdentityPhase::Enrolled);
    assert_eq!(issued(&backend), 1);
    assert!(!device.path("state/application.json").exists());
    assert!(!std::fs::read_to_string(device.path("agent.toml")).unwrap().contains(TOKEN));
}

#[test]
fn an_expired_certificate_recovers_and_what_waited_arrives() {
    let backend = Backend::start();
    let mut device = device_with(&backend, EXPIRED);
    backend.change(|books| books.register.refuse_renewal = Some(Code::Busy));
    device.start();
    let mut extension = connected(&device);
    extension.deliver(5);
    let status = device.until("it has expired", |status| phase(status) == IdentityPhase::Recovering);
    assert!(status.degraded.iter().any(|words| words.contains("recovers by itself")), "{status:?}");
    backend.change(|books| books.register.refuse_renewal = None);
    device.until("it has recovered", |status| phase(status) == IdentityPhase::Enrolled);
    device.until("all is acknowledged", |status| status.acknowledged == 5);
    assert!(backend.books().register.issued[1].recovered);
}

#[test]
fn a_device_that_may_not_recover_says_so_and_does_not_hammer() {
    let backend = Backend::start();
    let device = device_with(&backend, EXPIRED);
    backend.change(|books| books.register.refuse_renewal = Some(Code::RecoveryClosed));
    let inside = device.start_inside(0);
    let status = device.until("it is lost", |status| phase(status) == IdentityPhase::Lost);
    assert_eq!(status.identity.refused, Some(Code::RecoveryClosed));
    assert!(status.degraded.iter().any(|words| words.contains("--again")), "{status:?}");
    let asked = backend.books().register.asked.len();
    inside.sleep(30 * MINUTE);
    device.status();
    assert_eq!(backend.books().register.asked.len(), asked);
    // But it does not give up either.
    backend.change(|books| books.register.refuse_renewal = None);
    inside.sleep(60 * MINUTE);
    device.until("it has recovered", |status| phase(status) == IdentityPhase::Enrolled);
}

#[test]
fn a_revoked_device_says_so_keeps_its_spool_and_goes_on_when_it_is_enrolled_again() {
    let backend = Backend::start();
    let mut device = Device::enrolled(&backend);
    device.start();
    let mut extension = connected(&device);
    backend.change(|books| books.revoked = true);
    extension.deliver(3);
    assert!(!flush(&device));
    let status = device.until("it is revoked", |status| phase(status) == IdentityPhase::Revoked);
    assert_eq!((status.identity.refused, status.events_waiting), (Some(Code::Revoked), 3));
    backend.change(|books| (books.revoked, books.token_used) = (false, false));
    let ca = device.path("ca.pem").display().to_string();
    let again = ["enroll", "--again", "--domain", &backend.domain(), "--token", TOKEN, "--ca", &ca];
    let output = device.command(&again);
    assert!(output.status.success(), "{output:?}");
    device.until("a session begins", |status| phase(status) == IdentityPhase::Enrolled);
    extension.connect(&device.socket());
    extension.deliver(1);
    assert!(flush(&device));
}

#[test]
fn a_device_waits_for_approval_with_its_token_kept_privately_and_begins_when_approved() {
    let backend = Backend::start();
    backend.change(|books| books.register.refuse = Some(Code::Pending));
    let device = Device::configured(&backend);
    let output = device.command(&["enroll"]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("awaits approval"));
    assert!(!std::fs::read_to_string(device.path("agent.toml")).unwrap().contains(TOKEN));
    let kept = device.path("state/application.json");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let inside = device.start_inside(0);
    let status = device.until("it waits", |status| status.identity.refused == Some(Code::Pending));
    assert_eq!(phase(&status), IdentityPhase::Pending);
    backend.change(|books| books.register.refuse = None);
    inside.sleep(MINUTE);
    device.until("it is enrolled", |status| phase(status) == IdentityPhase::Enrolled);
    assert!(!kept.exists());
    connected(&device).deliver(1);
    assert!(flush(&device));
}

#[test]
fn a_device_that_is_denied_asks_no_more_and_forgets_the_token() {
    let backend = Backend::start();
    backend.change(|books| books.register.refuse = Some(Code::Pending));
    let device = Device::configured(&backend);
    device.command(&["enroll"]);
    let inside = device.start_inside(0);
    device.until("it waits", |status| status.identity.refused == Some(Code::Pending));
    backend.change(|books| books.register.refuse = Some(Code::Denied));
    inside.sleep(MINUTE);
    let status = device.until("it is denied", |status| status.identity.refused == Some(Code::Denied));
    assert_eq!(phase(&status), IdentityPhase::Unenrolled);
    assert!(status.degraded.iter().any(|words| words.contains("Ask why")), "{status:?}");
    assert!(!device.path("state/application.json").exists());
}

#[test]
fn a_clock_that_is_two_years_wrong_is_survived_and_said() {
    for ahead_s in [2 * 365 * DAY, -2 * 365 * DAY] {
        let backend = Backend::start();
        let device = Device::new();
        let inside = device.start_inside(ahead_s);
        enrol_inside(&device, &backend, inside.clock());
        let status = device.until("it says so", |status| {
            status.identity.clock_ahead_s.abs_diff(ahead_s) < 60 && phase(status) == IdentityPhase::Enrolled
        });
        assert!(
            status.degraded.iter().any(|words| words.contains("set it, for example by NTP")),
            "{status:?}"
        );
        let mut extension = connected(&device);
        let truth = Clock::System.now().minute();
        extension.minute = Minute(truth.0.saturating_add_signed(ahead_s / 60));
        extension.deliver(2);
        assert!(flush(&device));
        // Nothing was renewed by the wrong time, and usage has the right one.
        assert_eq!(issued(&backend), 1);
        assert!(backend.books().stored.iter().all(|event| event.minute.0.abs_diff(truth.0) <= 1));
        // Somebody sets the clock.
        inside.set_clock(0);
        extension.minute = Clock::System.now().minute();
        extension.deliver(1);
        assert!(flush(&device));
        let status = device.status();
        assert!(status.identity.clock_ahead_s.abs() < 60 && status.degraded.is_empty(), "{status:?}");
    }
}

/// Enrols as the command does, by the device's clock.
fn enrol_inside(device: &Device, backend: &Backend, clock: Clock) {
    let application = Application {
        domain: backend.domain().parse().unwrap(),
        ca: Some(backend.ca_pem()),
        token: Zeroizing::new(TOKEN.to_owned()),
        key: DeviceKey::generate().unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let time = Arc::new(BackendTime::new(clock));
    let credential = runtime.block_on(enrolment::enrol(&application, &time, clock)).unwrap();
    FileStore::new(device.path("state")).save_credential(&credential).unwrap();
}

#[test]
fn a_machine_that_slept_two_months_renews_when_it_wakes() {
    let backend = Backend::start();
    backend.change(|books| books.directive = 1);
    let device = Device::enrolled(&backend);
    let inside = device.start_inside(0);
    device.until("it has heard the backend", |status| status.directive_version == Some(1));
    let asleep = Duration::from_secs(65 * DAY as u64);
    backend.change(|books| books.later_s = asleep.as_secs());
    inside.sleep(asleep);
    backend.until("a new certificate", |books| books.register.issued.len() == 2);
    device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled);
    assert!(!backend.books().register.issued[1].recovered);
}

#[test]
fn devices_follow_a_new_root() {
    let backend = Backend::start();
    let mut device = device_with(&backend, DUE);
    let next = Authority::new();
    let both = backend.ca_pem() + &next.pem;
    backend.change(|books| books.register.roots = Some(both.clone()));
    device.start();
    device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled);
    assert_eq!(roots(&device), both);
    device.kill();
    backend.use_root(next);
    device.start();
    connected(&device).deliver(1);
    assert!(flush(&device), "{}", device.log());
}

#[test]
fn a_new_root_that_does_not_vouch_for_the_backend_is_not_taken() {
    let backend = Backend::start();
    let mut device = device_with(&backend, DUE);
    backend.change(|books| books.register.roots = Some(Authority::new().pem));
    device.start();
    device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled);
    assert_eq!((roots(&device), issued(&backend)), (backend.ca_pem(), 2));
    connected(&device).deliver(1);
    assert!(flush(&device));
}

#[test]
fn only_authorities_that_are_known_certify_a_device() {
    let backend = Backend::start();
    let device = device_with(&backend, DUE);
    let known = backend.ca_pem();
    let stranger = Authority::new();
    backend.change(|books| {
        books.register.roots = Some(known.clone() + &stranger.pem);
        books.register.certifier = Some(Arc::new(stranger));
    });
    let inside = device.start_inside(0);
    backend.until("a certificate of a stranger", |books| books.register.issued.len() == 2);
    device.until("it waits", |status| phase(status) == IdentityPhase::Renewing);
    backend.change(|books| {
        books.register.certifier = None;
        books.register.issued.truncate(1);
    });
    inside.sleep(MINUTE);
    device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled);
    connected(&device).deliver(1);
    assert!(flush(&device));
}

#[test]
fn by_a_time_that_the_machine_contradicts_no_authorities_are_taken() {
    let backend = Backend::start();
    let device = device_with(&backend, DUE);
    let known = backend.ca_pem();
    backend.change(|books| books.register.roots = Some(known.clone() + &Authority::new().pem));
    let _inside = device.start_inside(2 * 365 * DAY);
    backend.until("a new certificate", |books| books.register.issued.len() == 2);
    device.until("it is renewed", |status| phase(status) == IdentityPhase::Enrolled);
    assert_eq!(roots(&device), known);
}

#[test]
fn a_renewal_under_way_does_not_replace_a_device_that_was_enrolled_anew() {
    let backend = Backend::start();
    let mut device = device_with(&backend, DUE);
    backend.change(|books| books.register.hold = true);
    device.start();
    backend.until("a renewal is under way", |books| books.register.held);
    backend.change(|books| books.token_used = false);
    let ca = device.path("ca.pem").display().to_string();
    let again = ["enroll", "--again", "--domain", &backend.domain(), "--token", TOKEN, "--ca", &ca];
    let output = device.command(&again);
    assert!(output.status.success(), "{output:?}");
    let chain = || {
        let credential = FileStore::new(device.path("state")).credential().unwrap().unwrap();
        credential.enrolled().certificate_chain.clone()
    };
    let anew = chain();
    backend.change(|books| books.register.hold = false);
    let long = |status: &Status| {
        status.certificate_until.is_some_and(|at| at > Clock::System.now().plus(80 * 86_400))
    };
    device.until("it goes on", |status| phase(status) == IdentityPhase::Enrolled && long(status));
    assert_eq!(chain(), anew);
}

#[test]
fn a_token_outlives_a_refusal_that_is_not_of_the_token() {
    let backend = Backend::start();
    backend.change(|books| books.register.refuse = Some(Code::BadCsr));
    let mut device = Device::configured(&backend);
    assert_eq!(device.command(&["enroll"]).status.code(), Some(4));
    backend.change(|books| books.register.refuse = None);
    device.start();
    device.until("it is enrolled", |status| phase(status) == IdentityPhase::Enrolled);
}

fn roots(device: &Device) -> String {
    let credential = FileStore::new(device.path("state")).credential().unwrap().unwrap();
    credential.enrolled().ca.clone().unwrap()
}
