//! What a host name in a ClientHello may look like (RFC 6066, 3; RFC 1123, 2.1).
//!
//! Invariant: a name that is accepted is ASCII and safe to print: letters, digits, hyphens, underscores
//! (seen in practice) and single dots, at most 253 bytes, of which a trailing dot is not one.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::str;

use crate::Reason;

/// Longest host name in text form (RFC 1035, 2.3.4, less the root label).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// Checks a host name, which is returned as sent.
#[inline]
pub(crate) fn parse(bytes: &[u8]) -> Result<&str, Reason> {
    let name = bytes.strip_suffix(b".").unwrap_or(bytes);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Reason::InvalidName);
    }
    if !is_host_name(name) {
        return Err(if is_address(bytes) { Reason::IpLiteral } else { Reason::InvalidName });
    }
    str::from_utf8(bytes).map_err(|_| Reason::InvalidName)
}

/// What was sent, if it can be shown: visible ASCII of a host name's length, with the trailing dot and a port.
pub(crate) fn printable(bytes: &[u8]) -> Option<&str> {
    let shown = !bytes.is_empty() && bytes.len() <= MAX_NAME + 7 && bytes.iter().all(u8::is_ascii_graphic);
    str::from_utf8(bytes).ok().filter(|_| shown)
}

/// Labels of the permitted characters, no hyphen at either end of one, and the last one no number.
#[inline]
fn is_host_name(name: &[u8]) -> bool {
    let mut label = 0;
    let mut all_digits = true;
    let mut previous = b'.';
    for &byte in name {
        match CLASS[usize::from(byte)] {
            Class::Letter => all_digits = false,
            Class::Digit => {}
            Class::Hyphen if previous != b'.' => all_digits = false,
            Class::Dot if previous != b'.' && previous != b'-' && label <= MAX_LABEL => {
                label = 0;
                all_digits = true;
                previous = byte;
                continue;
            }
            _ => return false,
        }
        label += 1;
        previous = byte;
    }
    label <= MAX_LABEL && previous != b'-' && previous != b'.' && !all_digits
}

#[derive(Clone, Copy)]
enum Class {
    Other,
    Letter,
    Digit,
    Hyphen,
    Dot,
}

/// What each byte may do in a name.
const CLASS: [Class; 256] = {
    let mut table = [Class::Other; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'-' => Class::Hyphen,
            b'.' => Class::Dot,
            _ => Class::Other,
        };
        byte += 1;
    }
    table
};

/// An IPv4 or IPv6 address, the latter also in brackets.
fn is_address(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse::<Ipv4Addr>().is_ok() || bare.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_of_providers_are_returned_as_sent() {
        for name in [
            "api.openai.com",
            "API.Anthropic.COM",
            "bedrock-runtime.us-east-1.amazonaws.com",
            "generativelanguage.googleapis.com.",
            "my_resource.openai.azure.com",
            "r3---sn-p5qlsnrl.googlevideo.com",
            "localhost",
            "1password.com",
            "xn--bcher-kva.example",
            "a.1a",
        ] {
            assert_eq!(parse(name.as_bytes()), Ok(name));
        }
    }

    #[test]
    fn addresses_are_told_apart_from_names() {
        for address in ["127.0.0.1", "1.1.1.1", "::1", "[2001:db8::1]", "fe80::1"] {
            assert_eq!(parse(address.as_bytes()), Err(Reason::IpLiteral), "{address}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long_label = [b'a'; 64];
        let long_name = [b"abcdefg.".as_slice(); 32].concat();
        for name in [
            b"".as_slice(),
            b".",
            b"..",
            b".com",
            b"a..b",
            b"-a.example",
            b"a-.example",
            b"a.example-",
            b"a b.example",
            b"a\0b.example",
            b"a/b",
            b"*.example",
            b"user@example.com",
            b"server4:443",
            b"999.999.999.999",
            b"1.2.3",
            b"caf\xc3\xa9.example",
            b"caf\xe9.example",
            &long_label,
            &long_name,
        ] {
            assert_eq!(parse(name), Err(Reason::InvalidName), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn the_longest_label_and_name_are_accepted() {
        let label = "a".repeat(63);
        assert!(parse(label.as_bytes()).is_ok());
        let name = alloc::format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name.len(), 253);
        assert!(parse(name.as_bytes()).is_ok());
        assert!(parse(alloc::format!("{name}.").as_bytes()).is_ok());
        assert!(parse(alloc::format!("{name}a").as_bytes()).is_err());
    }
}
