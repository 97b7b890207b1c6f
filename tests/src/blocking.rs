//! Whether a device gets through to the providers, asked with their own SDKs.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use toktra_testkit::installation::{DEPARTMENT, Installation};
use toktra_testkit::lab::Lab;
use toktra_testkit::process::{output, until};

use crate::clients::{chat, curl, python};

/// Where a chat is asked for.
pub const CHAT: &str = "https://api.openai.com/v1/chat/completions";
/// Bounds a failure, not a success.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The budget of [`budget`].
pub const BUDGET: &str = "Research, daily";

const SDKS: [&str; 2] = ["openai", "anthropic"];

/// How the SDK fails: the exception's name; `none` if it does not.
#[allow(clippy::print_stdout, reason = "how long each failure took")]
fn outcome(lab: &Lab, sdk: &str) -> String {
    let said = output(&mut python(lab, "blocked.py", &[sdk])).unwrap();
    println!("{sdk}: {}", said.trim());
    said.split(' ').next().unwrap().to_owned()
}

/// Requests that have reached the lab's simulator.
pub fn requests(lab: &Lab) -> u64 {
    lab.connections().iter().map(|one| one.requests).sum()
}

fn one_chat(lab: &Lab) -> Command {
    curl(lab, &["-o", "/dev/null", "-d", &chat(3), CHAT])
}

/// From here on nothing gets through; and it is a connection error, no time-out.
pub fn is_blocked(lab: &Lab) {
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
pub fn is_open(lab: &Lab) {
    until("a connection to pass", LIMIT, || Ok(one_chat(lab).output()?.status.success().then_some(())))
        .unwrap();
    for sdk in SDKS {
        assert_eq!(outcome(lab, sdk), "none");
    }
}

/// Waits for something to be true of a device's status, and gives that.
pub fn status(what: &str, read: impl Fn() -> anyhow::Result<Value>, is_it: impl Fn(&Value) -> bool) -> Value {
    status_within(LIMIT, what, read, is_it)
}

/// The same, where it takes longer.
pub fn status_within(
    limit: Duration,
    what: &str,
    read: impl Fn() -> anyhow::Result<Value>,
    is_it: impl Fn(&Value) -> bool,
) -> Value {
    until(what, limit, || {
        let status = read()?;
        Ok(is_it(&status).then_some(status))
    })
    .unwrap()
}

/// Spends until the lower bound of the estimate has surely passed what the tests allow. A stream that is
/// still open then is cut, which is as it should be.
pub fn spend(lab: &Lab) {
    curl(lab, &["-o", "/dev/null", "-d", &chat(6_000), CHAT]).output().unwrap();
}

/// Gives the department a hard budget of so many tokens.
pub fn budget(first: &Installation, tokens: &str) {
    let what = ["budget", "add", BUDGET, "--department", DEPARTMENT, "--tokens", tokens];
    first
        .server(&[&what[..], &["--period", "annual", "--hard", "--message", "Ask Ms Lee."]].concat())
        .unwrap();
    first.server(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"]).unwrap();
}
