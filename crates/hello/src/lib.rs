//! Outbound bytes in, TLS server name out.
//!
//! A sans-I/O core: [`read_stream`] and [`Stream`] read what a client sends over TCP, [`QuicFlow`] what it sends
//! over UDP. All three give an [`Answer`]. Invariants: no input panics; at most [`LIMIT`] bytes are looked at; a
//! name is given only by a ClientHello that is whole (and, in QUIC, authentic); a name that arrives whole is
//! borrowed from the input.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod assembly;
mod client_hello;
mod prelude;
mod quic;
mod record;
mod server_name;
mod stream;

use alloc::borrow::Cow;

pub use quic::QuicFlow;
pub use stream::{Stream, read_stream};

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
        /// What was sent as [`Reason::IpLiteral`] or [`Reason::InvalidName`], if it is printable ASCII: to be shown
        /// to who asked for a capture to be read, never to be matched.
        refused: Option<Cow<'a, str>>,
    },
    /// Not TLS (or, for a datagram, not QUIC).
    NotTls,
}

impl Answer<'_> {
    /// No name, for a reason that the hello's structure gives.
    pub(crate) const fn no_name(reason: Reason) -> Self {
        Self::NoName { reason, ech: false, refused: None }
    }

    /// The same answer, which borrows nothing.
    pub fn into_owned(self) -> Answer<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Answer::NeedMore => Answer::NeedMore,
            Answer::Name { name, ech, prelude } => Answer::Name { name: owned(name), ech, prelude },
            Answer::NoName { reason, ech, refused } => {
                Answer::NoName { reason, ech, refused: refused.map(owned) }
            }
            Answer::NotTls => Answer::NotTls,
        }
    }
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
