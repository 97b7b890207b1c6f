//! TLS records (RFC 8446, 5.1): finds the ClientHello in them, however they cut it.
//!
//! Invariants: a decision never changes when more bytes come; a record is walked once, however
//! small the steps in which the stream grows; nothing is copied unless the hello spans records.

use alloc::vec::Vec;

use crate::client_hello::{self, Extent};
use crate::{Answer, Prelude, Reason};

const HEADER: usize = 5;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const WARNING: u8 = 1;
/// Longest plaintext of a record (RFC 8446, 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

/// Whether a stream that begins with this byte is to be read as records.
pub(crate) fn begins(first: u8) -> bool {
    matches!(first, HANDSHAKE | ALERT)
}

/// Where the walk over the records stands.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Where the next record's header is.
    next: usize,
    /// Handshake bytes in the records before it.
    gathered: usize,
    /// The first of those bytes: the handshake header, as far as it is there.
    head: [u8; client_hello::HEADER],
}

impl Records {
    /// Reads a stream of records from its first byte on; each call is given at least what the last one was.
    pub(crate) fn read<'a>(&mut self, stream: &'a [u8], prelude: Prelude) -> Answer<'a> {
        loop {
            let rest = stream.get(self.next..).unwrap_or_default();
            let Some(record) = Record::parse(rest) else { return self.broken() };
            let Record::Begun { kind, length, content } = record else { return Answer::NeedMore };
            if kind == ALERT {
                match *content {
                    // A warning before the hello is passed over, as servers do.
                    [WARNING, _] if self.gathered == 0 && length == 2 => self.next += HEADER + length,
                    [] | [WARNING] if self.gathered == 0 && length == 2 => return Answer::NeedMore,
                    _ => return self.broken(),
                }
                continue;
            }
            let head = self.head_with(content);
            let end = match client_hello::extent(&head[..(self.gathered + content.len()).min(head.len())]) {
                Extent::Partial => usize::MAX,
                Extent::Message(end) => end,
                Extent::Other => return Answer::NotTls,
                Extent::TooLong => return Answer::no_name(Reason::TooLong),
            };
            if self.gathered + content.len() >= end {
                return match content.get(client_hello::HEADER..end) {
                    Some(body) if self.gathered == 0 => client_hello::read(body, prelude),
                    _ => read_spanning(stream, end, prelude),
                };
            }
            if content.len() < length {
                return Answer::NeedMore;
            }
            self.next += HEADER + length;
            self.gathered += length;
            self.head = head;
        }
    }

    /// The handshake header, completed by what a further record holds of it.
    fn head_with(&self, content: &[u8]) -> [u8; client_hello::HEADER] {
        let mut head = self.head;
        if let Some(missing) = head.get_mut(self.gathered..) {
            for (byte, new) in missing.iter_mut().zip(content) {
                *byte = *new;
            }
        }
        head
    }

    /// What a wrong record says: before the hello began there is none, within it the hello is broken.
    fn broken(&self) -> Answer<'static> {
        if self.gathered == 0 { Answer::NotTls } else { Answer::no_name(Reason::Malformed) }
    }
}

/// A record, as far as it is there.
enum Record<'a> {
    /// Not even the header is.
    Awaited,
    /// The header is, and this much of the content.
    Begun { kind: u8, length: usize, content: &'a [u8] },
}

impl<'a> Record<'a> {
    /// `None` as soon as the bytes cannot be a handshake or alert record.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        match *bytes {
            [kind, ..] if !begins(kind) => None,
            [_, major, ..] if major != MAJOR_VERSION => None,
            [kind, _, _, high, low, ref rest @ ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let content = &rest[..length.min(rest.len())];
                (length <= MAX_FRAGMENT).then_some(Self::Begun { kind, length, content })
            }
            _ => Some(Self::Awaited),
        }
    }
}

/// Joins a hello that spans records, and reads it.
fn read_spanning(stream: &[u8], end: usize, prelude: Prelude) -> Answer<'static> {
    let mut message = Vec::with_capacity(end);
    let mut rest = stream;
    while let Some(Record::Begun { kind, length, content }) = Record::parse(rest) {
        if kind == HANDSHAKE {
            message.extend_from_slice(&content[..content.len().min(end - message.len())]);
        }
        rest = rest.get(HEADER + length..).unwrap_or_default();
        if message.len() == end {
            break;
        }
    }
    client_hello::read(message.get(client_hello::HEADER..).unwrap_or_default(), prelude).into_owned()
}
