//! `toktra-agent records --follow` beside a live agent: a record is shown when it waits and again when it was
//! sent, as the backend has it, and the listing ends with the agent.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code")]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;
use toktra_testkit::installation::{Installation, Part};
use toktra_testkit::process::{output, until};
use toktra_tests::clients::{chat, curl};

const LIMIT: Duration = Duration::from_secs(60);

/// The next line that says this of a record.
fn next(lines: &Receiver<Value>, state: &str) -> Value {
    loop {
        let listed = lines.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no record is shown as {state}"));
        if listed["state"] == state {
            return listed["event"].clone();
        }
    }
}

#[test]
fn a_record_is_shown_when_it_waits_and_when_it_was_sent() {
    let mut installation = Installation::start(|_| ()).unwrap();
    let mut follow = installation
        .agent_command(&["records", "--follow", "--json"])
        .unwrap()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (say, lines) = mpsc::channel();
    let shown = BufReader::new(follow.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in shown.lines() {
            let _ = say.send(serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        }
    });
    // While nobody answers, it waits.
    installation.freeze(Part::Server, true).unwrap();
    output(&mut curl(&installation.lab, &["-d", &chat(3), "https://api.openai.com/v1/chat/completions"]))
        .unwrap();
    let waiting = next(&lines, "waiting");
    let usage = &waiting["body"]["usage"];
    assert_eq!((&usage["host"], &usage["application"]), (&"api.openai.com".into(), &"curl".into()));
    installation.freeze(Part::Server, false).unwrap();
    assert_eq!(next(&lines, "sent"), waiting);
    let events = installation.events(0).unwrap();
    assert_eq!(waiting["sequence"], events[0].sequence);
    let bytes = ["bytes_out", "bytes_in", "bytes_handshake"].map(|name| usage[name].as_u64().unwrap());
    assert_eq!(bytes.iter().sum::<u64>(), events[0].bytes());
    // What the simulator counted.
    assert_eq!(events[0].bytes(), installation.lab.connections()[0].bytes());

    installation.stop().unwrap();
    let status = until("the listing to end", LIMIT, || Ok(follow.try_wait()?)).unwrap();
    assert_eq!(status.code(), Some(7), "it says that the agent is not running");
}
