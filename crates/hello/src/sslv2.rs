//! The hello in the form of SSL 2.0 (RFC 5246, E.2), which cannot carry a name.

/// What the first bytes of a stream are.
pub(crate) enum Sslv2 {
    /// A ClientHello in this form.
    Hello,
    /// Something else.
    Other,
}

/// Reads the eleven bytes that tell; `None` when more are needed.
pub(crate) fn read(bytes: &[u8]) -> Option<Sslv2> {
    const CLIENT_HELLO: u8 = 1;
    match *bytes {
        [first, ..] if first & 0x80 == 0 => Some(Sslv2::Other),
        [_, _, kind, ..] if kind != CLIENT_HELLO => Some(Sslv2::Other),
        [_, _, _, major, minor, ..] if !matches!((major, minor), (0, 2) | (3, 0..=4)) => Some(Sslv2::Other),
        [high, low, _, _, _, ref lengths @ ..] if lengths.len() >= 6 => {
            let length = |at: usize| usize::from(u16::from_be_bytes([lengths[at], lengths[at + 1]]));
            let (ciphers, session_id, challenge) = (length(0), length(2), length(4));
            let total = usize::from(u16::from_be_bytes([high & 0x7f, low]));
            let fits = ciphers > 0
                && ciphers % 3 == 0
                && matches!(session_id, 0 | 16)
                && (16..=32).contains(&challenge)
                && total == 9 + ciphers + session_id + challenge;
            Some(if fits { Sslv2::Hello } else { Sslv2::Other })
        }
        _ => None,
    }
}
