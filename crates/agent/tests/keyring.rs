//! The desktop's own keyring, real: a `gnome-keyring-daemon` on a bus of the test's own. Where it is not
//! installed the test says so; with `TOKTRA_REQUIRE_LINT=1`, as in `make test`, that is a failure.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that says what it did not do"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use toktra_vault::UserKey;

/// A session's bus that starts nothing by itself: with the system's list of services a request that came
/// before the keyring was ready would have the bus start a second one, locked and empty.
const BUS: &str = r#"<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>"#;

/// A session's bus with a keyring that is unlocked, in a home of its own.
struct Desktop {
    home: tempfile::TempDir,
    bus: Child,
    address: String,
    keyring: Option<Child>,
}

impl Desktop {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let configuration = home.path().join("bus.conf");
        std::fs::write(&configuration, BUS).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .args(["--nofork", "--print-address", "--config-file"])
            .arg(&configuration)
            .env("HOME", home.path())
            .env("XDG_DATA_HOME", home.path().join("data"))
            .env("XDG_RUNTIME_DIR", home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { home, bus, address: address.trim().to_owned(), keyring: None }
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path())
            .env("XDG_DATA_HOME", self.home.path().join("data"))
            .env_remove("XDG_CONFIG_HOME")
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
    }

    /// Starts the keyring and unlocks it with a password; false if it is not installed.
    fn unlock(&mut self, password: &str) -> bool {
        let mut command = Command::new("gnome-keyring-daemon");
        command.args(["--foreground", "--unlock", "--components=secrets"]);
        let spawned = self.environment(&mut command).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let Ok(mut child) = spawned else { return false };
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        self.keyring = Some(child);
        self.wait_for_the_keyring();
        true
    }

    /// Until the keyring has its default collection, which it makes or opens with the password after it
    /// has started.
    fn wait_for_the_keyring(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ready = runtime.block_on(async {
            let bus = zbus::connection::Builder::address(&*self.address).unwrap().build().await.unwrap();
            for _ in 0..600 {
                let collection = bus
                    .call_method(
                        Some("org.freedesktop.secrets"),
                        "/org/freedesktop/secrets",
                        Some("org.freedesktop.Secret.Service"),
                        "ReadAlias",
                        &"default",
                    )
                    .await
                    .and_then(|reply| reply.body().deserialize::<zbus::zvariant::OwnedObjectPath>());
                if collection.is_ok_and(|path| path.as_str() != "/") {
                    return true;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            false
        });
        assert!(ready, "the keyring has no default collection");
    }

    fn stop_keyring(&mut self) {
        if let Some(mut child) = self.keyring.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn agent(&self, arguments: &[&str], input: &str) -> std::process::Output {
        let place = self.home.path().to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-agent"));
        command.args(["--run-dir", place, "--state-dir", place, "--config", "/nonexistent/agent.toml"]);
        self.environment(command.args(arguments));
        let piped = Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.stop_keyring();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

#[test]
fn the_key_is_in_the_desktops_keyring_and_nowhere_else() {
    let mut desktop = Desktop::start();
    if !desktop.unlock("a password") {
        let message = "gnome-keyring-daemon is not installed; run `scripts/setup test`";
        assert!(std::env::var_os("TOKTRA_REQUIRE_LINT").is_none(), "{message}");
        eprintln!("SKIPPED: {message}");
        return;
    }
    let words = "abandon ".repeat(23) + "art";
    let key = UserKey::from_phrase(&words).unwrap();
    let said = |output: &std::process::Output| {
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
    };
    // There is no daemon to ask what the key opens, but the key is kept before that.
    let imported = desktop.agent(&["personal", "import"], &words);
    assert!(said(&imported).contains("The key is in the desktop's keyring."), "{}", said(&imported));
    let phrase = desktop.agent(&["personal", "phrase"], "");
    assert_eq!(String::from_utf8_lossy(&phrase.stdout).trim(), *key.phrase(), "{}", said(&phrase));
    assert!(!desktop.home.path().join(".config/toktra/personal.key").exists());
    let grep = Command::new("grep").args(["-r", "abandon"]).arg(desktop.home.path()).output().unwrap();
    assert_eq!(grep.status.code(), Some(1), "the words are on disk: {}", said(&grep));
    // A second key must not take the place of the first.
    let other = "zoo ".repeat(23) + "vote";
    let refused = desktop.agent(&["personal", "import"], &other);
    assert!(said(&refused).contains("another key is in the desktop's keyring"), "{}", said(&refused));
    // The keyring outlives its daemon, and opens with its password.
    desktop.stop_keyring();
    assert!(desktop.unlock("a password"));
    let again = desktop.agent(&["personal", "phrase"], "");
    assert_eq!(String::from_utf8_lossy(&again.stdout).trim(), *key.phrase(), "{}", said(&again));
}
