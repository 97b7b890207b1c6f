//! The exchange that is under way, as totals: how much came, for how long, and in how many
//! readings. When it is over, or when somebody asks, it is settled into tokens.

use toktra_catalog::Tokens;

use crate::estimate::{Basis, Bound, Manner};

/// Replies that flowed for at least this long for each exchange came token by token.
const STREAM_MS: u64 = 400;
/// Replies that flowed for at most this long came whole.
const WHOLE_MS: u64 = 100;
/// Without a measure of how long they flowed: seen to grow in so many readings…
const STREAM_READINGS: u32 = 3;
/// …over at least so long, they were streams.
const STREAM_SPAN_MS: u64 = 1_500;
/// Whole replies of this size are rarer than streams of this size, by far.
const STREAM_BYTES: u64 = 64 * 1024;

/// Text beyond this in one request may as well be an image…
const IMAGE_FROM_BYTES: u64 = 4 * 1024;
/// …which takes up to 4,000 bytes for a token where the lower bound of text takes 12.
const IMAGE_DIVISOR: u64 = 4_000 / 12;

/// What the replies since the last settlement brought.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    exchanges: u32,
    bytes_out: u64,
    bytes_in: u64,
    active_ms: Option<u64>,
    readings: u32,
    first_growth_ms: u64,
    last_growth_ms: u64,
    /// How the reply that goes on over a settlement came so far.
    going_on: Option<Manner>,
    /// What of the bases no bytes have come for yet.
    due_out: Bound,
    due_in: Bound,
    /// Bytes that were set apart as handshake and may be a reply's, or the other way round.
    doubt_bytes: u64,
}

/// What a settlement gives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) tokens_in: Tokens,
    pub(crate) tokens_out: Tokens,
    pub(crate) streamed_bytes: u64,
}

impl Reply {
    /// Adds what a sample brought: new requests, and growth in both directions.
    pub(crate) fn add(
        &mut self,
        now_ms: u64,
        requests: u32,
        grown_out: u64,
        grown_in: u64,
        active_ms: Option<u64>,
    ) {
        self.exchanges = self.exchanges.saturating_add(requests);
        self.bytes_out += grown_out;
        if grown_in == 0 {
            return;
        }
        if self.readings == 0 {
            self.first_growth_ms = now_ms;
        }
        self.readings += 1;
        self.last_growth_ms = now_ms;
        self.bytes_in += grown_in;
        if let Some(active_ms) = active_ms {
            self.active_ms = Some(self.active_ms.unwrap_or(0) + active_ms);
        }
    }

    /// The handshake was only guessed: so many inbound bytes may be on the wrong side.
    pub(crate) fn doubt_handshake(&mut self, bytes: u64) {
        self.doubt_bytes = bytes;
    }

    /// Turns the totals into tokens and starts anew.
    pub(crate) fn settle(&mut self, basis: &Basis<'_>) -> Settled {
        let manner = self.manner();
        let exchanges = u64::from(self.exchanges);
        let reply = basis.reply(manner, self.bytes_in / exchanges.max(1));
        let request = basis.request();
        owe(&mut self.due_out, exchanges, request.base);
        owe(&mut self.due_in, exchanges, reply.base);
        let doubt_bytes = if self.bytes_in > 0 { std::mem::take(&mut self.doubt_bytes) } else { 0 };
        self.due_in.low = self.due_in.low.saturating_add(doubt_bytes);
        let mut net_out = pay(&mut self.due_out, self.bytes_out);
        net_out.low = without_images(net_out.low, exchanges);
        let mut net_in = pay(&mut self.due_in, self.bytes_in);
        net_in.high = net_in.high.saturating_add(doubt_bytes);
        let settled = Settled {
            tokens_in: request.tokens(net_out),
            tokens_out: reply.tokens(net_in),
            streamed_bytes: if manner == Manner::Streamed { self.bytes_in } else { 0 },
        };
        self.start_anew(manner);
        settled
    }

    fn start_anew(&mut self, manner: Manner) {
        let seen = self.bytes_in > 0;
        self.going_on = if seen { Some(manner) } else { self.going_on };
        self.exchanges = 0;
        self.bytes_out = 0;
        self.bytes_in = 0;
        self.active_ms = None;
        self.readings = 0;
    }

    /// Token by token, or whole?
    fn manner(&self) -> Manner {
        if self.exchanges == 0
            && let Some(Manner::Streamed) = self.going_on
        {
            return Manner::Streamed;
        }
        let exchanges = u64::from(self.exchanges.max(1));
        match self.active_ms.map(|active_ms| active_ms / exchanges) {
            Some(STREAM_MS..) => return Manner::Streamed,
            Some(0..=WHOLE_MS) => return Manner::Whole,
            _ if self.bytes_in / exchanges >= STREAM_BYTES => return Manner::Streamed,
            Some(_) => return Manner::Unsure,
            None => {}
        }
        let span_ms = self.last_growth_ms.saturating_sub(self.first_growth_ms);
        let grew = self.readings >= STREAM_READINGS && span_ms >= STREAM_SPAN_MS;
        if grew { Manner::Streamed } else { Manner::Unsure }
    }
}

/// What of requests is surely text.
fn without_images(bytes: u64, exchanges: u64) -> u64 {
    let text = bytes.min(exchanges.max(1).saturating_mul(IMAGE_FROM_BYTES));
    text + (bytes - text) / IMAGE_DIVISOR
}

/// Adds the bases of new exchanges to what is due.
fn owe(due: &mut Bound, exchanges: u64, base: Bound) {
    due.low = due.low.saturating_add(exchanges.saturating_mul(base.low));
    due.point = due.point.saturating_add(exchanges.saturating_mul(base.point));
    due.high = due.high.saturating_add(exchanges.saturating_mul(base.high));
}

/// Takes what is due off the bytes that came; gives what is left of them.
fn pay(due: &mut Bound, bytes: u64) -> Bound {
    let pay = |due: &mut u64| {
        let paid = bytes.min(*due);
        *due -= paid;
        bytes - paid
    };
    Bound { low: pay(&mut due.low), point: pay(&mut due.point), high: pay(&mut due.high) }
}
