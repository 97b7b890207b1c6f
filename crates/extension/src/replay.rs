//! `toktra-extension replay FILE`: one line on standard output for each flow of a capture file that
//! held a ClientHello. Nothing is captured, sent or kept; the file is read once, in constant memory.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use toktra_capture_pcap::{CaptureReader, Flow, Outcome, Prelude, Reason, Replay, Transport};
use toktra_catalog::Catalog;

/// Options of `toktra-extension replay`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Also print the TCP flows without a ClientHello, and the QUIC ones whose hello is not all there.
    #[arg(long)]
    all: bool,
    /// A pcap or pcapng file; `-` is standard input.
    file: PathBuf,
}

/// Replays the file. What could be read of a bad one is printed before the error.
pub fn main(arguments: Arguments) -> ExitCode {
    let result = run(&arguments, &mut io::stdout().lock());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has had enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "toktra-extension: {}: {error:#}", arguments.file.display());
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, output: &mut impl Write) -> anyhow::Result<()> {
    let source: Box<dyn Read> = if arguments.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&arguments.file)?)
    };
    let mut printer = Printer {
        output,
        json: arguments.json,
        all: arguments.all,
        name: String::new(),
        lines: Vec::new(),
        result: Ok(()),
    };
    let mut reader = CaptureReader::new(source);
    let mut replay = Replay::new();
    let read = loop {
        match reader.next() {
            Ok(Some(packet)) => replay.push(&packet, &mut |flow| printer.print(flow)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
        if printer.result.is_err() {
            break Ok(());
        }
    };
    replay.finish(&mut |flow| printer.print(flow));
    printer.finish()?;
    Ok(read?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Lines wait until there are so many bytes of them.
const LINES: usize = 64 * 1024;

/// Writes lines, and keeps the first error of doing so.
struct Printer<W: Write> {
    output: W,
    json: bool,
    all: bool,
    /// The name of the current line in lower case.
    name: String,
    /// What is not written yet.
    lines: Vec<u8>,
    result: io::Result<()>,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, flow: &Flow<'_>) {
        let has_hello = matches!(flow.outcome, Outcome::Name { .. } | Outcome::NoName { .. });
        if self.result.is_ok() && (has_hello || self.all) {
            self.result = self.write(flow);
        }
    }

    fn write(&mut self, flow: &Flow<'_>) -> io::Result<()> {
        let line = Line::new(flow, &mut self.name);
        if self.json {
            line.push_json(&mut self.lines)?;
        } else {
            write!(self.lines, "{line}")?;
        }
        self.lines.push(b'\n');
        if self.lines.len() >= LINES {
            self.output.write_all(&self.lines)?;
            self.lines.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.result?;
        self.output.write_all(&self.lines)?;
        self.output.flush()
    }
}

/// A flow as it is printed. Other programs read these names. A name with a reason beside it is what the
/// client sent in a name's place, an address or no valid host name; nothing else of Toktra takes it for one.
struct Line<'a> {
    transport: &'static str,
    client: SocketAddr,
    server: SocketAddr,
    name: Option<&'a str>,
    reason: Option<&'static str>,
    ech: bool,
    packets: u32,
    prelude: Option<&'static str>,
    provider: Option<&'a str>,
    service: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// `lower` is room for the name in lower case.
    fn new(flow: &Flow<'_>, lower: &'a mut String) -> Self {
        let (name, reason, ech, prelude) = match &flow.outcome {
            Outcome::Name { name, ech, prelude } => (Some(name), None, *ech, prelude_code(*prelude)),
            Outcome::NoName { reason, ech, refused } => {
                (refused.as_ref(), Some(reason_code(*reason)), *ech, None)
            }
            Outcome::NotTls => (None, Some("not_tls"), false, None),
            Outcome::Unfinished => (None, Some("unfinished"), false, None),
        };
        let name = name.map(|name| {
            lower.clear();
            lower.push_str(name);
            lower.make_ascii_lowercase();
            lower.as_str()
        });
        let catalog = Catalog::builtin();
        let service = name.filter(|_| reason.is_none()).and_then(|name| catalog.lookup(name));
        Self {
            transport: match flow.transport {
                Transport::Tcp => "tcp",
                Transport::Quic => "quic",
            },
            client: flow.client,
            server: flow.server,
            name,
            reason,
            ech,
            packets: flow.packets,
            prelude,
            provider: service.map(|service| catalog.provider(service).id.as_str()),
            service: service.map(|service| service.id.as_str()),
        }
    }
}

impl Line<'_> {
    /// Writes the object member by member: with serde's formatting, printing took a fifth of a replay's time.
    fn push_json(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.extend_from_slice(b"{\"transport\":\"");
        bytes.extend_from_slice(self.transport.as_bytes());
        bytes.extend_from_slice(b"\",\"client\":\"");
        push_address(bytes, self.client)?;
        bytes.extend_from_slice(b"\",\"server\":\"");
        push_address(bytes, self.server)?;
        bytes.extend_from_slice(b"\",\"name\":");
        serde_json::to_writer(&mut *bytes, &self.name)?;
        bytes.extend_from_slice(b",\"reason\":");
        serde_json::to_writer(&mut *bytes, &self.reason)?;
        bytes.extend_from_slice(if self.ech { b",\"ech\":true" } else { b",\"ech\":false" });
        bytes.extend_from_slice(b",\"packets\":");
        push_number(bytes, self.packets);
        let optional = [("prelude", self.prelude), ("provider", self.provider), ("service", self.service)];
        for (key, value) in optional.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            bytes.extend_from_slice(b",\"");
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(b"\":");
            serde_json::to_writer(&mut *bytes, value)?;
        }
        bytes.push(b'}');
        Ok(())
    }
}

fn push_address(bytes: &mut Vec<u8>, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(address) => {
            for octet in address.ip().octets() {
                let (digits, length) = OCTETS[usize::from(octet)];
                let end = bytes.len() + length;
                bytes.extend_from_slice(&digits);
                bytes.truncate(end);
                bytes.push(b'.');
            }
            bytes.pop();
            bytes.push(b':');
            push_number(bytes, address.port().into());
            Ok(())
        }
        SocketAddr::V6(address) => write!(bytes, "{address}"),
    }
}

/// The digits of every octet and how many they are: copied whole and then cut, since no branch predictor
/// can know how many the next octet has.
static OCTETS: [([u8; 3], usize); 256] = {
    let mut octets = [([0; 3], 0); 256];
    let mut octet = 0_usize;
    while octet < 256 {
        let (hundreds, tens, ones) =
            (b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8);
        octets[octet] = match octet {
            0..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            _ => ([hundreds, tens, ones], 3),
        };
        octet += 1;
    }
    octets
};

fn push_number(bytes: &mut Vec<u8>, number: u32) {
    if number >= 10 {
        push_number(bytes, number / 10);
    }
    bytes.push(b'0' + (number % 10) as u8);
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, client, server, .. } = self;
        write!(f, "{transport:4} {client} > {server}  ")?;
        f.write_str(self.name.unwrap_or("-"))?;
        if let Some(reason) = self.reason {
            write!(f, "  ({reason})")?;
        }
        if self.ech {
            f.write_str("  ech")?;
        }
        if let Some(service) = self.service {
            write!(f, "  [{service}]")?;
        }
        Ok(())
    }
}

fn reason_code(reason: Reason) -> &'static str {
    match reason {
        Reason::NoExtension => "no_extension",
        Reason::IpLiteral => "ip_literal",
        Reason::InvalidName => "invalid_name",
        Reason::Malformed => "malformed",
        Reason::TooLong => "too_long",
    }
}

fn prelude_code(prelude: Prelude) -> Option<&'static str> {
    match prelude {
        Prelude::None => None,
        Prelude::HttpConnect => Some("http_connect"),
        Prelude::Socks4 => Some("socks4"),
        Prelude::Socks5 => Some("socks5"),
        Prelude::ProxyProtocol => Some("proxy_protocol"),
        Prelude::StartTls => Some("starttls"),
    }
}
