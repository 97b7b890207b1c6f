//! The capture's one loop body: entries of the ring buffer in, flow events to the engine,
//! verdicts back into the kernel's map. Invariants: at most as many flows are known as the
//! kernel tracks; the copy of a payload is overwritten with zeros once the engine has seen it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::maps::MapError;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::{ClockId, clock_gettime};
use toktra_engine::{Counters, Decide, FlowEvent, FlowId, Opened, Transport, Verdict};
use toktra_protocol::local::Health;

use crate::abi::{self, RawEvent, RawVerdict};
use crate::people::{self, People};
use crate::programs::Programs;
use crate::socket::{self, Socket};
use crate::{CaptureError, Options};

/// Entries taken from the ring buffer before other work has its turn.
const ENTRIES_AT_ONCE: usize = 1024;
/// Times so many before the counts of metered flows are read.
const ROUNDS_AT_ONCE: usize = 16;
/// How long strictness holds in the kernel without being renewed.
const STRICT_NS: u64 = 5_000_000_000;

/// How the capture is doing. Counts since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows to watched ports that sent payload.
    pub flows_seen: u64,
    /// Of those, metered.
    pub flows_metered: u64,
    /// Of those, blocked or cut.
    pub flows_blocked: u64,
    /// Entries that the ring buffer had no room for.
    pub events_lost: u64,
    /// Flows that passed unseen because the kernel's table was full.
    pub table_full: u64,
    /// Packets of blocked flows, or held while strict, that were dropped.
    pub packets_dropped: u64,
    /// Sockets of blocked flows that could not be ended; their applications wait.
    pub sockets_left: u64,
    /// Nanoseconds from a packet to its flow's verdict in the map: sum over `verdicts`.
    pub verdict_ns: u64,
    /// Verdicts other than "need more".
    pub verdicts: u64,
    /// The longest of those times.
    pub verdict_ns_max: u64,
}

/// A flow that is undecided, metered or blocked.
#[derive(Debug)]
struct Known {
    socket: Socket,
    connected: bool,
    verdict: Verdict,
    counters: Counters,
    /// The kernel had forgotten it at the last look.
    missing: bool,
}

/// Programs attached to a cgroup, and the flows they told of.
pub struct Capture {
    programs: Programs,
    people: People,
    known: HashMap<u64, Known>,
    counts: Counts,
    strict: bool,
    strict_renewed_ns: u64,
    entry: Vec<u8>,
}

impl Capture {
    /// Loads the programs and attaches them. From here on flows are seen.
    pub fn attach(options: &Options) -> Result<Self, CaptureError> {
        let cgroup = File::open(&options.cgroup)
            .map_err(|error| CaptureError::Cgroup(options.cgroup.clone(), error))?;
        let mut programs = Programs::attach(&cgroup, &options.ports, options.seed)?;
        if !socket::can_destroy() {
            programs.degraded.push(
                "this kernel does not end sockets on request (CONFIG_INET_DIAG_DESTROY): \
                 applications of blocked connections are shut down through their descriptors where that works"
                    .into(),
            );
        }
        Ok(Self {
            programs,
            people: People::default(),
            known: HashMap::new(),
            counts: Counts::default(),
            strict: false,
            strict_renewed_ns: 0,
            entry: Vec::new(),
        })
    }

    /// Waits for the kernel at most so long, then hands everything it said to `decide`.
    pub fn poll(&mut self, timeout: Duration, decide: &mut Decide<'_>) -> Result<(), CaptureError> {
        self.renew_strict();
        let timeout =
            Timespec { tv_sec: timeout.as_secs().min(3600) as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut waiting = [PollFd::from_borrowed_fd(self.programs.events.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut waiting, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(CaptureError::Wait(error.into())),
        }
        self.drain(decide);
        Ok(())
    }

    /// Hands what the kernel has said to `decide`, without waiting. `true` if there may be more.
    pub fn drain(&mut self, decide: &mut Decide<'_>) -> bool {
        self.renew_strict();
        let mut entry = std::mem::take(&mut self.entry);
        let mut left = ENTRIES_AT_ONCE;
        while left > 0 {
            let Some(item) = self.programs.events.next() else { break };
            entry.clear();
            entry.extend_from_slice(&item);
            drop(item);
            self.take_in(&entry, decide);
            left -= 1;
        }
        entry.fill(0);
        self.entry = entry;
        left == 0
    }

    /// Reads the counts of flows that are metered or undecided and hands them to `decide`; tells it
    /// the end of flows whose end the kernel could not report. To be called about twice a second.
    pub fn refresh(&mut self, decide: &mut Decide<'_>) {
        self.drain_mostly(decide);
        let ids: Vec<u64> = self.known.keys().copied().collect();
        for id in ids {
            self.refresh_flow(id, decide);
        }
    }

    /// Reads the counts of metered flows a last time, hands them to `decide` as their close, and
    /// detaches.
    pub fn detach(mut self, decide: &mut Decide<'_>) {
        self.finish(decide);
    }

    fn finish(&mut self, decide: &mut Decide<'_>) {
        self.drain_mostly(decide);
        let metered = |known: &Known| known.verdict == Verdict::Meter;
        let ids: Vec<u64> =
            self.known.iter().filter(|(_, known)| metered(known)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Ok(flow) = self.programs.flows.get(&id, 0) {
                self.close(id, flow.counters(), decide);
            }
        }
    }

    /// Puts a verdict in force: `Block` cuts the flow, `Meter` counts one that was ignored.
    pub fn set_verdict(&mut self, flow: FlowId, verdict: Verdict) {
        self.put_in_force(flow.0, verdict, 0);
    }

    /// While strict, what follows a hello waits for the verdict.
    pub fn set_strict(&mut self, strict: bool) {
        if self.strict != strict {
            self.strict = strict;
            self.strict_renewed_ns = 0;
            if !strict {
                self.write_strict(0);
            }
        }
        self.renew_strict();
    }

    /// How it is doing.
    pub fn counts(&self) -> Counts {
        Counts {
            events_lost: self.stat(abi::STAT_LOST),
            table_full: self.stat(abi::STAT_TABLE_FULL),
            packets_dropped: self.stat(abi::STAT_DROPPED),
            ..self.counts
        }
    }

    /// What could not be loaded, attached or done, in words for an administrator.
    pub fn degraded(&self) -> &[String] {
        &self.programs.degraded
    }

    /// Entries in the kernel's tables: verdicts, tracked flows and owners. For tests.
    pub fn entries(&self) -> [usize; 3] {
        [
            self.programs.verdicts.keys().count(),
            self.programs.flows.keys().count(),
            self.programs.owners.keys().count(),
        ]
    }

    /// All that waits, unless more comes as fast as it is read.
    fn drain_mostly(&mut self, decide: &mut Decide<'_>) {
        for _ in 0..ROUNDS_AT_ONCE {
            if !self.drain(decide) {
                break;
            }
        }
    }

    fn take_in(&mut self, entry: &[u8], decide: &mut Decide<'_>) {
        let Some((event, payload)) = RawEvent::read(entry) else { return };
        match event.kind {
            abi::EVENT_PAYLOAD => self.take_payload(&event, payload, decide),
            abi::EVENT_TRACKED => {
                let known = Known { verdict: Verdict::Meter, ..self.introduce(&event) };
                self.known.entry(event.id).or_insert(known);
            }
            abi::EVENT_CLOSED => self.close(event.id, event.flow.counters(), decide),
            _ => {}
        }
    }

    fn take_payload(&mut self, event: &RawEvent, payload: &[u8], decide: &mut Decide<'_>) {
        let flow = FlowId(event.id);
        let mut verdict = match self.known.get(&event.id) {
            Some(known) if known.verdict != Verdict::NeedMore => return,
            Some(_) => Verdict::NeedMore,
            // The rest of a segment whose first part was enough.
            None if self.programs.verdicts.get(&event.id, 0).is_ok_and(RawVerdict::is_decided) => return,
            None => self.open(event, decide),
        };
        if verdict == Verdict::NeedMore {
            verdict = if event.flow.flags & abi::FLOW_UDP != 0 {
                decide(flow, FlowEvent::Datagram(payload))
            } else {
                decide(flow, FlowEvent::Outbound { position: event.position, bytes: payload })
            };
        }
        self.put_in_force(event.id, verdict, shown(event));
        if verdict != Verdict::NeedMore {
            let took = monotonic_ns().saturating_sub(event.at_ns);
            self.counts.verdicts += 1;
            self.counts.verdict_ns += took;
            self.counts.verdict_ns_max = self.counts.verdict_ns_max.max(took);
        }
    }

    fn open(&mut self, event: &RawEvent, decide: &mut Decide<'_>) -> Verdict {
        self.counts.flows_seen += 1;
        let known = self.introduce(event);
        let owner = (event.has_owner != 0).then_some(&event.owner);
        // Nobody saw the connect; the kernel still knows whose it is.
        let user = owner.map_or_else(|| known.socket.user().ok(), |owner| Some(owner.user));
        let account = user.map(|user| self.people.account(user));
        let application = owner.map(people::application);
        let opened = Opened {
            transport: known.socket.transport,
            remote: known.socket.remote,
            user_account: account.as_deref(),
            application: application.as_deref(),
            asked_name: None,
            preexisting: event.flow.flags & abi::FLOW_PREEXISTING != 0,
        };
        self.known.insert(event.id, known);
        decide(FlowId(event.id), FlowEvent::Opened(opened))
    }

    fn introduce(&self, event: &RawEvent) -> Known {
        let udp = event.flow.flags & abi::FLOW_UDP != 0;
        let socket = Socket {
            cookie: event.cookie,
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            local: socket::address(event.local, event.local_port),
            remote: socket::address(event.remote, event.remote_port),
            interface: event.interface,
            process: (event.has_owner != 0).then_some(event.owner.process),
        };
        Known {
            socket,
            connected: !udp || event.flow.flags & abi::FLOW_CONNECTED != 0,
            verdict: Verdict::NeedMore,
            counters: event.flow.counters(),
            missing: false,
        }
    }

    fn put_in_force(&mut self, id: u64, verdict: Verdict, grant: u64) {
        let before = self.known.get(&id).map(|known| known.verdict);
        if before == Some(verdict) && verdict != Verdict::NeedMore {
            return;
        }
        if verdict == Verdict::NeedMore && !self.strict {
            return;
        }
        if let Err(error) = self.programs.verdicts.insert(id, RawVerdict::new(verdict, grant), 0) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a verdict could not be put in force");
        }
        match verdict {
            Verdict::NeedMore => {}
            Verdict::Ignore => self.forget(id),
            Verdict::Meter => {
                self.counts.flows_metered += 1;
                self.remember(id, verdict);
            }
            Verdict::Block => {
                self.counts.flows_blocked += 1;
                self.remember(id, verdict);
                self.cut(id);
            }
        }
    }

    fn remember(&mut self, id: u64, verdict: Verdict) {
        if let Some(known) = self.known.get_mut(&id) {
            known.verdict = verdict;
        }
    }

    fn forget(&mut self, id: u64) {
        // An entry that is already gone is what is wanted.
        let _ = self.programs.flows.remove(&id);
        if let Some(known) = self.known.remove(&id)
            && known.socket.transport == Transport::Tcp
        {
            let _ = self.programs.owners.remove(&known.socket.cookie);
        }
    }

    fn cut(&mut self, id: u64) {
        // An unconnected datagram socket may serve other flows; its sends fail with EPERM.
        let Some(known) = self.known.get(&id).filter(|known| known.connected) else { return };
        if let Err(error) = known.socket.destroy() {
            self.counts.sockets_left += 1;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a blocked connection's socket could not be ended; its application waits for its own time-out"
            );
        }
    }

    fn close(&mut self, id: u64, counters: Counters, decide: &mut Decide<'_>) {
        if self.known.remove(&id).is_some() {
            decide(FlowId(id), FlowEvent::Closed(counters));
        }
        let _ = self.programs.verdicts.remove(&id);
        let _ = self.programs.flows.remove(&id);
    }

    fn refresh_flow(&mut self, id: u64, decide: &mut Decide<'_>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        match self.programs.flows.get(&id, 0) {
            Ok(flow) => {
                known.counters = flow.counters();
                known.missing = false;
                let (before, counters) = (known.verdict, known.counters);
                if before == Verdict::Block {
                    return;
                }
                // Also of an undecided flow, which the engine may have given up meanwhile.
                let verdict = decide(FlowId(id), FlowEvent::Counters(counters));
                if verdict != before {
                    self.put_in_force(id, verdict, 0);
                }
            }
            // Its last event may still be on its way: only a second look is final.
            Err(MapError::KeyNotFound) if known.missing => {
                let counters = known.counters;
                self.close(id, counters, decide);
            }
            Err(MapError::KeyNotFound) => known.missing = true,
            Err(_) => {}
        }
    }

    fn renew_strict(&mut self) {
        let now = monotonic_ns();
        if self.strict && now.saturating_sub(self.strict_renewed_ns) > STRICT_NS / 5 {
            self.strict_renewed_ns = now;
            self.write_strict(now + STRICT_NS);
        }
    }

    fn write_strict(&mut self, until_ns: u64) {
        if let Err(error) = self.programs.strict_until.set(0, until_ns, 0) {
            tracing::warn!(error = &error as &dyn std::error::Error, "strictness could not be set");
        }
    }

    fn stat(&self, which: u32) -> u64 {
        self.programs.stats.get(&which, 0).map_or(0, |values| values.iter().sum())
    }
}

impl toktra_engine::Capture for Capture {
    fn drain(&mut self, decide: &mut Decide<'_>) {
        Self::drain(self, decide);
    }

    fn refresh(&mut self, decide: &mut Decide<'_>) {
        Self::refresh(self, decide);
    }

    fn set_verdict(&mut self, flow: FlowId, verdict: Verdict) {
        Self::set_verdict(self, flow, verdict);
    }

    fn set_strict(&mut self, strict: bool) {
        Self::set_strict(self, strict);
    }

    /// The programs go on; what they tell meanwhile the engine does not keep.
    fn set_listening(&mut self, _: bool) {}

    fn finish(&mut self, decide: &mut Decide<'_>) {
        Self::finish(self, decide);
    }

    fn health(&self) -> Health {
        health(self.degraded(), self.counts())
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.programs.events.as_fd()
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Capture").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

/// Put together from what the parts count. Counts only, never a name.
fn health(degraded: &[String], counts: Counts) -> Health {
    let mut degraded = degraded.to_vec();
    if counts.sockets_left > 0 {
        degraded.push(format!(
            "{} blocked connections could not be ended at once; their applications waited",
            counts.sockets_left
        ));
    }
    if counts.table_full > 0 {
        degraded
            .push(format!("{} connections passed unseen: the table of flows was full", counts.table_full));
    }
    Health {
        degraded,
        flows_seen: counts.flows_seen,
        flows_metered: counts.flows_metered,
        flows_blocked: counts.flows_blocked,
        hellos_lost: counts.events_lost,
        ..Health::default()
    }
}

/// Up to where user space has now seen the flow; everything once no more is copied.
fn shown(event: &RawEvent) -> u64 {
    if event.flow.flags & abi::FLOW_UDP != 0 {
        return event.flow.bytes_out;
    }
    let end = event.position + u64::from(event.length);
    if end >= abi::STREAM_LIMIT { u64::MAX } else { end }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_was_hit_is_told() {
        let counts = Counts { events_lost: 1, table_full: 2, sockets_left: 3, ..Counts::default() };
        let health = health(&["lost".to_owned()], counts);
        assert_eq!((health.degraded.len(), health.hellos_lost), (3, 1));
    }
}
