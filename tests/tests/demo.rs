//! `make demo` ends as it began: whatever it made on this machine is gone, after a good end
//! and after `kill -9` alike.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use toktra_testkit::lab::cgroup_mount;
use toktra_testkit::process::{binary, output, until};
use toktra_tests::clients::venv;

const LIMIT: Duration = Duration::from_secs(30);

fn demo() -> Command {
    let mut command = Command::new(binary("toktra-testkit").unwrap());
    command.arg("demo").arg("--python").arg(venv()).env("DEMO_EXIT", "1");
    command
}

/// What labs of this process leave on the machine while they live.
fn left_by(owner: u32) -> Vec<PathBuf> {
    let places = ["/run/netns".into(), "/etc/netns".into(), std::env::temp_dir(), cgroup_mount().unwrap()];
    let entries = places.iter().filter_map(|place: &PathBuf| fs::read_dir(place).ok()).flatten();
    let own = format!("toktra-{owner}-");
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&own))
        .collect()
}

#[test]
fn the_demo_prints_what_was_metered_and_undoes_everything() {
    let child = demo().stdout(Stdio::piped()).spawn().unwrap();
    let owner = child.id();
    let done = child.wait_with_output().unwrap();
    let screen = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{screen}");
    for part in ["openai SDK, stream", "api.anthropic.com", "Console:", "Password:", "was blocked"] {
        assert!(screen.contains(part), "{part} is missing:\n{screen}");
    }
    assert!(!screen.contains("MISSING") && !screen.contains("WRONG"), "{screen}");
    assert_eq!(left_by(owner), Vec::<PathBuf>::new());
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind_either() {
    let mut child = demo().env("DEMO_EXIT", "0").stdout(Stdio::null()).spawn().unwrap();
    let owner = child.id();
    until("the lab", LIMIT, || Ok((left_by(owner).len() >= 4).then_some(()))).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    until("the janitor", LIMIT, || Ok(left_by(owner).is_empty().then_some(()))).unwrap();
    let processes = output(Command::new("ps").args(["-eo", "args"])).unwrap();
    assert!(!processes.contains(&format!("toktra-{owner}-")), "{processes}");
}
