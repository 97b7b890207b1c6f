//! A department of three devices passes its hard cap: every one of them blocks, the providers' own
//! SDKs fail at once, and a device of another department hears nothing of it. An exemption, the flag
//! and the administrator open it again; a lock closes one person's devices. And what is in force
//! stays in force when a part of the installation is killed.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use serde_json::Value;
use toktra_testkit::installation::{DEPARTMENT, Installation, Part};
use toktra_testkit::member::Member;
use toktra_tests::blocking::{self, BUDGET, budget, is_blocked, is_open, status};

/// Longer than an agent waits for an answer.
const SLOW: Duration = Duration::from_secs(150);

/// Spends, and has it booked.
fn spend(first: &Installation) {
    blocking::spend(&first.lab);
    first.flush().unwrap();
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
    assert!(waiting.contains("The demo is tomorrow.") && waiting.contains(BUDGET), "{waiting}");
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

/// Takes its requests, and answers none of them.
#[test]
fn while_the_backend_hangs_a_device_blocks_by_its_own_count_and_no_other_does() {
    let first = Installation::start(|_| ()).unwrap();
    let member = Member::join(&first, DEPARTMENT, &[]).unwrap();
    budget(&first, "1500");
    let knows =
        |status: &Value| status["budgets"][0]["name"] == BUDGET && status["budgets"][0]["hard"] == true;
    status("the budget to be known", || first.status(), knows);
    status("the budget to be known", || member.status(), knows);

    first.freeze(Part::Server, true).unwrap();
    blocking::spend(&first.lab);
    is_blocked(&first.lab);
    // It has spent nothing itself, and does not know what others spend.
    is_open(&member.lab);
    let says_so = |status: &Value| status["degraded"].to_string().contains("directives do not arrive");
    blocking::status_within(SLOW, "it to say so", || first.status(), says_so);
    is_blocked(&first.lab);
    is_open(&member.lab);

    first.freeze(Part::Server, false).unwrap();
    first.flush().unwrap();
    is_blocked(&member.lab);
    is_blocked(&first.lab);
    first.check_ledger().unwrap();
    first.server(&["budget", "set", BUDGET, "--tokens", "1000000"]).unwrap();
    [&first.lab, &member.lab].into_iter().for_each(is_open);
    assert!(!says_so(&first.status().unwrap()));
}
