//! The table itself: every event of a flow passes here. What is in force, and what becomes of open flows
//! when that changes, is in `force`.

mod force;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use toktra_catalog::Catalog;
use toktra_meter::{Counters, Meter};
use toktra_policy::{Decision, Policy};
use toktra_protocol::NameSource;

use crate::addresses::{Addresses, Owner, Waiting};
use crate::attributed::{Attributed, Standing, Who};
use crate::labels::Labels;
use crate::ledgers::{Entry, Ledger, Ledgers};
use crate::nameless::{Nameless, Speaker, looks_like_quic};
use crate::privacy::Privacy;
use crate::undecided::{self, Named, Outcome, Piece, Undecided};
use crate::{FlowEvent, FlowId, Now, Opened, PersonalRecord, Record, Transport, Verdict};

/// Usage of a flow that lives is given out this often; with a tick every few seconds, at
/// least once a minute.
const EMIT_MS: u64 = 50_000;
/// A hello that is not whole by then will not be.
const UNDECIDED_MS: u64 = 60_000;
/// A provider's flow of which nothing was heard for so long is over, unseen: one datagram socket may
/// have more flows than the capture can close with it.
const SILENT_MS: u64 = 24 * 60 * 60 * 1000;

/// How much the table may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows whose hello is not whole.
    pub undecided: usize,
    /// Bytes of hellos that are not whole.
    pub undecided_bytes: usize,
    /// Flows of providers.
    pub attributed: usize,
    /// Records that nobody has taken, in each ledger.
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { undecided: 32_768, undecided_bytes: 16 << 20, attributed: 16_384, records: 8_192 }
    }
}

/// How often a limit was hit since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsHit {
    /// Flows let through unread, because too many hellos were not whole.
    pub undecided: u64,
    /// Flows of providers that were not counted, and records that were dropped. None of personal mode.
    pub records: u64,
    /// Flows older than the capture that cannot be attributed later.
    pub waiting: u64,
}

/// The table of flows.
pub struct Engine {
    catalog: &'static Catalog,
    policy: Policy,
    /// When the block is over by the clock that nobody sets.
    block_over_ms: Option<u64>,
    /// As of the last tick.
    was_blocking: bool,
    privacy: Privacy,
    /// Whether personal mode lasts, as of the last turn.
    personal: bool,
    limits: Limits,
    undecided: HashMap<FlowId, Undecided>,
    undecided_bytes: usize,
    attributed: BTreeMap<FlowId, Attributed>,
    addresses: Addresses,
    labels: Labels,
    nameless: Nameless,
    ledgers: Ledgers,
    found: Vec<FlowId>,
    freed: Vec<FlowId>,
    to_cut: Vec<FlowId>,
    hit: LimitsHit,
}

impl Engine {
    /// An engine with the compiled-in catalogue and nothing in force.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// The same, with other limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            catalog: Catalog::builtin(),
            policy: Policy::default(),
            block_over_ms: None,
            was_blocking: false,
            privacy: Privacy::default(),
            personal: false,
            limits,
            undecided: HashMap::new(),
            undecided_bytes: 0,
            attributed: BTreeMap::new(),
            addresses: Addresses::default(),
            labels: Labels::default(),
            nameless: Nameless::default(),
            ledgers: Ledgers::default(),
            found: Vec::new(),
            freed: Vec::new(),
            to_cut: Vec::new(),
            hit: LimitsHit::default(),
        }
    }

    /// Takes in what the capture saw and says what to do with the flow.
    pub fn handle(&mut self, now: Now, flow: FlowId, event: FlowEvent<'_>) -> Verdict {
        self.turn(now);
        match event {
            FlowEvent::Opened(opened) => self.open(now, flow, &opened),
            FlowEvent::Outbound { position, bytes } => {
                self.read(now, flow, Piece::Stream { position, bytes })
            }
            FlowEvent::Datagram(bytes) => self.read(now, flow, Piece::Datagram(bytes)),
            FlowEvent::Counters(counters) => self.count(now, flow, counters),
            FlowEvent::Closed(counters) => self.close(now, flow, counters),
        }
    }

    /// To be called at least every few seconds: emits records of flows that live on,
    /// forgets what is stale; returns flows whose verdict changed to `Block`.
    pub fn tick(&mut self, now: Now) -> Vec<FlowId> {
        self.turn(now);
        self.lapse(now);
        let blocking = self.is_strict(now);
        if std::mem::replace(&mut self.was_blocking, blocking) != blocking {
            self.decide_anew(now);
        }
        let mut entries = Vec::new();
        for flow in self.attributed.values_mut() {
            if now.monotonic_ms.saturating_sub(flow.emitted_ms) >= EMIT_MS {
                entries.extend(flow.usage(self.catalog, now));
            }
        }
        entries.into_iter().for_each(|entry| self.record(now, entry));
        self.attributed.retain(|_, flow| now.monotonic_ms.saturating_sub(flow.heard_ms) < SILENT_MS);
        self.undecided.retain(|_, flow| now.monotonic_ms.saturating_sub(flow.opened_ms) < UNDECIDED_MS);
        self.undecided_bytes = self.undecided.values().map(Undecided::buffered).sum();
        self.addresses.sweep(now.monotonic_ms);
        self.nameless.sweep(now.monotonic_ms);
        self.labels.sweep();
        std::mem::take(&mut self.to_cut)
    }

    /// The organisation's records made since the last call.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.ledgers.take()
    }

    /// The user's own records made since the last call.
    pub fn take_personal(&mut self) -> Vec<PersonalRecord> {
        self.ledgers.take_personal()
    }

    /// Flows to be counted from now on, since the last call: those open before the capture, once
    /// another connection showed whose address they go to, and datagram flows whose block has ended.
    pub fn take_found(&mut self) -> Vec<FlowId> {
        std::mem::take(&mut self.found)
    }

    /// Nameless flows that were blocked and no longer are, since the last call. To be let through.
    pub fn take_freed(&mut self) -> Vec<FlowId> {
        std::mem::take(&mut self.freed)
    }

    /// Whether flows are needed, as of the last turn: not in privacy hours, unless a lock holds in them.
    pub fn is_listening(&self) -> bool {
        !self.privacy.lasts() || self.policy.lock.is_some()
    }

    /// Whether a flow that was ignored may yet be blocked, because its name could not be read.
    pub fn is_nameless(&self, flow: FlowId) -> bool {
        self.nameless.knows(flow)
    }

    /// How often a limit was hit since the start.
    pub fn limits_hit(&self) -> LimitsHit {
        LimitsHit { records: self.ledgers.dropped_ever(), ..self.hit }
    }

    fn open(&mut self, now: Now, flow: FlowId, opened: &Opened<'_>) -> Verdict {
        // An identifier that lives is used anew: its end was not seen.
        self.end(now, flow);
        let who = Who {
            user_account: self.labels.share(opened.user_account),
            application: self.labels.share(opened.application),
        };
        let asked = opened.asked_name.and_then(|name| undecided::asked(self.catalog, name));
        if opened.preexisting {
            return self.open_old(now, flow, opened, who, asked);
        }
        if self.undecided.len() >= self.limits.undecided {
            self.hit.undecided += 1;
            return Verdict::Ignore;
        }
        let mut undecided = Undecided::new(opened.transport, opened.remote, now.monotonic_ms);
        undecided.private = self.privacy.lasts();
        undecided.personal = self.policy.is_personal(now.wall, who.user_account.as_deref());
        undecided.user_account = who.user_account;
        undecided.application = who.application;
        undecided.asked = asked;
        self.undecided.insert(flow, undecided);
        Verdict::NeedMore
    }

    /// A flow older than the capture: its hello is gone.
    fn open_old(
        &mut self,
        now: Now,
        flow: FlowId,
        opened: &Opened<'_>,
        who: Who,
        asked: Option<Named>,
    ) -> Verdict {
        let known = asked.or_else(|| self.addresses.owner(now.monotonic_ms, opened.remote).map(of_address));
        if let Some(named) = known {
            let meter = Meter::of_old_flow(now.monotonic_ms);
            return self.attribute(
                now,
                flow,
                Attributed::new(now, named, who, opened.transport, meter, true),
            );
        }
        let waiting = Waiting {
            remote: opened.remote,
            user_account: who.user_account,
            application: who.application,
            is_udp: opened.transport == Transport::Udp,
            since_ms: now.monotonic_ms,
        };
        if !self.addresses.wait(flow, waiting) {
            self.hit.waiting += 1;
        }
        Verdict::Ignore
    }

    fn read(&mut self, now: Now, flow: FlowId, piece: Piece<'_>) -> Verdict {
        let Some(undecided) = self.undecided.get_mut(&flow) else {
            return self.attributed.get(&flow).map_or(Verdict::Ignore, Attributed::verdict);
        };
        let before = undecided.buffered();
        let outcome = undecided.read(self.catalog, piece);
        if let Outcome::NeedMore = outcome {
            self.undecided_bytes += undecided.buffered() - before;
            if self.undecided_bytes > self.limits.undecided_bytes {
                self.hit.undecided += 1;
                self.forget_undecided(flow);
                return Verdict::Ignore;
            }
            return Verdict::NeedMore;
        }
        self.undecided_bytes -= before.min(self.undecided_bytes);
        let Some(undecided) = self.undecided.remove(&flow) else { return Verdict::Ignore };
        match outcome {
            Outcome::Nobody { named: false } => self.without_name(now, flow, &undecided, piece),
            Outcome::NeedMore => Verdict::Ignore,
            Outcome::Nobody { named: true } => {
                self.addresses.mark_shared(undecided.remote);
                Verdict::Ignore
            }
            Outcome::Provider(named) => self.decided(now, flow, undecided, named),
        }
    }

    fn decided(&mut self, now: Now, flow: FlowId, undecided: Undecided, named: Named) -> Verdict {
        // Whoever is found by an address is in another's record.
        let learned = (named.direct && !undecided.personal)
            .then(|| Owner { service: named.service, host: named.host.clone() });
        let meter = Meter::new(undecided.opened_ms, undecided.bytes() as u64);
        let who = Who { user_account: undecided.user_account, application: undecided.application };
        let mut attributed = Attributed::new(now, named, who, undecided.transport, meter, false);
        if undecided.private {
            attributed.rebase();
        }
        // Its hello may have been sent in personal mode, whatever holds now.
        attributed.turn_to(undecided.personal, self.catalog, now);
        let verdict = self.attribute(now, flow, attributed);
        if let Some(owner) =
            learned.filter(|owner| self.remembers(verdict) && !self.policy.is_own(&owner.host))
        {
            for (id, waiting) in self.addresses.learn(now.monotonic_ms, undecided.remote, owner.clone()) {
                self.find(now, id, waiting, owner.clone());
            }
        }
        verdict
    }

    /// There is no name and will be none.
    fn without_name(&mut self, now: Now, flow: FlowId, undecided: &Undecided, piece: Piece<'_>) -> Verdict {
        if !matches!(piece, Piece::Datagram(datagram) if looks_like_quic(datagram)) {
            return Verdict::Ignore;
        }
        let who =
            Who { user_account: undecided.user_account.clone(), application: undecided.application.clone() };
        self.nameless.add(now.monotonic_ms, flow, &who);
        self.decide_nameless(now);
        let drop = self.to_cut.contains(&flow);
        self.to_cut.retain(|cut| *cut != flow);
        if drop { Verdict::Block } else { Verdict::Ignore }
    }

    /// A flow that waited is a provider's.
    fn find(&mut self, now: Now, flow: FlowId, waiting: Waiting, owner: Owner) {
        let who = Who { user_account: waiting.user_account, application: waiting.application };
        let transport = if waiting.is_udp { Transport::Udp } else { Transport::Tcp };
        let meter = Meter::of_old_flow(now.monotonic_ms);
        let attributed = Attributed::new(now, of_address(owner), who, transport, meter, true);
        match self.attribute(now, flow, attributed) {
            Verdict::Meter => self.found.push(flow),
            Verdict::Block => self.to_cut.push(flow),
            Verdict::Ignore | Verdict::NeedMore => {}
        }
    }

    /// Decides what becomes of a provider's flow, and keeps it.
    fn attribute(&mut self, now: Now, flow: FlowId, mut attributed: Attributed) -> Verdict {
        let personal = self.policy.is_personal(now.wall, attributed.account());
        attributed.turn_to(personal, self.catalog, now);
        match force::decide(self.catalog, &self.policy, &self.privacy, now, &attributed) {
            Decision::Pass => return Verdict::Ignore,
            Decision::Meter | Decision::MeterPersonal => {}
            Decision::Unrecorded => attributed.rebase(),
            Decision::StopPersonal => attributed.standing = Standing::Refused,
            Decision::Block(reason) => {
                attributed.standing = Standing::Refused;
                let cut = attributed.is_partial();
                if let Some(entry) = attributed.blocked(self.catalog, reason, cut) {
                    self.record(now, entry);
                }
            }
        }
        let (verdict, ledger) = (attributed.verdict(), attributed.ledger());
        if self.remembers(verdict) && ledger != Ledger::Leaving {
            let (service, host) = (attributed.service, attributed.host.clone());
            let personal = ledger == Ledger::Personal;
            let speaker = Speaker { service, host, at_ms: now.monotonic_ms, personal };
            self.nameless.speaks(&attributed.who(), speaker);
        }
        if verdict == Verdict::Block {
            self.decide_nameless(now);
        }
        if self.attributed.len() < self.limits.attributed {
            self.attributed.insert(flow, attributed);
            return verdict;
        }
        self.lose(now, ledger);
        if verdict == Verdict::Block { Verdict::Block } else { Verdict::Ignore }
    }

    /// Whether it may be learned from a flow who speaks to whom. In privacy hours only for a lock.
    fn remembers(&self, verdict: Verdict) -> bool {
        !self.privacy.lasts() || verdict == Verdict::Block
    }

    fn count(&mut self, now: Now, flow: FlowId, counters: Counters) -> Verdict {
        if let Some(attributed) = self.attributed.get_mut(&flow) {
            let verdict = attributed.verdict();
            if self.privacy.lasts() {
                attributed.hear(now);
            } else if let Some(last) = attributed.count(self.catalog, now, counters) {
                self.record(now, last);
            }
            return verdict;
        }
        if self.undecided.contains_key(&flow) { Verdict::NeedMore } else { Verdict::Ignore }
    }

    fn close(&mut self, now: Now, flow: FlowId, counters: Counters) -> Verdict {
        let verdict = match self.count(now, flow, counters) {
            Verdict::NeedMore => Verdict::Ignore,
            verdict => verdict,
        };
        self.end(now, flow);
        verdict
    }

    /// Forgets a flow, and gives out what is left of it.
    fn end(&mut self, now: Now, flow: FlowId) {
        self.addresses.forget(flow);
        self.found.retain(|found| *found != flow);
        self.freed.retain(|freed| *freed != flow);
        self.to_cut.retain(|cut| *cut != flow);
        self.nameless.forget(flow);
        self.forget_undecided(flow);
        if let Some(mut attributed) = self.attributed.remove(&flow)
            && let Some(entry) = attributed.usage(self.catalog, now)
        {
            self.record(now, entry);
        }
    }

    fn forget_undecided(&mut self, flow: FlowId) {
        if let Some(undecided) = self.undecided.remove(&flow) {
            self.undecided_bytes = self.undecided_bytes.saturating_sub(undecided.buffered());
        }
    }

    /// Nothing passes here in privacy hours.
    fn record(&mut self, now: Now, entry: Entry) {
        if !self.privacy.lasts() {
            self.ledgers.record(self.limits.records, now.wall.minute(), entry);
        }
    }

    /// Counts a record that could not be made, unless none was to be made.
    fn lose(&mut self, now: Now, ledger: Ledger) {
        if !self.privacy.lasts() {
            self.ledgers.lose(now.wall.minute(), ledger);
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts only: a table of flows holds names that nobody may log.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("undecided", &self.undecided.len())
            .field("attributed", &self.attributed.len())
            .finish_non_exhaustive()
    }
}

fn of_address(owner: Owner) -> Named {
    Named { service: owner.service, host: owner.host, source: NameSource::Address, direct: false }
}
