//! The taint test: a day of mixed traffic, in short, with marks in prompts, in names of sites that are no
//! provider's, and in programs that are used in privacy hours only; then every file, every table, every log, the
//! memory of the three processes and every packet between device and backend is searched for the marks, in plain
//! and in the usual encodings.
//!
//! | mark | may be found |
//! | --- | --- |
//! | a prompt | nowhere |
//! | a name that is no provider's | in the client's own hello on its network; in the extension's memory: in the ring buffer that the kernel shares with it, until other hellos have overwritten it, and in memory that it has freed |
//! | a program that is used in privacy hours only | in the extension's memory |
//!
//! A client's own process and its network are its own. What a personal record holds is searched for in `vault.rs`.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use toktra_testkit::installation::{Installation, Part};
use toktra_testkit::lab::Lab;
use toktra_testkit::process::{output, until};
use toktra_tests::clients::{chat, curl, script};

const PROMPT: &str = "zq4prompt-7d2a";
const FOREIGN: &str = "zq5foreign.example";
const HOURS: &str = "zq6hours-9b1f";
const MARKS: [&str; 3] = [PROMPT, FOREIGN, HOURS];
/// The simulator, which answers to any name.
const SIMULATOR: &str = "10.77.0.1";
const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const LIMIT: Duration = Duration::from_secs(60);

/// A mark that was found somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Find {
    place: String,
    mark: String,
    form: String,
}

/// Searches files, directories and, as `pid:NUMBER`, processes.
fn search(marks: &[&str], places: &[String]) -> BTreeSet<Find> {
    let mut command = Command::new("python3");
    command.arg(script("taint.py")).args(marks).arg("--").args(places);
    let found = output(&mut command).unwrap();
    let parse = |line: &str| {
        let parts: Vec<&str> = line.split('\t').collect();
        let [place, mark, form] = [0, 1, 2].map(|at: usize| parts[at].to_owned());
        Find { place, mark, form }
    };
    found.lines().map(parse).collect()
}

/// What passes an interface, written into a file.
struct Packets(Child);

impl Packets {
    fn of(mut command: Command, interface: &str, file: &Path) -> Self {
        command.arg(interface).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self(child)
    }

    /// Of the machine itself, over whose loopback the device speaks to its backend.
    fn of_backend(file: &Path) -> Self {
        let mut command = Command::new("python3");
        command.arg(script("packets.py"));
        Self::of(command, "lo", file)
    }

    /// Of the network on which the clients are.
    fn of_clients(lab: &Lab, file: &Path) -> Self {
        let mut command = lab.client("python3");
        command.arg(script("packets.py"));
        Self::of(command, "lab0", file)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// curl under another name, by which the extension knows it.
fn named(lab: &Lab, name: &str) -> Command {
    let curl = output(Command::new("which").arg("curl")).unwrap();
    let program = lab.client_directory().join(name);
    fs::copy(fs::canonicalize(curl.trim()).unwrap(), &program).unwrap();
    let mut command = lab.client(program.to_str().unwrap());
    command.args(["-sS", "--fail", "--max-time", "60", "-o", "/dev/null", "--cacert"]);
    command.arg(lab.root_certificate());
    command
}

/// Sites that are nobody's: over HTTP/1.1, HTTP/2 and TLS 1.2, through a proxy, and with a hello in pieces.
fn visit_strangers(lab: &Lab) {
    let (url, place) = (format!("https://{FOREIGN}/bytes/20000"), format!("{FOREIGN}:443:{SIMULATOR}"));
    for flags in [&["--http1.1"][..], &["--http2"], &["--tls-max", "1.2"]] {
        let arguments = [flags, &["--resolve", &place, "-o", "/dev/null", &url]].concat();
        output(&mut curl(lab, &arguments)).unwrap();
    }
    // Whether the proxy knows the name or not, it has been asked for it.
    let _ = curl(lab, &["-x", "http://proxy.example:8080", "-o", "/dev/null", &url]).output().unwrap();
    let mut pieces = lab.client("python3");
    output(pieces.arg(script("slow_hello.py")).args([SIMULATOR, FOREIGN])).unwrap();
}

fn ask(lab: &Lab) {
    let body = chat(20).replace("Say something.", PROMPT);
    assert!(body.contains(PROMPT));
    for flags in [&["--http1.1"][..], &["--http2"]] {
        output(&mut curl(lab, &[flags, &["-o", "/dev/null", "-d", &body, CHAT]].concat())).unwrap();
    }
}

/// Use, strangers, an administrator's lock, privacy hours, and use again.
fn day(installation: &Installation) {
    let lab = &installation.lab;
    ask(lab);
    visit_strangers(lab);
    installation.server(&["lock", installation.device_id(), "--message", "Ask Ms Lee."]).unwrap();
    until("the lock", LIMIT, || {
        Ok((!curl(lab, &["-o", "/dev/null", CHAT]).output()?.status.success()).then_some(()))
    })
    .unwrap();
    visit_strangers(lab);
    installation.server(&["unlock", installation.device_id()]).unwrap();
    installation.agent(&["privacy", "set", "00:00-24:00"]).unwrap();
    until("privacy hours", LIMIT, || Ok((installation.status()?["lock"].is_null()).then_some(()))).unwrap();
    until("the lock to be lifted", LIMIT, || {
        let mut client = named(lab, HOURS);
        Ok(client.args(["-d", &chat(20), CHAT]).output()?.status.success().then_some(()))
    })
    .unwrap();
    installation.agent(&["privacy", "clear"]).unwrap();
    until("privacy hours to end", LIMIT, || {
        ask(lab);
        let _ = installation.flush();
        Ok((installation.events(0)?.len() > 4).then_some(()))
    })
    .unwrap();
}

#[test]
fn no_mark_is_where_it_must_not_be() {
    let mut installation = Installation::start(|_| ()).unwrap();
    let captured = tempfile::tempdir().unwrap();
    let [backend, clients] = ["backend", "clients"].map(|name| captured.path().join(name));
    let packets = [Packets::of_backend(&backend), Packets::of_clients(&installation.lab, &clients)];
    day(&installation);

    let directory = installation.lab.directory().display().to_string();
    let files = ["server", "agent", "run", "logs"].map(|name| format!("{directory}/{name}"));
    let processes = Part::ALL.map(|part| installation.id(part).unwrap());
    let [server, agent, extension] = processes.map(|id| format!("pid:{id}"));
    packets.into_iter().for_each(Packets::end);
    let own =
        |mark: &str| Find { place: clients.display().to_string(), mark: mark.into(), form: "plain".into() };

    // Nothing on any disk, in any table, in any log, in the agent, in the backend, or on the way between.
    let places = [&files[..], &[server, agent, backend.display().to_string()]].concat();
    assert_eq!(search(&MARKS, &places), BTreeSet::new());
    // The client's network has the name that the client itself gave, and no prompt.
    assert_eq!(search(&MARKS, &[clients.display().to_string()]), BTreeSet::from([own(FOREIGN)]));
    // The extension has seen ciphertext only; that what it may hold is found shows that it was searched.
    let held = search(&MARKS, &[extension]);
    assert!(held.iter().all(|find| find.mark != PROMPT), "{held:?}");
    assert!(held.iter().any(|find| find.mark == HOURS), "{held:?}");
    // Once more after all was closed, and written that was not.
    installation.stop().unwrap();
    assert_eq!(search(&MARKS, &files), BTreeSet::new());
    assert!(fs::metadata(&backend).unwrap().len() > 10_000, "the device spoke to its backend");
}

#[test]
fn the_search_finds_what_is_planted() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).display().to_string();
    let mark = "zq8planted-3e5c";
    fs::create_dir(place("below")).unwrap();
    fs::write(place("below/log"), format!("a line with {mark} in it")).unwrap();
    let hex: String = mark.bytes().map(|byte| format!("{byte:02x}")).collect();
    fs::write(place("hex"), format!("00{hex}ff")).unwrap();
    let wide: Vec<u8> = mark.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(place("wide"), wide).unwrap();
    let python = |program: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", program, mark]).current_dir(directory.path());
        command
    };
    let table = "import sqlite3, sys; d = sqlite3.connect('table.db'); \
                 d.execute('CREATE TABLE marks (mark TEXT)'); \
                 d.execute('INSERT INTO marks VALUES (?)', (sys.argv[1],)); d.commit()";
    output(&mut python(table)).unwrap();
    let encoded = "import base64, sys; print(base64.b64encode(('a' + sys.argv[1]).encode()).decode())";
    let encoded = output(&mut python(encoded)).unwrap();
    fs::write(place("base64"), &encoded).unwrap();
    // In the memory of a process, which is told it on its standard input.
    let mut process = Command::new("python3")
        .args(["-c", "import sys; kept = sys.stdin.readline(); print('kept', flush=True); sys.stdin.read()"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.as_mut().unwrap().write_all(encoded.as_bytes()).unwrap();
    let mut said = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
    // On the loopback.
    let packets = Packets::of_backend(Path::new(&place("packets")));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(mark.as_bytes(), socket.local_addr().unwrap()).unwrap();
    packets.end();

    let found = search(&[mark], &[directory.path().display().to_string(), format!("pid:{}", process.id())]);
    process.kill().unwrap();
    process.wait().unwrap();
    let has =
        |place: &str, form: &str| found.iter().any(|find| find.place.contains(place) && find.form == form);
    for (place, form) in [
        ("below/log", "plain"),
        ("hex", "hex"),
        ("wide", "UTF-16"),
        ("base64", "base64"),
        ("table.db:marks", "plain"),
        ("pid:", "base64"),
        ("packets", "plain"),
    ] {
        assert!(has(place, form), "{place} {form}: {found:?}");
    }
    assert!(search(&["zq9absent-1a1a"], &[directory.path().display().to_string()]).is_empty());
}
