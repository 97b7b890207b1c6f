//! The exercise of docs/personal.md, and personal mode from end to end with the real processes: two devices
//! of one user on the live kernel, and a backend whose whole disk, keys, memory and traffic, also as it reads it
//! itself, are searched for what a personal record holds. Nothing of it is there; with the user's phrase the copy
//! of the disk opens, and so does what crossed.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use toktra_protocol::personal::wire::SEALED_HEAD;
use toktra_testkit::installation::{Environment, Event, Installation, Part};
use toktra_testkit::member::Member;
use toktra_testkit::process::{binary, until};
use toktra_tests::clients::{chat, curl};
use toktra_tests::perks::{self, ADA, Own, device, id, ledger, shown};
use toktra_tests::search::{Uplink, core, search};
use toktra_vault::{OpenError, UserKey, open};
use zeroize::Zeroizing;

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const LIMIT: Duration = Duration::from_secs(120);
/// What talks, with whom and what about, which is in every record of it, or in none, and nowhere else.
const OWN: Own =
    Own { program: "zq7program-4c1e", host: "zq8host-6b2d.api.openai.com", prompt: "zq9prompt-1f7a" };
/// So much of it is nobody else's.
const OWN_HOST: &str = "zq8host-6b2d";
/// A sealed record of one KiB.
const SEALED_BYTES: usize = 17 + 8 + 32 + 1024 + 16;

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

/// Sealed records wherever they lie in a file: in base64, as they are sent and as the vault keeps them.
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
fn offering(environment: Environment) -> Installation {
    let installation = Installation::start_with(environment, |_| ()).unwrap();
    perks::offer(&installation);
    installation
}

/// The identifiers of those records that a key opens.
fn opened(key: &UserKey, records: &[Vec<u8>]) -> BTreeSet<String> {
    let content = records.iter().filter_map(|record| open(key, record).ok());
    content.map(|content| id(&serde_json::from_slice(&content).unwrap()).to_owned()).collect()
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
    let installation = offering(Environment::new());
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
    let captured = tempfile::tempdir().unwrap();
    let uplink = Uplink::record(captured.path());
    let mut installation = offering(uplink.environment());
    let first = device(&installation);
    first.agent(&["personal", "opt-in", "--yes"]).unwrap();
    let phrase = first.agent(&["personal", "phrase"]).unwrap();
    let own = OWN.record(&first);
    assert!(first.events(&installation).unwrap().is_empty(), "nothing of it is the organisation's");

    // The whole disk of the backend, its logs, its memory, its traffic in the clear; and the device's disk.
    let data = installation.lab.directory().join("server");
    let memory = captured.path().join("core");
    core(installation.id(Part::Server).unwrap(), &memory);
    let disk = files(&data);
    let [packets, said] = uplink.end(installation.port());
    let logs = installation.lab.directory().join("logs");
    let places = [data.clone(), logs, memory, packets, said.clone(), first.lab.directory().join("agent")];
    // The first record is in the vault, the last may wait on the device.
    let marks = [OWN.program, OWN_HOST, OWN.prompt, id(&own[0]), id(&own[own.len() - 1])];
    assert_eq!(search(&marks, &places), BTreeSet::new());
    // Its keys, and every other 32 bytes of the vault's, are none that opens a record.
    let records: Vec<Vec<u8>> = disk.iter().flat_map(|(_, content)| sealed(content)).collect();
    assert!(records.len() >= 16, "{} sealed records are on its disk", records.len());
    let vault = disk.iter().find(|(path, _)| path.ends_with("vault.db")).map(|(_, content)| content.clone());
    let crossed = files(&said);
    let haystack = [backend_keys(&data), vault.unwrap().into_iter().take(50_000).collect()].concat();
    let posts = crossed.iter().filter(|(_, content)| !sealed(content).is_empty());
    let haystack =
        posts.fold(haystack, |all, (_, content)| [&all[..], &content[..content.len().min(20_000)]].concat());
    for window in haystack.windows(32) {
        let key = UserKey::new(Zeroizing::new(window.try_into().unwrap()));
        assert_eq!(open(&key, &records[0]), Err(OpenError::OtherKey));
    }
    // The phrase opens the copy of the disk, and what crossed.
    let key = UserKey::from_phrase(&phrase).unwrap();
    let all: BTreeSet<String> = own.iter().map(|entry| id(entry).to_owned()).collect();
    let opened_there = opened(&key, &records);
    assert!(opened_there.len() >= 16 && opened_there.is_subset(&all), "{opened_there:?}");
    let crossed: Vec<Vec<u8>> = crossed.iter().flat_map(|(_, content)| sealed(content)).collect();
    assert_eq!(opened(&key, &crossed), opened_there, "what crossed is what is kept");
    let stored = opened_there.len();

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
    assert_eq!(shown(&second).len(), stored);
    second.agent(&["personal", "opt-in", "--yes"]).unwrap();
    second.agent(&["personal", "on"]).unwrap();
    until("the other device's use", LIMIT, || {
        Ok(ledger(&second)?["others"].as_u64().filter(|&used| used > 0))
    })
    .unwrap();

    // The organisation ends it: at once, and the records stay hers to list and to delete.
    installation.server(&["perks", "remove", ADA]).unwrap();
    until("the end", LIMIT, || Ok((ledger(&second)?["mode"] == "ended").then_some(()))).unwrap();
    assert_eq!(shown(&second).len(), stored);
    second.agent(&["personal", "opt-out", "--yes"]).unwrap();
    assert_eq!(shown(&first).len(), own.len() - stored, "only what her other device has yet to send is left");
    installation.stop().unwrap();
    let left: Vec<PathBuf> = files(&data)
        .into_iter()
        .filter(|(_, content)| sealed(content).iter().any(|one| open(&key, one).is_ok()))
        .map(|(path, _)| path)
        .collect();
    assert!(left.is_empty(), "sealed records are left in {left:?}");
}
