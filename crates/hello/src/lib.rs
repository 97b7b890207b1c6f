//! Outbound bytes in, TLS server name out.
#![no_std]

extern crate alloc;

use alloc::borrow::Cow;

/// The reader gives up after this many bytes of a client's stream (or of a QUIC CRYPTO stream).
pub const LIMIT: usize = 16 * 1024;

/// What a client's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Not decided; more outbound bytes are needed.
    NeedMore,
    /// A server name.
    Name {
        /// As sent, but for case, which is not folded; a valid DNS host name. Borrowed when it arrived whole.
        name: Cow<'a, str>,
        /// An encrypted_client_hello extension is present: the name is the outer one, or ECH was GREASE.
        ech: bool,
        /// What came before the hello.
        prelude: Prelude,
    },
    /// A ClientHello without a usable name, or one that was given up.
    NoName {
        /// Why.
        reason: Reason,
        /// An encrypted_client_hello extension is present.
        ech: bool,
    },
    /// Not TLS (or, for a datagram, not QUIC).
    NotTls,
}

/// What came before the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prelude {
    /// Nothing.
    None,
    /// HTTP CONNECT (RFC 9110, 9.3.6).
    HttpConnect,
    /// SOCKS4 or SOCKS4a.
    Socks4,
    /// SOCKS5 (RFC 1928).
    Socks5,
    /// A PROXY-protocol line or header.
    ProxyProtocol,
    /// A STARTTLS-like upgrade.
    StartTls,
}

/// Why a ClientHello gave no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No server_name extension.
    NoExtension,
    /// The name is an address, which RFC 6066 forbids.
    IpLiteral,
    /// The name is not a valid host name.
    InvalidName,
    /// The hello's structure is broken.
    Malformed,
    /// More than [`LIMIT`] bytes.
    TooLong,
}

/// Reads the start of a client's stream, given from its first byte on.
pub fn read_stream(prefix: &[u8]) -> Answer<'_> {
    let _ = prefix;
    Answer::NeedMore
}

/// A client's stream whose pieces may come in any order, overlap and repeat.
#[derive(Debug, Default)]
pub struct Stream {}

impl Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes at a position counted from the stream's first byte.
    pub fn push<'a>(&'a mut self, position: u64, bytes: &'a [u8]) -> Answer<'a> {
        let _ = (position, bytes);
        Answer::NeedMore
    }
}

/// The client's datagrams on one UDP flow, which may carry several QUIC connections.
#[derive(Debug, Default)]
pub struct QuicFlow {}

impl QuicFlow {
    /// A flow of which nothing was seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a datagram; the answer is about the connection that it belongs to.
    pub fn push<'a>(&'a mut self, datagram: &'a [u8]) -> Answer<'a> {
        let _ = datagram;
        Answer::NeedMore
    }
}
