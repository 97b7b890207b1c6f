//! The table and the engine behind one lock, as the framework's threads call them. Invariants: a call that
//! panics, also while the framework's objects are read, allows what it was about, is counted, and leaves the
//! others working; nothing waits under the lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use toktra_engine::{Capture as _, Engine, Joint, Now};

use crate::flows::{DataVerdict, Flows, NewVerdict, Report};
use crate::settings::Settings;
use crate::told::{Endpoint, FlowKey, NewFlow};

/// What answers the framework.
pub struct Filter {
    joint: Arc<Mutex<Joint<Flows>>>,
    clock: Box<dyn Fn() -> Now + Send + Sync>,
}

impl Filter {
    /// Answers out of this table and engine.
    pub fn new(joint: Arc<Mutex<Joint<Flows>>>, clock: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self { joint, clock: Box::new(clock) }
    }

    /// `handleNewFlow`. What is told of the flow is read within the guard.
    pub fn new_flow(&self, told: impl FnOnce() -> (FlowKey, NewFlow)) -> NewVerdict {
        let allow = NewVerdict::Allow;
        self.guard(allow, || {
            let (key, flow) = told();
            self.decide(|flows, engine, now| flows.new_flow(engine, now, key, flow))
        })
    }

    /// `handleOutboundData`.
    pub fn outbound(
        &self,
        offset: u64,
        bytes: &[u8],
        told: impl FnOnce() -> (FlowKey, Option<Endpoint>),
    ) -> DataVerdict {
        self.guard(DataVerdict::Allow, || {
            let (key, remote) = told();
            self.decide(|flows, engine, now| flows.outbound(engine, now, key, (offset, bytes), remote))
        })
    }

    /// `handleOutboundDataComplete`.
    pub fn outbound_complete(&self, told: impl FnOnce() -> FlowKey) -> DataVerdict {
        self.guard(DataVerdict::Allow, || {
            let key = told();
            self.decide(|flows, engine, now| flows.outbound_complete(engine, now, key))
        })
    }

    /// `handleReport`; `None` for reports that say nothing of counts.
    pub fn report(&self, told: impl FnOnce() -> Option<(FlowKey, Report)>) {
        self.guard((), || {
            if let Some((key, report)) = told() {
                self.decide(|flows, engine, now| flows.report(engine, now, key, report));
            }
        });
    }

    /// The rules that belong in force, for `startFilter`.
    pub fn settings(&self) -> Settings {
        self.joint().capture.settings()
    }

    /// `stopFilter`: every flow ends here with its last counts.
    pub fn stop(&self) {
        self.guard((), || {
            self.decide(|flows, engine, now| {
                flows.finish(&mut |flow, event| engine.handle(now, flow, event));
            });
        });
    }

    fn decide<T>(&self, decision: impl FnOnce(&mut Flows, &mut Engine, Now) -> T) -> T {
        let now = (self.clock)();
        let mut joint = self.joint();
        let Joint { engine, capture } = &mut *joint;
        decision(capture, engine, now)
    }

    fn guard<T>(&self, allow: T, call: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
            self.joint().capture.note_failure();
            allow
        })
    }

    /// A call that panicked under the lock has lost its own flow; the others go on.
    fn joint(&self) -> MutexGuard<'_, Joint<Flows>> {
        self.joint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}
