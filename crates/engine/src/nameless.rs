//! QUIC flows whose name could not be read, and the programs that speak to providers. While such a
//! program is kept from its provider, its nameless flows are dropped, so that it falls back to TCP,
//! where the name is seen; once it is kept from nothing, they pass again.
//!
//! Invariants: only a flow that looks like QUIC and whose program is known is ever dropped; nothing is
//! kept of a flow but whose it is; both tables are bounded, and who finds no room is let through.

use std::collections::HashMap;
use std::sync::Arc;

use toktra_catalog::Service;

use crate::FlowId;
use crate::attributed::Who;

/// A program that has opened no connection to a provider for so long no longer speaks to one.
const SPEAKS_MS: u64 = 60 * 60 * 1000;
/// A nameless flow is forgotten after this.
const FLOW_MS: u64 = 60 * 60 * 1000;
/// Most programs, and most flows.
const LIMIT: usize = 1024;

/// A user's program.
type Program = (Option<Arc<str>>, Arc<str>);

/// The programs and their nameless flows.
#[derive(Default)]
pub(crate) struct Nameless {
    speakers: HashMap<Program, Speaker>,
    flows: HashMap<FlowId, Flow>,
}

/// To whom a program spoke last.
#[derive(Clone)]
pub(crate) struct Speaker {
    pub(crate) service: &'static Service,
    pub(crate) host: Arc<str>,
    pub(crate) at_ms: u64,
    /// Known from what is its user's own.
    pub(crate) personal: bool,
}

struct Flow {
    program: Program,
    since_ms: u64,
    dropped: bool,
}

/// Whether a datagram may be one of QUIC: the fixed bit (RFC 9000, 17.2 and 17.3), which DTLS, STUN
/// and WireGuard leave zero.
pub(crate) fn looks_like_quic(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|byte| byte & 0x40 != 0)
}

impl Nameless {
    /// A program opened a connection to a provider. What is personal takes the place of nothing else, since
    /// it will be forgotten.
    pub(crate) fn speaks(&mut self, who: &Who, speaker: Speaker) {
        let Some(program) = program(who) else { return };
        match self.speakers.get(&program) {
            Some(known) if speaker.personal && !known.personal => return,
            None if self.speakers.len() >= LIMIT => return,
            Some(_) | None => {}
        }
        self.speakers.insert(program, speaker);
    }

    /// Forgets what is known from what was an account's own, where it is no longer.
    pub(crate) fn forget_personal(&mut self, is_personal: impl Fn(Option<&str>) -> bool) {
        self.speakers.retain(|(account, _), speaker| !speaker.personal || is_personal(account.as_deref()));
    }

    /// A flow's name could not be read.
    pub(crate) fn add(&mut self, now_ms: u64, flow: FlowId, who: &Who) {
        let Some(program) = program(who) else { return };
        if self.flows.len() < LIMIT {
            self.flows.insert(flow, Flow { program, since_ms: now_ms, dropped: false });
        }
    }

    /// Whether it is one of these flows.
    pub(crate) fn knows(&self, flow: FlowId) -> bool {
        self.flows.contains_key(&flow)
    }

    /// It has ended.
    pub(crate) fn forget(&mut self, flow: FlowId) {
        self.flows.remove(&flow);
    }

    /// Decides anew of every flow; gives those to drop from now on, and those to let pass again.
    pub(crate) fn decide(
        &mut self,
        is_kept: impl Fn(Option<&str>, &Speaker) -> bool,
    ) -> (Vec<FlowId>, Vec<FlowId>) {
        let (mut dropped, mut freed) = (Vec::new(), Vec::new());
        for (id, flow) in &mut self.flows {
            let account = flow.program.0.as_deref();
            let drop = self.speakers.get(&flow.program).is_some_and(|speaker| is_kept(account, speaker));
            match (flow.dropped, drop) {
                (false, true) => dropped.push(*id),
                (true, false) => freed.push(*id),
                _ => {}
            }
            flow.dropped = drop;
        }
        (dropped, freed)
    }

    /// Forgets what is too old; a flow that is dropped stays until it is let pass.
    pub(crate) fn sweep(&mut self, now_ms: u64) {
        self.speakers.retain(|_, speaker| now_ms.saturating_sub(speaker.at_ms) < SPEAKS_MS);
        self.flows.retain(|_, flow| flow.dropped || now_ms.saturating_sub(flow.since_ms) < FLOW_MS);
    }
}

fn program(who: &Who) -> Option<Program> {
    Some((who.user_account.clone(), who.application.clone()?))
}
