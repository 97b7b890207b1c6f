//! The exercise of docs/personal.md, and personal mode from end to end with the real processes: two devices
//! of one user on the live kernel, and a backend whose whole disk, keys and memory are searched for what a
//! personal record holds. Nothing of it is there; with the user's phrase the copy of the disk opens.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use toktra_protocol::personal::wire::SEALED_HEAD;
use toktra_testkit::installation::{DEPARTMENT, Event, Installation};
use toktra_testkit::member::Member;
use toktra_testkit::process::{binary, output, until};
use toktra_tests::clients::{chat, curl};
use toktra_vault::{OpenError, UserKey, open};
use zeroize::Zeroizing;

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const ADA: &str = "ada@acme.example";
const LIMIT: Duration = Duration::from_secs(120);
/// The name of the program that talks, which is in every record of it and nowhere else.
const MARK: &str = "zq7mark-4c1e";
/// Enough that they are sent at once.
const RECORDS: usize = 18;
/// A sealed record of one KiB.
const SEALED_BYTES: usize = 17 + 8 + 32 + 1024 + 16;

/// A device of Ada's, at which she sits.
fn device(installation: &Installation) -> Member {
    let member = Member::join(installation, DEPARTMENT, &["--user", ADA]).unwrap();
    fs::write(member.lab.directory().join("seat"), "ACTIVE_UID=0\n").unwrap();
    until("the offer", LIMIT, || Ok((!member.status()?["personal"]["perks"].is_null()).then_some(())))
        .unwrap();
    member
}

/// Says each connection of its own.
fn talk(member: &Member, times: usize) {
    let curl = output(Command::new("which").arg("curl")).unwrap();
    let program = member.lab.client_directory().join(MARK);
    fs::copy(fs::canonicalize(curl.trim()).unwrap(), &program).unwrap();
    for _ in 0..times {
        let mut command = member.lab.client(program.to_str().unwrap());
        command
            .args(["--fail", "--silent", "-o", "/dev/null", "--cacert"])
            .arg(member.lab.root_certificate());
        output(command.args(["-d", &chat(300), CHAT])).unwrap();
    }
}

fn ledger(member: &Member) -> anyhow::Result<Value> {
    Ok(member.status()?["personal"]["ledger"].clone())
}

fn shown(member: &Member) -> Vec<Value> {
    let said = member.agent(&["personal", "show", "--json"]).unwrap();
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Files below a directory, each with its content.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut open, mut found) = (vec![directory.to_owned()], Vec::new());
    while let Some(place) = open.pop() {
        if place.is_dir() {
            open.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        } else if place.is_file() {
            found.push((place.clone(), fs::read(&place).unwrap()));
        }
    }
    found
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// All that a process has in memory and could have written there.
fn memory(program: &str, place: &Path) -> Vec<u8> {
    let is_it = |pid: &str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        contains(&line, program) && contains(&line, place.to_str().unwrap()) && contains(&line, "serve")
    };
    let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pid = pids.filter(|name| name.parse::<u32>().is_ok()).find(|pid| is_it(pid)).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        if rest.starts_with("rw") && memory.seek(SeekFrom::Start(from)).is_ok() {
            let _ = (&mut memory).take(to - from).read_to_end(&mut all);
        }
    }
    assert!(all.len() > 1_000_000, "its memory was not read");
    all
}

/// Sealed records wherever they lie in a file: in base64, as the vault keeps them.
fn sealed(bytes: &[u8]) -> Vec<Vec<u8>> {
    let head = STANDARD.encode(&SEALED_HEAD[..15]);
    let places = bytes.windows(head.len()).enumerate().filter(|(_, window)| *window == head.as_bytes());
    let texts = places.filter_map(|(at, _)| bytes.get(at..at + SEALED_BYTES.div_ceil(3) * 4));
    texts.filter_map(|text| STANDARD.decode(text).ok()).collect()
}

/// The keys of the backend's authority, decrypted with its passphrase.
fn backend_keys(data: &Path) -> Vec<u8> {
    let mut keys = Vec::new();
    let passphrase = format!("file:{}", data.with_extension("passphrase").display());
    for (path, _) in files(&data.join("authority")) {
        if path.extension().is_some_and(|extension| extension == "key") {
            let mut openssl = Command::new("openssl");
            openssl.args(["pkey", "-outform", "DER", "-passin", &passphrase, "-in"]).arg(path);
            // It reads those of the CAs; the one that signs directives has a form that it does not know.
            keys.extend(openssl.output().unwrap().stdout);
        }
    }
    assert!(keys.len() >= 2 * 32, "the backend has two CAs");
    keys
}

/// A backend that offers Ada perks.
fn offering() -> Installation {
    let installation = Installation::start(|_| ()).unwrap();
    for arguments in [
        &["user", "add", ADA, "--department", DEPARTMENT][..],
        &["flag", "set", "FF_TOKEN_PERKS", "on"],
        &["perks", "tier", "add", "Standard", "--monthly", "100000000"],
        &["perks", "enrol", ADA, "--tier", "Standard"],
    ] {
        installation.server(arguments).unwrap();
    }
    installation
}

/// Both directions and the handshake, of all of her records.
fn own_bytes(member: &Member) -> u64 {
    let bytes = |entry: &Value| {
        let parts = ["bytes_out", "bytes_in", "bytes_handshake"];
        parts.iter().map(|part| entry["usage"][part].as_u64().unwrap()).sum::<u64>()
    };
    shown(member).iter().map(bytes).sum()
}

#[test]
fn a_transfer_is_split_between_the_organisations_ledger_and_her_own_to_the_byte() {
    let installation = offering();
    let ada = device(&installation);
    ada.agent(&["personal", "opt-in", "--yes"]).unwrap();
    let passed = || ada.lab.connections().iter().map(|one| one.bytes()).sum::<u64>();
    let flow = |what: &str| {
        let goal = passed() + 100_000;
        until(what, LIMIT, || Ok((passed() >= goal).then_some(()))).unwrap();
    };
    // It ends by itself, so that not a byte is on its way when counts are compared.
    let mut client = curl(&ada.lab, &["-o", "/dev/null", "-d", &chat(8_000), CHAT]).spawn().unwrap();
    flow("the first part");
    ada.agent(&["personal", "on"]).unwrap();
    flow("her own part");
    ada.agent(&["personal", "off"]).unwrap();
    flow("the last part");
    assert!(client.wait().unwrap().success());
    let (theirs, hers) = until("the ledgers to hold all bytes", LIMIT, || {
        let theirs: u64 = ada.events(&installation)?.iter().map(Event::bytes).sum();
        let hers = own_bytes(&ada);
        let is_over = ada.lab.connections().iter().all(|one| one.closed);
        Ok((is_over && theirs + hers >= passed()).then_some((theirs, hers)))
    })
    .unwrap();
    assert_eq!(theirs + hers, passed(), "{theirs} and {hers}");
    assert!(theirs > 100_000 && hers > 100_000, "{theirs} and {hers}");
}

#[test]
fn whoever_has_the_whole_backend_finds_nothing_and_whoever_has_the_phrase_opens_it() {
    let mut installation = offering();
    let first = device(&installation);
    first.agent(&["personal", "opt-in", "--yes"]).unwrap();
    let phrase = first.agent(&["personal", "phrase"]).unwrap();
    first.agent(&["personal", "on"]).unwrap();
    until("the mode in force", LIMIT, || Ok((ledger(&first)?["taken_up"] == true).then_some(()))).unwrap();
    talk(&first, RECORDS);
    // Sixteen go at once, and what comes after them waits for others.
    let own = until("the records in the vault", LIMIT, || {
        let own = shown(&first);
        let is_there = own.len() >= RECORDS && ledger(&first)?["waiting"].as_u64() <= Some(2);
        Ok(is_there.then_some(own))
    })
    .unwrap();
    assert!(own.iter().all(|entry| entry["usage"]["application"] == MARK));
    assert!(first.events(&installation).unwrap().is_empty(), "nothing of it is the organisation's");

    // The whole disk of the backend, its memory, its logs, and what the device has on disk.
    let data = installation.lab.directory().join("server");
    let disk = files(&data);
    for (path, content) in disk.iter().chain(&files(&installation.lab.directory().join("logs"))) {
        assert!(!contains(content, MARK), "{} holds a mark", path.display());
    }
    assert!(!contains(&memory("toktra-server", &data), MARK), "the backend's memory holds a mark");
    for (path, content) in files(&first.lab.directory().join("agent")) {
        assert!(!contains(&content, MARK), "{} holds a mark", path.display());
    }
    // Its keys, and every other 32 bytes of the vault's, are none that opens a record.
    let records: Vec<Vec<u8>> = disk.iter().flat_map(|(_, content)| sealed(content)).collect();
    assert!(records.len() >= 16, "{} sealed records are on its disk", records.len());
    let vault = disk.iter().find(|(path, _)| path.ends_with("vault.db")).map(|(_, content)| content.clone());
    let haystack = [backend_keys(&data), vault.unwrap().into_iter().take(50_000).collect()].concat();
    for window in haystack.windows(32) {
        let key = UserKey::new(Zeroizing::new(window.try_into().unwrap()));
        assert_eq!(open(&key, &records[0]), Err(OpenError::OtherKey));
    }
    // The phrase opens the copy of the disk.
    let key = UserKey::from_phrase(&phrase).unwrap();
    let opened: BTreeSet<String> = records
        .iter()
        .filter_map(|record| open(&key, record).ok())
        .map(|content| serde_json::from_slice::<Value>(&content).unwrap()["id"].to_string())
        .collect();
    let ids: BTreeSet<String> = own.iter().map(|entry| entry["id"].to_string()).collect();
    assert!(opened.len() >= 16 && opened.is_subset(&ids), "{opened:?}");

    // Another device of the same person takes the key up by its phrase.
    let second = device(&installation);
    let mut import = Command::new(binary("toktra-agent").unwrap());
    for (option, name) in [("--config", "agent.toml"), ("--state-dir", "agent"), ("--run-dir", "run")] {
        import.arg(option).arg(second.lab.directory().join(name));
    }
    import
        .env("HOME", second.lab.client_directory())
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    let mut import = import.args(["personal", "import"]).stdin(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(phrase.as_bytes()).unwrap();
    assert!(import.wait().unwrap().success());
    assert_eq!(shown(&second).len(), opened.len());
    second.agent(&["personal", "opt-in", "--yes"]).unwrap();
    second.agent(&["personal", "on"]).unwrap();
    until("the other device's use", LIMIT, || {
        Ok(ledger(&second)?["others"].as_u64().filter(|&used| used > 0))
    })
    .unwrap();

    // The organisation ends it: at once, and the records stay hers to list and to delete.
    installation.server(&["perks", "remove", ADA]).unwrap();
    until("the end", LIMIT, || Ok((ledger(&second)?["mode"] == "ended").then_some(()))).unwrap();
    assert_eq!(shown(&second).len(), opened.len());
    second.agent(&["personal", "opt-out", "--yes"]).unwrap();
    assert_eq!(
        shown(&first).len(),
        own.len() - opened.len(),
        "only what her other device has yet to send is left"
    );
    installation.stop().unwrap();
    let left: Vec<PathBuf> = files(&data)
        .into_iter()
        .filter(|(_, content)| sealed(content).iter().any(|one| open(&key, one).is_ok()))
        .map(|(path, _)| path)
        .collect();
    assert!(left.is_empty(), "sealed records are left in {left:?}");
}
