//! Preludes in lines of text: HTTP CONNECT, PROXY protocol version 1, and STARTTLS of the mail and file protocols.

use super::{Step, begins_with};
use crate::Prelude;

/// Longest head of a CONNECT request; those with a Kerberos ticket are long.
const MAX_CONNECT: usize = 12 * 1024;
/// Longest PROXY line, by its specification.
const MAX_PROXY_LINE: usize = 107;
/// Most bytes and lines before a command that starts TLS.
const MAX_DIALOGUE: usize = 1024;
const MAX_DIALOGUE_LINES: usize = 16;

/// Commands that start TLS: SMTP, NNTP and Sieve; POP3; FTP. IMAP's carries a tag.
const UPGRADES: [&[u8]; 5] = [b"STARTTLS", b"STLS", b"AUTH TLS", b"AUTH TLS-C", b"AUTH SSL"];
/// First commands of a dialogue that may come to it.
const OPENINGS: [&[u8]; 6] = [b"EHLO", b"HELO", b"LHLO", b"CAPA", b"CAPABILITIES", b"FEAT"];
/// The same, behind IMAP's tag.
const TAGGED_OPENINGS: [&[u8]; 3] = [b"CAPABILITY", b"ID", b"NOOP"];

/// Reads a prelude that begins with a printable character.
pub(super) fn read(bytes: &[u8]) -> Option<Step> {
    if begins_with(bytes, b"CONNECT ")? {
        return head(bytes);
    }
    if begins_with(bytes, b"PROXY ")? {
        return proxy_line(bytes);
    }
    dialogue(bytes)
}

/// A request head: its lines up to the first empty one.
fn head(bytes: &[u8]) -> Option<Step> {
    for (line, end) in Lines::new(bytes, MAX_CONNECT) {
        match line {
            Line::Whole([]) => return Some(Step::Past(end, Prelude::HttpConnect)),
            Line::Whole(_) => {}
            Line::Begun => return None,
            Line::NoText => break,
        }
    }
    Some(Step::Other)
}

fn proxy_line(bytes: &[u8]) -> Option<Step> {
    match Lines::new(bytes, MAX_PROXY_LINE).next() {
        Some((Line::Whole(_), end)) => Some(Step::Past(end, Prelude::ProxyProtocol)),
        Some((Line::Begun, _)) => None,
        _ => Some(Step::Other),
    }
}

fn dialogue(bytes: &[u8]) -> Option<Step> {
    for (count, (line, end)) in Lines::new(bytes, MAX_DIALOGUE).take(MAX_DIALOGUE_LINES).enumerate() {
        match line {
            Line::Whole(line) if starts_tls(line) => return Some(Step::Past(end, Prelude::StartTls)),
            Line::Whole(line) if count > 0 || opens_dialogue(line) => {}
            Line::Begun => return None,
            _ => break,
        }
    }
    Some(Step::Other)
}

fn starts_tls(line: &[u8]) -> bool {
    let tagged = line.iter().position(|byte| *byte == b' ').map_or(line, |space| &line[space + 1..]);
    UPGRADES.iter().any(|command| line.eq_ignore_ascii_case(command))
        || tagged.eq_ignore_ascii_case(b"STARTTLS")
}

fn opens_dialogue(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let is_one_of = |word: Option<&[u8]>, list: &[&[u8]]| {
        word.is_some_and(|word| list.iter().any(|known| word.eq_ignore_ascii_case(known)))
    };
    is_one_of(words.next(), &OPENINGS) || is_one_of(words.next(), &TAGGED_OPENINGS)
}

/// A line, without its end.
enum Line<'a> {
    Whole(&'a [u8]),
    /// Its end is awaited.
    Begun,
    /// It holds a control character or is too long.
    NoText,
}

/// Lines ended by LF or CR LF, each with the position after it; nothing beyond a limit.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    limit: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self { bytes, at: 0, limit }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (Line<'a>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..self.bytes.len().min(self.limit))?;
        let is_control = |byte: &u8| *byte < b' ' && *byte != b'\t';
        let Some(length) = rest.iter().position(is_control) else {
            let line = if self.bytes.len() < self.limit { Line::Begun } else { Line::NoText };
            return Some((line, self.at));
        };
        let end_length = match rest[length..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [b'\r'] if self.bytes.len() < self.limit => return Some((Line::Begun, self.at)),
            _ => return Some((Line::NoText, self.at)),
        };
        self.at += length + end_length;
        Some((Line::Whole(&rest[..length]), self.at))
    }
}
