//! A lock of a person: every device of theirs, those that enrol later included, and nobody else's. And what
//! a lock never touches: names that are no provider's, whatever they carry and whenever they were opened,
//! name resolution, the backend's own hosts, and datagrams of programs that speak to no provider.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use toktra_testkit::installation::{DEPARTMENT, Installation};
use toktra_testkit::lab::Lab;
use toktra_testkit::member::Member;
use toktra_testkit::process::{output, until};
use toktra_tests::blocking::{LIMIT, is_blocked, is_open, status};
use toktra_tests::clients::{chat, chromium, curl, python, script, venv};

const ADA: &str = "ada@acme.example";
const GRACE: &str = "grace@acme.example";
/// The simulator's address in the lab.
const SIMULATOR: &str = "10.77.0.1";

fn member(first: &Installation, user: &str) -> Member {
    Member::join(first, DEPARTMENT, &["--user", user]).unwrap()
}

#[test]
fn a_lock_of_a_person_closes_all_their_devices_and_nobody_elses() {
    let first = Installation::start(|_| ()).unwrap();
    for user in [ADA, GRACE] {
        first.server(&["user", "add", user, "--department", DEPARTMENT]).unwrap();
    }
    let mut ada = vec![member(&first, ADA), member(&first, ADA)];
    let grace = member(&first, GRACE);
    first.server(&["lock", ADA, "--message", "Come and see me."]).unwrap();
    for device in &ada {
        is_blocked(&device.lab);
        assert_eq!(device.status().unwrap()["lock"]["message"], "Come and see me.");
    }
    ada.push(member(&first, ADA));
    is_blocked(&ada[2].lab);
    for (lab, status) in [(&grace.lab, grace.status()), (&first.lab, first.status())] {
        is_open(lab);
        assert!(status.unwrap()["lock"].is_null());
    }
    let events = ada[1].events(&first).unwrap();
    assert!(events.iter().any(|event| event.kind == "blocked" && event.reason.as_deref() == Some("lock")));
    first.server(&["unlock", ADA]).unwrap();
    ada.iter().for_each(|device| is_open(&device.lab));
    let audit = first.server(&["audit"]).unwrap();
    assert!(audit.lines().filter(|line| line.contains(ADA)).count() >= 2, "{audit}");
}

#[test]
fn a_lock_touches_nothing_but_providers() {
    let first = Installation::start(|_| ()).unwrap();
    let lab = &first.lab;
    let mut resolver = Talk::start(python(lab, "resolver.py", &[SIMULATOR]));
    assert_eq!(resolver.answer(), "ready");
    // Opened before the lock, and still open when it holds.
    let long = Running::start(lab, "https://intranet.example/v1/chat/completions");
    long.flows();
    let mut speaker = Talk::start(python(lab, "nameless.py", &[SIMULATOR, "api.openai.com"]));
    // Another program, as far as the extension can tell.
    let program = lab.client_directory().join("bystander");
    fs::copy(fs::canonicalize(venv()).unwrap(), &program).unwrap();
    let mut bystander = Talk::start({
        let mut command = lab.client(&program.display().to_string());
        command.arg(script("nameless.py")).args([SIMULATOR, "intranet.example"]);
        command
    });
    for talk in [&mut speaker, &mut bystander] {
        assert_eq!(talk.answer(), "ready");
        assert_eq!(talk.ask("send"), "sent");
    }

    let device = status("the device", || first.status(), |status| !status["device"].is_null());
    let device = device["device"].as_str().unwrap();
    first.server(&["lock", device, "--message", "Stop."]).unwrap();
    is_blocked(lab);

    for flags in [&["--http1.1", "--tls-max", "1.2", "-4"][..], &["--http2", "--tlsv1.3", "-6"]] {
        output(&mut curl(lab, &[flags, &["-o", "/dev/null", "https://intranet.example/"]].concat())).unwrap();
    }
    output(&mut curl(lab, &["-o", "/dev/null", "https://intranet.example/bytes/20000000"])).unwrap();
    let large = lab.client_directory().join("large");
    let prompt = format!(r#"{{"max_tokens":1,"messages":[{{"content":"{}"}}]}}"#, "x".repeat(3_000_000));
    fs::write(&large, prompt).unwrap();
    let large = format!("@{}", large.display());
    let upload = ["-o", "/dev/null", "--data-binary", &large, "https://intranet.example/v1/messages"];
    output(&mut curl(lab, &upload)).unwrap();
    output(&mut curl(
        lab,
        &["-o", "/dev/null", "-x", "http://proxy.example:8080", "https://intranet.example/"],
    ))
    .unwrap();
    // A name that only the resolver knows.
    assert_eq!(resolver.ask("served"), "0");
    output(&mut curl(lab, &["-o", "/dev/null", "https://found.example/"])).unwrap();
    assert_ne!(resolver.ask("served"), "0");
    for own in ["api.toktra.localhost", "ingest.toktra.localhost"] {
        let place = format!("{own}:443:{SIMULATOR}");
        output(&mut curl(lab, &["-o", "/dev/null", "--resolve", &place, &format!("https://{own}/")]))
            .unwrap();
    }
    // What cannot be named is dropped for the program that speaks to a provider, and for no other.
    until("it to be refused", LIMIT, || Ok((speaker.ask("send") == "refused").then_some(()))).unwrap();
    assert_eq!(bystander.ask("send"), "sent");
    if let Some(mut browser) = chromium(
        lab,
        "https://intranet.example/",
        &["--enable-quic", "--origin-to-force-quic-on=intranet.example:443"],
    ) {
        assert!(output(&mut browser).unwrap().contains("Provider simulator"));
    }
    long.flows();
    first.flush().unwrap();

    is_blocked(lab);
    first.server(&["unlock", device]).unwrap();
    is_open(lab);
    until("it to pass again", LIMIT, || Ok((speaker.ask("send") == "sent").then_some(()))).unwrap();
    long.flows();
}

/// A program that answers lines with lines, until it is dropped.
struct Talk {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Talk {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answer()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A download without an end, until it is dropped.
struct Running {
    child: Child,
    file: PathBuf,
}

impl Running {
    fn start(lab: &Lab, url: &str) -> Self {
        let file = lab.client_directory().join("download");
        let mut command = curl(lab, &["-o", &file.display().to_string(), "-d", &chat(1_000_000), url]);
        Self { child: command.arg("--max-time").arg("600").spawn().unwrap(), file }
    }

    /// More comes than what was on its way.
    fn flows(&self) {
        let length = || fs::metadata(&self.file).map_or(0, |file| file.len());
        let before = length();
        until("more to come", LIMIT, || Ok((length() > before + 50_000).then_some(()))).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
