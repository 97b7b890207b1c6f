//! QUIC connections. Datagrams with a short header are passed over before anything is looked up.
//! A connection is known by who sends to whom and by its destination identifier: a client's socket may
//! carry several, and a client that is told to retry says its hello again, which is printed once.

use toktra_hello::QuicFlow;

use crate::bytes::{be32_at, u8_at};
use crate::decided::Decided;
use crate::flow::{Flow, FlowHasher, Outcome, Transport};
use crate::segment::{Endpoint, Segment};
use crate::undecided::Undecided;

/// Shortest destination identifier of a client's first Initial packet (RFC 9000, 7.2).
const DESTINATION_ID_LENGTH: usize = 8;
/// What a flow holds beside its datagrams.
const FLOW_OVERHEAD: usize = 256;

/// All QUIC flows of a capture.
#[derive(Debug)]
pub(crate) struct QuicFlows {
    hasher: FlowHasher,
    undecided: Undecided<UdpFlow>,
    decided: Decided,
    /// Reads the first datagram of a flow, which mostly has the whole hello.
    fresh: QuicFlow,
}

#[derive(Debug)]
struct UdpFlow {
    source: Endpoint,
    destination: Endpoint,
    packets: u32,
    quic: QuicFlow,
}

impl QuicFlows {
    pub(crate) fn new() -> Self {
        Self {
            hasher: FlowHasher::default(),
            undecided: Undecided::new(),
            decided: Decided::new(),
            fresh: QuicFlow::new(),
        }
    }

    /// Takes in a datagram.
    pub(crate) fn push(&mut self, datagram: &Segment<'_>, now_us: u64, sink: &mut impl FnMut(&Flow<'_>)) {
        let Segment { source, destination, payload, .. } = *datagram;
        let Some(identifier) = destination_id(payload) else { return };
        let connection = self.hasher.hash(source, destination, identifier);
        if self.decided.contains(connection) {
            return;
        }
        let hash = self.hasher.hash(source, destination, &[]);
        let is_it = |flow: &UdpFlow| flow.source == source && flow.destination == destination;
        let Some(flow) = self.undecided.find(hash, is_it) else {
            return self.begin(datagram, identifier, now_us, sink);
        };
        flow.packets += 1;
        let packets = flow.packets;
        match Outcome::of(flow.quic.push(payload)) {
            None => self.undecided.charge(hash, is_it, payload.len(), |flow| flow.report_unfinished(sink)),
            Some(outcome) => {
                self.decided.report(&self.hasher, datagram, packets, outcome, sink);
                self.undecided.remove(hash, is_it);
                self.decided.remember(connection, 0);
            }
        }
    }

    /// Takes in the first datagram of a flow.
    fn begin(
        &mut self,
        datagram: &Segment<'_>,
        identifier: &[u8],
        now_us: u64,
        sink: &mut impl FnMut(&Flow<'_>),
    ) {
        let Segment { source, destination, payload, .. } = *datagram;
        if identifier.len() < DESTINATION_ID_LENGTH || self.decided.is_server(&self.hasher, datagram) {
            return;
        }
        let outcome = Outcome::of(self.fresh.push(payload));
        let hash = self.hasher.hash(source, destination, &[]);
        if let Some(outcome) = outcome {
            self.decided.report(&self.hasher, datagram, 1, outcome, sink);
            self.decided.remember(self.hasher.hash(source, destination, identifier), 0);
            return;
        }
        let is_it = |flow: &UdpFlow| flow.source == source && flow.destination == destination;
        let make = || UdpFlow { source, destination, packets: 1, quic: std::mem::take(&mut self.fresh) };
        self.undecided.find_or_insert(hash, is_it, make, now_us, |flow| flow.report_unfinished(sink));
        let held = payload.len() + FLOW_OVERHEAD;
        self.undecided.charge(hash, is_it, held, |flow| flow.report_unfinished(sink));
    }

    /// Ends the capture: says what was left undecided.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(&Flow<'_>)) {
        self.undecided.evict_all(|flow| flow.report_unfinished(sink));
    }
}

impl UdpFlow {
    fn report_unfinished(&self, sink: &mut impl FnMut(&Flow<'_>)) {
        sink(&Flow {
            transport: Transport::Quic,
            client: self.source.into(),
            server: self.destination.into(),
            packets: 0,
            outcome: Outcome::Unfinished,
        });
    }
}

impl Decided {
    /// Says what a client said, unless it said the same before.
    fn report(
        &mut self,
        hasher: &FlowHasher,
        datagram: &Segment<'_>,
        packets: u32,
        outcome: Outcome<'_>,
        sink: &mut impl FnMut(&Flow<'_>),
    ) {
        let Segment { source, destination, .. } = *datagram;
        let name = match &outcome {
            Outcome::Name { name, .. } => name.as_bytes(),
            Outcome::NoName { .. } => b"\0no name",
            Outcome::NotTls | Outcome::Unfinished => return,
        };
        let said = hasher.hash(source, destination, name);
        if !self.contains(said) {
            self.remember(said, 0);
            self.remember(hasher.hash(destination, source, b"\0server"), 0);
            let (client, server) = (source.into(), destination.into());
            sink(&Flow { transport: Transport::Quic, client, server, packets, outcome });
        }
    }

    /// Whether the sender is known as the server of this flow.
    fn is_server(&self, hasher: &FlowHasher, datagram: &Segment<'_>) -> bool {
        self.contains(hasher.hash(datagram.source, datagram.destination, b"\0server"))
    }
}

/// The destination identifier of a datagram that begins with a long header (RFC 8999, 5.1) and is not
/// a version negotiation.
fn destination_id(datagram: &[u8]) -> Option<&[u8]> {
    let is_long = u8_at(datagram, 0)? & 0x80 != 0;
    let version = be32_at(datagram, 1)?;
    if !is_long || version == 0 {
        return None;
    }
    let length = usize::from(u8_at(datagram, 5)?);
    datagram.get(6..6 + length)
}
