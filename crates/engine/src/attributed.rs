//! A flow that is a provider's: whose, what it carried, and whether it was refused.

use std::sync::Arc;

use toktra_catalog::{Catalog, Kind, Service, Tokens};
use toktra_meter::{Basis, Counters, Delta, Meter};
use toktra_protocol::event::Blocked;
use toktra_protocol::personal::local::{PersonalEstimate, PersonalUsage};
use toktra_protocol::{BlockReason, Estimate, EventBody, NameSource, UnixSeconds, Usage};

use crate::ledgers::{Entry, Ledger};
use crate::undecided::Named;
use crate::{Now, Transport, Verdict};

/// A flow that is a provider's.
pub(crate) struct Attributed {
    pub(crate) service: &'static Service,
    pub(crate) host: Arc<str>,
    source: NameSource,
    user_account: Option<Arc<str>>,
    application: Option<Arc<str>>,
    transport: Transport,
    /// Older than the capture.
    partial: bool,
    meter: Meter,
    pub(crate) standing: Standing,
    pub(crate) emitted_ms: u64,
    pub(crate) heard_ms: u64,
    /// Bytes both ways at the last count.
    bytes: u64,
    base: Base,
    ledger: Ledger,
}

/// From where a flow's counts count.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// From its beginning.
    Zero,
    /// From the next counts on: what was carried up to them is nobody's.
    Next,
    /// From these counts on.
    At(Counters),
}

/// What was decided of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Metered,
    /// It was refused before its request: nothing of it is counted.
    Refused,
    /// It was open; its last counts are still to come.
    Cut,
}

/// Whose flow it is.
pub(crate) struct Who {
    pub(crate) user_account: Option<Arc<str>>,
    pub(crate) application: Option<Arc<str>>,
}

impl Attributed {
    /// A flow that opened under the capture's eyes and has sent `hello_bytes`.
    pub(crate) fn new(
        now: Now,
        named: Named,
        who: Who,
        transport: Transport,
        meter: Meter,
        partial: bool,
    ) -> Self {
        Self {
            service: named.service,
            host: named.host,
            source: named.source,
            user_account: who.user_account,
            application: who.application,
            transport,
            partial,
            meter,
            standing: Standing::Metered,
            emitted_ms: now.monotonic_ms,
            heard_ms: now.monotonic_ms,
            bytes: 0,
            base: Base::Zero,
            ledger: Ledger::Corporate,
        }
    }

    /// Into which ledger its counts go.
    pub(crate) fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// It is its user's own from now on, or no longer. Gives what was read of it before it was.
    pub(crate) fn turn_to(&mut self, personal: bool, catalog: &'static Catalog, now: Now) -> Option<Entry> {
        let (before, after) = match (self.ledger, personal) {
            (Ledger::Corporate, false) => return None,
            (Ledger::Corporate, true) => (self.usage(catalog, now), Ledger::Personal),
            (Ledger::Personal | Ledger::Leaving, true) => (None, Ledger::Personal),
            (Ledger::Personal | Ledger::Leaving, false) => (None, Ledger::Leaving),
        };
        self.ledger = after;
        before
    }

    /// What it carries up to the next counts is not counted, and nothing of it is kept.
    pub(crate) fn rebase(&mut self) {
        self.base = Base::Next;
    }

    /// It lives on, uncounted.
    pub(crate) fn hear(&mut self, now: Now) {
        self.heard_ms = now.monotonic_ms;
    }

    /// Whether it is older than the capture.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The local account.
    pub(crate) fn account(&self) -> Option<&str> {
        self.user_account.as_deref()
    }

    /// Whose it is.
    pub(crate) fn who(&self) -> Who {
        Who { user_account: self.user_account.clone(), application: self.application.clone() }
    }

    /// Nothing blocks it any more: whether it can be counted from now on. A stream's socket is gone.
    pub(crate) fn let_go(&mut self) -> bool {
        let lives = self.transport == Transport::Udp;
        if lives {
            self.standing = Standing::Metered;
        }
        lives
    }

    /// What the capture is told.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.standing {
            Standing::Metered => Verdict::Meter,
            Standing::Refused | Standing::Cut => Verdict::Block,
        }
    }

    /// Takes in its counts. Gives the last of what is its user's own, if personal mode has ended.
    pub(crate) fn count(&mut self, catalog: &'static Catalog, now: Now, counters: Counters) -> Option<Entry> {
        let bytes = counters.bytes_out.saturating_add(counters.bytes_in);
        // A stream's end is always told; of datagrams only their silence may tell.
        if self.transport == Transport::Tcp || self.bytes != bytes {
            self.heard_ms = now.monotonic_ms;
        }
        self.bytes = bytes;
        let counted = match self.base {
            Base::Zero => counters,
            Base::At(base) => since(base, counters),
            Base::Next => {
                self.begin_anew(now, counters);
                return None;
            }
        };
        // What was refused is nobody's, until it is let go.
        if self.standing == Standing::Refused {
            return None;
        }
        let basis = self.basis(catalog, now.wall);
        self.meter.sample(now.monotonic_ms, counted, &basis);
        if self.ledger != Ledger::Leaving {
            return None;
        }
        let last = self.usage(catalog, now);
        self.begin_anew(now, counters);
        last
    }

    /// From here on it is counted as a flow of which nothing is known.
    fn begin_anew(&mut self, now: Now, counters: Counters) {
        self.base = Base::At(counters);
        // Its handshake, and the request to which a reply may be on its way, are over.
        self.meter = Meter::of_old_flow(now.monotonic_ms);
        if self.ledger == Ledger::Leaving {
            self.ledger = Ledger::Corporate;
        }
    }

    /// What it carried since the last time, if anything.
    pub(crate) fn usage(&mut self, catalog: &'static Catalog, now: Now) -> Option<Entry> {
        self.emitted_ms = now.monotonic_ms;
        let basis = self.basis(catalog, now.wall);
        let delta = self.meter.take(&basis)?;
        Some(match self.ledger {
            Ledger::Corporate => {
                Entry::Corporate(EventBody::Usage(self.corporate(catalog, delta, basis.id())))
            }
            Ledger::Personal | Ledger::Leaving => Entry::Personal(self.personal(catalog, delta, basis.id())),
        })
    }

    /// That it was refused, or cut; nothing, if it is its user's own.
    pub(crate) fn blocked(&self, catalog: &'static Catalog, reason: BlockReason, cut: bool) -> Option<Entry> {
        let blocked = || Blocked {
            provider: catalog.provider(self.service).id.clone(),
            service: self.service.id.clone(),
            host: self.host.to_string(),
            name_source: self.source,
            user_account: owned(&self.user_account),
            application: owned(&self.application),
            reason,
            cut,
        };
        (self.ledger == Ledger::Corporate).then(|| Entry::Corporate(EventBody::Blocked(blocked())))
    }

    fn corporate(&self, catalog: &'static Catalog, delta: Delta, calibration: &str) -> Usage {
        Usage {
            provider: catalog.provider(self.service).id.clone(),
            service: self.service.id.clone(),
            host: self.host.to_string(),
            name_source: self.source,
            user_account: owned(&self.user_account),
            application: owned(&self.application),
            exchanges: delta.exchanges,
            bytes_out: delta.bytes_out,
            bytes_in: delta.bytes_in,
            bytes_handshake: delta.bytes_handshake,
            duration_s: delta.duration_s,
            streaming: delta.streaming,
            partial: self.partial,
            tokens_in: estimate(delta.tokens_in),
            tokens_out: estimate(delta.tokens_out),
            calibration: calibration.to_owned(),
        }
    }

    fn personal(&self, catalog: &'static Catalog, delta: Delta, calibration: &str) -> PersonalUsage {
        PersonalUsage {
            provider: catalog.provider(self.service).id.clone(),
            service: self.service.id.clone(),
            host: self.host.to_string(),
            application: owned(&self.application),
            exchanges: delta.exchanges,
            bytes_out: delta.bytes_out,
            bytes_in: delta.bytes_in,
            bytes_handshake: delta.bytes_handshake,
            duration_s: delta.duration_s,
            streaming: delta.streaming,
            partial: self.partial,
            tokens_in: personal_estimate(delta.tokens_in),
            tokens_out: personal_estimate(delta.tokens_out),
            calibration: calibration.to_owned(),
        }
    }

    /// Calibrations were fitted on TLS over TCP; QUIC's framing differs.
    fn basis(&self, catalog: &'static Catalog, wall: UnixSeconds) -> Basis<'static> {
        Basis {
            calibration: match self.transport {
                Transport::Tcp => catalog.calibration(self.service),
                Transport::Udp => None,
            },
            is_api: matches!(self.service.kind, Kind::Api | Kind::Cloud),
            wall_unix_s: wall.0,
        }
    }
}

/// What was carried after `base`. Of the handshake nothing was.
fn since(base: Counters, counters: Counters) -> Counters {
    Counters {
        bytes_out: counters.bytes_out.saturating_sub(base.bytes_out),
        bytes_in: counters.bytes_in.saturating_sub(base.bytes_in),
        turns: counters.turns.map(|turns| turns.saturating_sub(base.turns.unwrap_or(0))),
        handshake: None,
        inbound_active_ms: counters
            .inbound_active_ms
            .map(|active_ms| active_ms.saturating_sub(base.inbound_active_ms.unwrap_or(0))),
    }
}

fn owned(label: &Option<Arc<str>>) -> Option<String> {
    label.as_deref().map(str::to_owned)
}

fn estimate(tokens: Tokens) -> Estimate {
    Estimate { low: tokens.low, point: tokens.point, high: tokens.high }
}

fn personal_estimate(tokens: Tokens) -> PersonalEstimate {
    PersonalEstimate { low: tokens.low, point: tokens.point, high: tokens.high }
}
