//! What the ledger and its commands know of perks: deeds of administrators, and nothing of their use.

use std::process::{Command, Output};

use toktra_server::Clock;
use toktra_store::{audit, directory};

use super::people::{Person, backend_at};
use super::support::Backend;

fn run(backend: &Backend, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toktra-server"))
        .args(arguments)
        .arg("--data")
        .arg(backend.data.path())
        .output()
        .unwrap()
}

fn says(backend: &Backend, arguments: &[&str]) -> String {
    let output = run(backend, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refuses(backend: &Backend, arguments: &[&str]) -> String {
    let output = run(backend, arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sets_tiers_enrols_people_and_gives_bonuses() {
    let backend = Backend::start().await;
    let store = &backend.app.store;
    let now = backend.app.clock.now();
    directory::create_user(store, &backend.organisation, None, "ada@acme.example", "test", now)
        .await
        .unwrap();
    says(&backend, &["flag", "set", "FF_TOKEN_PERKS", "on"]);
    says(&backend, &["perks", "tier", "add", "Everyone", "--monthly", "2_000_000", "--rollover", "500000"]);
    assert!(refuses(&backend, &["perks", "tier", "add", "Everyone", "--monthly", "1"]).contains("already"));
    assert!(refuses(&backend, &["perks", "tier", "add", "", "--monthly", "1"]).contains("1 to 64 bytes"));
    assert!(refuses(&backend, &["perks", "tier", "add", "None", "--monthly", "0"]).contains("tokens"));
    says(&backend, &["perks", "enrol", "ada@acme.example", "--tier", "Everyone"]);
    assert!(
        refuses(&backend, &["perks", "enrol", "bob@acme.example", "--tier", "Everyone"]).contains("no user")
    );
    assert!(refuses(&backend, &["perks", "enrol", "ada@acme.example", "--tier", "Gold"]).contains("no tier"));
    says(&backend, &["perks", "bonus", "250000", "--user", "ada@acme.example"]);
    assert!(
        refuses(&backend, &["perks", "bonus", "1", "--tier", "Everyone", "--month", "2020-01"])
            .contains("this month")
    );
    assert!(refuses(&backend, &["perks", "bonus", "1"]).contains("--user"));
    let tiers = says(&backend, &["perks", "tier", "list"]);
    assert!(tiers.contains("2,000,000 tokens") && tiers.contains("500,000 tokens"), "{tiers}");
    let list = says(&backend, &["perks", "list"]);
    assert!(list.contains("ada@acme.example") && list.contains("250,000 tokens"), "{list}");
    says(&backend, &["perks", "tier", "set", "Everyone", "--rollover", "0"]);
    assert!(says(&backend, &["perks", "tier", "list"]).contains("0 tokens"));
    assert!(refuses(&backend, &["perks", "tier", "remove", "Everyone"]).contains("1 people"));
    says(&backend, &["perks", "remove", "ada@acme.example"]);
    assert!(refuses(&backend, &["perks", "remove", "ada@acme.example"]).contains("not enrolled"));
    says(&backend, &["perks", "tier", "remove", "Everyone"]);
    assert!(says(&backend, &["perks", "sums"]).starts_with("month"));
    let mut actions: Vec<_> =
        audit::newest(store, 7).await.unwrap().into_iter().map(|row| row.action).collect();
    actions.reverse();
    let expected = [
        "flag_on",
        "perk_tier_add",
        "perk_enrol",
        "perk_bonus",
        "perk_tier_set",
        "perk_remove",
        "perk_tier_remove",
    ];
    assert_eq!(actions, expected);
    backend.stop().await;
}

#[tokio::test]
async fn use_leaves_no_trace_in_the_audit_trail_or_anywhere_else_in_the_ledger() {
    let backend = backend_at(Clock::System).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    let mut bob = Person::new(&backend, "bob").await;
    let perks = ada.directive(0).await.perks.unwrap();
    let dump = async || {
        let mut rows = backend.rows().await;
        rows.push(("audit", audit::newest(&backend.app.store, 10_000).await.unwrap().len() as i64));
        rows.push(("changes", backend.app.store.changes().await.unwrap()));
        rows
    };
    let before = dump().await;
    ada.append(1..=64).await.unwrap();
    ada.total(&perks.month.to_string(), 1234).await.unwrap();
    ada.list().await.unwrap();
    assert!(ada.append(99..=99).await.is_err());
    assert!(bob.append(1..=1).await.is_err());
    ada.leave().await.unwrap();
    assert_eq!(dump().await, before);
    backend.stop().await;
}
