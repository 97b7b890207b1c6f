//! The real agent lives through renewal, a rotation and recovery against the real server, as two
//! processes. The server's wall clock is months ahead by a preloaded `clock_gettime`, and everything
//! else is as it always is: the device, whose own clock is right and so seems wrong, hears of the time
//! that has passed from the server alone, and nobody tells it to do anything.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use toktra_testkit::process::{Process, binary, output, until};

const DAY_S: u64 = 24 * 60 * 60;
/// Bounds a failure, not a success.
const LIMIT: Duration = Duration::from_secs(60);

/// Server and agent, and the directory that they have.
struct Pair {
    // First, so that they stop before the directory goes.
    agent: Option<Process>,
    server: Option<Process>,
    directory: PathBuf,
    port: u16,
    later_s: u64,
}

impl Pair {
    fn start() -> Self {
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rotation-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut pair = Self { agent: None, server: None, directory, port, later_s: 0 };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rotation/later.c");
        output(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(pair.path("later.so")).arg(source))
            .unwrap();
        fs::write(pair.path("passphrase"), "root's own passphrase").unwrap();
        fs::set_permissions(pair.path("passphrase"), Permissions::from_mode(0o600)).unwrap();
        let (domain, medium) = (pair.domain(), pair.path("medium").display().to_string());
        let passphrase = pair.path("passphrase").display().to_string();
        let init = ["init", "--domain", &domain, "--organisation", "Acme", "--root-out", &medium];
        pair.command(&[&init[..], &["--root-passphrase-file", &passphrase]].concat());
        pair.serve(0);
        let token = pair.command(&["token", "create"]);
        let ca = pair.path("server/root.pem").display().to_string();
        output(pair.agent().args(["enroll", "--domain", &domain, "--token", token.trim(), "--ca", &ca]))
            .unwrap();
        pair.agent = Some(Process::start("agent", pair.agent().arg("run"), &pair.directory).unwrap());
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn domain(&self) -> String {
        format!("toktra.localhost:{}", self.port)
    }

    /// Starts the server by a clock that is so much later, in the place of the one that runs.
    fn serve(&mut self, later_s: u64) {
        self.server = None;
        self.later_s = later_s;
        let listen = format!("127.0.0.1:{}", self.port);
        let mut command = self.server();
        command.args(["serve", "--listen", &listen]);
        let mut process = Process::start("server", &mut command, &self.directory).unwrap();
        until("the server", LIMIT, || {
            process.check()?;
            Ok(TcpStream::connect(&listen).ok())
        })
        .unwrap();
        self.server = Some(process);
    }

    fn server(&self) -> Command {
        let mut command = Command::new(binary("toktra-server").unwrap());
        command.env("LD_PRELOAD", self.path("later.so")).env("LATER_S", self.later_s.to_string());
        command.env("TOKTRA_DATA", self.path("server"));
        command
    }

    fn try_command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(self.server().args(arguments))
    }

    /// Runs a command of the server, by the server's clock.
    fn command(&self, arguments: &[&str]) -> String {
        self.try_command(arguments).unwrap()
    }

    fn rotate(&self, step: &[&str]) {
        self.command(&[&["ca", "rotate", "devices"][..], step].concat());
    }

    fn agent(&self) -> Command {
        let mut command = Command::new(binary("toktra-agent").unwrap());
        for (option, name) in [("--config", "agent.toml"), ("--state-dir", "agent"), ("--run-dir", "run")] {
            command.arg(option).arg(self.path(name));
        }
        command
    }

    /// The status, once the certificate ends so much after the present moment, give or take an hour.
    fn until_certificate_ends(&self, in_s: u64, what: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        until(what, LIMIT, || {
            let Ok(status) = output(self.agent().args(["status", "--json"])) else {
                return Ok(None);
            };
            let status: Value = serde_json::from_str(&status)?;
            let end = status["certificate_until"].as_u64().unwrap_or_default();
            Ok((end.abs_diff(now + in_s) < 60 * 60).then_some(status))
        })
        .inspect_err(|_| eprintln!("{}", self.agent.as_ref().unwrap().log()))
        .unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        (self.agent, self.server) = (None, None);
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

#[test]
fn the_real_agent_renews_follows_a_rotation_and_recovers_with_the_real_server() {
    let mut pair = Pair::start();
    pair.until_certificate_ends(90 * DAY_S, "the first certificate");

    let mut later_s = 66 * DAY_S;
    pair.serve(later_s);
    let status = pair.until_certificate_ends(later_s + 90 * DAY_S, "a renewal after two thirds");
    assert!(status["identity"]["clock_ahead_s"].as_i64().unwrap() < -65 * DAY_S as i64, "{status}");

    let medium = pair.path("medium").display().to_string();
    let passphrase = pair.path("passphrase").display().to_string();
    later_s += 10 * DAY_S;
    pair.serve(later_s);
    pair.rotate(&["prepare", "--root", &medium, "--root-passphrase-file", &passphrase]);
    pair.rotate(&["trust"]);
    pair.rotate(&["issue"]);
    // It is renewed within an hour, and until then the old intermediate cannot go.
    let retire = ["ca", "rotate", "devices", "retire"];
    assert!(pair.try_command(&retire).is_err());
    later_s += 2 * 60 * 60;
    pair.serve(later_s);
    pair.until_certificate_ends(later_s + 90 * DAY_S, "a renewal because of the rotation");
    // Once it is used, nobody hangs on the former one.
    until("the end of the rotation", LIMIT, || Ok(pair.try_command(&retire).ok())).unwrap();

    later_s += 100 * DAY_S;
    pair.serve(later_s);
    pair.until_certificate_ends(later_s + 90 * DAY_S, "a recovery after the certificate's end");
    pair.command(&["audit", "verify"]);
}
