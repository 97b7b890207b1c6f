//! The table of flows that the system has handed over and that are not done with: what to answer to each of
//! the framework's calls. Invariants: those of the crate; counts never go backwards; a flow has its own number
//! here, so that a name that the system uses anew is another flow.

use std::collections::HashMap;
use std::net::SocketAddr;

use toktra_engine::{Capture, Counters, Decide, Engine, FlowEvent, FlowId, Now, Opened, Transport, Verdict};
use toktra_protocol::local::Health;

use crate::settings::Settings;
use crate::told::{Endpoint, FlowKey, NewFlow};

/// Outbound bytes that are asked for at a time: a hello with post-quantum key shares has some 1,800.
pub const FIRST_PEEK: usize = 8 * 1024;
/// Most flows in the table.
const LIMIT: usize = 65_536;
/// A flow is asked for its bytes so many times. The engine gives up before, unless nothing new ever comes.
const PIECES_LIMIT: u32 = 512;
/// A flow that has sent nothing for so many looks, 15 minutes, is forgotten: nobody tells of its end.
const SILENT_LOOKS: u32 = 2 * 60 * 15;
/// The same of one without a readable name, an hour: the engine forgets it then.
const NAMELESS_LOOKS: u32 = 2 * 60 * 60;
/// The last counts of a flow that was cut are awaited for so many looks, ten seconds.
const CUT_LOOKS: u32 = 2 * 10;

/// The answer for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewVerdict {
    /// Let it through unseen.
    Allow,
    /// Show its first [`FIRST_PEEK`] outbound bytes, and none inbound.
    Peek,
}

/// The answer for outbound bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataVerdict {
    /// Let it through unseen from here on.
    Allow,
    /// Let these bytes through and show so many of the next.
    Pass {
        /// Of those that were shown.
        pass: usize,
        /// Beyond them.
        peek: usize,
    },
    /// A provider's: let it through, report its counts and its end.
    Count(FlowId),
    /// Nobody's that is known, but it may yet have to be cut: let it through and report its end.
    Watch(FlowId),
    /// Refuse it. Final: the system delivers nothing more of it.
    Drop,
}

/// What the system reports of a flow that it was told to report. Counts are cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It goes on.
    Statistics {
        /// Payload bytes that left.
        bytes_out: u64,
        /// Payload bytes that came.
        bytes_in: u64,
    },
    /// It has ended.
    Closed {
        /// Payload bytes that left.
        bytes_out: u64,
        /// Payload bytes that came.
        bytes_in: u64,
    },
}

/// What is to be done outside of any call of the framework's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Drop a flow that was counted or watched.
    Cut(FlowId),
    /// It is over: what was kept to cut it can go.
    Forget(FlowId),
    /// Put other rules in force.
    Apply(Settings),
}

/// The table.
pub struct Flows {
    known: HashMap<FlowKey, Known>,
    keys: HashMap<FlowId, FlowKey>,
    next: u64,
    ports: Vec<u16>,
    listening: Option<bool>,
    act: Box<dyn FnMut(Effect) + Send>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    seen: u64,
    metered: u64,
    blocked: u64,
    table_full: u64,
    failures: u64,
}

struct Known {
    id: FlowId,
    transport: Transport,
    standing: Standing,
    /// Outbound stream bytes that were shown.
    shown: u64,
    pieces: u32,
    counters: Counters,
    looks: u32,
}

enum Standing {
    /// It has sent nothing yet, and where it goes may not be known.
    Silent(Box<NewFlow>),
    Undecided,
    Metered,
    Nameless,
    Cut,
}

impl Flows {
    /// An empty table that watches HTTPS alone. Effects go to `act`, which must not wait nor call back.
    pub fn new(act: impl FnMut(Effect) + Send + 'static) -> Self {
        Self {
            known: HashMap::new(),
            keys: HashMap::new(),
            next: 0,
            ports: Vec::new(),
            listening: None,
            act: Box::new(act),
            counts: Counts::default(),
        }
    }

    /// The rules that belong in force now.
    pub fn settings(&self) -> Settings {
        Settings::new(&self.ports, self.listening == Some(true))
    }

    /// How many flows are not done with.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A new flow.
    pub fn new_flow(&mut self, engine: &mut Engine, now: Now, key: FlowKey, flow: NewFlow) -> NewVerdict {
        if let Some(former) = self.known.get(&key).map(|former| former.id) {
            // Its end was not reported, and its name is used anew.
            self.end(former, &mut |flow, event| engine.handle(now, flow, event));
        }
        let Some(transport) = flow.transport().filter(|_| flow.outbound && self.is_wanted(&flow)) else {
            return NewVerdict::Allow;
        };
        self.counts.seen += 1;
        if self.known.len() >= LIMIT {
            self.counts.table_full += 1;
            return NewVerdict::Allow;
        }
        let id = FlowId(self.next);
        self.next += 1;
        self.keys.insert(id, key);
        let standing = Standing::Silent(Box::new(flow));
        let counters = Counters::default();
        self.known.insert(key, Known { id, transport, standing, shown: 0, pieces: 0, counters, looks: 0 });
        NewVerdict::Peek
    }

    /// Outbound bytes of a flow that was to show them, at their place in it.
    pub fn outbound(
        &mut self,
        engine: &mut Engine,
        now: Now,
        key: FlowKey,
        piece: (u64, &[u8]),
        remote: Option<Endpoint>,
    ) -> DataVerdict {
        let (offset, bytes) = piece;
        let Some(known) = self.known.get_mut(&key) else { return DataVerdict::Allow };
        (known.pieces, known.looks) = (known.pieces + 1, 0);
        let mut verdict = match &mut known.standing {
            Standing::Metered => return DataVerdict::Count(known.id),
            Standing::Nameless => return DataVerdict::Watch(known.id),
            Standing::Cut => return DataVerdict::Drop,
            Standing::Undecided => Verdict::NeedMore,
            Standing::Silent(flow) => {
                flow.remote = remote.or_else(|| flow.remote.take());
                open(engine, now, known.id, known.transport, flow)
            }
        };
        known.standing = Standing::Undecided;
        if verdict == Verdict::NeedMore && known.pieces <= PIECES_LIMIT {
            verdict = known.read(engine, now, offset, bytes);
        } else {
            verdict = Verdict::Ignore;
        }
        self.answer(engine, now, key, verdict, bytes.len())
    }

    /// A flow that was to show its bytes will send no more.
    pub fn outbound_complete(&mut self, engine: &mut Engine, now: Now, key: FlowKey) -> DataVerdict {
        let Some(known) = self.known.get(&key) else { return DataVerdict::Allow };
        match known.standing {
            Standing::Metered => DataVerdict::Count(known.id),
            Standing::Nameless => DataVerdict::Watch(known.id),
            Standing::Cut => DataVerdict::Drop,
            Standing::Silent(_) | Standing::Undecided => {
                self.end(known.id, &mut |flow, event| engine.handle(now, flow, event));
                DataVerdict::Allow
            }
        }
    }

    /// A report. One that comes after the end, or of a flow that nobody asked about, says nothing.
    pub fn report(&mut self, engine: &mut Engine, now: Now, key: FlowKey, report: Report) {
        let Some(known) = self.known.get_mut(&key) else { return };
        let (Report::Statistics { bytes_out, bytes_in } | Report::Closed { bytes_out, bytes_in }) = report;
        known.counters.bytes_out = known.counters.bytes_out.max(bytes_out);
        known.counters.bytes_in = known.counters.bytes_in.max(bytes_in);
        let (id, counters) = (known.id, known.counters);
        match (report, &known.standing) {
            (Report::Closed { .. }, _) => {
                self.end(id, &mut |flow, event| engine.handle(now, flow, event));
            }
            (Report::Statistics { .. }, Standing::Metered) => {
                match engine.handle(now, id, FlowEvent::Counters(counters)) {
                    Verdict::Meter | Verdict::NeedMore => {}
                    Verdict::Block => self.cut(id),
                    // The engine knows nothing of it any more.
                    Verdict::Ignore => self.remove(id),
                }
            }
            (Report::Statistics { .. }, Standing::Cut) => {
                engine.handle(now, id, FlowEvent::Counters(counters));
            }
            (Report::Statistics { .. }, _) => {}
        }
    }

    /// A call of the framework's failed, and what it was about was allowed.
    pub fn note_failure(&mut self) {
        self.counts.failures += 1;
    }

    /// Only flows to watched ports, and only while anything may be recorded: in the moment between a change
    /// of the rules and its effect, others may still come.
    fn is_wanted(&self, flow: &NewFlow) -> bool {
        let port = flow.remote.as_ref().and_then(Endpoint::address).map(|remote| remote.port());
        self.listening == Some(true) && port.is_none_or(|port| port == 443 || self.ports.contains(&port))
    }

    fn answer(
        &mut self,
        engine: &mut Engine,
        now: Now,
        key: FlowKey,
        verdict: Verdict,
        shown: usize,
    ) -> DataVerdict {
        let Some(known) = self.known.get_mut(&key) else { return DataVerdict::Allow };
        let id = known.id;
        match verdict {
            // Whoever waits for an answer before it goes on, as behind a proxy, must get one.
            Verdict::NeedMore => DataVerdict::Pass { pass: shown, peek: FIRST_PEEK },
            Verdict::Meter => {
                known.standing = Standing::Metered;
                self.counts.metered += 1;
                DataVerdict::Count(id)
            }
            Verdict::Ignore if engine.is_nameless(id) => {
                known.standing = Standing::Nameless;
                DataVerdict::Watch(id)
            }
            Verdict::Ignore => {
                self.end(id, &mut |flow, event| engine.handle(now, flow, event));
                DataVerdict::Allow
            }
            Verdict::Block => {
                self.counts.blocked += 1;
                // Nothing of it was let through, and nothing more will be told of it.
                self.end(id, &mut |flow, event| engine.handle(now, flow, event));
                DataVerdict::Drop
            }
        }
    }

    fn cut(&mut self, id: FlowId) {
        let Some(known) = self.keys.get(&id).and_then(|key| self.known.get_mut(key)) else { return };
        match known.standing {
            Standing::Metered | Standing::Nameless => {
                known.standing = Standing::Cut;
                known.looks = 0;
                self.counts.blocked += 1;
                (self.act)(Effect::Cut(id));
            }
            // It is refused with its next bytes.
            Standing::Silent(_) | Standing::Undecided => known.standing = Standing::Cut,
            Standing::Cut => {}
        }
    }

    /// Tells the engine of its end, with its last counts.
    fn end(&mut self, id: FlowId, decide: &mut Decide<'_>) {
        let Some(known) = self.keys.get(&id).and_then(|key| self.known.get(key)) else { return };
        decide(id, FlowEvent::Closed(known.counters));
        self.remove(id);
    }

    fn remove(&mut self, id: FlowId) {
        let Some(known) = self.keys.remove(&id).and_then(|key| self.known.remove(&key)) else { return };
        if matches!(known.standing, Standing::Metered | Standing::Nameless | Standing::Cut) {
            (self.act)(Effect::Forget(id));
        }
    }
}

impl Known {
    /// Hands the engine what it has not seen.
    fn read(&mut self, engine: &mut Engine, now: Now, offset: u64, bytes: &[u8]) -> Verdict {
        if self.transport == Transport::Udp {
            return engine.handle(now, self.id, FlowEvent::Datagram(bytes));
        }
        // Bytes that were shown may be shown again, from wherever the system likes.
        let known = usize::try_from(self.shown.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else { return Verdict::NeedMore };
        let position = offset.max(self.shown);
        self.shown = position.saturating_add(new.len() as u64);
        engine.handle(now, self.id, FlowEvent::Outbound { position, bytes: new })
    }
}

fn open(engine: &mut Engine, now: Now, id: FlowId, transport: Transport, flow: &NewFlow) -> Verdict {
    // Where even now nobody knows where it goes, its name decides alone.
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let opened = Opened {
        transport,
        remote: flow.remote.as_ref().and_then(Endpoint::address).unwrap_or(nowhere),
        user_account: flow.account.as_deref(),
        application: flow.application.as_deref(),
        asked_name: flow.asked_name(),
        preexisting: false,
    };
    engine.handle(now, id, FlowEvent::Opened(opened))
}

impl Capture for Flows {
    /// Flows come by themselves.
    fn drain(&mut self, _: &mut Decide<'_>) {}

    /// Counts come by themselves; what nobody will tell of any more is let go.
    fn refresh(&mut self, decide: &mut Decide<'_>) {
        let mut over = Vec::new();
        for known in self.known.values_mut() {
            known.looks += 1;
            let limit = match known.standing {
                Standing::Silent(_) | Standing::Undecided => SILENT_LOOKS,
                Standing::Nameless => NAMELESS_LOOKS,
                Standing::Cut => CUT_LOOKS,
                // The engine knows when it has heard nothing for too long.
                Standing::Metered => continue,
            };
            if known.looks >= limit {
                over.push(known.id);
            }
        }
        over.into_iter().for_each(|id| self.end(id, decide));
    }

    /// What was dropped stays dropped: another verdict than `Block` comes too late for it.
    fn set_verdict(&mut self, flow: FlowId, verdict: Verdict) {
        if verdict == Verdict::Block {
            self.cut(flow);
        }
    }

    /// The last piece of a hello always waits for its verdict.
    fn set_strict(&mut self, _: bool) {}

    fn set_listening(&mut self, listening: bool) {
        if self.listening != Some(listening) {
            self.listening = Some(listening);
            let settings = self.settings();
            (self.act)(Effect::Apply(settings));
        }
    }

    fn set_ports(&mut self, ports: &[u16]) {
        if self.ports != ports {
            self.ports = ports.to_vec();
            let settings = self.settings();
            (self.act)(Effect::Apply(settings));
        }
    }

    fn finish(&mut self, decide: &mut Decide<'_>) {
        let all: Vec<FlowId> = self.keys.keys().copied().collect();
        all.into_iter().for_each(|id| self.end(id, decide));
    }

    fn health(&self) -> Health {
        let Counts { seen, metered, blocked, table_full, failures } = self.counts;
        let said = [
            (table_full, "connections passed unseen: the table of flows was full"),
            (failures, "calls of the system failed in the filter; what they were about was allowed"),
        ];
        let degraded =
            said.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} {words}"));
        Health {
            degraded: degraded.collect(),
            flows_seen: seen,
            flows_metered: metered,
            flows_blocked: blocked,
            ..Health::default()
        }
    }
}

/// Counts only: a table of flows holds names that nobody may log.
impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flows").field("known", &self.known.len()).finish_non_exhaustive()
    }
}
