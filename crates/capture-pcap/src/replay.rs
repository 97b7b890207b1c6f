//! A capture file from end to end: packets, layers, flows. Memory is bounded whatever the file
//! holds; the cost of a packet does not depend on how many flows there are.

use std::io::Read;

use crate::file::{CaptureError, CaptureReader, Packet};
use crate::flow::Flow;
use crate::fragments::Fragments;
use crate::layers::{self, Found};
use crate::quic::QuicFlows;
use crate::segment::{Header, Segment};
use crate::tcp::TcpFlows;

/// The flows of a capture.
#[derive(Debug)]
pub struct Replay {
    tcp: TcpFlows,
    quic: QuicFlows,
    fragments: Fragments,
    totals: Totals,
}

/// What a capture held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets in the file.
    pub packets: u64,
    /// Of those, with neither TCP nor UDP in them, or in layers that are not understood.
    pub other_packets: u64,
}

/// Reads a capture file to its end or to where it breaks; `sink` gets each flow as soon as it is
/// decided, and in the end those that stayed undecided. On an error, everything before it went to `sink`.
pub fn replay<R: Read>(source: R, mut sink: impl FnMut(&Flow<'_>)) -> (Totals, Result<(), CaptureError>) {
    let mut reader = CaptureReader::new(source);
    let mut replay = Replay::new();
    let result = loop {
        match reader.next() {
            Ok(Some(packet)) => replay.push(&packet, &mut sink),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (replay.finish(&mut sink), result)
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay {
    /// Before the first packet.
    pub fn new() -> Self {
        Self {
            tcp: TcpFlows::new(),
            quic: QuicFlows::new(),
            fragments: Fragments::default(),
            totals: Totals::default(),
        }
    }

    /// Takes in a packet.
    pub fn push(&mut self, packet: &Packet<'_>, sink: &mut impl FnMut(&Flow<'_>)) {
        self.totals.packets += 1;
        match layers::peel(packet.link, packet.bytes) {
            Some(Found::Segment(segment)) => self.segment(&segment, packet.timestamp_us, sink),
            Some(Found::Fragment(fragment)) => self.fragment(&fragment, packet.timestamp_us, sink),
            None => self.totals.other_packets += 1,
        }
    }

    /// Ends the capture: `sink` gets the flows that stayed undecided.
    pub fn finish(&mut self, sink: &mut impl FnMut(&Flow<'_>)) -> Totals {
        self.tcp.finish(sink);
        self.quic.finish(sink);
        self.totals
    }

    fn segment(&mut self, segment: &Segment<'_>, now_us: u64, sink: &mut impl FnMut(&Flow<'_>)) {
        match segment.header {
            Header::Tcp(header) => self.tcp.push(segment, header, now_us, sink),
            Header::Udp => self.quic.push(segment, now_us, sink),
        }
    }

    /// A packet put together may again be a fragment, of the packet in its tunnel.
    fn fragment(&mut self, fragment: &layers::Fragment<'_>, now_us: u64, sink: &mut impl FnMut(&Flow<'_>)) {
        let Some(mut whole) = self.fragments.push(fragment) else { return };
        loop {
            let inner = match layers::peel_protocol(whole.protocol, whole.addresses, &whole.payload) {
                Some(Found::Segment(segment)) => return self.segment(&segment, now_us, sink),
                Some(Found::Fragment(fragment)) => self.fragments.push(&fragment),
                None => return,
            };
            let Some(inner) = inner else { return };
            whole = inner;
        }
    }
}
