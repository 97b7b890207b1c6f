//! Binary requests to start TLS: PostgreSQL, MySQL, RDP and LDAP.

use super::{Fields, Step, begins_with};
use crate::Prelude;

/// Longest RDP or LDAP request that is waited for.
const MAX_REQUEST: usize = 512;

/// PostgreSQL's SSLRequest and GSSENCRequest, which may precede it.
pub(super) fn postgresql(bytes: &[u8]) -> Option<Step> {
    const START: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16];
    if !begins_with(bytes, START)? {
        return Some(Step::Other);
    }
    Some(match bytes.get(START.len())? {
        0x2f | 0x30 => past(START.len() + 1),
        _ => Step::Other,
    })
}

/// MySQL's SSLRequest: 32 bytes, sequence number 1, of which all after the character set are zero.
pub(super) fn mysql(bytes: &[u8]) -> Option<Step> {
    const HEADER: &[u8] = &[32, 0, 0, 1];
    const CLIENT_SSL: u8 = 0x08;
    if !begins_with(bytes, HEADER)? {
        return Some(Step::Other);
    }
    let body = bytes.get(HEADER.len()..HEADER.len() + 32)?;
    let asks = body[1] & CLIENT_SSL != 0 && body[9..].iter().all(|byte| *byte == 0);
    Some(if asks { past(HEADER.len() + 32) } else { Step::Other })
}

/// RDP: an X.224 connection request in a TPKT ([MS-RDPBCGR] 2.2.1.1).
pub(super) fn rdp(bytes: &[u8]) -> Option<Step> {
    const CONNECTION_REQUEST: u8 = 0xe0;
    let mut fields = Fields::new(bytes);
    fields.byte()?;
    if fields.byte()? != 0 {
        return Some(Step::Other);
    }
    let length = usize::from(u16::from_be_bytes([fields.byte()?, fields.byte()?]));
    let indicated = usize::from(fields.byte()?);
    if fields.byte()? != CONNECTION_REQUEST || indicated + 5 != length || length > MAX_REQUEST {
        return Some(Step::Other);
    }
    bytes.get(..length)?;
    Some(past(length))
}

/// LDAP: an extended request that names StartTLS (RFC 4511, 4.14).
pub(super) fn ldap(bytes: &[u8]) -> Option<Step> {
    const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
    const INTEGER: u8 = 0x02;
    const EXTENDED_REQUEST: u8 = 0x77;
    const REQUEST_NAME: u8 = 0x80;
    let mut fields = Fields::new(bytes);
    fields.byte()?;
    let Some(length) = ber_length(&mut fields)? else { return Some(Step::Other) };
    let end = fields.at + length;
    if fields.byte()? != INTEGER {
        return Some(Step::Other);
    }
    let Some(id_length) = ber_length(&mut fields)? else { return Some(Step::Other) };
    fields.take(id_length)?;
    if fields.byte()? != EXTENDED_REQUEST
        || ber_length(&mut fields)?.is_none()
        || fields.byte()? != REQUEST_NAME
    {
        return Some(Step::Other);
    }
    let Some(name_length) = ber_length(&mut fields)? else { return Some(Step::Other) };
    if fields.take(name_length)? != START_TLS || fields.at > end {
        return Some(Step::Other);
    }
    bytes.get(..end)?;
    Some(past(end))
}

/// A definite length of up to four bytes, at most [`MAX_REQUEST`]; the inner `None` for any other.
fn ber_length(fields: &mut Fields<'_>) -> Option<Option<usize>> {
    let first = usize::from(fields.byte()?);
    if first < 0x80 {
        return Some(Some(first));
    }
    if !(0x81..=0x84).contains(&first) {
        return Some(None);
    }
    let mut length = 0;
    for byte in fields.take(first - 0x80)? {
        length = length << 8 | usize::from(*byte);
    }
    Some((length <= MAX_REQUEST).then_some(length))
}

fn past(length: usize) -> Step {
    Step::Past(length, Prelude::StartTls)
}
