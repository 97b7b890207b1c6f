//! The agent as a real process, against a backend that misbehaves as told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use support::{Backend, Device, Extension, Next, TOKEN};
use toktra_protocol::{Code, Lock};
use uuid::Uuid;

fn numbers(until: u64) -> Vec<String> {
    (1..=until).map(|number| number.to_string()).collect()
}

fn running(backend: &Backend) -> (Device, Extension) {
    let mut device = Device::enrolled(backend);
    device.start();
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    (device, extension)
}

#[test]
fn what_the_extension_records_arrives_and_the_status_says_so() {
    let backend = Backend::start();
    let (device, mut extension) = running(&backend);
    extension.deliver(120);
    backend.until("120 events", |books| books.stored.len() == 120);
    let status = device.until("all is acknowledged", |status| status.acknowledged == 120);
    assert_eq!(backend.arrived(), (numbers(120), 0));
    assert_eq!((status.events_waiting, status.events_dropped), (0, 0));
    assert_eq!(status.organisation.as_deref(), Some("Acme"));
    assert!(status.extension_connected && status.last_flush.is_some());
    assert!(status.degraded.is_empty(), "{:?}", status.degraded);
    assert!(!std::fs::read_to_string(device.path("agent.toml")).unwrap().contains(TOKEN));
    assert!(!device.log().contains(TOKEN));
}

#[test]
fn what_was_recorded_before_the_enrolment_is_nobodys_and_is_not_sent() {
    let backend = Backend::start();
    let mut device = Device::enrolled(&backend);
    device.start();
    let mut extension = Extension::new();
    let now = extension.minute;
    extension.minute = toktra_protocol::Minute(now.0 - 60);
    extension.make(7);
    extension.minute = now;
    extension.connect(&device.socket());
    extension.deliver(3);
    device.until("all is acknowledged", |status| status.acknowledged == 3);
    assert_eq!(backend.arrived(), (["8", "9", "10"].map(str::to_owned).to_vec(), 0));
}

#[test]
fn killed_at_any_moment_it_loses_nothing_and_counts_nothing_twice() {
    let backend = Backend::start();
    let mut device = Device::enrolled(&backend);
    let mut extension = Extension::new();
    for round in 0..20u64 {
        device.start();
        extension.connect(&device.socket());
        extension.make(1 + getrandom::u64().unwrap() % 200);
        if round % 3 == 0 {
            backend.change(|books| books.next.push_back(Next::Forget));
        }
        extension.send();
        // The moment: when the backend has got so far, or the spool has, or at once.
        let stored = backend.books().stored.len();
        match round % 4 {
            0 => {}
            1 => drop(extension.hear()),
            2 => {
                extension.settle();
                backend.until("some events", |books| {
                    books.stored.len() > stored || books.stored.len() as u64 == extension.made
                });
            }
            _ => drop(extension.settle()),
        }
        device.kill();
    }
    device.start();
    extension.connect(&device.socket());
    assert!(extension.send() && extension.settle());
    assert!(device.command(&["flush"]).status.code().is_some());
    backend.until("every event", |books| books.stored.len() as u64 >= extension.made);
    assert_eq!(backend.arrived(), (numbers(extension.made), 0));
}

#[test]
fn a_batch_that_is_too_large_is_halved() {
    let backend = Backend::start();
    backend.change(|books| books.most = Some(7));
    let (_device, mut extension) = running(&backend);
    extension.deliver(60);
    backend.until("60 events", |books| books.stored.len() == 60);
    assert_eq!(backend.arrived(), (numbers(60), 0));
}

#[test]
fn an_event_that_the_backend_refuses_is_counted_as_dropped_and_the_rest_goes_on() {
    let backend = Backend::start();
    backend.change(|books| books.poison = Some("33".into()));
    let (device, mut extension) = running(&backend);
    extension.deliver(60);
    backend.until("60 events", |books| books.stored.len() == 60);
    let mut rest = numbers(60);
    rest.remove(32);
    assert_eq!(backend.arrived(), (rest, 1));
    assert_eq!(device.until("one is dropped", |status| status.acknowledged == 60).events_dropped, 1);
}

#[test]
fn a_backend_that_was_restored_is_followed_and_its_loss_is_counted() {
    let backend = Backend::start();
    let (device, mut extension) = running(&backend);
    extension.deliver(60);
    device.until("all is acknowledged", |status| status.acknowledged == 60);
    backend.change(|books| books.stored.truncate(10));
    extension.deliver(50);
    backend.until("the rest and a report", |books| books.stored.len() == 10 + 50 + 1);
    assert_eq!(backend.arrived().1, 50);
}

#[test]
fn an_answer_that_is_lost_makes_nothing_count_twice() {
    let backend = Backend::start();
    backend.change(|books| books.next.extend([Next::Forget, Next::Refuse(Code::Busy), Next::Forget]));
    let (device, mut extension) = running(&backend);
    extension.deliver(60);
    device.until("all is acknowledged", |status| status.acknowledged == 60);
    assert_eq!(backend.arrived(), (numbers(60), 0));
}

#[test]
fn a_revoked_device_keeps_everything_and_says_so() {
    let backend = Backend::start();
    let (device, mut extension) = running(&backend);
    backend.change(|books| books.revoked = true);
    extension.deliver(60);
    let status = device.until("it is refused", |status| {
        status.degraded.iter().any(|words| words.contains("refuses this device"))
    });
    assert_eq!(status.events_waiting, 60);
    let flush = device.command(&["flush"]);
    assert_eq!(flush.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&flush.stderr).contains("revoked"));
    backend.change(|books| books.revoked = false);
    assert!(device.command(&["flush"]).status.success());
    assert_eq!(backend.arrived(), (numbers(60), 0));
}

#[test]
fn a_lock_reaches_the_extension_and_holds_while_the_backend_is_away() {
    let backend = Backend::start();
    let (mut device, mut extension) = running(&backend);
    let lock = Lock { message: "Stop".into() };
    backend.change(|books| (books.directive, books.lock) = (3, Some(lock.clone())));
    extension.hear_seed(|seed| seed.lock.as_ref() == Some(&lock));
    backend.until("it says what it applied", |books| books.applied.as_deref() == Some("3"));
    device.kill();
    backend.change(|books| books.revoked = true);
    device.start();
    assert_eq!(extension.connect(&device.socket()).lock, Some(lock));
    assert_eq!(device.status().directive_version, Some(3));
}

#[test]
fn a_forged_directive_is_not_applied_and_the_status_says_so() {
    let backend = Backend::start();
    backend.change(|books| (books.directive, books.forged) = (3, true));
    let (device, _extension) = running(&backend);
    let status = device.until("it is refused", |status| {
        status.degraded.iter().any(|words| words.contains("not signed by the key"))
    });
    assert_eq!((status.lock, status.directive_version), (None, None));
}

#[test]
fn a_peer_that_misbehaves_is_dropped_and_the_next_is_served() {
    let backend = Backend::start();
    let (device, mut extension) = running(&backend);
    let garbage = [vec![0xff; 64], b"\x02\0\0\0{}".to_vec(), {
        let hello = Extension::hello(local_version(), Uuid::nil());
        [hello.clone(), hello].concat()
    }];
    for bytes in garbage {
        let mut stream = UnixStream::connect(device.socket()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        // Ends because the agent closes the connection.
        let _ = stream.read_to_end(&mut rest);
    }
    extension.deliver(3);
    assert!(device.command(&["flush"]).status.success());
    assert_eq!(backend.arrived(), (numbers(3), 0));
}

fn local_version() -> u32 {
    toktra_protocol::local::VERSION
}

#[test]
fn an_extension_of_another_version_learns_ours_and_is_let_go() {
    let backend = Backend::start();
    let (device, _extension) = running(&backend);
    let mut stream = UnixStream::connect(device.socket()).unwrap();
    stream.write_all(&Extension::hello(local_version() + 1, Uuid::nil())).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains(&format!("\"version\":{}", local_version())));
}

#[test]
fn other_users_may_ask_for_the_status_but_not_for_a_flush_and_not_see_the_extensions_socket() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let backend = Backend::start();
    let (device, _extension) = running(&backend);
    std::fs::set_permissions(device.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_toktra-agent"));
        command
            .arg("--run-dir")
            .arg(device.path("run"))
            .args(arguments)
            .uid(65534)
            .gid(65534)
            .output()
            .unwrap()
    };
    assert!(nobody(&["status"]).status.success());
    let flush = nobody(&["flush"]);
    assert!(String::from_utf8_lossy(&flush.stderr).contains("only root"), "{flush:?}");
    assert_eq!(device.socket().metadata().unwrap().permissions().mode() & 0o777, 0o660);
}

#[test]
fn a_token_that_is_refused_says_what_to_do_and_leaves_nothing_behind() {
    let backend = Backend::start();
    let device = Device::enrolled(&backend);
    let used = device.command(&["enroll", "--again", "--token", TOKEN]);
    assert_eq!(used.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&used.stderr).contains("Ask your administrator for a new one"));
    let other = Device::new();
    std::fs::write(other.path("ca.pem"), backend.ca_pem()).unwrap();
    let ca = other.path("ca.pem").display().to_string();
    let output = other.command(&["enroll", "--domain", &backend.domain(), "--token", "wrong", "--ca", &ca]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(std::fs::read_dir(other.path("state")).unwrap().count(), 0);
    let away = other.command(&["enroll", "--domain", "toktra.localhost:1", "--token", TOKEN, "--ca", &ca]);
    assert_eq!(away.status.code(), Some(5));
}

#[test]
fn a_backend_of_another_authority_is_not_believed() {
    let (backend, other) = (Backend::start(), Backend::start());
    let device = Device::new();
    std::fs::write(device.path("ca.pem"), other.ca_pem()).unwrap();
    let ca = device.path("ca.pem").display().to_string();
    let output = device.command(&["enroll", "--domain", &backend.domain(), "--token", TOKEN, "--ca", &ca]);
    assert_eq!(output.status.code(), Some(5));
    assert!(!backend.books().token_used);
}

#[test]
fn the_status_says_what_is_missing_while_nothing_runs() {
    let device = Device::new();
    let output = device.command(&["status"]);
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("systemctl start toktra-agent") && text.contains("toktra-agent enroll"), "{text}");
    let backend = Backend::start();
    let status = Device::enrolled(&backend).status();
    assert_eq!(status.organisation.as_deref(), Some("Acme"));
    assert_eq!(status.identity.phase, toktra_protocol::local::IdentityPhase::Enrolled);
}

#[test]
fn a_daemon_that_waits_begins_as_soon_as_the_device_is_enrolled() {
    let backend = Backend::start();
    let mut device = Device::new();
    device.start();
    device.until("it says so", |status| {
        status.degraded
            == ["the device is not enrolled: run `toktra-agent enroll --domain DOMAIN --token TOKEN` as root"]
    });
    std::fs::write(device.path("ca.pem"), backend.ca_pem()).unwrap();
    let ca = device.path("ca.pem").display().to_string();
    assert!(
        device
            .command(&["enroll", "--domain", &backend.domain(), "--token", TOKEN, "--ca", &ca])
            .status
            .success()
    );
    let mut extension = Extension::new();
    extension.connect(&device.socket());
    extension.deliver(1);
    assert!(device.command(&["flush"]).status.success());
    assert_eq!(backend.arrived(), (numbers(1), 0));
}
