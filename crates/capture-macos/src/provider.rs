//! The `NEFilterDataProvider` of the system extension: the framework's objects in, plain values to [`Filter`],
//! its verdicts out as the framework's objects. One line for each call; nothing is decided here.
//!
//! The class must be registered before the system extension begins, and its name must be the one that
//! `Info.plist` gives under `NEProviderClasses`; else no flow is ever delivered, and nothing says so.
//!
//! Invariants: the framework's threads call at the same time; `startFilter` and `stopFilter` answer before they
//! return; no inbound byte is ever asked for.
#![allow(unsafe_code, reason = "Objective-C messages have no safe form")]
#![allow(
    deprecated,
    reason = "NWHostEndpoint's successor belongs to Network.framework, which objc2 does not have"
)]

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use block2::{DynBlock, RcBlock};
use dispatch2::{DispatchQueue, DispatchQueueAttr, DispatchRetained};
use objc2::rc::Retained;
use objc2::{AnyThread as _, ClassType as _, Message as _, define_class};
use objc2_foundation::{NSArray, NSData, NSError, NSString};
use objc2_network_extension::{
    NEFilterAction, NEFilterDataProvider, NEFilterDataVerdict, NEFilterFlow, NEFilterNewFlowVerdict,
    NEFilterReport, NEFilterReportEvent, NEFilterReportFrequency, NEFilterRule, NEFilterSettings,
    NEFilterSocketFlow, NENetworkRule, NENetworkRuleProtocol, NEProvider, NEProviderStopReason,
    NETrafficDirection, NWHostEndpoint,
};
use toktra_engine::FlowId;

use crate::filter::Filter;
use crate::flows::{DataVerdict, Effect, FIRST_PEEK, NewVerdict, Report};
use crate::people;
use crate::settings::{Rule, Settings};
use crate::told::{Endpoint, FlowKey, NewFlow};

/// The class's name, as `Info.plist` gives it.
pub const CLASS: &str = "ToktraFilterDataProvider";

/// What the class's objects answer with: the framework makes them, so that they have no state of their own.
static STAGE: OnceLock<Stage> = OnceLock::new();

struct Stage {
    filter: Filter,
    on_stop: Box<dyn Fn() + Send + Sync>,
    /// Effects happen here, one after the other, outside of any call of the framework's.
    queue: DispatchRetained<DispatchQueue>,
    provider: Mutex<Option<Shared<FilterDataProvider>>>,
    /// Flows that may have to be cut.
    flows: Mutex<HashMap<FlowId, Shared<NEFilterSocketFlow>>>,
}

/// An object of the framework that its own threads share.
struct Shared<T>(Retained<T>);

// SAFETY: the framework hands these objects to whichever thread it calls on, and takes them back from any
// (NEFilterDataProvider.h, `updateFlow`, "outside the context of any NEFilterDataProvider callback"); retaining
// and releasing is atomic.
unsafe impl<T> Send for Shared<T> {}

define_class!(
    // SAFETY: NEFilterDataProvider may be subclassed, and its methods are overridden as they are declared.
    #[unsafe(super(NEFilterDataProvider))]
    #[thread_kind = objc2::AnyThread]
    #[name = "ToktraFilterDataProvider"]
    struct FilterDataProvider;

    impl FilterDataProvider {
        #[unsafe(method(startFilterWithCompletionHandler:))]
        fn start_filter(&self, done: &DynBlock<dyn Fn(*mut NSError)>) {
            start(self, done);
        }

        #[unsafe(method(stopFilterWithReason:completionHandler:))]
        fn stop_filter(&self, reason: NEProviderStopReason, done: &DynBlock<dyn Fn()>) {
            stop(reason, done);
        }

        #[unsafe(method_id(handleNewFlow:))]
        fn handle_new_flow(&self, flow: &NEFilterFlow) -> Retained<NEFilterNewFlowVerdict> {
            new_flow(flow)
        }

        #[unsafe(method_id(handleOutboundDataFromFlow:readBytesStartOffset:readBytes:))]
        fn handle_outbound(&self, flow: &NEFilterFlow, offset: usize, bytes: &NSData) -> Retained<NEFilterDataVerdict> {
            outbound(flow, offset, bytes)
        }

        #[unsafe(method_id(handleOutboundDataCompleteForFlow:))]
        fn handle_outbound_complete(&self, flow: &NEFilterFlow) -> Retained<NEFilterDataVerdict> {
            outbound_complete(flow)
        }

        #[unsafe(method_id(handleInboundDataFromFlow:readBytesStartOffset:readBytes:))]
        fn handle_inbound(&self, _flow: &NEFilterFlow, _offset: usize, _bytes: &NSData) -> Retained<NEFilterDataVerdict> {
            // Never asked for.
            data_verdict(DataVerdict::Allow)
        }

        #[unsafe(method_id(handleInboundDataCompleteForFlow:))]
        fn handle_inbound_complete(&self, _flow: &NEFilterFlow) -> Retained<NEFilterDataVerdict> {
            data_verdict(DataVerdict::Allow)
        }

        #[unsafe(method(handleReport:))]
        fn handle_report(&self, report: &NEFilterReport) {
            reported(report);
        }
    }
);

/// Registers the class and becomes the system extension's provider. The framework's threads do everything from
/// here on; the caller must keep the process alive. `on_stop` is called when the system stops the filter, and
/// may take a moment.
pub fn begin(filter: Filter, on_stop: impl Fn() + Send + Sync + 'static) {
    let queue = DispatchQueue::new("com.toktra.agent.extension.effects", DispatchQueueAttr::SERIAL);
    let stage = Stage {
        filter,
        on_stop: Box::new(on_stop),
        queue,
        provider: Mutex::new(None),
        flows: Mutex::new(HashMap::new()),
    };
    if STAGE.set(stage).is_err() {
        tracing::error!("The filter has begun already.");
        return;
    }
    let class = FilterDataProvider::class();
    tracing::info!(class = class.name().to_string_lossy().as_ref(), "The provider is registered.");
    // SAFETY: the class is registered, and this is called once.
    unsafe { NEProvider::startSystemExtensionMode() };
}

/// Does what the table wants done. Never waits: it is called under the table's lock.
pub fn act(effect: Effect) {
    let Some(stage) = STAGE.get() else { return };
    stage.queue.exec_async(move || perform(stage, &effect));
}

fn perform(stage: &Stage, effect: &Effect) {
    match effect {
        Effect::Forget(id) => drop(lock(&stage.flows).remove(id)),
        Effect::Cut(id) => {
            let flow = lock(&stage.flows).get(id).map(|flow| flow.0.clone());
            let provider = lock(&stage.provider).as_ref().map(|provider| provider.0.clone());
            let (Some(flow), Some(provider)) = (flow, provider) else { return };
            let drop = data_verdict(DataVerdict::Drop);
            // SAFETY: a drop verdict may be given for a socket flow at any time.
            unsafe { provider.updateFlow_usingVerdict_forDirection(&flow, &drop, NETrafficDirection::Any) };
        }
        Effect::Apply(settings) => {
            if let Some(provider) = lock(&stage.provider).as_ref().map(|provider| provider.0.clone()) {
                apply(&provider, settings);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(provider: &FilterDataProvider, done: &DynBlock<dyn Fn(*mut NSError)>) {
    if let Some(stage) = STAGE.get() {
        *lock(&stage.provider) = Some(Shared(provider.retain()));
        // By way of the queue, so that a change at this moment is not overtaken.
        stage.queue.exec_async(|| perform(stage, &Effect::Apply(stage.filter.settings())));
    }
    // At once: while the filter starts, nothing on the machine connects.
    done.call((std::ptr::null_mut(),));
    tracing::info!("The filter has started.");
}

fn stop(reason: NEProviderStopReason, done: &DynBlock<dyn Fn()>) {
    tracing::info!(reason = reason.0, "The filter stops.");
    if let Some(stage) = STAGE.get() {
        stage.filter.stop();
        (stage.on_stop)();
        *lock(&stage.provider) = None;
        lock(&stage.flows).clear();
    }
    done.call(());
}

fn new_flow(flow: &NEFilterFlow) -> Retained<NEFilterNewFlowVerdict> {
    let verdict =
        STAGE.get().map_or(NewVerdict::Allow, |stage| stage.filter.new_flow(|| (key(flow), told(flow))));
    // SAFETY: constructors of verdicts take any numbers.
    unsafe {
        match verdict {
            NewVerdict::Allow => NEFilterNewFlowVerdict::allowVerdict(),
            NewVerdict::Peek => {
                NEFilterNewFlowVerdict::filterDataVerdictWithFilterInbound_peekInboundBytes_filterOutbound_peekOutboundBytes(
                    false, 0, true, FIRST_PEEK,
                )
            }
        }
    }
}

fn outbound(flow: &NEFilterFlow, offset: usize, bytes: &NSData) -> Retained<NEFilterDataVerdict> {
    let Some(stage) = STAGE.get() else { return data_verdict(DataVerdict::Allow) };
    // SAFETY: nobody changes the data while this call lasts.
    let bytes = unsafe { bytes.as_bytes_unchecked() };
    let verdict =
        stage.filter.outbound(offset as u64, bytes, || (key(flow), socket(flow).and_then(endpoint)));
    keep(stage, flow, verdict);
    data_verdict(verdict)
}

fn outbound_complete(flow: &NEFilterFlow) -> Retained<NEFilterDataVerdict> {
    let Some(stage) = STAGE.get() else { return data_verdict(DataVerdict::Allow) };
    let verdict = stage.filter.outbound_complete(|| key(flow));
    keep(stage, flow, verdict);
    data_verdict(verdict)
}

fn reported(report: &NEFilterReport) {
    let Some(stage) = STAGE.get() else { return };
    stage.filter.report(|| {
        // SAFETY: properties of an object that lives as long as the call.
        let (flow, event, bytes_out, bytes_in) = unsafe {
            (
                report.flow()?,
                report.event(),
                report.bytesOutboundCount() as u64,
                report.bytesInboundCount() as u64,
            )
        };
        let report = match event {
            NEFilterReportEvent::Statistics => Report::Statistics { bytes_out, bytes_in },
            NEFilterReportEvent::FlowClosed => Report::Closed { bytes_out, bytes_in },
            _ => return None,
        };
        Some((key(&flow), report))
    });
}

/// Keeps a flow that may have to be cut.
fn keep(stage: &Stage, flow: &NEFilterFlow, verdict: DataVerdict) {
    if let (DataVerdict::Count(id) | DataVerdict::Watch(id), Some(flow)) = (verdict, socket(flow)) {
        lock(&stage.flows).insert(id, Shared(flow.retain()));
    }
}

fn data_verdict(verdict: DataVerdict) -> Retained<NEFilterDataVerdict> {
    // SAFETY: constructors of verdicts take any numbers, and a verdict that was just made is nobody else's.
    unsafe {
        match verdict {
            DataVerdict::Allow => NEFilterDataVerdict::allowVerdict(),
            DataVerdict::Drop => NEFilterDataVerdict::dropVerdict(),
            DataVerdict::Pass { pass, peek } => {
                NEFilterDataVerdict::dataVerdictWithPassBytes_peekBytes(pass, peek)
            }
            DataVerdict::Count(_) | DataVerdict::Watch(_) => {
                let allow = NEFilterDataVerdict::allowVerdict();
                allow.setShouldReport(true);
                if matches!(verdict, DataVerdict::Count(_)) {
                    // Every five seconds.
                    allow.setStatisticsReportFrequency(NEFilterReportFrequency::Low);
                }
                allow
            }
        }
    }
}

fn key(flow: &NEFilterFlow) -> FlowKey {
    // SAFETY: a property of an object that lives as long as the call.
    FlowKey(unsafe { flow.identifier() }.as_bytes())
}

fn told(flow: &NEFilterFlow) -> NewFlow {
    let socket = socket(flow);
    // SAFETY: properties of an object that lives as long as the call.
    unsafe {
        let token = flow.sourceAppAuditToken().or_else(|| flow.sourceProcessAuditToken());
        let token = token.and_then(|token| people::token(&token));
        let identifier = flow.sourceAppIdentifier().map(|identifier| identifier.to_string());
        NewFlow {
            protocol: socket.map_or(0, |socket| socket.socketProtocol()),
            outbound: flow.direction() == NETrafficDirection::Outbound,
            remote: socket.and_then(endpoint),
            hostname: socket.and_then(|socket| socket.remoteHostname()).map(|name| name.to_string()),
            account: token.map(people::account),
            application: people::application(identifier.as_deref(), token),
        }
    }
}

fn socket(flow: &NEFilterFlow) -> Option<&NEFilterSocketFlow> {
    flow.downcast_ref()
}

fn endpoint(flow: &NEFilterSocketFlow) -> Option<Endpoint> {
    // SAFETY: a property of an object that lives as long as the call.
    let endpoint = unsafe { flow.remoteEndpoint() }?;
    let host = endpoint.downcast_ref::<NWHostEndpoint>()?;
    // SAFETY: the same.
    let (host, port) = unsafe { (host.hostname(), host.port()) };
    Some(Endpoint { host: host.to_string(), port: port.to_string() })
}

fn apply(provider: &FilterDataProvider, settings: &Settings) {
    let rules: Vec<_> = settings.rules.iter().map(rule).collect();
    let rules = NSArray::from_retained_slice(&rules);
    // SAFETY: at least one rule, and a thousand at most.
    let settings = unsafe {
        NEFilterSettings::initWithRules_defaultAction(
            NEFilterSettings::alloc(),
            &rules,
            NEFilterAction::Allow,
        )
    };
    let done = RcBlock::new(|error: *mut NSError| {
        // SAFETY: null, or an error that lives as long as the call.
        match unsafe { error.as_ref() } {
            None => tracing::info!("The filter's rules are in force."),
            Some(error) => tracing::error!(%error, "The filter's rules are not in force."),
        }
    });
    // SAFETY: the block is copied by whoever keeps it.
    unsafe { provider.applySettings_completionHandler(Some(&settings), &done) };
}

fn rule(rule: &Rule) -> Retained<NEFilterRule> {
    let (host, port) =
        (NSString::from_str(&rule.remote.to_string()), NSString::from_str(&rule.port.to_string()));
    let protocol = if rule.is_tcp { NENetworkRuleProtocol::TCP } else { NENetworkRuleProtocol::UDP };
    let action = if rule.delivers { NEFilterAction::FilterData } else { NEFilterAction::Allow };
    // SAFETY: the endpoint holds an address, not a name, and its prefix is not longer than the address.
    unsafe {
        let remote = NWHostEndpoint::endpointWithHostname_port(&host, &port);
        let network =
            NENetworkRule::initWithRemoteNetwork_remotePrefix_localNetwork_localPrefix_protocol_direction(
                NENetworkRule::alloc(),
                Some(&remote),
                rule.prefix.into(),
                None,
                0,
                protocol,
                NETrafficDirection::Outbound,
            );
        NEFilterRule::initWithNetworkRule_action(NEFilterRule::alloc(), &network, action)
    }
}
