//! What a package ships beside the program can be made, and says what there is.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toktra-agent")).args(arguments).output().unwrap()
}

#[test]
fn every_shell_gets_completions_that_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["status", "budget", "request", "privacy", "personal", "--json"] {
            // fish writes a long option without its dashes.
            let word = if shell == "fish" { word.trim_start_matches('-') } else { word };
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn every_command_gets_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&["man", directory.path().to_str().unwrap()]);
    assert!(output.status.success());
    for page in ["toktra-agent", "toktra-agent-budget", "toktra-agent-personal-opt-in", "toktra-agent-menu"] {
        let text = std::fs::read_to_string(directory.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
}

#[test]
fn without_an_agent_the_budget_says_so_and_still_answers_in_json() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let places = ["--run-dir", place, "--state-dir", place, "--config", "/nonexistent/agent.toml"];
    let json = run(&[&places[..], &["budget", "--json"]].concat());
    assert_eq!(json.status.code(), Some(7));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["budgets"], serde_json::json!([]));
    assert_eq!(run(&[&places[..], &["personal", "--json"]].concat()).status.code(), Some(7));
    let request = run(&[&places[..], &["budget", "request", "--reason", "A deadline"]].concat());
    assert_eq!(request.status.code(), Some(7));
    assert!(String::from_utf8(request.stderr).unwrap().contains("systemctl start toktra-agent"));
}
