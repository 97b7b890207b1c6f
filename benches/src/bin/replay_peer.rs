//! What `benches/replay` sets beside `toktra-extension replay`: `replay_peer null FILE` only reads the packets,
//! `replay_peer tls-parser FILE` puts the `tls-parser` crate behind the same reader. The peer knows the
//! generated file's layout (Ethernet, IPv4 without options) and passes over QUIC, so it does less than we do.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write, stdout};

use anyhow::{Context, bail};
use tls_parser::{
    TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extensions, parse_tls_plaintext,
};
use toktra_capture_pcap::CaptureReader;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, path] = &arguments[..] else { bail!("usage: replay_peer null|tls-parser FILE") };
    let reader = CaptureReader::new(File::open(path).context(path.clone())?);
    match what.as_str() {
        "null" => null(reader),
        "tls-parser" => tls_parser(reader),
        other => bail!("no such peer: {other}"),
    }
}

fn null(mut reader: CaptureReader<File>) -> anyhow::Result<()> {
    let (mut packets, mut bytes) = (0_u64, 0_u64);
    while let Some(packet) = reader.next()? {
        packets += 1;
        bytes += packet.bytes.len() as u64;
    }
    writeln!(stdout(), "{packets} packets, {bytes} bytes")?;
    Ok(())
}

type Key = [u8; 12];

/// Collects each direction of each TCP flow, in sequence order, until the crate finds a ClientHello in it.
fn tls_parser(mut reader: CaptureReader<File>) -> anyhow::Result<()> {
    let mut flows = HashMap::<Key, Option<Pieces>>::new();
    let mut output = BufWriter::new(stdout().lock());
    while let Some(packet) = reader.next()? {
        let Some((key, flags, sequence, payload)) = tcp(packet.bytes) else { continue };
        if flags & 2 != 0 {
            flows.insert(key, Some(Pieces { start: sequence.wrapping_add(1), ..Pieces::default() }));
        }
        if payload.is_empty() {
            continue;
        }
        let Some(Some(pieces)) = flows.get_mut(&key) else { continue };
        match pieces.push(sequence, payload) {
            Said::More => {}
            Said::NoHello => {
                flows.insert(key, None);
            }
            Said::Name(name) => {
                writeln!(output, "{{\"name\":\"{name}\"}}")?;
                flows.insert(key, None);
            }
        }
    }
    output.flush()?;
    Ok(())
}

fn tcp(frame: &[u8]) -> Option<(Key, u8, u32, &[u8])> {
    if frame.get(23) != Some(&6) {
        return None;
    }
    let key = *frame.get(26..)?.first_chunk()?;
    let sequence = u32::from_be_bytes(*frame.get(38..)?.first_chunk()?);
    let header = usize::from(frame.get(46)? >> 4) * 4;
    Some((key, *frame.get(47)?, sequence, frame.get(34 + header..)?))
}

#[derive(Default)]
struct Pieces {
    start: u32,
    bytes: Vec<u8>,
    later: Vec<(u32, Vec<u8>)>,
}

enum Said {
    More,
    NoHello,
    Name(String),
}

impl Pieces {
    fn push(&mut self, sequence: u32, payload: &[u8]) -> Said {
        let position = sequence.wrapping_sub(self.start);
        if position as usize == self.bytes.len() {
            self.bytes.extend_from_slice(payload);
        } else {
            self.later.push((position, payload.to_vec()));
        }
        self.later.retain(|(position, piece)| {
            let is_next = *position as usize == self.bytes.len();
            if is_next {
                self.bytes.extend_from_slice(piece);
            }
            !is_next
        });
        match parse_tls_plaintext(&self.bytes) {
            Ok((_, record)) => record.msg.iter().find_map(name).map_or(Said::NoHello, Said::Name),
            Err(error) if error.is_incomplete() => Said::More,
            Err(_) => Said::NoHello,
        }
    }
}

fn name(message: &TlsMessage<'_>) -> Option<String> {
    let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)) = message else { return None };
    let (_, extensions) = parse_tls_client_hello_extensions(hello.ext?).ok()?;
    extensions.iter().find_map(|extension| match extension {
        TlsExtension::SNI(names) => names.first().map(|(_, name)| String::from_utf8_lossy(name).into_owned()),
        _ => None,
    })
}
