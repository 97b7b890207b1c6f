//! TCP flows. Both directions are read, for only a hello tells who is the client. A decided flow
//! is forgotten but for eight bytes, so that what follows (a second hello after a retry request or
//! in a renegotiation) is not taken for a new flow; a SYN with another initial sequence number is.

use toktra_hello::{LIMIT, Stream, read_stream};

use crate::decided::{Decided, is_same_mark};
use crate::flow::{Flow, FlowHasher, Outcome, Pair, Transport};
use crate::segment::{Segment, TcpHeader};
use crate::undecided::Undecided;

/// A side whose sequence numbers are this far on will not send its start again.
const LOST: u32 = 4 * LIMIT as u32;
/// What a side with a gap or an unfinished hello holds beside the bytes themselves.
const STREAM_OVERHEAD: usize = 256;

/// All TCP flows of a capture.
#[derive(Debug)]
pub(crate) struct TcpFlows {
    hasher: FlowHasher,
    undecided: Undecided<TcpFlow>,
    decided: Decided,
}

#[derive(Debug)]
struct TcpFlow {
    pair: Pair,
    low_is_first: bool,
    low: Side,
    high: Side,
}

/// What one end has sent.
#[derive(Debug, Default)]
struct Side {
    /// Sequence number of the stream's first byte.
    start: Option<u32>,
    is_not_tls: bool,
    packets: u32,
    /// Sequence number and length of the last piece: a capture may have each packet twice.
    last: (u32, u32),
    stream: Option<Box<Stream>>,
}

impl TcpFlows {
    pub(crate) fn new() -> Self {
        Self { hasher: FlowHasher::default(), undecided: Undecided::new(), decided: Decided::new() }
    }

    /// Takes in a segment.
    pub(crate) fn push(
        &mut self,
        segment: &Segment<'_>,
        header: TcpHeader,
        now_us: u64,
        sink: &mut impl FnMut(&Flow<'_>),
    ) {
        let TcpHeader { sequence, syn, ack } = header;
        if !syn && segment.payload.is_empty() {
            return;
        }
        let pair = Pair::new(segment.source, segment.destination);
        let hash = self.hasher.hash(pair.low, pair.high, &[]);
        let start = if syn { sequence.wrapping_add(1) } else { sequence };
        if let Some(mark) = self.decided.mark(hash) {
            if !syn || ack || is_same_mark(mark, start) {
                return;
            }
            self.decided.forget(hash);
        }

        let is_it = |flow: &TcpFlow| flow.pair == pair;
        let make = || TcpFlow::new(pair, segment);
        let flow =
            self.undecided.find_or_insert(hash, is_it, make, now_us, |flow| flow.report_unfinished(sink));
        let (step, mark) = flow.push(segment, start, syn, sink);
        match step {
            Step::More { held: 0 } => {}
            Step::More { held } => {
                self.undecided.charge(hash, is_it, held, |flow| flow.report_unfinished(sink));
            }
            Step::Decided => {
                self.undecided.remove(hash, is_it);
                self.decided.remember(hash, mark);
            }
        }
    }

    /// Ends the capture: says what was left undecided.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(&Flow<'_>)) {
        self.undecided.evict_all(|flow| flow.report_unfinished(sink));
    }
}

enum Step {
    More { held: usize },
    Decided,
}

impl TcpFlow {
    fn new(pair: Pair, first: &Segment<'_>) -> Self {
        Self { pair, low_is_first: first.source == pair.low, low: Side::default(), high: Side::default() }
    }

    /// Takes in a segment whose first byte of payload is numbered `start`; with the step goes
    /// the number by which the sender's stream is told from a later one on the same ports.
    fn push(
        &mut self,
        segment: &Segment<'_>,
        start: u32,
        syn: bool,
        sink: &mut impl FnMut(&Flow<'_>),
    ) -> (Step, u32) {
        let is_low = segment.source == self.pair.low;
        let (side, other) = if is_low { (&mut self.low, &self.high) } else { (&mut self.high, &self.low) };
        if syn {
            side.begin(start);
        }
        let flow = |packets, outcome| Flow {
            transport: Transport::Tcp,
            client: segment.source.into(),
            server: segment.destination.into(),
            packets,
            outcome,
        };
        let answer = side.push(start, segment.payload);
        let mark = answer.mark;
        match answer.outcome {
            Some(Outcome::NotTls) => {
                side.end();
                if !other.is_not_tls {
                    return (Step::More { held: 0 }, mark);
                }
                self.report(Outcome::NotTls, sink);
                (Step::Decided, mark)
            }
            Some(outcome) => {
                sink(&flow(answer.packets, outcome));
                (Step::Decided, mark)
            }
            None => (Step::More { held: answer.held }, mark),
        }
    }

    fn report_unfinished(&self, sink: &mut impl FnMut(&Flow<'_>)) {
        // A flow that only shook hands, or of which one direction was no TLS and the other never seen.
        let any = |holds: fn(&Side) -> bool| holds(&self.low) || holds(&self.high);
        if any(|side| side.is_not_tls) && !any(|side| side.stream.is_some()) {
            self.report(Outcome::NotTls, sink);
        } else if any(|side| side.packets > 0) {
            self.report(Outcome::Unfinished, sink);
        }
    }

    fn report(&self, outcome: Outcome<'_>, sink: &mut impl FnMut(&Flow<'_>)) {
        let Pair { low, high } = self.pair;
        let (client, server) = if self.low_is_first { (low, high) } else { (high, low) };
        let transport = Transport::Tcp;
        sink(&Flow { transport, client: client.into(), server: server.into(), packets: 0, outcome });
    }
}

/// What a side's bytes say so far.
struct Said<'a> {
    outcome: Option<Outcome<'a>>,
    packets: u32,
    mark: u32,
    held: usize,
}

impl Side {
    /// A SYN: the stream begins here, and anew if it began elsewhere.
    fn begin(&mut self, start: u32) {
        if self.start != Some(start) {
            *self = Self { start: Some(start), ..Self::default() };
        }
    }

    /// Nothing more will be read of this side.
    fn end(&mut self) {
        self.is_not_tls = true;
        self.stream = None;
    }

    fn push<'a>(&'a mut self, number: u32, payload: &'a [u8]) -> Said<'a> {
        let start = *self.start.get_or_insert(number);
        let said = |outcome, packets, held| Said { outcome, packets, mark: start, held };
        let piece = (number, payload.len() as u32);
        if payload.is_empty() || self.is_not_tls || (self.packets > 0 && self.last == piece) {
            return said(None, self.packets, 0);
        }
        let distance = number.wrapping_sub(start);
        let (position, payload) = match distance {
            0..LOST => (distance, payload),
            // Half of the number space is before the start.
            0x8000_0000.. => match payload.get(start.wrapping_sub(number) as usize..) {
                Some(rest) if !rest.is_empty() => (0, rest),
                _ => return said(None, self.packets, 0),
            },
            _ => return said(Some(Outcome::NotTls), self.packets, 0),
        };
        self.last = piece;
        self.packets += 1;
        let packets = self.packets;
        if position == 0 && self.stream.is_none() {
            // A hello that arrives whole is read where it lies.
            let outcome = Outcome::of(read_stream(payload));
            if outcome.is_some() {
                return said(outcome, packets, 0);
            }
        }
        let held = payload.len() + if self.stream.is_none() { STREAM_OVERHEAD } else { 0 };
        let stream = self.stream.get_or_insert_default();
        said(Outcome::of(stream.push(position.into(), payload)), packets, held)
    }
}
