//! What the eBPF programs and user space exchange, byte for byte as `bpf/toktra.bpf.c` has it.
//! Invariant: every type here is plain data of fixed layout, in the machine's byte order.

#![expect(unsafe_code, reason = "plain data crosses the border to the kernel")]

use aya::Pod;
use toktra_engine::{Counters, Handshake, Verdict};

/// Kind of an event: payload of an undecided flow.
pub const EVENT_PAYLOAD: u32 = 1;
/// Kind of an event: a flow that user space already wants metered is now tracked.
pub const EVENT_TRACKED: u32 = 2;
/// Kind of an event: a flow closed.
pub const EVENT_CLOSED: u32 = 3;

/// The flow was open before the programs were attached.
pub const FLOW_PREEXISTING: u32 = 1;
/// UDP, otherwise TCP.
pub const FLOW_UDP: u32 = 2;
/// A UDP socket that is connected to its remote.
pub const FLOW_CONNECTED: u32 = 16;

/// How far into a stream payload is copied, in bytes.
pub const STREAM_LIMIT: u64 = 20 * 1024;

/// Indices of the map `stats`.
pub const STAT_LOST: u32 = 0;
/// Flows that found the table full.
pub const STAT_TABLE_FULL: u32 = 1;
/// Packets dropped by a block, or held while strict.
pub const STAT_DROPPED: u32 = 2;

/// What user space says of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawVerdict {
    /// See [`RawVerdict::new`].
    pub verdict: u32,
    /// While undecided and strict: stream position up to which payload may leave.
    pub grant: u32,
}

impl RawVerdict {
    /// A verdict for the map.
    pub fn new(verdict: Verdict, grant: u64) -> Self {
        let verdict = match verdict {
            Verdict::NeedMore => 0,
            Verdict::Ignore => 1,
            Verdict::Meter => 2,
            Verdict::Block => 3,
        };
        Self { verdict, grant: grant.min(u32::MAX.into()) as u32 }
    }

    /// Whether it says more than "need more".
    pub fn is_decided(self) -> bool {
        self.verdict != 0
    }
}

/// Counts of a tracked flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawFlow {
    /// Payload bytes that left.
    pub bytes_out: u64,
    /// Payload bytes that came.
    pub bytes_in: u64,
    handshake_out: u64,
    handshake_in: u64,
    active_ns: u64,
    last_in_ns: u64,
    next_out: u32,
    next_in: u32,
    turns: u32,
    burst: u32,
    copied: u32,
    grant: u32,
    /// `FLOW_*`.
    pub flags: u32,
    unused: u32,
}

impl RawFlow {
    /// As the engine wants them.
    pub fn counters(&self) -> Counters {
        let handshake = Handshake { bytes_out: self.handshake_out, bytes_in: self.handshake_in };
        Counters {
            bytes_out: self.bytes_out,
            bytes_in: self.bytes_in,
            turns: Some(self.turns),
            handshake: (self.turns > 0).then_some(handshake),
            inbound_active_ms: Some(self.active_ns / 1_000_000),
        }
    }
}

/// Who connected a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawOwner {
    /// Process identifier (thread group).
    pub process: u32,
    /// User identifier.
    pub user: u32,
    /// The thread's name, ended by a zero.
    pub command: [u8; 16],
}

/// The head of an event; `length` bytes of payload follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawEvent {
    /// `EVENT_*`.
    pub kind: u32,
    /// Bytes of payload behind the head.
    pub length: u32,
    /// The flow.
    pub id: u64,
    /// Its socket.
    pub cookie: u64,
    /// Of the payload in the stream.
    pub position: u64,
    /// Nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// IPv6, or IPv4-mapped.
    pub local: [u8; 16],
    /// IPv6, or IPv4-mapped.
    pub remote: [u8; 16],
    /// Host order.
    pub local_port: u16,
    /// Host order.
    pub remote_port: u16,
    /// The device that the socket is bound to, or zero.
    pub interface: u32,
    /// Whether `owner` is known.
    pub has_owner: u32,
    /// Who connected.
    pub owner: RawOwner,
    /// Counts at the event.
    pub flow: RawFlow,
}

const HEAD: usize = size_of::<RawEvent>();
const _: () = assert!(HEAD == 192, "EVENT_HEAD in toktra.bpf.c");

impl RawEvent {
    /// Takes an entry of the ring buffer apart. `None` if it is too short.
    pub fn read(entry: &[u8]) -> Option<(Self, &[u8])> {
        let head = entry.first_chunk::<HEAD>()?;
        // SAFETY: the bytes are as many as the type has, and every bit pattern is a valid value.
        let event = unsafe { head.as_ptr().cast::<Self>().read_unaligned() };
        let payload = entry.get(HEAD..HEAD + event.length as usize)?;
        Some((event, payload))
    }
}

// SAFETY: plain integers without padding, `repr(C)`.
unsafe impl Pod for RawVerdict {}
// SAFETY: as above.
unsafe impl Pod for RawFlow {}
// SAFETY: as above.
unsafe impl Pod for RawOwner {}
