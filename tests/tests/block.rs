//! A department that has spent its money: the next connection fails at once and its request
//! never leaves, an open stream is cut, and after the block is lifted everything works again.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use std::process::{Command, Stdio};
use std::time::Duration;

use toktra_testkit::installation::{DEPARTMENT, Installation};
use toktra_testkit::process::{output, until};
use toktra_tests::clients::{chat, chromium, curl, python};
use toktra_tests::scene::Scene;

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
/// What curl says when its time was up (`--max-time`).
const CURL_TIMED_OUT: i32 = 28;
const LIMIT: Duration = Duration::from_secs(20);

fn block(scene: &Installation) {
    scene.server(&["department", "block", DEPARTMENT, "--message", "The budget is spent."]).unwrap();
    until("the block to be in force", LIMIT, || Ok((!scene.status()?["block"].is_null()).then_some(())))
        .unwrap();
}

fn unblock(scene: &Installation) {
    scene.server(&["department", "unblock", DEPARTMENT]).unwrap();
    until("the block to be lifted", LIMIT, || Ok(scene.status()?["block"].is_null().then_some(()))).unwrap();
}

fn requests(scene: &Installation) -> u64 {
    scene.lab.connections().iter().map(|one| one.requests).sum()
}

/// Tries until the extension has the block too, which it hears of a moment after the agent.
fn fails(scene: &Installation, client: impl Fn() -> Command) {
    until("a connection to be refused", LIMIT, || Ok((!client().output()?.status.success()).then_some(())))
        .unwrap();
    let before = requests(scene);
    let output = client().output().unwrap();
    assert!(!output.status.success());
    assert_ne!(output.status.code(), Some(CURL_TIMED_OUT), "it hung until its own time-out");
    assert_eq!(requests(scene), before, "the request got through");
}

#[test]
fn a_blocked_department_gets_no_request_through_until_it_is_unblocked() {
    let mut scene = Scene::enter();
    output(&mut curl(&scene.lab, &["-o", "/dev/null", "-d", &chat(3), CHAT])).unwrap();
    block(&scene);
    for flags in [&["--http1.1", "--tls-max", "1.2"][..], &["--http2", "--tlsv1.3"]] {
        fails(&scene, || curl(&scene.lab, &[flags, &["-o", "/dev/null", "-d", &chat(3), CHAT]].concat()));
    }
    fails(&scene, || python(&scene.lab, "openai_chat.py", &["whole", "3"]));
    // What is no provider's passes.
    output(&mut curl(&scene.lab, &["-o", "/dev/null", "https://intranet.example/"])).unwrap();
    unblock(&scene);
    until("a connection to pass again", LIMIT, || {
        let again = curl(&scene.lab, &["-o", "/dev/null", "-d", &chat(3), CHAT]).output()?;
        Ok(again.status.success().then_some(()))
    })
    .unwrap();
    let events = scene.events_until(|events| events.iter().any(|event| event.kind == "blocked")).unwrap();
    let blocked: Vec<_> = events.iter().filter(|event| event.kind == "blocked").collect();
    assert!(blocked.iter().all(|event| event.host.as_deref() == Some("api.openai.com")), "{blocked:#?}");
    assert!(blocked.iter().all(|event| event.reason.as_deref() == Some("budget")), "{blocked:#?}");
}

#[test]
fn an_open_stream_is_cut() {
    let mut scene = Scene::enter();
    let before = scene.lab.connections().len();
    let mut client = curl(&scene.lab, &["-o", "/dev/null", "-d", &chat(1_000_000), CHAT])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the stream to flow", LIMIT, || {
        let flows = |one: &toktra_testkit::tally::Connection| one.tokens_out > 50;
        Ok(scene.lab.connections()[before..].iter().any(flows).then_some(()))
    })
    .unwrap();
    block(&scene);
    let status = until("the client to end", LIMIT, || Ok(client.try_wait()?)).unwrap();
    assert!(!status.success());
    assert_ne!(status.code(), Some(CURL_TIMED_OUT));
    let events = scene
        .events_until(|events| events.iter().any(|event| event.kind == "blocked" && event.cut == Some(1)))
        .unwrap();
    let usage: Vec<_> = events.iter().filter(|event| event.kind == "usage").collect();
    assert!(!usage.is_empty(), "what passed before the cut is counted: {events:#?}");
    unblock(&scene);
}

/// Chromium uses QUIC here and nothing else, so that what fails or works is QUIC.
#[test]
fn quic_fails_under_a_block_without_a_request_and_works_again_after_it() {
    let scene = Scene::enter();
    let page = || {
        let forced = ["--enable-quic", "--origin-to-force-quic-on=chatgpt.com:443"];
        let mut browser = chromium(&scene.lab, "https://chatgpt.com/", &forced)?;
        Some(String::from_utf8(browser.output().unwrap().stdout).unwrap())
    };
    let Some(first) = page() else {
        eprintln!("SKIPPED: TOKTRA_NO_BROWSER is set");
        return;
    };
    let is_there = |page: &str| page.contains("Provider simulator");
    assert!(is_there(&first));
    block(&scene);
    fails(&scene, || curl(&scene.lab, &["-o", "/dev/null", "-d", &chat(3), CHAT]));
    let before = requests(&scene);
    assert!(!is_there(&page().unwrap()));
    assert_eq!(requests(&scene), before, "a request got through");
    unblock(&scene);
    until("the page to come again", LIMIT, || Ok(page().is_some_and(|page| is_there(&page)).then_some(())))
        .unwrap();
    let quic = |one: &toktra_testkit::tally::Connection| {
        one.transport == toktra_testkit::tally::Transport::Quic && one.requests > 0
    };
    assert!(scene.lab.connections().iter().filter(|one| quic(one)).count() >= 2);
}
