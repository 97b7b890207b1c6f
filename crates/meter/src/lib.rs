//! Cumulative byte counts and time in, exchanges and token estimates out.
//!
//! A [`Meter`] lives with one connection to a provider. It is given the connection's
//! counts whenever somebody reads them, at whatever times, and gives out what came on top
//! since it was last asked. `docs/metering.md` says how, and how far to trust it.
//!
//! Invariants: no clock is read. No sequence of sizes or times is kept, only totals
//! (sequences reveal topics, arXiv 2511.03675). What is given out adds up to the last counts
//! however they were sampled. Counts that go backwards count as unchanged.

mod estimate;
mod reply;

use toktra_catalog::Tokens;

pub use estimate::{Basis, UNCALIBRATED};
use reply::Reply;

/// Cumulative payload counts of a flow: since it opened or, if it is older than the capture,
/// since the capture began to count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payload bytes that left.
    pub bytes_out: u64,
    /// Payload bytes that came.
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

/// What a connection carried since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Requests begun.
    pub exchanges: u32,
    /// Payload bytes that left, without the handshake.
    pub bytes_out: u64,
    /// Payload bytes that came, without the handshake.
    pub bytes_in: u64,
    /// Bytes of the TLS handshake, both directions.
    pub bytes_handshake: u64,
    /// Whole seconds in which the connection carried traffic.
    pub duration_s: u32,
    /// Whether most of what came looked like a token stream.
    pub streaming: bool,
    /// Tokens sent.
    pub tokens_in: Tokens,
    /// Tokens received.
    pub tokens_out: Tokens,
}

/// The handshake is over by then, whatever the counts say of requests.
const HANDSHAKE_LIMIT_BYTES: u64 = 32 * 1024;
/// What a server's side of a handshake takes where nobody counted it: two certificates and what is around them.
const HANDSHAKE_IN_BYTES: u64 = 3_000;
/// What a client sends after its hello before it asks: key exchange and Finished.
const HANDSHAKE_AFTER_HELLO_BYTES: u64 = 80;
/// An outbound burst of this size is a request and not housekeeping.
const REQUEST_BYTES: u64 = 128;
/// Without a count of requests, outbound bytes after a silence of this length are a new one.
const SILENCE_MS: u64 = 2_000;
/// Between two samples, traffic is taken to have flowed for no longer than this.
const DURATION_GAP_MS: u64 = 5_000;

/// Counts what one connection carries.
#[derive(Clone, Debug)]
pub struct Meter {
    /// What the flow sent until its name was known.
    hello_bytes: u64,
    totals: Totals,
    handshake: Split,
    turns: Option<u32>,
    inbound_active_ms: Option<u64>,
    sampled_ms: u64,
    /// When outbound and inbound bytes were last seen to grow.
    grew_ms: u64,
    /// Since the last request, something has come back.
    answered: bool,
    active_ms: u64,
    pending_exchanges: u32,
    reply: Reply,
    tokens_in: Tokens,
    tokens_out: Tokens,
    streamed_bytes: u64,
    given: Given,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    sent: u64,
    received: u64,
}

/// How much of the totals the handshake took.
#[derive(Clone, Copy, Debug)]
enum Split {
    /// All so far.
    Open,
    /// This much, and no more will come.
    Done(Totals),
}

/// What was given out.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    application: Totals,
    handshake: Totals,
}

impl Meter {
    /// A meter of a flow that opened at `now_ms` and sent `hello_bytes` until it was known to be a provider's.
    pub fn new(now_ms: u64, hello_bytes: u64) -> Self {
        Self {
            hello_bytes,
            totals: Totals::default(),
            handshake: Split::Open,
            turns: None,
            inbound_active_ms: None,
            sampled_ms: now_ms,
            grew_ms: now_ms,
            answered: false,
            active_ms: 0,
            pending_exchanges: 0,
            reply: Reply::default(),
            tokens_in: Tokens::default(),
            tokens_out: Tokens::default(),
            streamed_bytes: 0,
            given: Given::default(),
        }
    }

    /// A meter of a flow that is older than the capture: its handshake is over.
    pub fn of_old_flow(now_ms: u64) -> Self {
        Self { handshake: Split::Done(Totals::default()), ..Self::new(now_ms, 0) }
    }

    /// Takes in the counts of a moment.
    pub fn sample(&mut self, now_ms: u64, counters: Counters, basis: &Basis<'_>) {
        let before = self.application();
        self.totals.sent = grow(self.totals.sent, counters.bytes_out);
        self.totals.received = grow(self.totals.received, counters.bytes_in);
        self.part_handshake(&counters);
        let after = self.application();
        let grown = Totals { sent: after.sent - before.sent, received: after.received - before.received };
        let requests = self.requests(now_ms, &counters, grown);
        if requests > 0 {
            self.settle(basis);
            self.pending_exchanges = self.pending_exchanges.saturating_add(requests);
            self.answered = false;
        }
        self.answered |= grown.received > 0;
        self.count_time(now_ms, grown);
        let active_ms = self.inbound_active(&counters);
        self.reply.add(now_ms, requests, grown.sent, grown.received, active_ms);
    }

    /// What came on top since the last call; nothing, if nothing did.
    pub fn take(&mut self, basis: &Basis<'_>) -> Option<Delta> {
        let application = self.application();
        let handshake = self.handshake_totals();
        let delta = Delta {
            exchanges: self.pending_exchanges,
            bytes_out: application.sent - self.given.application.sent,
            bytes_in: application.received - self.given.application.received,
            bytes_handshake: (handshake.sent - self.given.handshake.sent)
                + (handshake.received - self.given.handshake.received),
            ..Delta::default()
        };
        if delta == Delta::default() {
            return None;
        }
        self.settle(basis);
        self.given = Given { application, handshake };
        self.pending_exchanges = 0;
        let streamed_bytes = std::mem::take(&mut self.streamed_bytes);
        let duration_s = self.active_ms.div_ceil(1000);
        self.active_ms = 0;
        Some(Delta {
            duration_s: u32::try_from(duration_s).unwrap_or(u32::MAX),
            streaming: streamed_bytes > delta.bytes_in / 2,
            tokens_in: std::mem::take(&mut self.tokens_in),
            tokens_out: std::mem::take(&mut self.tokens_out),
            ..delta
        })
    }

    /// Turns what the replies so far brought into tokens.
    fn settle(&mut self, basis: &Basis<'_>) {
        let settled = self.reply.settle(basis);
        self.tokens_in = plus(self.tokens_in, settled.tokens_in);
        self.tokens_out = plus(self.tokens_out, settled.tokens_out);
        self.streamed_bytes += settled.streamed_bytes;
    }

    /// Sets the handshake's bytes apart once the first request has begun.
    fn part_handshake(&mut self, counters: &Counters) {
        if let Split::Done(_) = self.handshake {
            return;
        }
        let told = counters.handshake.map(|told| Totals { sent: told.bytes_out, received: told.bytes_in });
        let asked = match counters.turns {
            Some(turns) => turns > 0,
            None => self.totals.received > 0 && self.totals.sent >= self.hello_bytes + REQUEST_BYTES,
        };
        let too_much = self.totals.received.max(self.totals.sent.saturating_sub(self.hello_bytes))
            > HANDSHAKE_LIMIT_BYTES;
        if told.is_none() && !asked && !too_much {
            return;
        }
        let allowance =
            Totals { sent: self.hello_bytes + HANDSHAKE_AFTER_HELLO_BYTES, received: HANDSHAKE_IN_BYTES };
        if told.is_none() {
            self.reply.doubt_handshake(HANDSHAKE_IN_BYTES);
        }
        let taken = told.unwrap_or(allowance);
        // What was given out as handshake stays that.
        let clamp = |taken: u64, given: u64, total: u64| taken.max(given).min(total);
        self.handshake = Split::Done(Totals {
            sent: clamp(taken.sent, self.given.handshake.sent, self.totals.sent),
            received: clamp(taken.received, self.given.handshake.received, self.totals.received),
        });
    }

    /// Requests begun since the last sample.
    fn requests(&mut self, now_ms: u64, counters: &Counters, grown: Totals) -> u32 {
        let open = matches!(self.handshake, Split::Open);
        if let Some(turns) = counters.turns {
            let known = self.turns.unwrap_or(0);
            self.turns = Some(known.max(turns));
            let begun = turns.saturating_sub(known);
            // A request that was sent with the hello, or that the platform overlooked.
            let overlooked = begun == 0 && known == 0 && !open && grown.sent >= REQUEST_BYTES;
            let first =
                overlooked && self.pending_exchanges == 0 && self.given.application == Totals::default();
            return begun + u32::from(first);
        }
        let rested = now_ms.saturating_sub(self.grew_ms) >= SILENCE_MS;
        let first =
            self.given.application == Totals::default() && self.pending_exchanges == 0 && !self.answered;
        u32::from(!open && grown.sent >= REQUEST_BYTES && (first || self.answered || rested))
    }

    fn count_time(&mut self, now_ms: u64, grown: Totals) {
        if grown != Totals::default() {
            self.active_ms += now_ms.saturating_sub(self.sampled_ms).min(DURATION_GAP_MS);
            self.grew_ms = now_ms;
        }
        self.sampled_ms = self.sampled_ms.max(now_ms);
    }

    fn inbound_active(&mut self, counters: &Counters) -> Option<u64> {
        let now = counters.inbound_active_ms?;
        let before = self.inbound_active_ms.unwrap_or(0);
        self.inbound_active_ms = Some(before.max(now));
        Some(now.saturating_sub(before))
    }

    fn handshake_totals(&self) -> Totals {
        match self.handshake {
            Split::Open => self.totals,
            Split::Done(taken) => taken,
        }
    }

    fn application(&self) -> Totals {
        let handshake = self.handshake_totals();
        Totals {
            sent: self.totals.sent - handshake.sent,
            received: self.totals.received - handshake.received,
        }
    }
}

/// A total that never goes back and always fits a signed 64-bit column, sums included.
fn grow(total: u64, count: u64) -> u64 {
    total.max(count.min(i64::MAX as u64 / 4))
}

fn plus(a: Tokens, b: Tokens) -> Tokens {
    Tokens {
        low: a.low.saturating_add(b.low),
        point: a.point.saturating_add(b.point),
        high: a.high.saturating_add(b.high),
    }
}

#[cfg(test)]
mod tests;
