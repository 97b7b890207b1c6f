//! Capture files as a stream of packets: classic pcap and pcapng, told apart by their first
//! bytes. Memory is bounded by [`RECORD_LIMIT`] and [`INTERFACES_LIMIT`], whatever the file says
//! about itself. A file that ends or breaks in the middle gives the packets before that point,
//! then one error, then nothing.

use std::io::Read;

use crate::bytes::Endian;
use crate::ng::Section;
use crate::window::Window;

/// Longest record that is taken, in bytes: the largest snapshot length that tcpdump takes, and room for
/// a pcapng block's options.
pub const RECORD_LIMIT: usize = 256 * 1024 + 4096;
/// Most interfaces in a pcapng section.
pub const INTERFACES_LIMIT: usize = 4096;

const PCAP_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A link-layer type, by its number in the registry of tcpdump.org (`LINKTYPE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u32);

/// A packet as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What its first byte belongs to.
    pub link: LinkType,
    /// When it was captured, in microseconds since 1970; 0 where the file does not say.
    pub timestamp_us: u64,
    /// What was captured of it.
    pub bytes: &'a [u8],
}

/// Why a file gives no more packets.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Reading failed.
    #[error("cannot read the capture file")]
    Io(#[from] std::io::Error),
    /// The first bytes are of no known format.
    #[error(
        "this is neither a pcap nor a pcapng file; convert it first, for example with `editcap -F pcapng IN OUT`"
    )]
    UnknownFormat,
    /// The file ends inside a header or a packet.
    #[error("the file ends inside the record that begins at byte {at}; what came before it was read")]
    Truncated {
        /// Where the incomplete record begins.
        at: u64,
    },
    /// A header contradicts the format.
    #[error("the file is damaged at byte {at} ({problem}); what came before was read")]
    Damaged {
        /// Where the record begins.
        at: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Reads the packets of a capture file.
#[derive(Debug)]
pub struct CaptureReader<R> {
    cursor: Cursor<R>,
    format: Option<Format>,
    ended: bool,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    PcapNg(Section),
}

impl<R: Read> CaptureReader<R> {
    /// A reader that has not read anything yet. It buffers by itself.
    pub fn new(source: R) -> Self {
        let cursor = Cursor { window: Window::new(source), position: 0, pending: 0 };
        Self { cursor, format: None, ended: false }
    }

    /// The next packet, or `None` at the end. After an error there is nothing more.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a packet borrows the reader's buffer")]
    pub fn next(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        match self.locate() {
            Ok(Some(found)) => Ok(Some(Packet {
                link: found.link,
                timestamp_us: found.timestamp_us,
                bytes: self.cursor.bytes().get(found.from..found.to).unwrap_or_default(),
            })),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    #[inline]
    fn locate(&mut self) -> Result<Option<Located>, CaptureError> {
        let cursor = &mut self.cursor;
        cursor.settle();
        if self.format.is_none() {
            self.format = Some(Format::read(cursor)?);
        }
        match &mut self.format {
            Some(Format::Pcap(pcap)) => pcap.locate(cursor),
            Some(Format::PcapNg(section)) => section.locate(cursor),
            None => Ok(None),
        }
    }
}

impl Format {
    fn read<R: Read>(cursor: &mut Cursor<R>) -> Result<Self, CaptureError> {
        if cursor.fill(4)? < 4 {
            return Err(CaptureError::UnknownFormat);
        }
        let magic = Endian::Big.u32_at(cursor.bytes(), 0).unwrap_or_default();
        let (endian, nanoseconds) = match magic {
            0xa1b2_c3d4 => (Endian::Big, false),
            0xa1b2_3c4d => (Endian::Big, true),
            0xd4c3_b2a1 => (Endian::Little, false),
            0x4d3c_b2a1 => (Endian::Little, true),
            crate::ng::SECTION_HEADER => return Ok(Self::PcapNg(Section::new())),
            _ => return Err(CaptureError::UnknownFormat),
        };
        if cursor.fill(PCAP_HEADER)? < PCAP_HEADER {
            return Err(cursor.truncated());
        }
        // The upper four bits tell about frame check sequences.
        let link = LinkType(endian.u32_at(cursor.bytes(), 20).unwrap_or_default() & 0x0fff_ffff);
        cursor.consume(PCAP_HEADER);
        Ok(Self::Pcap(Pcap { endian, nanoseconds, link }))
    }
}

/// Where a packet lies in the window.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) link: LinkType,
    pub(crate) timestamp_us: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// The window and where it stands in the file.
#[derive(Debug)]
pub(crate) struct Cursor<R> {
    window: Window<R>,
    position: u64,
    pending: usize,
}

impl<R: Read> Cursor<R> {
    /// What is in the window, from the current record's first byte.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.window.bytes()
    }

    pub(crate) fn fill(&mut self, length: usize) -> Result<usize, CaptureError> {
        Ok(self.window.fill(length)?)
    }

    pub(crate) fn consume(&mut self, length: usize) {
        self.window.consume(length);
        self.position += length as u64;
    }

    /// Consumes the record that holds the packet being returned when the next one is asked for.
    pub(crate) fn consume_later(&mut self, length: usize) {
        self.pending = length;
    }

    /// Passes over a record of which nothing is needed.
    pub(crate) fn skip(&mut self, length: u64) -> Result<(), CaptureError> {
        if self.window.skip(length)? < length {
            return Err(self.truncated());
        }
        self.position += length;
        Ok(())
    }

    pub(crate) fn truncated(&self) -> CaptureError {
        CaptureError::Truncated { at: self.position }
    }

    pub(crate) fn damaged(&self, problem: &'static str) -> CaptureError {
        CaptureError::Damaged { at: self.position, problem }
    }

    fn settle(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.consume(pending);
    }
}

/// The rest of a classic file is records of one link type.
#[derive(Debug)]
struct Pcap {
    endian: Endian,
    nanoseconds: bool,
    link: LinkType,
}

impl Pcap {
    #[inline]
    fn locate<R: Read>(&self, cursor: &mut Cursor<R>) -> Result<Option<Located>, CaptureError> {
        match cursor.fill(RECORD_HEADER)? {
            0 => return Ok(None),
            RECORD_HEADER.. => {}
            _ => return Err(cursor.truncated()),
        }
        let field = |at| self.endian.u32_at(cursor.bytes(), at).unwrap_or_default();
        let (seconds, fraction, length) = (field(0), field(4), field(8) as usize);
        if length > RECORD_LIMIT {
            return Err(cursor.damaged("a packet's length exceeds the limit"));
        }
        let record = RECORD_HEADER + length;
        if cursor.fill(record)? < record {
            return Err(cursor.truncated());
        }
        cursor.consume_later(record);
        let fraction_us = if self.nanoseconds { fraction / 1000 } else { fraction };
        Ok(Some(Located {
            link: self.link,
            timestamp_us: u64::from(seconds) * 1_000_000 + u64::from(fraction_us),
            from: RECORD_HEADER,
            to: record,
        }))
    }
}
