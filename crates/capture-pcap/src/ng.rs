//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng). Packet blocks are read, interface
//! blocks remembered, everything else is passed over without being held.

use std::io::Read;

use crate::bytes::Endian;
use crate::file::{CaptureError, Cursor, INTERFACES_LIMIT, LinkType, Located, RECORD_LIMIT};

/// Type of the section header block; the same in both byte orders.
pub(crate) const SECTION_HEADER: u32 = 0x0a0d_0d0a;

const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and length in front, length again behind.
const BLOCK_OVERHEAD: usize = 12;
/// Type and length.
const BLOCK_HEADER: usize = 8;
const OPTION_TIME_RESOLUTION: u16 = 9;

/// The section that is being read.
#[derive(Debug)]
pub(crate) struct Section {
    endian: Endian,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    /// In bytes; 0 is no limit.
    snapshot_length: u32,
    clock: Clock,
}

impl Section {
    /// Before the first section header.
    pub(crate) fn new() -> Self {
        Self { endian: Endian::Little, interfaces: Vec::new() }
    }

    /// Goes on to the next packet.
    pub(crate) fn locate<R: Read>(
        &mut self,
        cursor: &mut Cursor<R>,
    ) -> Result<Option<Located>, CaptureError> {
        loop {
            match cursor.fill(BLOCK_OVERHEAD)? {
                0 => return Ok(None),
                BLOCK_OVERHEAD.. => {}
                _ => return Err(cursor.truncated()),
            }
            if self.endian.u32_at(cursor.bytes(), 0) == Some(SECTION_HEADER) {
                self.begin(cursor)?;
            }
            let kind = self.endian.u32_at(cursor.bytes(), 0).unwrap_or_default();
            let length = self.endian.u32_at(cursor.bytes(), 4).unwrap_or_default() as usize;
            if length < BLOCK_OVERHEAD || !length.is_multiple_of(4) {
                return Err(cursor.damaged("a block's length is impossible"));
            }
            match kind {
                INTERFACE_DESCRIPTION => {
                    hold(cursor, length)?;
                    self.describe(cursor, length)?;
                    cursor.consume(length);
                }
                ENHANCED_PACKET | OBSOLETE_PACKET | SIMPLE_PACKET => {
                    hold(cursor, length)?;
                    let located = self.packet(kind, cursor, length)?;
                    cursor.consume_later(length);
                    return Ok(Some(located));
                }
                _ => cursor.skip(length as u64)?,
            }
        }
    }

    /// Takes the byte order of a new section and forgets the interfaces of the last one.
    fn begin<R: Read>(&mut self, cursor: &Cursor<R>) -> Result<(), CaptureError> {
        self.endian = match Endian::Big.u32_at(cursor.bytes(), 8) {
            Some(BYTE_ORDER_MAGIC) => Endian::Big,
            Some(magic) if magic == BYTE_ORDER_MAGIC.swap_bytes() => Endian::Little,
            _ => return Err(cursor.damaged("a section header without a byte order")),
        };
        self.interfaces.clear();
        Ok(())
    }

    fn describe<R: Read>(&mut self, cursor: &Cursor<R>, length: usize) -> Result<(), CaptureError> {
        let body = body(cursor, length);
        let (Some(link), Some(snapshot_length)) = (self.endian.u16_at(body, 0), self.endian.u32_at(body, 4))
        else {
            return Err(cursor.damaged("an interface block is too short"));
        };
        if self.interfaces.len() == INTERFACES_LIMIT {
            return Err(cursor.damaged("too many interfaces"));
        }
        let clock = Clock::read(self.endian, body.get(8..).unwrap_or_default());
        self.interfaces.push(Interface { link: LinkType(link.into()), snapshot_length, clock });
        Ok(())
    }

    fn packet<R: Read>(&self, kind: u32, cursor: &Cursor<R>, length: usize) -> Result<Located, CaptureError> {
        let body = body(cursor, length);
        let damaged = || cursor.damaged("a packet block is too short for what it says");
        let (interface, header) = match kind {
            ENHANCED_PACKET => (self.endian.u32_at(body, 0), 20),
            OBSOLETE_PACKET => (self.endian.u16_at(body, 0).map(u32::from), 20),
            _ => (Some(0), 4),
        };
        let Some(interface) = self.interfaces.get(interface.ok_or_else(damaged)? as usize) else {
            return Err(cursor.damaged("a packet of an interface that was not described"));
        };
        let (captured, ticks) = if kind == SIMPLE_PACKET {
            let original = self.endian.u32_at(body, 0).ok_or_else(damaged)?;
            let limit = Some(interface.snapshot_length).filter(|&limit| limit > 0).unwrap_or(u32::MAX);
            (original.min(limit), 0)
        } else {
            let field = |at| self.endian.u32_at(body, at).ok_or_else(damaged);
            (field(12)?, u64::from(field(4)?) << 32 | u64::from(field(8)?))
        };
        let end = header + captured as usize;
        if end > body.len() {
            return Err(damaged());
        }
        Ok(Located {
            link: interface.link,
            timestamp_us: interface.clock.microseconds(ticks),
            from: BLOCK_HEADER + header,
            to: BLOCK_HEADER + end,
        })
    }
}

/// Brings a whole block into the window.
fn hold<R: Read>(cursor: &mut Cursor<R>, length: usize) -> Result<(), CaptureError> {
    if length > RECORD_LIMIT {
        return Err(cursor.damaged("a block's length exceeds the limit"));
    }
    if cursor.fill(length)? < length {
        return Err(cursor.truncated());
    }
    Ok(())
}

/// What lies between a block's lengths.
fn body<R: Read>(cursor: &Cursor<R>, length: usize) -> &[u8] {
    cursor.bytes().get(BLOCK_HEADER..length - 4).unwrap_or_default()
}

/// How an interface counts time: microseconds = ticks × `multiplier` / `divisor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    multiplier: u64,
    divisor: u64,
}

impl Clock {
    const MICROSECONDS: Self = Self { multiplier: 1, divisor: 1 };

    /// Finds `if_tsresol` among an interface's options.
    fn read(endian: Endian, mut options: &[u8]) -> Self {
        while let (Some(code), Some(length)) = (endian.u16_at(options, 0), endian.u16_at(options, 2)) {
            if code == OPTION_TIME_RESOLUTION && length > 0 {
                return options.get(4).map_or(Self::MICROSECONDS, |&byte| Self::of_resolution(byte));
            }
            if code == 0 {
                break;
            }
            let next = 4 + usize::from(length).next_multiple_of(4);
            options = options.get(next..).unwrap_or_default();
        }
        Self::MICROSECONDS
    }

    fn of_resolution(byte: u8) -> Self {
        let exponent = u32::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            let divisor = 1u64.checked_shl(exponent).unwrap_or(u64::MAX);
            return Self { multiplier: 1_000_000, divisor };
        }
        match exponent.checked_sub(6) {
            Some(finer) => Self { multiplier: 1, divisor: 10u64.checked_pow(finer).unwrap_or(u64::MAX) },
            None => Self { multiplier: 10u64.pow(6 - exponent), divisor: 1 },
        }
    }

    fn microseconds(self, ticks: u64) -> u64 {
        if self == Self::MICROSECONDS {
            return ticks;
        }
        let microseconds = u128::from(ticks) * u128::from(self.multiplier) / u128::from(self.divisor);
        u64::try_from(microseconds).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resolution_converts_to_microseconds() {
        assert_eq!(Clock::of_resolution(6).microseconds(7), 7);
        assert_eq!(Clock::of_resolution(9).microseconds(7_999), 7);
        assert_eq!(Clock::of_resolution(3).microseconds(7), 7_000);
        assert_eq!(Clock::of_resolution(0x80 | 10).microseconds(2_048), 2_000_000);
        for byte in 0..=u8::MAX {
            Clock::of_resolution(byte).microseconds(u64::MAX);
        }
    }
}
