//! The commands as an operator runs them, beside a server that may be running.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use toktra_protocol::UnixSeconds;
use toktra_server::{Clock, password};
use toktra_store::{Store, accounts};

fn house() -> TempDir {
    let parent = tempfile::tempdir().unwrap();
    let made =
        run(parent.path(), &["init", "--domain", "acme.example", "--organisation", "Acme", "--admin", "ada"]);
    assert!(made.status.success(), "{}", error(&made));
    parent
}

fn run(parent: &Path, arguments: &[&str]) -> Output {
    run_with(parent, arguments, "")
}

/// Runs a command that reads this from its standard input.
fn run_with(parent: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-server"))
        .args(arguments)
        .arg("--data")
        .arg(parent.join("data"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    command.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn store(parent: &Path) -> Store {
    Store::open(&parent.join("data/toktra.db")).await.unwrap()
}

async fn claim(store: &Store, name: &str, now: UnixSeconds) -> Option<accounts::ClaimedAttempt> {
    accounts::claim_attempt(store, name, now).await.unwrap()
}

#[tokio::test]
async fn a_new_password_is_printed_alone_and_lifts_a_lock_out() {
    let house = house();
    let (store, now) = (store(house.path()).await, Clock::System.now());
    for _ in 0..accounts::ATTEMPTS_BEFORE_LOCK {
        claim(&store, "ada", now).await.unwrap();
    }
    assert!(claim(&store, "ada", now).await.is_none(), "locked out");
    let listed = text(&run(house.path(), &["account", "list"]));
    assert!(listed.lines().nth(1).unwrap().starts_with("ada ") && !listed.ends_with("-\n"), "{listed}");

    let made = run(house.path(), &["account", "reset", "ada"]);
    assert!(made.status.success(), "{}", error(&made));
    let generated = text(&made).trim_end().to_owned();
    assert!(!error(&made).contains(&generated));
    let attempt = claim(&store, "ada", now).await.unwrap();
    assert!(password::matches(&generated, &attempt.password_hash));

    let chosen = "correct horse battery";
    let made = run_with(house.path(), &["account", "reset", "ada", "--password-file", "-"], chosen);
    assert!(made.status.success() && made.stdout.is_empty(), "{}", error(&made));
    let attempt = claim(&store, "ada", now).await.unwrap();
    assert!(password::matches(chosen, &attempt.password_hash));
}

#[tokio::test]
async fn an_administrator_is_added_under_the_name_that_the_sign_in_looks_up() {
    let house = house();
    let made = run(house.path(), &["account", "make", " grace ", "--role", "auditor"]);
    assert!(made.status.success(), "{}", error(&made));
    let store = store(house.path()).await;
    assert!(claim(&store, "grace", Clock::System.now()).await.is_some());
    let listed = text(&run(house.path(), &["account", "list"]));
    let names: Vec<_> = listed.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["name", "ada", "grace"]);
}

#[test]
fn what_an_administrator_cannot_be_is_refused_and_changes_nothing() {
    let house = house();
    for (arguments, input, complaint) in [
        (&["account", "make", "ada", "--role", "owner"][..], "", "there is already the account `ada`"),
        (&["account", "make", " ", "--role", "owner"], "", "1 to 256 bytes"),
        (&["account", "make", "eve", "--role", "king"], "", "owner, admin, budget-owner or auditor"),
        (&["account", "make", "eve", "--role", "budget-owner"], "", "name them with --department"),
        (&["account", "make", "eve", "--role", "budget-owner", "--department", "X"], "", "no department `X`"),
        (&["account", "role", "ada", "admin", "--department", "X"], "", "nobody else has"),
        (&["account", "role", "ada", "admin"], "", "`ada` is the last owner"),
        (&["account", "disable", "ada"], "", "make another account an owner first"),
        (&["account", "departments", "ada", "X"], "", "only a budget owner has departments"),
        (&["account", "reset", "eve"], "", "there is no account `eve`"),
        (&["account", "reset", "ada", "--password-file", "-"], "short", "12 to 256 bytes"),
    ] {
        let output = run_with(house.path(), arguments, input);
        assert!(!output.status.success());
        assert!(error(&output).contains(complaint), "{arguments:?}: {}", error(&output));
    }
    assert_eq!(text(&run(house.path(), &["account", "list"])).lines().count(), 2);
}

#[test]
fn an_account_changes_its_role_and_departments_and_is_disabled_and_enabled() {
    let house = house();
    for department in ["Research", "Sales"] {
        assert!(run(house.path(), &["department", "add", department]).status.success());
    }
    let row = || {
        let listed = text(&run(house.path(), &["account", "list"]));
        listed.lines().find(|line| line.starts_with("bob ")).unwrap().to_owned()
    };
    let make = ["account", "make", "bob", "--role", "budget-owner", "--department", "Research"];
    assert!(run(house.path(), &make).status.success());
    assert!(row().contains("budget-owner of Research"), "{}", row());
    assert!(run(house.path(), &["account", "departments", "bob", "Sales", "Research"]).status.success());
    assert!(row().contains("budget-owner of Research, Sales"), "{}", row());
    assert!(run(house.path(), &["account", "disable", "bob"]).status.success());
    assert!(row().contains("disabled since 2"), "{}", row());
    assert!(run(house.path(), &["account", "enable", "bob"]).status.success());
    assert!(run(house.path(), &["account", "role", "bob", "owner"]).status.success());
    assert!(row().contains(" owner ") && row().ends_with('-'), "{}", row());
    assert!(run(house.path(), &["account", "role", "ada", "auditor"]).status.success(), "bob is one now");
    let done = text(&run(house.path(), &["audit", "--limit", "5"]));
    for action in ["administrator_role", "administrator_disable", "administrator_enable"] {
        assert!(done.contains(action), "{action}: {done}");
    }
}

#[test]
fn a_block_of_a_provider_that_the_catalogue_does_not_know_or_with_an_endless_message_is_refused() {
    let house = house();
    assert!(run(house.path(), &["department", "add", "Research"]).status.success());
    let block = |message: &str, providers: &str| {
        let arguments = ["department", "block", "Research", "--message", message, "--providers", providers];
        run(house.path(), &arguments)
    };
    let mistyped = block("No.", "openai,opnai");
    assert!(!mistyped.status.success());
    assert!(
        error(&mistyped).contains("`opnai`") && error(&mistyped).contains("anthropic"),
        "{}",
        error(&mistyped)
    );
    assert!(!block(&"x".repeat(2000), "openai").status.success());
    assert!(!block("", "openai").status.success());
    let made = block("No.", "openai,anthropic");
    assert!(made.status.success(), "{}", error(&made));
    let lock = ["lock", "00000000-0000-4000-8000-000000000000", "--message", &"x".repeat(2000)];
    let locked = run(house.path(), &lock);
    assert!(error(&locked).contains("1 to 1024 bytes"), "{}", error(&locked));
}

#[test]
fn tokens_are_listed_by_a_name_that_withdraws_them_and_never_shown_again() {
    let house = house();
    assert!(!run(house.path(), &["token", "create", "--reusable"]).status.success(), "for how many?");
    let made = run(house.path(), &["token", "create", "--reusable", "--devices", "20", "--label", "image"]);
    assert!(made.status.success(), "{}", error(&made));
    let once = run(house.path(), &["token", "create"]);
    let listed = text(&run(house.path(), &["token", "list"]));
    for token in [&made, &once] {
        assert!(!listed.contains(text(token).trim()));
    }
    let row = listed.lines().find(|line| line.contains("image")).unwrap();
    assert!(row.contains("reusable") && row.contains("0/20") && row.ends_with("open"), "{row}");
    let name = row.split(' ').next().unwrap();
    assert!(run(house.path(), &["token", "withdraw", name]).status.success());
    let listed = text(&run(house.path(), &["token", "list"]));
    let row = listed.lines().find(|line| line.contains("image")).unwrap();
    assert!(row.ends_with("withdrawn"), "{row}");
    assert!(!run(house.path(), &["token", "withdraw", "zz"]).status.success());
    assert_eq!(text(&run(house.path(), &["device", "pending"])).lines().count(), 1);
    let nobody = run(house.path(), &["device", "approve", "00000000-0000-4000-8000-000000000000"]);
    assert!(error(&nobody).contains("no waiting device"), "{}", error(&nobody));
}

#[tokio::test]
async fn the_audit_trail_is_verified_and_its_first_bad_row_named() {
    let house = house();
    assert!(run(house.path(), &["user", "add", "ada@acme.example"]).status.success());
    assert!(run(house.path(), &["department", "add", "Research"]).status.success());
    let good = run(house.path(), &["audit", "verify"]);
    assert!(good.status.success(), "{}", error(&good));
    let good = text(&good);
    let head = good.lines().nth(1).unwrap().strip_prefix("head ").unwrap();
    assert!(run(house.path(), &["token", "create"]).status.success());
    let noted = run(house.path(), &["audit", "verify", "--noted", head]);
    assert!(noted.status.success(), "{}", error(&noted));

    let store = store(house.path()).await;
    let mut transaction = store.begin().await.unwrap();
    sqlx::query("UPDATE audit SET actor = 'nobody' WHERE id = 2").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let bad = run(house.path(), &["audit", "verify"]);
    assert!(!bad.status.success());
    assert!(error(&bad).contains("row 2 was changed"), "{}", error(&bad));
    assert!(text(&run(house.path(), &["audit", "--limit", "1"])).contains("token_create"));
}
