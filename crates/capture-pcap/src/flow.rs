//! What is said of a flow, and how flows are told apart.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;

use toktra_hello::{Answer, Prelude, Reason};

use crate::segment::Endpoint;

/// A flow, as soon as it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow<'a> {
    /// TCP or QUIC.
    pub transport: Transport,
    /// Who sent the hello; for a flow without one, who was seen first.
    pub client: SocketAddr,
    /// The other end.
    pub server: SocketAddr,
    /// Packets that carried the hello and what came before it in the client's stream.
    pub packets: u32,
    /// What the client said.
    pub outcome: Outcome<'a>,
}

/// The transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TLS over TCP.
    Tcp,
    /// QUIC.
    Quic,
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A ClientHello with a name.
    Name {
        /// The server name, as sent.
        name: Cow<'a, str>,
        /// An encrypted_client_hello extension is present.
        ech: bool,
        /// What came before the hello.
        prelude: Prelude,
    },
    /// A ClientHello without a usable name.
    NoName {
        /// Why.
        reason: Reason,
        /// An encrypted_client_hello extension is present.
        ech: bool,
        /// What was sent in the name's place, where it can be shown: an address, or no valid host name.
        refused: Option<Cow<'a, str>>,
    },
    /// No ClientHello: the flow is something else.
    NotTls,
    /// No ClientHello as far as the capture goes.
    Unfinished,
}

impl<'a> Outcome<'a> {
    /// What an answer decides, if it does.
    pub(crate) fn of(answer: Answer<'a>) -> Option<Self> {
        match answer {
            Answer::NeedMore => None,
            Answer::Name { name, ech, prelude } => Some(Self::Name { name, ech, prelude }),
            Answer::NoName { reason, ech, refused } => Some(Self::NoName { reason, ech, refused }),
            Answer::NotTls => Some(Self::NotTls),
        }
    }
}

/// Both ends of a flow in an order that does not depend on who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) low: Endpoint,
    pub(crate) high: Endpoint,
}

impl Pair {
    pub(crate) fn new(one: Endpoint, other: Endpoint) -> Self {
        if one <= other { Self { low: one, high: other } } else { Self { low: other, high: one } }
    }
}

/// Hashes flows with a seed of this process's own, so that no one can aim at one place of a table.
#[derive(Debug, Default)]
pub(crate) struct FlowHasher(foldhash::quality::RandomState);

impl FlowHasher {
    /// Of two endpoints in the order given, and whatever else tells flows apart.
    pub(crate) fn hash(&self, one: Endpoint, other: Endpoint, more: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u128(one.address);
        hasher.write_u128(other.address);
        hasher.write_u32(u32::from(one.port) << 16 | u32::from(other.port));
        if !more.is_empty() {
            hasher.write(more);
        }
        hasher.finish()
    }
}
