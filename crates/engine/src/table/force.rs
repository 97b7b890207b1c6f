//! What is in force: a policy, privacy hours, personal mode; and what becomes of open flows when one of them
//! begins or ends.
//!
//! Invariants: the clock on the wall is looked at before every event, so no edge is acted on late; what was
//! read of a flow before an edge goes where it belonged before it.

use toktra_catalog::Catalog;
use toktra_policy::{Decision, Policy, Situation};

use super::Engine;
use crate::attributed::{Attributed, Standing};
use crate::privacy::{Privacy, Turn};
use crate::{FlowId, Now};

impl Engine {
    /// Puts a policy in force; returns the open flows to cut.
    pub fn apply(&mut self, now: Now, policy: Policy) -> Vec<FlowId> {
        let over_ms = policy.block_until.map(|until| {
            now.monotonic_ms.saturating_add(until.0.saturating_sub(now.wall.0).saturating_mul(1000))
        });
        // The same block once more, after the wall clock was set back, is not prolonged.
        let known = self.block_over_ms.filter(|_| self.policy.block_until == policy.block_until);
        self.block_over_ms = over_ms.map(|over_ms| known.map_or(over_ms, |known| known.min(over_ms)));
        self.policy = policy;
        self.privacy.forget();
        self.turn(now);
        // Personal mode may have become another account's.
        self.part_ledgers(now);
        self.lapse(now);
        self.decide_anew(now);
        std::mem::take(&mut self.to_cut)
    }

    /// Whether packets beyond a hello should wait for the verdict.
    pub fn is_strict(&self, now: Now) -> bool {
        self.policy.is_blocking(now.wall, self.privacy.lasts())
    }

    /// Enters or leaves privacy hours and personal mode, if they have begun or ended.
    pub(super) fn turn(&mut self, now: Now) {
        let turn = self.privacy.turn(&self.policy.hours, now.wall);
        let personal = self.policy.personal_lasts(now.wall);
        let switched = std::mem::replace(&mut self.personal, personal) != personal;
        if turn == Turn::Stays && !switched {
            return;
        }
        if let Turn::Begins { last_minute } | Turn::Passed { last_minute } = turn {
            let mut entries = Vec::new();
            for flow in self.attributed.values_mut() {
                // Up to the last counts that were read before: what came since is not told apart.
                entries.extend(flow.usage(self.catalog, now));
                flow.rebase();
            }
            for entry in entries {
                self.ledgers.record(self.limits.records, last_minute, entry);
            }
            self.undecided.values_mut().for_each(|flow| flow.private = true);
        }
        if switched {
            self.part_ledgers(now);
        }
        self.decide_anew(now);
    }

    /// Gives every flow to the ledger that is its own now.
    fn part_ledgers(&mut self, now: Now) {
        let mut entries = Vec::new();
        for flow in self.attributed.values_mut() {
            let personal = self.policy.is_personal(now.wall, flow.account());
            entries.extend(flow.turn_to(personal, self.catalog, now));
        }
        entries.into_iter().for_each(|entry| self.record(now, entry));
        for flow in self.undecided.values_mut() {
            flow.personal |= self.policy.is_personal(now.wall, flow.user_account.as_deref());
        }
        self.nameless.forget_personal(|account| self.policy.is_personal(now.wall, account));
    }

    /// A wall clock that was set back must not make a block last longer.
    pub(super) fn lapse(&mut self, now: Now) {
        if self.block_over_ms.is_some_and(|over_ms| over_ms <= now.monotonic_ms) {
            self.policy.block = None;
        }
    }

    /// Decides of every open flow once more: cuts what is blocked now, lets go what is no longer.
    pub(super) fn decide_anew(&mut self, now: Now) {
        let open: Vec<FlowId> = self.attributed.keys().copied().collect();
        for id in open {
            let Some(flow) = self.attributed.get_mut(&id) else { continue };
            let decision = decide(self.catalog, &self.policy, &self.privacy, now, flow);
            match (decision, flow.standing) {
                (Decision::Pass, _) => {
                    self.attributed.remove(&id);
                }
                (Decision::Block(_) | Decision::StopPersonal, Standing::Metered) => {
                    flow.standing = Standing::Cut;
                    let attempt = match decision {
                        Decision::Block(reason) => flow.blocked(self.catalog, reason, true),
                        _ => None,
                    };
                    let entries = [flow.usage(self.catalog, now), attempt];
                    entries.into_iter().flatten().for_each(|entry| self.record(now, entry));
                    self.to_cut.push(id);
                }
                (Decision::Meter | Decision::MeterPersonal | Decision::Unrecorded, Standing::Metered)
                | (Decision::Block(_) | Decision::StopPersonal, _) => {}
                (Decision::Meter | Decision::MeterPersonal | Decision::Unrecorded, _) => {
                    // Its datagram socket may live on, and the next connection to the server be the same flow.
                    if flow.let_go() {
                        self.found.push(id);
                    }
                }
            }
        }
        self.decide_nameless(now);
    }

    pub(super) fn decide_nameless(&mut self, now: Now) {
        let (catalog, policy, private) = (self.catalog, &self.policy, self.privacy.lasts());
        let (dropped, freed) = self.nameless.decide(|account, speaker| {
            let provider = catalog.provider(speaker.service).id.as_str();
            let situation = Situation { now: now.wall, private, account, host: &speaker.host, provider };
            matches!(policy.decide(&situation), Decision::Block(_) | Decision::StopPersonal)
        });
        self.to_cut.extend(dropped);
        self.freed.extend(freed);
    }
}

/// What is to become of a provider's flow.
pub(super) fn decide(
    catalog: &'static Catalog,
    policy: &Policy,
    privacy: &Privacy,
    now: Now,
    flow: &Attributed,
) -> Decision {
    let (account, provider) = (flow.account(), catalog.provider(flow.service).id.as_str());
    policy.decide(&Situation { now: now.wall, private: privacy.lasts(), account, host: &flow.host, provider })
}
