//! `toktra-extension replay` as a user runs it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn corpus(file: &str) -> String {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/capture");
    corpus.join(file).to_string_lossy().into_owned()
}

fn replay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toktra-extension")).arg("replay").args(arguments).output().unwrap()
}

#[test]
fn each_flow_with_a_hello_is_a_line_of_json() {
    for file in ["six_flows.pcap", "six_flows_nanoseconds.pcap", "six_flows.pcapng"] {
        let output = replay(&["--json", &corpus(file)]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 6);
        let first = lines.iter().find(|line| line["name"] == "api.openai.com").unwrap();
        assert_eq!(first["transport"], "tcp");
        assert_eq!(first["client"].as_str().unwrap().split(':').next(), Some("10.0.0.0"));
        assert_eq!(first["reason"], serde_json::Value::Null);
        assert_eq!(first["ech"], false);
        assert!(first["packets"].as_u64().unwrap() >= 1);
        assert_eq!(first["provider"], "openai");
        assert!(lines.iter().any(|line| line["transport"] == "quic" && line["name"] == "chat.openai.com"));
    }
}

#[test]
fn a_file_that_breaks_off_gives_what_it_holds_and_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.pcap");
    let whole = std::fs::read(corpus("six_flows.pcap")).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let output = replay(&["--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), 6);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("the file ends inside the record"), "{error}");
}

#[test]
fn what_is_no_capture_is_refused_with_advice() {
    for (arguments, words) in [
        ([concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")], "neither a pcap nor a pcapng"),
        (["/no/such/file"], "No such file"),
    ] {
        let output = replay(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_toktra-extension"))
        .args(["replay", &corpus("six_flows.pcap")])
        .stdout(Stdio::from(writer))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
}
