//! The captures of the engine's corpus (`../shared/corpus`, or the folder that `TOKTRA_CORPUS` names) as a host
//! would deliver them: each direction of each connection is a flow of its own, whose bytes come in the order of
//! the stream and in the pieces in which they were sent. Where the corpus is absent the test says so and passes.
//!
//! What is held against the filter is `toktra-hello`, which reads the same pieces: it must be asked for exactly
//! as many bytes as a name takes, count what the catalogue knows, and let everything else through.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toktra_capture_macos::told::{Endpoint, FlowKey, NewFlow};
use toktra_capture_macos::{DataVerdict, NewVerdict};
use toktra_capture_pcap::{Place, payloads};
use toktra_catalog::{Catalog, is_ech_public_name};
use toktra_engine::Capture as _;
use toktra_hello::{Answer, QuicFlow, Stream};

use crate::host::{Host, tcp, udp};

type Ends = (SocketAddr, SocketAddr);
/// Pieces of what each end sent.
type Sent = BTreeMap<Ends, Vec<Vec<u8>>>;

/// What a flow's pieces come to.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    /// How many of the pieces were wanted.
    pieces: usize,
    /// Whether the flow is counted.
    counted: bool,
}

#[test]
fn the_filter_reads_what_the_engines_corpus_holds_and_asks_for_no_more_than_that() {
    let Some(corpus) = corpus() else { return };
    let (mut flows, mut named) = (0, 0);
    for path in captures(&corpus) {
        let (streams, datagrams) = flows_of(&fs::read(&path).unwrap());
        for (is_tcp, ends, pieces) in streams
            .into_iter()
            .map(|(ends, pieces)| (true, ends, pieces))
            .chain(datagrams.into_iter().map(|(ends, pieces)| (false, ends, pieces)))
        {
            let (expected, has_name) = by_hello(is_tcp, &pieces);
            let read = by_filter(is_tcp, ends, &pieces);
            assert_eq!(read, expected, "{}: {ends:?}", path.display());
            flows += 1;
            named += usize::from(has_name);
        }
    }
    say(&format!("corpus: {flows} flows delivered by a simulated host, {named} with a name"));
    assert!(named > 500, "the corpus has only {named} names");
}

/// What `hello` makes of the pieces, and whether there was a name.
fn by_hello(is_tcp: bool, pieces: &[Vec<u8>]) -> (Reading, bool) {
    let (mut stream, mut quic, mut position) = (Stream::new(), QuicFlow::new(), 0);
    for (index, piece) in pieces.iter().enumerate() {
        let answer = if is_tcp { stream.push(position, piece) } else { quic.push(piece) };
        position += piece.len() as u64;
        let counted = match answer {
            Answer::NeedMore => continue,
            Answer::Name { name, ech, .. } if ech && is_ech_public_name(&name) => false,
            Answer::Name { name, .. } => Catalog::builtin().lookup(&name).is_some(),
            Answer::NoName { .. } | Answer::NotTls => {
                return (Reading { pieces: index + 1, counted: false }, false);
            }
        };
        return (Reading { pieces: index + 1, counted }, true);
    }
    (Reading { pieces: pieces.len(), counted: false }, false)
}

fn by_filter(is_tcp: bool, (_, server): Ends, pieces: &[Vec<u8>]) -> Reading {
    let host = Host::new();
    host.joint.lock().unwrap().capture.set_ports(&[server.port()]);
    let remote = Some(Endpoint { host: server.ip().to_string(), port: server.port().to_string() });
    let key = FlowKey([1; 16]);
    let flow = NewFlow { remote: remote.clone(), ..if is_tcp { tcp() } else { udp() } };
    assert_eq!(host.filter.new_flow(|| (key, flow)), NewVerdict::Peek);
    let mut offset = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let verdict = host.filter.outbound(offset, piece, || (key, remote.clone()));
        offset += piece.len() as u64;
        let counted = match verdict {
            DataVerdict::Pass { pass, .. } => {
                assert_eq!(pass, piece.len(), "nothing is held back");
                continue;
            }
            DataVerdict::Count(_) => true,
            DataVerdict::Allow | DataVerdict::Watch(_) => false,
            DataVerdict::Drop => panic!("nothing is in force"),
        };
        return Reading { pieces: index + 1, counted };
    }
    Reading { pieces: pieces.len(), counted: false }
}

/// Pieces of what each end sent, for TCP in the order of the stream and without what was sent twice.
fn flows_of(file: &[u8]) -> (Sent, Sent) {
    /// A client that is told to retry, or that fails, says no more than this.
    const LIMIT: usize = 64 * 1024;
    let mut sides: HashMap<Ends, Side> = HashMap::new();
    let mut datagrams = Sent::new();
    // A file that breaks gives what comes before.
    let _ = payloads(file, |payload| {
        let ends = (payload.source, payload.destination);
        match payload.place {
            Place::Stream { sequence, begins } => {
                let side = sides.entry(ends).or_insert_with(|| Side::new(sequence));
                // Ports that are used anew are another flow, of which there is one here.
                if !(begins && side.next != sequence) && side.length < LIMIT {
                    side.push(sequence, payload.bytes);
                }
            }
            Place::Datagram if !payload.bytes.is_empty() => {
                let pieces = datagrams.entry(ends).or_default();
                if pieces.len() < 40 {
                    pieces.push(payload.bytes.to_vec());
                }
            }
            Place::Datagram => {}
        }
    });
    let streams = sides.into_iter().map(|(ends, side)| (ends, side.pieces));
    (streams.filter(|(_, pieces)| !pieces.is_empty()).collect(), datagrams)
}

/// One end's stream, as the other end's kernel puts it together.
struct Side {
    next: u32,
    early: BTreeMap<u32, Vec<u8>>,
    pieces: Vec<Vec<u8>>,
    length: usize,
}

impl Side {
    fn new(start: u32) -> Self {
        Self { next: start, early: BTreeMap::new(), pieces: Vec::new(), length: 0 }
    }

    fn push(&mut self, sequence: u32, bytes: &[u8]) {
        let ahead = sequence.wrapping_sub(self.next);
        if bytes.is_empty() {
            return;
        }
        if (1..0x8000_0000).contains(&ahead) {
            self.early.insert(sequence, bytes.to_vec());
            return;
        }
        let known = self.next.wrapping_sub(sequence) as usize;
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else { return };
        self.next = self.next.wrapping_add(new.len() as u32);
        self.length += new.len();
        self.pieces.push(new.to_vec());
        let due = |&sequence: &u32| self.next.wrapping_sub(sequence) < 0x8000_0000;
        if let Some(sequence) = self.early.keys().copied().find(due) {
            let bytes = self.early.remove(&sequence).unwrap();
            self.push(sequence, &bytes);
        }
    }
}

fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let corpus = std::env::var_os("TOKTRA_CORPUS").map_or(beside, PathBuf::from);
    if corpus.join("truth.tsv").is_file() {
        return Some(corpus);
    }
    say(&format!(
        "corpus: SKIPPED, nothing was delivered: there is no {}; set TOKTRA_CORPUS to the folder of captures",
        corpus.join("truth.tsv").display()
    ));
    None
}

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

/// Past the test harness, which shows only what a failed test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}
