//! The taint test: a day of mixed traffic, in short, with marks in prompts, in names of sites that are no
//! provider's, in programs that are used in privacy hours only, and in all that a user does in personal mode; then
//! every file, every table, every log (all three processes say whatever they can say), core dumps of the processes,
//! every packet between devices and backend, and what those packets say to whoever has the backend's keys, are
//! searched for the marks, in plain and in the usual encodings.
//!
//! | mark | may be found |
//! | --- | --- |
//! | a prompt, in personal mode or not | nowhere |
//! | a name that is no provider's | in the client's own hello on its network; in the extension's memory: in the ring buffer that the kernel shares with it, until other hellos have overwritten it, and in memory that it has freed |
//! | a program that is used in privacy hours only | in the extension's memory |
//! | program and host in personal mode | in that device's extension's and agent's memory, where they pass before they are sealed; the host in the client's own hello on its network |
//! | the identifier of a personal record | in that device's agent's memory, where it is made |
//!
//! A client's own process, its directory and its network are its own.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use toktra_testkit::installation::{Installation, Part};
use toktra_testkit::lab::Lab;
use toktra_testkit::member::Member;
use toktra_testkit::process::{output, until};
use toktra_testkit::tally::{Connection, Transport};
use toktra_tests::clients::{chat, chromium, curl, script, venv};
use toktra_tests::perks::{self, Own, SIMULATOR, named};
use toktra_tests::search::{Packets, Uplink, core, search};

const PROMPT: &str = "zq4prompt-7d2a";
const FOREIGN: &str = "zq5foreign.example";
const HOURS: &str = "zq6hours-9b1f";
const OWN: Own =
    Own { program: "zq1program-2c9e", host: "zq2host-5f3c.api.openai.com", prompt: "zq3prompt-8e4d" };
/// So much of it is nobody else's.
const OWN_HOST: &str = "zq2host-5f3c";
const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const LIMIT: Duration = Duration::from_secs(60);

/// Sites that are nobody's: over HTTP/1.1, HTTP/2 and TLS 1.2, through a proxy, with a hello in pieces, and over QUIC.
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
    let quic = [
        "--enable-quic".to_owned(),
        format!("--origin-to-force-quic-on={FOREIGN}:443"),
        format!("--host-resolver-rules=MAP {FOREIGN} {SIMULATOR}"),
    ];
    let Some(mut browser) =
        chromium(lab, &format!("https://{FOREIGN}/"), &quic.each_ref().map(String::as_str))
    else {
        eprintln!("SKIPPED: QUIC, since TOKTRA_NO_BROWSER is set");
        return;
    };
    output(&mut browser).unwrap();
    let is_it =
        |one: &Connection| one.transport == Transport::Quic && one.server_name.as_deref() == Some(FOREIGN);
    assert!(lab.connections().iter().any(is_it), "it did not come over QUIC");
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

/// Personal mode, on a device of its own, with strangers in between.
fn private(member: &Member) -> Vec<Value> {
    member.agent(&["personal", "opt-in", "--yes"]).unwrap();
    let own = OWN.record(member);
    visit_strangers(&member.lab);
    own
}

/// What a device or a backend has on disk, by the lab in which it lives.
fn files(lab: &Lab) -> Vec<PathBuf> {
    let places = ["server", "agent", "run", "logs"].map(|name| lab.directory().join(name));
    places.into_iter().filter(|place| place.exists()).collect()
}

#[test]
fn no_mark_is_where_it_must_not_be() {
    let captured = tempfile::tempdir().unwrap();
    let place = |name: &str| captured.path().join(name);
    let uplink = Uplink::record(captured.path());
    let environment = [uplink.environment(), vec![("TOKTRA_LOG", "trace".into())]].concat();
    let mut installation = Installation::start_with(environment, |_| ()).unwrap();
    perks::offer(&installation);
    let member = perks::device(&installation);
    let networks = [
        Packets::of_clients(&installation.lab, &place("clients")),
        Packets::of_clients(&member.lab, &place("her clients")),
    ];
    day(&installation);
    let own = private(&member);
    assert!(member.events(&installation).unwrap().is_empty(), "nothing of it is the organisation's");

    for part in Part::ALL {
        core(installation.id(part).unwrap(), &place(&format!("{part:?}")));
    }
    for part in [Part::Agent, Part::Extension] {
        core(member.id(part).unwrap(), &place(&format!("her {part:?}")));
    }
    networks.into_iter().for_each(Packets::end);
    let [packets, said] = uplink.end(installation.port());
    let record = perks::id(&own[0]);
    let marks = [PROMPT, FOREIGN, HOURS, OWN.program, OWN_HOST, OWN.prompt, record];
    let found = |places: &[PathBuf]| search(&marks, places);
    let holds = |name: &str, allowed: &[&str]| {
        let found: BTreeSet<String> = found(&[place(name)]).into_iter().map(|find| find.mark).collect();
        assert!(found.iter().all(|mark| allowed.contains(&mark.as_str())), "{name}: {found:?}");
    };

    // Nothing on any disk, in any table, in any log, in the backend's memory, in that of the agent that has heard of
    // none of it, or on the way between.
    let disks = [files(&installation.lab), files(&member.lab)].concat();
    let elsewhere = [place("Server"), place("Agent"), packets, said.clone()];
    assert_eq!(found(&[disks, elsewhere.into()].concat()), BTreeSet::new());
    // What crosses was read: there is what an organisation may know, and that there is a vault. So was memory.
    for (mark, form, place) in [
        ("api.openai.com", "zstd, plain", said.clone()),
        ("/v1/vault/records", "plain", said),
        ("ingest.toktra.localhost", "plain", place("Server")),
        ("ingest.toktra.localhost", "plain", place("Agent")),
        ("ingest.toktra.localhost", "plain", place("her Agent")),
        ("api.openai.com", "plain", place("Extension")),
        ("api.openai.com", "plain", place("her Extension")),
    ] {
        let found = search(&[mark], std::slice::from_ref(&place));
        assert!(found.iter().any(|find| find.form == form), "no {mark} in {}", place.display());
    }
    // Clients' networks have the names that the clients themselves gave.
    holds("clients", &[FOREIGN]);
    holds("her clients", &[FOREIGN, OWN_HOST]);
    // An extension has seen ciphertext only. What it has freed, other things may have overwritten.
    holds("Extension", &[FOREIGN, HOURS]);
    holds("her Extension", &[FOREIGN, OWN.program, OWN_HOST]);
    // Her agent seals what it is told; what it was told is memory that was freed.
    holds("her Agent", &[OWN.program, OWN_HOST, record]);
    // Once more after all was closed, and written that was not.
    drop(member);
    installation.stop().unwrap();
    assert_eq!(found(&files(&installation.lab)), BTreeSet::new());
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
    let squeezed =
        "import sys, zstandard; sys.stdout.buffer.write(zstandard.compress(sys.argv[1].encode() * 9))";
    let squeezed = Command::new(venv()).args(["-c", squeezed, mark]).output().unwrap();
    fs::write(place("squeezed"), squeezed.stdout).unwrap();
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
    core(process.id(), Path::new(&place("core")));
    // On the loopback.
    let packets = Packets::of_backend(Path::new(&place("packets")));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(mark.as_bytes(), socket.local_addr().unwrap()).unwrap();
    packets.end();

    let found = search(&[mark], &[directory.path().to_owned()]);
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
        ("core", "base64"),
        ("squeezed", "zstd, plain"),
        ("packets", "plain"),
    ] {
        assert!(has(place, form), "{place} {form}: {found:?}");
    }
    assert!(search(&["zq9absent-1a1a"], &[directory.path().to_owned()]).is_empty());
}
