//! The payloads of a capture as they were sent, for whoever puts flows together by other rules than
//! [`crate::Replay`]'s. Memory is bounded as there.

use std::io::Read;
use std::net::SocketAddr;

use crate::file::{CaptureError, CaptureReader};
use crate::fragments::Fragments;
use crate::layers::{self, Found};
use crate::segment::{Header, Segment};

/// The payload of a TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Where it belongs.
    pub place: Place,
    /// May be empty.
    pub bytes: &'a [u8],
}

/// Where a payload belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a TCP stream.
    Stream {
        /// Number of its first byte.
        sequence: u32,
        /// Whether the stream begins with it.
        begins: bool,
    },
    /// It stands alone.
    Datagram,
}

/// Reads a capture file to its end or to where it breaks; `sink` gets each payload.
pub fn payloads<R: Read>(source: R, mut sink: impl FnMut(&Payload<'_>)) -> Result<(), CaptureError> {
    let mut reader = CaptureReader::new(source);
    let mut fragments = Fragments::default();
    while let Some(packet) = reader.next()? {
        match layers::peel(packet.link, packet.bytes) {
            Some(Found::Segment(segment)) => sink(&Payload::from(&segment)),
            Some(Found::Fragment(fragment)) => put_together(&mut fragments, &fragment, &mut sink),
            None => {}
        }
    }
    Ok(())
}

/// A packet put together may again be a fragment, of the packet in its tunnel.
fn put_together(
    fragments: &mut Fragments,
    fragment: &layers::Fragment<'_>,
    sink: &mut impl FnMut(&Payload<'_>),
) {
    let mut whole = fragments.push(fragment);
    while let Some(packet) = whole {
        whole = match layers::peel_protocol(packet.protocol, packet.addresses, &packet.payload) {
            Some(Found::Segment(segment)) => return sink(&Payload::from(&segment)),
            Some(Found::Fragment(fragment)) => fragments.push(&fragment),
            None => None,
        };
    }
}

impl<'a> From<&Segment<'a>> for Payload<'a> {
    fn from(segment: &Segment<'a>) -> Self {
        let place = match segment.header {
            Header::Tcp(header) => {
                let sequence = if header.syn { header.sequence.wrapping_add(1) } else { header.sequence };
                Place::Stream { sequence, begins: header.syn }
            }
            Header::Udp => Place::Datagram,
        };
        Self {
            source: segment.source.into(),
            destination: segment.destination.into(),
            place,
            bytes: segment.payload,
        }
    }
}
