//! How long data is kept, as an operator sets it and beside a server that goes on booking.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![allow(dead_code, reason = "the support serves other tests too")]

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use support::Backend;
use toktra_store::retention::{self, Settings};
use toktra_store::{audit, events};

const DAY_S: u64 = 24 * 60 * 60;

fn run(backend: &Backend, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toktra-server"))
        .args(arguments)
        .arg("--data")
        .arg(backend.data.path())
        .output()
        .unwrap()
}

#[tokio::test]
async fn devices_go_on_after_a_sweep_and_the_check_stays_even() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    assert_eq!(client.book(1..=50).await, Ok(50));
    let later = backend.app.clock.now().plus(31 * DAY_S);
    let swept = retention::sweep(&backend.app.store, later, Duration::ZERO).await.unwrap();
    assert_eq!(swept.events, 50);
    assert_eq!(client.book(41..=60).await, Ok(60));
    let left = events::of_device(&backend.app.store, &device.id.to_string(), 0).await.unwrap();
    assert_eq!((left.len(), left[0].sequence), (10, 51));
    let check = run(&backend, &["check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert!(String::from_utf8(check.stdout).unwrap().contains("\"pruned\":50"));
    backend.stop().await;
}

#[tokio::test]
async fn an_operator_sets_how_long_and_what_cannot_be_is_refused() {
    let backend = Backend::start().await;
    let shown = String::from_utf8(run(&backend, &["retention", "show"]).stdout).unwrap();
    assert!(shown.contains("raw events") && shown.contains("30 days"), "{shown}");
    let set = run(&backend, &["retention", "set", "--events", "7d"]);
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    assert!(String::from_utf8(set.stdout).unwrap().contains("7 days"));
    let expected = Settings { events_days: 7, ..Settings::default() };
    let store = &backend.app.store;
    assert_eq!(retention::settings(store, &backend.organisation).await.unwrap(), expected);
    let newest = audit::newest(store, 1).await.unwrap().remove(0);
    assert_eq!((&*newest.actor, &*newest.action), ("cli", "retention_set"));
    for bad in [&["--events", "0d"][..], &["--events", "367d"], &["--events", "7"], &["--usage", "5d"], &[]] {
        assert!(!run(&backend, &[&["retention", "set"], bad].concat()).status.success(), "{bad:?}");
    }
    assert_eq!(retention::settings(store, &backend.organisation).await.unwrap(), expected);
    backend.stop().await;
}
