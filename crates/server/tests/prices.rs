//! Prices as an operator sees them, and a declared mix from the command to the ledger.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use toktra_store::{Store, audit};

fn run(parent: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-server"));
    command.args(arguments).arg("--data").arg(parent.join("data")).output().unwrap()
}

fn house() -> TempDir {
    let parent = tempfile::tempdir().unwrap();
    let made = run(parent.path(), &["init", "--domain", "acme.example", "--organisation", "Acme"]);
    assert!(made.status.success(), "{}", error(&made));
    parent
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

const SET: [&str; 7] = ["price", "mix", "set", "--service", "openai-api", "gpt-5=700", "gpt-5-mini=300"];

#[tokio::test]
async fn a_mix_is_declared_listed_and_withdrawn_and_each_is_audited() {
    let house = house();
    let made = run(house.path(), &SET);
    assert!(made.status.success() && made.stdout.is_empty(), "{}", error(&made));
    let listed = text(&run(house.path(), &["price", "mix", "list"]));
    let rows: Vec<Vec<&str>> = listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["openai-api", "gpt-5", "700", "yes"], ["openai-api", "gpt-5-mini", "300", "yes"]]);

    let other = ["price", "mix", "set", "--service", "openai-api", "gpt-6.1-sol=1000"];
    assert!(run(house.path(), &other).status.success());
    let listed = text(&run(house.path(), &["price", "mix", "list"]));
    assert!(listed.contains("gpt-6.1-sol") && !listed.contains("gpt-5"), "{listed}");

    let remove = ["price", "mix", "remove", "--service", "openai-api"];
    assert!(run(house.path(), &remove).status.success());
    let again = run(house.path(), &remove);
    assert!(error(&again).contains("there is no price mix of service `openai-api`"), "{}", error(&again));
    let store = Store::open(&house.path().join("data/toktra.db")).await.unwrap();
    let deeds: Vec<_> = audit::newest(&store, 3).await.unwrap().into_iter().map(|row| row.action).collect();
    assert_eq!(deeds, ["price_mix_remove", "price_mix_set", "price_mix_set"]);
}

#[test]
fn what_is_no_mix_is_refused_and_changes_nothing() {
    let house = house();
    for (service, shares, complaint) in [
        ("openai-api", &["gpt-5=700", "gpt-5-mini=200"][..], "add up to 900"),
        ("openai-api", &["gpt-5=0", "gpt-5-mini=1000"], "share of 0"),
        ("openai-api", &["gpt-5=500", "gpt-5=500"], "named twice"),
        ("openai-api", &["gpt-5=1000", "gpt-5-mini=4294967295"], "add up to 4294968295"),
        ("openai-api", &["claude-opus-5=1000"], "no model `claude-opus-5`"),
        ("openai-api", &["gpt-5"], "MODEL=PERMILLE"),
        ("chatgpt", &["gpt-5=1000"], "paid by seat"),
        ("elevenlabs-api", &["x=1000"], "unpriced"),
        ("nobody", &["x=1000"], "no service `nobody`"),
    ] {
        let arguments = [&["price", "mix", "set", "--service", service], shares].concat();
        let output = run(house.path(), &arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(error(&output).contains(complaint), "{arguments:?}: {}", error(&output));
    }
    assert_eq!(text(&run(house.path(), &["price", "mix", "list"])).lines().count(), 1);
}

#[test]
fn the_prices_in_force_are_listed_with_the_day_of_their_evidence() {
    let parent = tempfile::tempdir().unwrap();
    let listed = text(&run(parent.path(), &["price", "list", "--service", "openai-api"]));
    let row = listed.lines().find(|line| line.starts_with("gpt-5-mini ")).unwrap();
    assert_eq!(row.split_whitespace().skip(1).take(3).collect::<Vec<_>>(), ["$0.25", "$0.025", "$2"]);
    assert!(listed.lines().any(|line| line.starts_with("o1-pro ") && line.ends_with("rare")), "{listed}");
}
