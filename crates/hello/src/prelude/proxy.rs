//! Binary preludes of proxies: SOCKS4 and 4a, SOCKS5 (RFC 1928, RFC 1929), PROXY protocol version 2.

use super::{Fields, Step, begins_with};
use crate::Prelude;

const CONNECT: u8 = 1;
/// Longest user or host name in a SOCKS4 request that is waited for.
const MAX_SOCKS4_TEXT: usize = 512;
const USERNAME_PASSWORD: u8 = 2;

/// SOCKS4: version, command, port, address, user, and for 4a (address 0.0.0.x) a host name.
pub(super) fn socks4(bytes: &[u8]) -> Option<Step> {
    let mut fields = Fields::new(bytes);
    fields.byte()?;
    if fields.byte()? != CONNECT {
        return Some(Step::Other);
    }
    fields.take(2)?;
    let address = fields.take(4)?;
    let named = matches!(address, [0, 0, 0, last] if *last != 0);
    let ended = fields.until_nul(MAX_SOCKS4_TEXT)? && (!named || fields.until_nul(MAX_SOCKS4_TEXT)?);
    Some(if ended { Step::Past(fields.at, Prelude::Socks4) } else { Step::Other })
}

/// SOCKS5: methods, then perhaps user name and password, then the request.
pub(super) fn socks5(bytes: &[u8]) -> Option<Step> {
    let mut fields = Fields::new(bytes);
    fields.byte()?;
    let count = fields.byte()?;
    if count == 0 {
        return Some(Step::Other);
    }
    let methods = fields.take(usize::from(count))?;
    let mut version = fields.byte()?;
    if version == 1 && methods.contains(&USERNAME_PASSWORD) {
        for _user_then_password in 0..2 {
            let length = fields.byte()?;
            fields.take(usize::from(length))?;
        }
        version = fields.byte()?;
    }
    if version != 5 || fields.byte()? != CONNECT || fields.byte()? != 0 {
        return Some(Step::Other);
    }
    let address_length = match fields.byte()? {
        1 => 4,
        3 => usize::from(fields.byte()?),
        4 => 16,
        _ => return Some(Step::Other),
    };
    fields.take(address_length + 2)?;
    Some(Step::Past(fields.at, Prelude::Socks5))
}

/// PROXY protocol version 2: signature, version and command, family, length of what follows.
pub(super) fn proxy_protocol_v2(bytes: &[u8]) -> Option<Step> {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if !begins_with(bytes, SIGNATURE)? {
        return Some(Step::Other);
    }
    let mut fields = Fields::new(bytes);
    fields.take(SIGNATURE.len())?;
    if !matches!(fields.byte()?, 0x20 | 0x21) {
        return Some(Step::Other);
    }
    fields.byte()?;
    let length = usize::from(u16::from_be_bytes([fields.byte()?, fields.byte()?]));
    fields.take(length)?;
    Some(Step::Past(fields.at, Prelude::ProxyProtocol))
}
