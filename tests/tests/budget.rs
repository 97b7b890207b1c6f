//! A department of three devices passes its hard cap: every one of them blocks, the providers' own
//! SDKs fail at once, and a device of another department hears nothing of it. An exemption, the flag
//! and the administrator open it again; a lock closes one person's devices. And what is in force
//! stays in force when a part of the installation is killed.

#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(clippy::print_stdout, reason = "how long each failure took")]

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use toktra_testkit::installation::{DEPARTMENT, Installation, Part};
use toktra_testkit::lab::Lab;
use toktra_testkit::member::Member;
use toktra_testkit::process::{output, until};
use toktra_tests::clients::{chat, curl, python};

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const LIMIT: Duration = Duration::from_secs(30);
const SDKS: [&str; 2] = ["openai", "anthropic"];
const BUDGET: &str = "Research, daily";

/// How the SDK fails: the exception's name; `none` if it does not.
fn outcome(lab: &Lab, sdk: &str) -> String {
    let said = output(&mut python(lab, "blocked.py", &[sdk])).unwrap();
    println!("{sdk}: {}", said.trim());
    said.split(' ').next().unwrap().to_owned()
}

fn requests(lab: &Lab) -> u64 {
    lab.connections().iter().map(|one| one.requests).sum()
}

fn one_chat(lab: &Lab) -> Command {
    curl(lab, &["-o", "/dev/null", "-d", &chat(3), CHAT])
}

/// From here on nothing gets through; and it is a connection error, no time-out.
fn is_blocked(lab: &Lab) {
    until("a connection to be refused", LIMIT, || {
        Ok((!one_chat(lab).output()?.status.success()).then_some(()))
    })
    .unwrap();
    let before = requests(lab);
    for sdk in SDKS {
        assert_eq!(outcome(lab, sdk), "APIConnectionError");
    }
    assert_eq!(requests(lab), before, "a request got through");
}

/// Everything gets through, from now or soon on.
fn is_open(lab: &Lab) {
    until("a connection to pass", LIMIT, || Ok(one_chat(lab).output()?.status.success().then_some(())))
        .unwrap();
    for sdk in SDKS {
        assert_eq!(outcome(lab, sdk), "none");
    }
}

fn status(what: &str, read: impl Fn() -> anyhow::Result<Value>, is_it: impl Fn(&Value) -> bool) -> Value {
    until(what, LIMIT, || {
        let status = read()?;
        Ok(is_it(&status).then_some(status))
    })
    .unwrap()
}

/// Spends until the lower bound of the estimate has surely passed what the tests allow. A stream that is
/// still open then is cut, which is as it should be.
fn spend(first: &Installation) {
    curl(&first.lab, &["-o", "/dev/null", "-d", &chat(6_000), CHAT]).output().unwrap();
    first.flush().unwrap();
}

fn budget(first: &Installation, tokens: &str) {
    let what = ["budget", "add", BUDGET, "--department", DEPARTMENT, "--tokens", tokens];
    first
        .server(&[&what[..], &["--period", "annual", "--hard", "--message", "Ask Ms Lee."]].concat())
        .unwrap();
    first.server(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"]).unwrap();
}

#[test]
fn a_department_that_passes_its_cap_is_blocked_on_all_its_devices_and_nobody_else_is() {
    let first = Installation::start(|_| ()).unwrap();
    first.server(&["department", "add", "Sales"]).unwrap();
    let research = [(); 2].map(|()| Member::join(&first, DEPARTMENT, &[]).unwrap());
    let sales = Member::join(&first, "Sales", &[]).unwrap();
    let labs = || [&first.lab, &research[0].lab, &research[1].lab];

    budget(&first, "1500");
    status(
        "the budget to be known",
        || first.status(),
        |status| status["budgets"][0]["name"] == BUDGET && status["budgets"][0]["hard"] == true,
    );
    assert!(first.status().unwrap()["block"].is_null());
    labs().into_iter().chain([&sales.lab]).for_each(is_open);

    spend(&first);
    for read in [&|| first.status(), &|| research[0].status(), &|| research[1].status()]
        as [&dyn Fn() -> anyhow::Result<Value>; 3]
    {
        // The device that spent sees it before the backend says so, and in words of its own.
        let status = status("the block", read, |status| status["block"]["message"] == "Ask Ms Lee.");
        assert!(status["block_until"].is_number() && status["cap_opened"] == false, "{status:#}");
    }
    labs().into_iter().for_each(is_blocked);
    is_open(&sales.lab);
    assert!(sales.status().unwrap()["block"].is_null());
    let events = research[0].events(&first).unwrap();
    assert!(events.iter().any(|event| event.kind == "blocked" && event.reason.as_deref() == Some("budget")));

    // One asks for more and gets it; the other two stay where they are.
    research[0].agent(&["budget", "request", "--reason", "The demo is tomorrow."]).unwrap();
    let waiting = first.server(&["exemption", "list"]).unwrap();
    let id = waiting.lines().find_map(|line| line.split_whitespace().find(|word| uuid_like(word))).unwrap();
    first.server(&["exemption", "grant", id, "--for", "1h"]).unwrap();
    is_open(&research[0].lab);
    is_blocked(&research[1].lab);

    // Without the flag no cap is hard.
    first.server(&["flag", "set", "FF_BUDGET_HARD_CAPS", "off"]).unwrap();
    labs().into_iter().for_each(is_open);

    // A lock needs no budget, and goes only when it is lifted.
    first.server(&["lock", sales.device(), "--message", "Come and see me."]).unwrap();
    is_blocked(&sales.lab);
    assert_eq!(sales.status().unwrap()["lock"]["message"], "Come and see me.");
    labs().into_iter().for_each(is_open);
    first.server(&["unlock", sales.device()]).unwrap();
    is_open(&sales.lab);
}

fn uuid_like(word: &str) -> bool {
    word.len() == 36 && word.chars().filter(|&c| c == '-').count() == 4
}

#[test]
fn whatever_is_killed_while_a_cap_is_in_force_it_stays_in_force() {
    let mut first = Installation::start(|_| ()).unwrap();
    is_open(&first.lab);
    budget(&first, "1500");
    spend(&first);
    is_blocked(&first.lab);

    // The extension goes on as the agent said last; the agent reads what it has stored.
    first.kill(Part::Agent).unwrap();
    is_blocked(&first.lab);
    first.restart(Part::Agent).unwrap();
    is_blocked(&first.lab);
    first.kill(Part::Extension).unwrap();
    first.restart(Part::Extension).unwrap();
    is_blocked(&first.lab);
    first.kill(Part::Server).unwrap();
    is_blocked(&first.lab);
    first.kill(Part::Agent).unwrap();
    first.restart(Part::Agent).unwrap();
    is_blocked(&first.lab);
    first.kill(Part::Extension).unwrap();
    first.restart(Part::Extension).unwrap();
    is_blocked(&first.lab);
    first.restart(Part::Server).unwrap();
    is_blocked(&first.lab);
    first.server(&["budget", "remove", BUDGET]).unwrap();
    is_open(&first.lab);

    // A lock survives the same, and a device that starts while it holds.
    let device = status("the device", || first.status(), |status| !status["device"].is_null());
    let device = device["device"].as_str().unwrap().to_owned();
    first.server(&["lock", &device, "--message", "Stop."]).unwrap();
    is_blocked(&first.lab);
    first.stop().unwrap();
    is_open(&first.lab);
    for part in [Part::Agent, Part::Extension] {
        first.restart(part).unwrap();
    }
    is_blocked(&first.lab);
    first.restart(Part::Server).unwrap();
    first.server(&["unlock", &device]).unwrap();
    is_open(&first.lab);
}
