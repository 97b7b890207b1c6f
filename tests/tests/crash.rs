//! `kill -9` of extension, agent or server at any moment loses no acknowledged event and
//! counts none twice. Traffic flows all the while; the moments are random, from a seed that
//! is printed and can be given again as `TOKTRA_CRASH_SEED`.

#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use toktra_testkit::installation::{Event, Installation, Part};
use toktra_testkit::process::{pause, until};
use toktra_tests::clients::{chat, curl};

const CRASHES: u32 = 20;
const LIMIT: Duration = Duration::from_secs(60);
const CHAT: &str = "https://api.openai.com/v1/chat/completions";

/// Marsaglia's xorshift64: enough for moments, and the same everywhere.
struct Moments(u64);

impl Moments {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn acknowledged(installation: &Installation) -> anyhow::Result<u64> {
    let status = installation.status()?;
    status["acknowledged"].as_u64().ok_or_else(|| anyhow::anyhow!("no number in {status}"))
}

/// An installation under crashes and traffic, and what came of it.
fn survive(parts: &[Part]) -> (Installation, u64) {
    let seed =
        std::env::var("TOKTRA_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_101);
    eprintln!("seed {seed}");
    let mut installation = Installation::start(|_| ()).unwrap();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    // Short and long connections, so that crashes hit some that are open.
    let clients =
        [2, 150].map(|tokens| curl(&installation.lab, &["-o", "/dev/null", "-d", &chat(tokens), CHAT]));
    std::thread::scope(|scope| {
        for mut client in clients {
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    // The network works whatever crashes.
                    assert!(client.status().unwrap().success(), "a crash broke the network");
                    rounds.fetch_add(1, SeqCst);
                }
            });
        }
        // Whatever happens, the clients end, and with them the scope.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            crash(&mut installation, parts, &mut Moments(seed), &rounds);
        }));
        stop.store(true, SeqCst);
        outcome.unwrap();
    });
    installation.closed_since(0).unwrap();
    let bytes = installation.lab.connections().iter().map(|one| one.bytes()).sum();
    (installation, bytes)
}

#[test]
fn twenty_crashes_lose_no_acknowledged_event_and_count_none_twice() {
    let (mut installation, passed) = survive(&Part::ALL);
    let metered = balance(&mut installation, |_| true);
    // A crash of the extension forgets what it had not said; nothing ever counts twice.
    assert!(metered <= passed, "{metered} bytes metered, of {passed} that passed");
    eprintln!("{metered} of {passed} bytes");
}

#[test]
fn twenty_crashes_of_agent_and_server_lose_not_a_byte() {
    let (mut installation, passed) = survive(&[Part::Agent, Part::Server]);
    let metered = balance(&mut installation, |metered| metered >= passed);
    assert_eq!(metered, passed);
}

fn crash(installation: &mut Installation, parts: &[Part], moments: &mut Moments, rounds: &AtomicU64) {
    let mut highest = 0;
    for number in 0..CRASHES {
        // Some traffic since the last crash, then anywhere within what follows.
        let seen = rounds.load(SeqCst);
        until("traffic", LIMIT, || Ok((rounds.load(SeqCst) > seen).then_some(()))).unwrap();
        pause(Duration::from_millis(moments.below(700)));
        let part = parts[moments.below(parts.len() as u64) as usize];
        installation.kill(part).unwrap();
        pause(Duration::from_millis(moments.below(300)));
        installation.restart(part).unwrap();
        // What was acknowledged once stays so, across every crash.
        let now = acknowledged(installation).unwrap();
        assert!(now >= highest, "crash {number} of {part:?}: acknowledged fell from {highest} to {now}");
        highest = now;
    }
}

/// Waits until everything is acknowledged and the bytes are `enough`, checks that the ledger
/// holds each event exactly once, and returns its bytes.
fn balance(installation: &mut Installation, enough: impl Fn(u64) -> bool) -> u64 {
    let mut bytes = 0;
    let events = until("all that waits to be acknowledged", LIMIT, || {
        // While the agent still backs off, there is no use in asking why.
        let _ = installation.flush();
        let status = installation.status()?;
        let events = installation.events(0)?;
        bytes = events.iter().map(Event::bytes).sum();
        let done = status["events_waiting"] == 0 && status["acknowledged"] == events.len();
        Ok((done && enough(bytes)).then_some(events))
    })
    .unwrap_or_else(|error| panic!("{error:#}; {bytes} bytes metered"));
    let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as i64).collect::<Vec<_>>(), "a gap or a repeat");
    installation.check_ledger().unwrap();
    assert!(events.len() > 20, "only {} events", events.len());
    bytes
}
