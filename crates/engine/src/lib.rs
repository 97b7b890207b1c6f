//! A table of flows that joins `hello`, `catalog`, `policy` and `meter`: what a capture
//! sees goes in, verdicts and records come out. No I/O, no clock, no thread.
//!
//! A flow is *undecided* until its hello names somebody; then it is *attributed* to a
//! provider's service, or forgotten: a flow of which the table knows nothing is let through.
//! A flow older than the capture has no hello; it is let through too, and attributed once
//! another connection to the same address shows whose that is.
//!
//! What a policy does to flows, and what ends with it:
//!
//! | flow of a provider that is blocked | while the block holds | when it ends |
//! | --- | --- | --- |
//! | new, hello read | refused; its request has not left (the capture holds it, *strict*) | a stream's socket is gone; a datagram flow is counted from then on |
//! | open | cut; what it carried is recorded first | the same |
//! | QUIC, name not readable | dropped if its program speaks to that provider | let through again |
//! | older than the capture, not attributed | let through, and cut as soon as its address is known | |
//!
//! In privacy hours a provider's flow is let through and known, since it may outlive them, but none of its
//! counts is kept. What it carried up to the last counts read before they begin is recorded at once, under
//! a minute before them; the first counts read after they end are where its counting begins anew. So no byte
//! from within is counted, and of what is outside at most what flows between two readings is missing at
//! each edge. Nobody's attempt is recorded, and nothing is learned of who speaks to whom, unless a lock
//! blocks it.
//!
//! In personal mode the flows of its account go into a ledger of their own. What was read of a flow before
//! the mode began is the organisation's, and what is read after is the user's own, up to and with the first
//! counts after the mode has ended: where counts span its beginning or its end, they are the user's own. From
//! there on a flow is counted as if it were new, so that nothing which the organisation is told depends on
//! what came before. While a flow is the user's own, whatever blocks it blocks without a record, a record of
//! it that is lost is not among those that the organisation counts, and nobody else's flow is attributed by
//! its address.
//!
//! Invariants: no byte is in both ledgers; a record names no host that the catalogue does not; a name that is nobody's
//! is dropped where it was read; bytes in records add up to the last counts; every table has
//! a limit, and what exceeds one is let through and counted ([`Engine::limits_hit`]).

mod addresses;
mod attempts;
mod attributed;
mod joint;
mod labels;
mod ledgers;
mod nameless;
mod privacy;
mod table;
mod undecided;

use std::net::SocketAddr;

pub use joint::{Capture, Decide, Joint};
pub use table::{Engine, Limits, LimitsHit};
pub use toktra_meter::{Counters, Handshake};
pub use toktra_policy::Policy;
pub use toktra_policy::hours::Hours;
use toktra_protocol::personal::local::PersonalUsage;
use toktra_protocol::{EventBody, Minute, UnixSeconds};

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

/// A record for the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonalRecord {
    /// The minute in which it was made.
    pub minute: Minute,
    /// Records before this one that found no room.
    pub lost: u64,
    /// What happened.
    pub usage: PersonalUsage,
}

/// A record for the agent's spool.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The minute in which it was made.
    pub minute: Minute,
    /// What happened.
    pub body: EventBody,
}
