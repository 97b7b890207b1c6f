//! A content filter's host. Of each flow it keeps what the application has written and what the filter has let
//! through, and calls the filter as the system does: only while the last verdict asks for more, with the bytes
//! beyond those that were passed, never more than were asked for.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use toktra_capture_macos::told::{Endpoint, FlowKey, NewFlow};
use toktra_capture_macos::{DataVerdict, Effect, FIRST_PEEK, Filter, Flows, NewVerdict, Report};
use toktra_engine::{Engine, FlowId, Hours, Joint, Now, Policy};
use toktra_protocol::{Block, BlockReason, Event, EventBody, Lock, UnixSeconds, Usage};

use crate::hellos::at;

/// The machine.
pub struct Host {
    pub filter: Arc<Filter>,
    pub joint: Arc<Mutex<Joint<Flows>>>,
    effects: Receiver<Effect>,
    now_ms: Arc<Mutex<u64>>,
}

/// A flow, as the system keeps it.
pub struct Flow {
    pub key: FlowKey,
    /// What is known of where it goes once data flows.
    pub remote: Option<Endpoint>,
    pub standing: Standing,
    written: Vec<u8>,
    /// Outbound bytes that have left.
    pub passed: usize,
    /// The calls that showed its bytes.
    pub shown: u32,
}

/// What the last verdict asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Show so many bytes beyond what was passed.
    Peeked(usize),
    /// It goes on unseen.
    Allowed,
    /// It goes on; counts and its end are reported.
    Counted(FlowId),
    /// It goes on; its end is reported.
    Watched(FlowId),
    Dropped,
}

impl Host {
    /// A machine whose filter records.
    pub fn new() -> Self {
        let host = Self::silent();
        host.apply(Policy::default());
        host
    }

    /// A machine whose filter has not been told what is in force.
    pub fn silent() -> Self {
        let (sender, effects) = channel();
        let flows = Flows::new(move |effect| sender.send(effect).unwrap());
        let joint = Arc::new(Mutex::new(Joint::new(flows, Engine::new())));
        let now_ms = Arc::new(Mutex::new(0));
        let clock = Arc::clone(&now_ms);
        let filter = Filter::new(Arc::clone(&joint), move || at(*clock.lock().unwrap()));
        Self { filter: Arc::new(filter), joint, effects, now_ms }
    }

    pub fn now(&self) -> Now {
        at(*self.now_ms.lock().unwrap())
    }

    /// Lets time pass, with the ticks of the extension's thread.
    pub fn pass_ms(&self, ms: u64) {
        let end_ms = *self.now_ms.lock().unwrap() + ms;
        loop {
            let now_ms = *self.now_ms.lock().unwrap();
            self.joint.lock().unwrap().tick(|| at(now_ms));
            if now_ms >= end_ms {
                break;
            }
            *self.now_ms.lock().unwrap() = (now_ms + 500).min(end_ms);
        }
    }

    pub fn apply(&self, policy: Policy) {
        self.joint.lock().unwrap().apply(self.now(), policy);
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.effects.try_iter().collect()
    }

    /// What the filter wants cut.
    pub fn cuts(&self) -> Vec<FlowId> {
        let cut = |effect| if let Effect::Cut(id) = effect { Some(id) } else { None };
        self.effects().into_iter().filter_map(cut).collect()
    }

    pub fn bodies(&self) -> Vec<EventBody> {
        let (records, _) = self.joint.lock().unwrap().take_records();
        records
            .into_iter()
            .enumerate()
            .map(|(index, record)| {
                let event = Event { sequence: index as u64 + 1, minute: record.minute, body: record.body };
                event.check().unwrap();
                event.body
            })
            .collect()
    }

    pub fn usages(&self) -> Vec<Usage> {
        let usage = |body| if let EventBody::Usage(usage) = body { Some(usage) } else { None };
        self.bodies().into_iter().filter_map(usage).collect()
    }

    /// Flows in the filter's table.
    pub fn known(&self) -> usize {
        self.joint.lock().unwrap().capture.len()
    }

    /// A flow whose endpoint is known at once, as the host makes them by default.
    pub fn open(&self, key: u8, new: NewFlow) -> Flow {
        let remote = new.remote.clone();
        let key = FlowKey([key; 16]);
        let verdict = self.filter.new_flow(|| (key, new));
        let standing = match verdict {
            NewVerdict::Allow => Standing::Allowed,
            NewVerdict::Peek => Standing::Peeked(FIRST_PEEK),
        };
        Flow { key, remote, standing, written: Vec::new(), passed: 0, shown: 0 }
    }

    /// Opens a flow that says a hello with this name in one piece.
    pub fn connect(&self, key: u8, name: &str) -> Flow {
        let mut flow = self.open(key, tcp());
        self.write(&mut flow, &crate::hellos::hello(Some(name), false));
        flow
    }

    /// The application writes, and the system shows what it has in one piece.
    pub fn write(&self, flow: &mut Flow, bytes: &[u8]) {
        self.write_in(flow, bytes, usize::MAX);
    }

    /// The same, in pieces of at most so many bytes.
    pub fn write_in(&self, flow: &mut Flow, bytes: &[u8], piece: usize) {
        for bytes in bytes.chunks(piece.min(bytes.len()).max(1)) {
            flow.written.extend_from_slice(bytes);
            self.show(flow);
        }
    }

    /// A datagram.
    pub fn send(&self, flow: &mut Flow, datagram: &[u8]) {
        let before = flow.written.len();
        flow.written.extend_from_slice(datagram);
        match flow.standing {
            Standing::Peeked(_) => {
                let verdict =
                    self.filter.outbound(before as u64, datagram, || (flow.key, flow.remote.clone()));
                flow.obey(verdict, datagram.len());
            }
            Standing::Dropped => {}
            _ => flow.passed = flow.written.len(),
        }
    }

    /// Shows bytes for as long as the filter asks for more and there are more.
    pub fn show(&self, flow: &mut Flow) {
        while let Standing::Peeked(peek) = flow.standing {
            let waiting = &flow.written[flow.passed..];
            if waiting.is_empty() {
                return;
            }
            let shown = &waiting[..waiting.len().min(peek)];
            let length = shown.len();
            let verdict = self.filter.outbound(flow.passed as u64, shown, || (flow.key, flow.remote.clone()));
            let before = flow.passed;
            flow.obey(verdict, length);
            assert!(
                flow.passed > before || !matches!(flow.standing, Standing::Peeked(_)),
                "it would go on for ever"
            );
        }
        if flow.standing != Standing::Dropped {
            flow.passed = flow.written.len();
        }
    }

    /// Shows everything from the beginning once more, whatever was passed.
    pub fn show_again(&self, flow: &mut Flow) -> DataVerdict {
        flow.shown += 1;
        self.filter.outbound(0, &flow.written, || (flow.key, flow.remote.clone()))
    }

    pub fn statistics(&self, flow: &Flow, bytes_out: u64, bytes_in: u64) {
        self.filter.report(|| Some((flow.key, Report::Statistics { bytes_out, bytes_in })));
    }

    pub fn close(&self, flow: &Flow, bytes_out: u64, bytes_in: u64) {
        self.filter.report(|| Some((flow.key, Report::Closed { bytes_out, bytes_in })));
    }
}

impl Flow {
    fn obey(&mut self, verdict: DataVerdict, shown: usize) {
        self.shown += 1;
        self.standing = match verdict {
            DataVerdict::Allow => Standing::Allowed,
            DataVerdict::Count(id) => Standing::Counted(id),
            DataVerdict::Watch(id) => Standing::Watched(id),
            DataVerdict::Drop => Standing::Dropped,
            DataVerdict::Pass { pass, peek } => {
                assert!(pass <= shown && peek > 0, "{pass} of {shown}, {peek} next");
                self.passed += pass;
                Standing::Peeked(peek)
            }
        };
    }

    pub fn id(&self) -> FlowId {
        match self.standing {
            Standing::Counted(id) | Standing::Watched(id) => id,
            other => panic!("{other:?}"),
        }
    }
}

pub fn tcp() -> NewFlow {
    NewFlow {
        protocol: 6,
        outbound: true,
        remote: endpoint("192.0.2.7"),
        hostname: None,
        account: Some("ada".into()),
        application: Some("com.example.chat".into()),
    }
}

pub fn udp() -> NewFlow {
    NewFlow { protocol: 17, ..tcp() }
}

pub fn endpoint(host: &str) -> Option<Endpoint> {
    Some(Endpoint { host: host.into(), port: "443".into() })
}

pub fn locked() -> Policy {
    Policy { lock: Some(Lock { message: "locked".into() }), ..Policy::default() }
}

pub fn blocked(until: UnixSeconds) -> Policy {
    let block = Block {
        reason: BlockReason::Budget,
        message: "spent".into(),
        providers: Vec::new(),
        until: None,
        budget: None,
    };
    Policy { block: Some(block), block_until: Some(until), ..Policy::default() }
}

pub fn private() -> Policy {
    Policy { hours: Hours::Unknown, ..Policy::default() }
}
