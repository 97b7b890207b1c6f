//! Privacy hours on the live kernel: a transfer that runs across a window's two edges is counted outside
//! only, within one reading of the counters, and while the window lasts nothing leaves the device.
//!
//! A window has whole minutes, so the edges come from the zone: in the one that the device is taken to,
//! it is noon in half a minute, and a quarter of a minute later clocks are set forward over the end of a
//! window from 12:00 to 13:00. Nothing in the programs under test knows of it.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::Offset;
use toktra_testkit::installation::{Event, Installation};
use toktra_testkit::process::{output, until};
use toktra_tests::clients::{chat, curl};

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
/// From the choice of the zone to the first edge: three processes start meanwhile.
const LEAD_S: u64 = 40;
/// From the first edge to the second.
const WITHIN_S: u64 = 15;
/// Counters are read twice a second; the rest is for a machine that is busy.
const READING: Duration = Duration::from_secs(3);
/// What was sent before a moment and arrived after it.
const ON_ITS_WAY_BYTES: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(60);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A zone, in POSIX's words, in which it is noon at `begin_s` and clocks are set forward by an hour so many
/// seconds later.
fn zone(begin_s: u64, within_s: u64) -> String {
    let noon = 12 * 60 * 60;
    let east_s = noon - i32::try_from(begin_s % 86_400).unwrap();
    let begin = Timestamp::from_second(begin_s as i64).unwrap();
    let local = Offset::from_seconds(east_s).unwrap().to_datetime(begin);
    assert_eq!((local.hour(), local.minute(), local.second()), (12, 0, 0));
    let day = local.date().day_of_year() - 1;
    // POSIX counts west of Greenwich.
    let (sign, apart) = if east_s > 0 { ("-", east_s) } else { ("", -east_s) };
    let (hours, minutes, seconds) = (apart / 3600, apart / 60 % 60, apart % 60);
    let back = (day + 60) % 365;
    format!("<STD>{sign}{hours}:{minutes:02}:{seconds:02}<DST>,{day}/12:00:{within_s:02},{back}/0")
}

/// How much the first connection has carried, over time.
struct Course(Vec<(Duration, u64)>);

impl Course {
    fn before(&self, moment: Duration) -> u64 {
        self.0.iter().take_while(|(at, _)| *at <= moment).last().map_or(0, |(_, bytes)| *bytes)
    }
}

fn stream(installation: &Installation) -> Child {
    curl(&installation.lab, &["-o", "/dev/null", "-d", &chat(1_000_000), CHAT])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn bytes(installation: &Installation) -> u64 {
    installation.lab.connections().first().map_or(0, |one| one.bytes())
}

#[test]
fn a_transfer_across_both_edges_is_counted_outside_only_and_nothing_leaves_within() {
    let mut installation = Installation::start(|_| ()).unwrap();
    let begin_s = now().as_secs() + LEAD_S;
    let (begin, end) = (Duration::from_secs(begin_s), Duration::from_secs(begin_s + WITHIN_S));
    installation.travel(&zone(begin_s, WITHIN_S)).unwrap();
    let said = installation.agent(&["privacy", "set", "12:00-13:00"]).unwrap();
    assert!(said.contains("12:00-13:00"), "{said}");
    let privacy = installation.status().unwrap()["privacy"].clone();
    assert_eq!((&privacy["active"], &privacy["changes_at"]), (&false.into(), &begin_s.into()), "{privacy}");

    let mut client = stream(&installation);
    until("the stream to flow", LIMIT, || Ok((bytes(&installation) > 10_000).then_some(()))).unwrap();
    assert!(now() + Duration::from_secs(8) < begin, "this machine is too slow for this test's LEAD_S");
    let (mut course, mut had, mut looked_s) = (Course(Vec::new()), Vec::new(), 0);
    let mut visited = false;
    until("the window to pass", Duration::from_secs(LEAD_S + WITHIN_S + 60), || {
        let at = now();
        course.0.push((at, bytes(&installation)));
        if at.as_secs() > looked_s {
            looked_s = at.as_secs();
            let events = installation.events(0)?.len();
            // Not at an edge: a batch that began before it may end after it.
            if begin + Duration::from_secs(1) < at && now() < end {
                had.push(events);
            }
        }
        if !visited && begin + Duration::from_secs(3) < at {
            visited = true;
            within(&installation, end);
        }
        Ok((end + Duration::from_secs(8) < at).then_some(()))
    })
    .unwrap();
    assert!(had.len() > 3 && had.iter().all(|events| *events == had[0]), "something left within: {had:?}");

    client.kill().unwrap();
    client.wait().unwrap();
    installation.closed_since(0).unwrap();
    let total = bytes(&installation);
    let most = course.before(begin) + (total - course.before(end)) + ON_ITS_WAY_BYTES;
    let least = course.before(begin - READING) + (total - course.before(end + READING)) - ON_ITS_WAY_BYTES;
    assert!(course.before(end) - course.before(begin) > 100_000, "too little flowed within");
    let events = installation.events_until(|events| sum(events) >= least).unwrap();
    assert!((least..=most).contains(&sum(&events)), "{least}..={most}: {events:#?}");
    // The one that was wholly within is not among them, nor anything that was blocked.
    assert!(
        events.iter().all(|event| event.host.as_deref() == Some("api.openai.com") && event.kind == "usage")
    );
    installation.check_ledger().unwrap();
}

/// What is true while the window lasts.
fn within(installation: &Installation, end: Duration) {
    let status = installation.status().unwrap();
    let privacy = &status["privacy"];
    assert_eq!(
        (&privacy["active"], &privacy["changes_at"]),
        (&true.into(), &end.as_secs().into()),
        "{privacy}"
    );
    assert!(status["events_waiting"].as_u64().unwrap() > 0, "what was recorded before waits: {status}");
    let refused = installation.flush().unwrap_err().to_string();
    assert!(refused.contains("privacy hours last"), "{refused}");
    let other = "https://api.anthropic.com/";
    output(&mut curl(&installation.lab, &["-o", "/dev/null", other])).unwrap();
    assert!(now() < end, "this machine is too slow for this test's WITHIN_S");
}

fn sum(events: &[Event]) -> u64 {
    events.iter().map(Event::bytes).sum()
}
