//! A client's QUIC datagrams: Initial packets (RFC 9001, RFC 9369) in, the server name out.
//!
//! Invariants: a name comes only from packets whose authentication tag is right; at most [`MAX_PENDING`]
//! connections of a flow wait for the rest of their hello, each with at most [`LIMIT`](crate::LIMIT) bytes of it; a
//! connection that has answered is forgotten; after [`MAX_DATAGRAMS`] in vain the flow is given up.

mod frames;
mod keys;
mod packet;
mod sha256;
mod version;

use alloc::vec::Vec;
use core::ops::Range;

use crate::assembly::Assembly;
use crate::client_hello::{self, Extent};
use crate::{Answer, Prelude, Reason};
use frames::CryptoFrames;
use keys::Keys;
use packet::{Kind, Long, Packet};

/// Most connections of a flow whose hello is incomplete; the oldest gives way.
const MAX_PENDING: usize = 4;
/// Most datagrams in a row that are looked at without an answer.
const MAX_DATAGRAMS: u8 = 32;

/// The client's datagrams on one UDP flow, which may carry several QUIC connections.
///
/// Each connection is answered once; the flow can be kept for the next one. A datagram that says nothing new (a
/// short header, an acknowledgement) gets [`Answer::NeedMore`] while a hello is awaited, else [`Answer::NotTls`].
#[derive(Debug, Default)]
pub struct QuicFlow {
    /// The packet that was opened last.
    scratch: Vec<u8>,
    pending: Vec<Connection>,
    /// The connection whose hello the last answer was borrowed from.
    answered: Option<Connection>,
    /// Datagrams in a row without an answer.
    datagrams: u8,
}

/// A connection whose hello is incomplete.
#[derive(Debug)]
struct Connection {
    keys: Keys,
    crypto: Assembly,
}

/// Where a hello, or what stands in its place, was found.
enum Found {
    /// Whole in the packet that was opened last.
    InPacket(Range<usize>),
    /// In the connection's stream.
    InStream(Connection),
}

impl QuicFlow {
    /// A flow of which nothing was seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a datagram; the answer is about the connection that it belongs to.
    pub fn push<'a>(&'a mut self, datagram: &'a [u8]) -> Answer<'a> {
        self.answered = None;
        let mut rest = datagram;
        let mut found = None;
        let mut is_quic = !self.pending.is_empty();
        while found.is_none() && !rest.is_empty() {
            match Packet::parse(rest) {
                Packet::Long(packet) => {
                    is_quic = true;
                    rest = packet.rest;
                    if packet.kind == Kind::Initial {
                        found = self.open(&packet);
                    }
                }
                Packet::UnknownVersion => {
                    is_quic = true;
                    break;
                }
                Packet::Other => break,
            }
        }
        match found {
            None => self.undecided(is_quic),
            Some(Found::InPacket(range)) => {
                self.datagrams = 0;
                read_hello(self.scratch.get(range).unwrap_or_default())
            }
            Some(Found::InStream(connection)) => {
                self.datagrams = 0;
                read_hello(self.answered.insert(connection).crypto.prefix())
            }
        }
    }

    /// The answer to a datagram that decides nothing.
    fn undecided(&mut self, is_quic: bool) -> Answer<'static> {
        if !is_quic {
            return Answer::NotTls;
        }
        self.datagrams += 1;
        if self.datagrams < MAX_DATAGRAMS {
            return Answer::NeedMore;
        }
        let had_hello = !self.pending.is_empty();
        *self = Self::default();
        if had_hello { Answer::no_name(Reason::Malformed) } else { Answer::NotTls }
    }

    /// Opens an Initial packet with the keys of its own identifier, or with those of a pending connection: a
    /// client goes over to the server's identifier while the first one's keys still apply.
    fn open(&mut self, packet: &Long<'_>) -> Option<Found> {
        for at in 0..self.pending.len() {
            if let Some(range) = self.pending[at].keys.open(packet, &mut self.scratch) {
                return self.absorb_pending(at, range);
            }
        }
        let keys = Keys::derive(packet.version, packet.destination_id);
        let range = keys.open(packet, &mut self.scratch)?;
        self.absorb_new(keys, range)
    }

    /// Adds the frames of a packet to a pending connection.
    fn absorb_pending(&mut self, at: usize, range: Range<usize>) -> Option<Found> {
        let frames = self.scratch.get(range).unwrap_or_default();
        let crypto = &mut self.pending[at].crypto;
        insert_all(crypto, frames);
        is_decided(crypto.prefix()).then(|| Found::InStream(self.pending.remove(at)))
    }

    /// Reads the first packet of a connection, which is kept only if its hello is not whole.
    fn absorb_new(&mut self, keys: Keys, range: Range<usize>) -> Option<Found> {
        let frames = self.scratch.get(range.clone()).unwrap_or_default();
        let first = CryptoFrames { frames, at: 0 }.next()?;
        if first.position == 0 && is_decided(&frames[first.at.clone()]) {
            return Some(Found::InPacket(range.start + first.at.start..range.start + first.at.end));
        }
        let mut crypto = Assembly::default();
        insert_all(&mut crypto, frames);
        let connection = Connection { keys, crypto };
        if is_decided(connection.crypto.prefix()) {
            return Some(Found::InStream(connection));
        }
        if self.pending.len() == MAX_PENDING {
            self.pending.remove(0);
        }
        self.pending.push(connection);
        None
    }
}

fn insert_all(crypto: &mut Assembly, frames: &[u8]) {
    for piece in (CryptoFrames { frames, at: 0 }) {
        crypto.insert(piece.position, &frames[piece.at]);
    }
}

/// Whether a CRYPTO stream holds a whole hello, or cannot come to hold one.
fn is_decided(stream: &[u8]) -> bool {
    match client_hello::extent(stream) {
        Extent::Partial => false,
        Extent::Message(end) => stream.len() >= end,
        Extent::Other | Extent::TooLong => true,
    }
}

/// Reads a CRYPTO stream that is decided.
fn read_hello(stream: &[u8]) -> Answer<'_> {
    match client_hello::extent(stream) {
        Extent::Message(end) => {
            client_hello::read(stream.get(client_hello::HEADER..end).unwrap_or_default(), Prelude::None)
        }
        Extent::TooLong => Answer::no_name(Reason::TooLong),
        Extent::Partial | Extent::Other => Answer::no_name(Reason::Malformed),
    }
}
