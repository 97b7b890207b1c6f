//! Captures that none of us made, with a table of what each client said (`../shared/corpus`, or the folder that
//! `TOKTRA_CORPUS` names). Where the corpus is absent the tests say so and pass. Every difference from the
//! table is listed here with its reason; one that is not listed fails.
#![allow(clippy::explicit_write, clippy::panic, clippy::unwrap_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use toktra_capture_pcap::{CaptureError, CaptureReader, Outcome, Reason, Transport, replay};

/// Names that are found and shown, but are none for Toktra: RFC 6066, section 3, allows neither addresses
/// nor ports in a server name, and these bytes spell one.
const REFUSED: &[(&str, &str, Reason)] = &[
    ("retina/traces/quic_retry.pcapng", "127.0.0.1", Reason::IpLiteral),
    ("zeek/testing/btest/Traces/ftp/ftp-auth-tls.pcap", "127.0.0.1", Reason::IpLiteral),
    ("zeek/testing/btest/Traces/ppp/quic-interop-retry.pcap", "server4:443", Reason::InvalidName),
    (
        "zeek/testing/btest/Traces/quic/interop/quic-go_quic-go/handshake.pcap",
        "server4:443",
        Reason::InvalidName,
    ),
    (
        "zeek/testing/btest/Traces/quic/interop/quic-go_quic-go/zerortt.pcap",
        "server4:443",
        Reason::InvalidName,
    ),
    ("zeek/testing/btest/Traces/rdp/rdp-to-ssl.pcap", "192.168.1.150", Reason::IpLiteral),
    ("zeek/testing/btest/Traces/tls/tls-fragmented-handshake.pcap", "104.236.167.107", Reason::IpLiteral),
];

/// Names beyond the table. An Initial packet is authenticated: a name that came out of one is what was sent.
const BEYOND_THE_TABLE: &[(&str, &str, &str, &str)] = &[
    (
        "mercury/unit_tests/pcaps/quic-crypto-packets.pcap",
        "173.38.117.86:50342",
        "firebaselogging-pa.googleapis.com",
        "packet 302 is packet 301 behind a NAT: the same payload, which the table has with the inner address only",
    ),
    (
        "mercury/unit_tests/pcaps/quic-crypto-packets.pcap",
        "173.38.117.83:35778",
        "ssl.google-analytics.com",
        "packet 311 is packet 310 behind a NAT: the same payload, which the table has with the inner address only",
    ),
    (
        "mercury/unit_tests/pcaps/quic-crypto-packets.pcap",
        "10.150.34.25:57359",
        "graph.facebook.com",
        "packet 568 is of version 0xfaceb002 (mvfst), whose keys are those of the drafts, which the table's tool skips",
    ),
];

/// Files up to this long are replayed whole for each cut; the cost grows with the square of the length.
const CUT_WHOLE_LIMIT: usize = 32 * 1024;
/// So many cuts of a longer file are replayed whole.
const CUTS_OF_LONG_FILES: usize = 25;

/// What the table and a replay are compared by: the name is empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hello {
    transport: &'static str,
    client: String,
    server: String,
    name: String,
    ech: bool,
}

#[derive(Debug)]
struct Row {
    is_must: bool,
    hello: Hello,
}

#[test]
fn every_flow_of_the_corpus_gets_the_name_that_its_client_sent() {
    let Some(corpus) = corpus() else { return };
    let table = table(&corpus);
    let (mut must, mut want, mut want_found, mut refused) = (0, 0, 0, BTreeSet::new());
    let mut wrong = Vec::new();
    for path in captures(&corpus) {
        let file = relative(&corpus, &path);
        let rows = table.get(&file).map(Vec::as_slice).unwrap_or_default();
        let found = hellos(&fs::read(&path).unwrap(), |name, reason| {
            refused.insert((file.clone(), name.to_owned(), format!("{reason:?}")));
        });
        for row in rows {
            let is_found = found.contains(&row.hello);
            must += usize::from(row.is_must);
            want += usize::from(!row.is_must);
            want_found += usize::from(!row.is_must && is_found);
            if row.is_must && !is_found {
                wrong.push(format!("{file}: not found: {:?}", row.hello));
            }
        }
        let unknown = |hello: &&Hello| !hello.name.is_empty() && !rows.iter().any(|row| row.hello == **hello);
        let listed = |hello: &&Hello| {
            BEYOND_THE_TABLE.iter().any(|(listed, client, name, _)| {
                *listed == file && *client == hello.client && *name == hello.name
            })
        };
        for hello in found.iter().filter(unknown).filter(|hello| !listed(hello)) {
            wrong.push(format!("{file}: not in the table: {hello:?}"));
        }
    }
    say(&format!("corpus: {must} must rows; {want_found} of {want} want rows found"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(must > 900, "the table has only {must} must rows");

    let listed: BTreeSet<_> = REFUSED
        .iter()
        .map(|(file, name, reason)| (file.to_string(), name.to_string(), format!("{reason:?}")))
        .collect();
    assert_eq!(refused, listed);
}

#[test]
fn a_file_cut_at_any_tenth_byte_gives_the_flows_before_the_cut() {
    let Some(corpus) = corpus() else { return };
    let (mut whole, mut at_the_end) = (0, 0);
    for path in captures(&corpus) {
        let bytes = fs::read(&path).unwrap();
        let full = hellos(&bytes, |_, _| ());
        let step =
            if bytes.len() <= CUT_WHOLE_LIMIT { 10 } else { bytes.len() / CUTS_OF_LONG_FILES / 10 * 10 };
        for cut in (0..bytes.len()).step_by(step) {
            let found = hellos(&bytes[..cut], |_, _| ());
            assert!(full.starts_with(&found), "{} cut at {cut}", path.display());
            whole += 1;
        }
        if bytes.len() > CUT_WHOLE_LIMIT {
            at_the_end += read_the_end_of_each_cut(&bytes);
        }
    }
    say(&format!(
        "corpus: {whole} cuts replayed whole (each tenth byte of files up to {} KiB, {CUTS_OF_LONG_FILES} of a longer \
         one); of the longer ones each tenth byte, {at_the_end} cuts, read from the file's header and the record cut",
        CUT_WHOLE_LIMIT / 1024,
    ));
}

/// What a reader makes of a record does not depend on the records before it, but for pcapng's interfaces. So for
/// each tenth byte the header and the cut record stand for the whole file up to there.
fn read_the_end_of_each_cut(file: &[u8]) -> usize {
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "the corpus has long files in this format only");
    let mut cuts = 0;
    let mut record = 24;
    while record < file.len() {
        let length = u32::from_le_bytes(file[record + 8..record + 12].try_into().unwrap()) as usize;
        let end = (record + 16 + length).min(file.len());
        for cut in (record.next_multiple_of(10)..end).step_by(10) {
            let mut reader = CaptureReader::new(file[..24].chain(&file[record..cut]));
            let read = reader.next();
            assert!(
                matches!(read, Ok(None)) == (cut == record)
                    && matches!(read, Ok(None) | Err(CaptureError::Truncated { at: 24 })),
                "cut at {cut}: {read:?}"
            );
            cuts += 1;
        }
        record = end;
    }
    cuts
}

/// The hellos of a capture, in the order in which they were decided.
fn hellos(file: &[u8], mut on_refused: impl FnMut(&str, Reason)) -> Vec<Hello> {
    let mut hellos = Vec::new();
    let (_, _) = replay(file, |flow| {
        let (name, ech) = match &flow.outcome {
            Outcome::Name { name, ech, .. } => (name.to_ascii_lowercase(), *ech),
            Outcome::NoName { reason, ech, refused } => {
                if let Some(name) = refused {
                    on_refused(name, *reason);
                }
                (refused.as_deref().unwrap_or_default().to_ascii_lowercase(), *ech)
            }
            Outcome::NotTls | Outcome::Unfinished => return,
        };
        let transport = match flow.transport {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
        };
        let (client, server) = (flow.client.to_string(), flow.server.to_string());
        hellos.push(Hello { transport, client, server, name, ech });
    });
    hellos
}

fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let corpus = std::env::var_os("TOKTRA_CORPUS").map_or(beside, PathBuf::from);
    if corpus.join("truth.tsv").is_file() {
        return Some(corpus);
    }
    say(&format!(
        "corpus: SKIPPED, nothing was compared: there is no {}; set TOKTRA_CORPUS to the folder of captures",
        corpus.join("truth.tsv").display()
    ));
    None
}

fn table(corpus: &Path) -> BTreeMap<String, Vec<Row>> {
    let mut table = BTreeMap::<_, Vec<_>>::new();
    let text = fs::read_to_string(corpus.join("truth.tsv")).unwrap();
    for line in text.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let [file, level, transport, client, server, name, ech] = columns[..] else {
            panic!("columns: {line}")
        };
        let transport = if transport == "tcp" { "tcp" } else { "quic" };
        let (client, server, name) = (client.to_owned(), server.to_owned(), name.to_owned());
        let hello = Hello { transport, client, server, name, ech: ech == "1" };
        table.entry(file.to_owned()).or_default().push(Row { is_must: level == "must", hello });
    }
    table
}

/// Every capture file of the corpus, also those without a row.
fn captures(corpus: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![corpus.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension.to_string_lossy().contains("cap")) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn relative(corpus: &Path, path: &Path) -> String {
    path.strip_prefix(corpus).unwrap().to_string_lossy().into_owned()
}

/// Past the test harness, which shows only what a failed test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}
