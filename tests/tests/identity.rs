//! A device's identity from end to end, with the real processes: an agent whose certificate is
//! nearly over renews it by itself, and nothing of what it recorded meanwhile is lost.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toktra_testkit::installation::{Installation, Part};
use toktra_testkit::process::{output, until};
use toktra_tests::clients::{chat, curl};

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const LIMIT: Duration = Duration::from_secs(60);
const DAY: u64 = 24 * 60 * 60;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn talk(installation: &Installation) {
    for _ in 0..3 {
        output(&mut curl(&installation.lab, &["-o", "/dev/null", "-d", &chat(2), CHAT])).unwrap();
    }
}

/// When the certificate that the agent holds is to be renewed.
fn renews_at(installation: &Installation) -> anyhow::Result<u64> {
    Ok(installation.status()?["identity"]["renews_at"].as_u64().unwrap_or_default())
}

/// Waits until the backend has so many events, and checks that each is there once.
fn settle(installation: &Installation, events: usize) {
    let sequences = until("the events to be acknowledged", LIMIT, || {
        // While the agent backs off, there is no use in asking why.
        let _ = installation.flush();
        let stored: Vec<i64> = installation.events(0)?.iter().map(|event| event.sequence).collect();
        let is_all = installation.status()?["events_waiting"] == 0 && stored.len() >= events;
        Ok(is_all.then_some(stored))
    })
    .unwrap();
    assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>(), "a gap or a repeat");
    installation.check_ledger().unwrap();
}

#[test]
fn an_agent_renews_by_itself_and_loses_no_event() {
    // Due for all certificates: two thirds of ninety days, and the most that is added to spread them.
    let mut installation = Installation::start_after(Duration::from_secs(66 * DAY)).unwrap();
    let old = renews_at(&installation).unwrap();
    assert!(old < now(), "due at {old}");
    talk(&installation);
    until("events in the spool", LIMIT, || {
        Ok(installation.status()?["events_waiting"].as_u64().filter(|&waiting| waiting >= 3))
    })
    .unwrap();
    installation.restart(Part::Server).unwrap();
    until("another certificate", LIMIT, || Ok((renews_at(&installation)? > now() + 50 * DAY).then_some(())))
        .unwrap();
    settle(&installation, 3);
    talk(&installation);
    settle(&installation, 6);
    assert_eq!(installation.status().unwrap()["identity"]["phase"], "enrolled");
    let audit = installation.server(&["audit"]).unwrap();
    assert!(audit.contains("renew"), "{audit}");
    installation.stop().unwrap();
}
