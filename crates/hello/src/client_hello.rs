//! The ClientHello message (RFC 8446, 4.1.2; RFC 6066, 3): from its bytes to an [`Answer`].
//!
//! Invariants: the whole message is walked before any name is given, so that a hello whose end is
//! missing or broken gives none; nothing is copied; what is not needed is skipped by its length.

use alloc::borrow::Cow;

use crate::server_name;
use crate::{Answer, LIMIT, Prelude, Reason};

/// Bytes of a handshake header: type and length.
pub(crate) const HEADER: usize = 4;

const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
const HOST_NAME: u8 = 0;
/// Version and random, which every hello begins with.
const VERSION_AND_RANDOM: usize = 2 + 32;

/// How far the first handshake message of a client has come.
pub(crate) enum Extent {
    /// The header, or what it announces, is not all there.
    Partial,
    /// A ClientHello of so many bytes, header included.
    Message(usize),
    /// It is something else.
    Other,
    /// A ClientHello longer than [`LIMIT`].
    TooLong,
}

/// Reads a handshake header, of which fewer than four bytes may be there.
pub(crate) fn extent(head: &[u8]) -> Extent {
    match *head {
        [kind, ..] if kind != CLIENT_HELLO => Extent::Other,
        [_, high, middle, low, ..] => {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize + HEADER;
            if length > LIMIT { Extent::TooLong } else { Extent::Message(length) }
        }
        _ => Extent::Partial,
    }
}

/// Reads a whole ClientHello, without its handshake header.
#[inline]
pub(crate) fn read(body: &[u8], prelude: Prelude) -> Answer<'_> {
    let Some(hello) = ClientHello::parse(body) else {
        return Answer::no_name(Reason::Malformed);
    };
    let ech = hello.ech;
    match hello.host_name {
        None => Answer::NoName { reason: Reason::NoExtension, ech, refused: None },
        Some(bytes) => match server_name::parse(bytes) {
            Ok(name) => Answer::Name { name: Cow::Borrowed(name), ech, prelude },
            Err(reason) => {
                Answer::NoName { reason, ech, refused: server_name::printable(bytes).map(Cow::Borrowed) }
            }
        },
    }
}

/// The two facts that are read.
#[derive(Default)]
struct ClientHello<'a> {
    host_name: Option<&'a [u8]>,
    ech: bool,
}

impl<'a> ClientHello<'a> {
    #[inline]
    fn parse(body: &'a [u8]) -> Option<Self> {
        let rest = body.get(VERSION_AND_RANDOM..)?;
        let (_session_id, rest) = vector8(rest)?;
        let (_cipher_suites, rest) = vector16(rest)?;
        let (_compression_methods, rest) = vector8(rest)?;
        let mut hello = Self::default();
        if rest.is_empty() {
            return Some(hello); // SSL 3.0 and some of TLS 1.0: no extensions at all
        }
        let (mut extensions, after) = vector16(rest)?;
        if !after.is_empty() {
            return None;
        }
        while let [high, low, rest @ ..] = extensions {
            let (content, next) = vector16(rest)?;
            match u16::from_be_bytes([*high, *low]) {
                // Twice is forbidden, and which one a server would take is unknown.
                SERVER_NAME if hello.host_name.is_some() => return None,
                SERVER_NAME => hello.host_name = Some(host_name(content)?),
                ENCRYPTED_CLIENT_HELLO => hello.ech = true,
                _ => {}
            }
            extensions = next;
        }
        extensions.is_empty().then_some(hello)
    }
}

/// The one host name of a server_name extension. How long a name of another type is cannot be known, so that
/// nothing is read from there on.
fn host_name(extension: &[u8]) -> Option<&[u8]> {
    let (mut list, after) = vector16(extension)?;
    let mut found = None;
    while let [HOST_NAME, rest @ ..] = list {
        let (name, next) = vector16(rest)?;
        if found.replace(name).is_some() {
            return None;
        }
        list = next;
    }
    if after.is_empty() { found } else { None }
}

/// Splits off a vector with a length of one byte.
#[inline]
fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Splits off a vector with a length of two bytes.
#[inline]
fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
