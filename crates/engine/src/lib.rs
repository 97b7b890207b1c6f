//! A table of flows that joins `hello`, `catalog`, `policy` and `meter`: what a capture
//! sees goes in, verdicts and records come out. No I/O, no clock, no thread.

use std::net::SocketAddr;

use toktra_protocol::{Block, EventBody, Lock, Minute, UnixSeconds};

/// A capture's name for a flow: unique among the flows that live (on Linux the socket cookie).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// Time as the capture knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// A clock that never goes back, in milliseconds from any start.
    pub monotonic_ms: u64,
    /// The wall clock.
    pub wall: UnixSeconds,
}

/// The transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TLS over TCP.
    Tcp,
    /// QUIC over UDP.
    Udp,
}

/// What is known of a flow when it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// TCP or UDP.
    pub transport: Transport,
    /// Where it goes.
    pub remote: SocketAddr,
    /// The local user account.
    pub user_account: Option<&'a str>,
    /// The application's name, without path or arguments.
    pub application: Option<&'a str>,
    /// The name that the application asked the system for, where the system tells.
    pub asked_name: Option<&'a str>,
    /// The flow was open before the capture: its hello is gone.
    pub preexisting: bool,
}

/// Cumulative payload counts of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payload bytes that left since the flow opened.
    pub bytes_out: u64,
    /// Payload bytes that came since the flow opened.
    pub bytes_in: u64,
    /// Requests begun: outbound bursts of at least 128 payload bytes after inbound ones.
    /// `None` where the platform cannot tell.
    pub turns: Option<u32>,
    /// The counts when the first of those requests began: what the TLS handshake took.
    /// `None` until then, or where the platform cannot tell.
    pub handshake: Option<Handshake>,
    /// How long payload has been coming in, in milliseconds: the sum of the gaps of less than
    /// one second between inbound packets. Tells a stream from a reply that came at once.
    /// `None` where the platform cannot tell.
    pub inbound_active_ms: Option<u64>,
}

/// What the TLS handshake of a flow took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Payload bytes that left before the first request.
    pub bytes_out: u64,
    /// Payload bytes that had come when it began.
    pub bytes_in: u64,
}

/// What a capture sees of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowEvent<'a> {
    /// It opened.
    Opened(Opened<'a>),
    /// Outbound stream bytes, at their position in the stream (TCP).
    Outbound {
        /// Counted from the stream's first byte.
        position: u64,
        /// Payload.
        bytes: &'a [u8],
    },
    /// An outbound datagram (UDP).
    Datagram(&'a [u8]),
    /// Its counts now.
    Counters(Counters),
    /// It closed, with its last counts.
    Closed(Counters),
}

/// What to do with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Undecided: deliver more outbound bytes.
    NeedMore,
    /// No provider's: let it through and forget it.
    Ignore,
    /// A provider's: let it through, count it, report its counters and its close.
    Meter,
    /// Refuse it, or cut it.
    Block,
}

/// A record for the agent's spool.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The minute in which it was made.
    pub minute: Minute,
    /// What happened.
    pub body: EventBody,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// An administrator's lock.
    pub lock: Option<Lock>,
    /// A block.
    pub block: Option<Block>,
    /// When the block lapses.
    pub block_until: Option<UnixSeconds>,
    /// Hosts that are never blocked and never metered.
    pub own_hosts: Vec<String>,
}

/// The table of flows.
#[derive(Debug, Default)]
pub struct Engine {}

impl Engine {
    /// An engine with the compiled-in catalogue and nothing in force.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what the capture saw and says what to do with the flow.
    pub fn handle(&mut self, now: Now, flow: FlowId, event: FlowEvent<'_>) -> Verdict {
        let _ = (now, flow, event);
        Verdict::Ignore
    }

    /// Puts a policy in force; returns the open flows to cut.
    pub fn apply(&mut self, now: Now, policy: Policy) -> Vec<FlowId> {
        let _ = (now, policy);
        Vec::new()
    }

    /// To be called at least every few seconds: emits records of flows that live on,
    /// forgets what is stale; returns flows whose verdict changed to `Block`.
    pub fn tick(&mut self, now: Now) -> Vec<FlowId> {
        let _ = now;
        Vec::new()
    }

    /// The records made since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        Vec::new()
    }

    /// Flows answered with [`Verdict::Ignore`] that turned out to be a provider's, since the
    /// last call: those open before the capture, once another connection showed whose address
    /// they go to. To be counted from now on.
    pub fn take_found(&mut self) -> Vec<FlowId> {
        Vec::new()
    }

    /// Whether packets beyond a hello should wait for the verdict.
    pub fn is_strict(&self, now: Now) -> bool {
        let _ = now;
        false
    }
}
