//! A flow whose hello is not whole yet. The usual hello arrives in one piece and is read
//! where it lies; only one that does not costs a buffer.

use std::net::SocketAddr;
use std::sync::Arc;

use toktra_catalog::{Catalog, Service, is_ech_public_name};
use toktra_hello::{Answer, LIMIT, Prelude, QuicFlow, Stream, read_stream};
use toktra_protocol::NameSource;

use crate::Transport;

/// After so many bytes or pieces, retransmissions included, a flow is given up.
const BYTES_LIMIT: usize = 4 * LIMIT;
const PIECES_LIMIT: u32 = 256;

/// A flow whose hello is not whole yet.
pub(crate) struct Undecided {
    pub(crate) transport: Transport,
    pub(crate) remote: SocketAddr,
    pub(crate) user_account: Option<Arc<str>>,
    pub(crate) application: Option<Arc<str>>,
    /// The name that the application asked for, if it is a provider's.
    pub(crate) asked: Option<Named>,
    pub(crate) opened_ms: u64,
    /// Privacy hours have lasted since it opened, or do.
    pub(crate) private: bool,
    /// It has been its user's own since it opened, or is.
    pub(crate) personal: bool,
    reader: Reader,
    bytes: usize,
    pieces: u32,
}

/// What reads the hello.
enum Reader {
    Nothing,
    Stream(Box<Stream>),
    Quic(Box<QuicFlow>),
}

/// A piece of what the client sent.
#[derive(Clone, Copy)]
pub(crate) enum Piece<'a> {
    Stream { position: u64, bytes: &'a [u8] },
    Datagram(&'a [u8]),
}

/// A provider's name, and where it came from.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) service: &'static Service,
    pub(crate) host: Arc<str>,
    pub(crate) source: NameSource,
    /// The connection goes straight to the provider, so its address is the provider's.
    pub(crate) direct: bool,
}

/// What a flow turned out to be.
pub(crate) enum Outcome {
    NeedMore,
    /// Nobody's; whether a name was seen, or that there is one which is hidden.
    Nobody {
        named: bool,
    },
    Provider(Named),
}

impl Undecided {
    pub(crate) fn new(transport: Transport, remote: SocketAddr, opened_ms: u64) -> Self {
        Self {
            transport,
            remote,
            user_account: None,
            application: None,
            asked: None,
            opened_ms,
            private: false,
            personal: false,
            reader: Reader::Nothing,
            bytes: 0,
            pieces: 0,
        }
    }

    /// What it has sent so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it may hold in a buffer.
    pub(crate) fn buffered(&self) -> usize {
        match self.reader {
            Reader::Nothing => 0,
            Reader::Stream(_) | Reader::Quic(_) => self.bytes.min(LIMIT),
        }
    }

    /// Reads on.
    pub(crate) fn read(&mut self, catalog: &'static Catalog, piece: Piece<'_>) -> Outcome {
        self.bytes = self.bytes.saturating_add(piece.bytes().len());
        self.pieces += 1;
        let given_up = self.bytes > BYTES_LIMIT || self.pieces > PIECES_LIMIT;
        match (self.answer(catalog, piece), given_up) {
            (Outcome::NeedMore, true) => self.without_name(),
            (outcome, _) => outcome,
        }
    }

    fn answer(&mut self, catalog: &'static Catalog, piece: Piece<'_>) -> Outcome {
        let judged = match (&mut self.reader, piece) {
            (Reader::Nothing, Piece::Stream { position: 0, bytes }) => {
                match judge(catalog, read_stream(bytes), NameSource::Sni) {
                    Judged::NeedMore => {
                        let mut stream = Box::new(Stream::new());
                        let judged = judge(catalog, stream.push(0, bytes), NameSource::Sni);
                        self.reader = Reader::Stream(stream);
                        judged
                    }
                    judged => judged,
                }
            }
            (Reader::Nothing, Piece::Stream { position, bytes }) => {
                let mut stream = Box::new(Stream::new());
                let judged = judge(catalog, stream.push(position, bytes), NameSource::Sni);
                self.reader = Reader::Stream(stream);
                judged
            }
            (Reader::Nothing, Piece::Datagram(bytes)) => {
                let mut quic = Box::new(QuicFlow::new());
                let judged = judge(catalog, quic.push(bytes), NameSource::QuicSni);
                self.reader = Reader::Quic(quic);
                judged
            }
            (Reader::Stream(stream), Piece::Stream { position, bytes }) => {
                judge(catalog, stream.push(position, bytes), NameSource::Sni)
            }
            (Reader::Quic(quic), Piece::Datagram(bytes)) => {
                judge(catalog, quic.push(bytes), NameSource::QuicSni)
            }
            // A flow does not change its transport.
            (Reader::Stream(_), Piece::Datagram(_)) | (Reader::Quic(_), Piece::Stream { .. }) => {
                Judged::NoName
            }
        };
        match judged {
            Judged::NeedMore => Outcome::NeedMore,
            Judged::NoName => self.without_name(),
            Judged::Hidden => match self.without_name() {
                Outcome::Nobody { .. } => Outcome::Nobody { named: true },
                outcome => outcome,
            },
            Judged::Nobody => Outcome::Nobody { named: true },
            Judged::Provider(named) => Outcome::Provider(named),
        }
    }

    /// There will be no name: the one that was asked for counts, if it is a provider's.
    fn without_name(&mut self) -> Outcome {
        self.asked.take().map_or(Outcome::Nobody { named: false }, Outcome::Provider)
    }
}

impl<'a> Piece<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Stream { bytes, .. } | Self::Datagram(bytes) => bytes,
        }
    }
}

/// The name that an application asked for, if it is a provider's.
pub(crate) fn asked(catalog: &'static Catalog, name: &str) -> Option<Named> {
    named(catalog, name, NameSource::Asked, false)
}

/// An answer in the catalogue's light.
enum Judged {
    NeedMore,
    NoName,
    /// A name that could be anybody's.
    Hidden,
    Nobody,
    Provider(Named),
}

fn judge(catalog: &'static Catalog, answer: Answer<'_>, source: NameSource) -> Judged {
    match answer {
        Answer::NeedMore => Judged::NeedMore,
        Answer::NoName { .. } | Answer::NotTls => Judged::NoName,
        // The outer name says who hides the name, not whose it is.
        Answer::Name { name, ech: true, .. } if is_ech_public_name(&name) => Judged::Hidden,
        Answer::Name { name, ech, prelude } => {
            let source = if ech { NameSource::EchOuter } else { source };
            let direct = prelude == Prelude::None && !ech;
            named(catalog, &name, source, direct).map_or(Judged::Nobody, Judged::Provider)
        }
    }
}

fn named(catalog: &'static Catalog, name: &str, source: NameSource, direct: bool) -> Option<Named> {
    let service = catalog.lookup(name)?;
    let host = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    Some(Named { service, host: host.into(), source, direct })
}
