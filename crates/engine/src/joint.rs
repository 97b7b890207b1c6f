//! What joins a capture with the engine, the same on every system: what the capture sees goes to the engine,
//! and what the engine decides goes back, at once or with the next tick.
//!
//! Invariants: no verdict of the engine's is lost between the two; a capture delivers nothing while nothing
//! may be recorded, where it can do so.

use toktra_protocol::local::Health;

use crate::{Engine, FlowEvent, FlowId, Now, PersonalRecord, Policy, Record, Verdict};

/// What a capture asks for each event.
pub type Decide<'a> = dyn FnMut(FlowId, FlowEvent<'_>) -> Verdict + 'a;

/// What sees flows and puts verdicts in force.
pub trait Capture {
    /// Hands what it has seen to `decide`, without waiting. Nothing, where flows come by themselves.
    fn drain(&mut self, decide: &mut Decide<'_>);
    /// Reads the counts of open flows and hands them to `decide`. Called about twice a second.
    fn refresh(&mut self, decide: &mut Decide<'_>);
    /// Puts a verdict in force: `Block` cuts a flow, `Meter` counts one that was ignored.
    fn set_verdict(&mut self, flow: FlowId, verdict: Verdict);
    /// While strict, what follows a hello waits for the verdict.
    fn set_strict(&mut self, strict: bool);
    /// Whether flows are to be delivered at all. What cannot be turned off goes on, and the engine ignores it.
    fn set_listening(&mut self, listening: bool);
    /// Which remote ports are watched beside 443, where that can be changed.
    fn set_ports(&mut self, _ports: &[u16]) {}
    /// Hands the last counts of open flows to `decide` as their close.
    fn finish(&mut self, decide: &mut Decide<'_>);
    /// How it is doing, as far as the capture knows.
    fn health(&self) -> Health;
}

/// A capture and the engine.
#[derive(Debug)]
pub struct Joint<C> {
    /// The table of flows.
    pub engine: Engine,
    /// What sees them.
    pub capture: C,
}

impl<C: Capture> Joint<C> {
    /// Joins them. Until a policy is applied, nothing is in force.
    pub fn new(capture: C, engine: Engine) -> Self {
        Self { engine, capture }
    }

    /// Takes in what the capture has seen.
    pub fn drain(&mut self, clock: impl Fn() -> Now) {
        let Self { engine, capture } = self;
        capture.drain(&mut |flow, event| engine.handle(clock(), flow, event));
        self.settle();
    }

    /// Reads counts and lets the engine see the time.
    pub fn tick(&mut self, clock: impl Fn() -> Now) {
        let Self { engine, capture } = self;
        capture.refresh(&mut |flow, event| engine.handle(clock(), flow, event));
        let now = clock();
        for flow in engine.tick(now) {
            capture.set_verdict(flow, Verdict::Block);
        }
        self.restrain(now);
    }

    /// Puts a policy in force.
    pub fn apply(&mut self, now: Now, policy: Policy) {
        for flow in self.engine.apply(now, policy) {
            self.capture.set_verdict(flow, Verdict::Block);
        }
        self.restrain(now);
    }

    /// Reads the last counts. The capture may go after this.
    pub fn finish(&mut self, clock: impl Fn() -> Now) {
        let Self { engine, capture } = self;
        capture.finish(&mut |flow, event| engine.handle(clock(), flow, event));
    }

    /// The organisation's records and the user's own, made since the last call.
    pub fn take_records(&mut self) -> (Vec<Record>, Vec<PersonalRecord>) {
        self.settle();
        (self.engine.take_records(), self.engine.take_personal())
    }

    /// How capture and engine are doing, but for what the link to the agent knows.
    pub fn health(&self) -> Health {
        let hit = self.engine.limits_hit();
        let told = self.capture.health();
        Health {
            flows_unread: told.flows_unread + hit.undecided,
            flows_unattributed: told.flows_unattributed + hit.waiting,
            records_lost: told.records_lost + hit.records,
            ..told
        }
    }

    fn restrain(&mut self, now: Now) {
        self.capture.set_strict(self.engine.is_strict(now));
        self.capture.set_listening(self.engine.is_listening());
        self.settle();
    }

    /// What the engine has found out about flows beside the one that it was asked about.
    fn settle(&mut self) {
        for flow in self.engine.take_found() {
            self.capture.set_verdict(flow, Verdict::Meter);
        }
        for flow in self.engine.take_freed() {
            self.capture.set_verdict(flow, Verdict::Ignore);
        }
    }
}
