//! `OSSystemExtensionRequest` and `NEFilterManager`, one step at a time. Both answer on the main queue, which
//! somebody else must serve ([`crate::status_item::run`], or `dispatch_main`); these functions wait for the
//! answers on a thread of their own, and must not be called on the main one.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use block2::RcBlock;
use dispatch2::{DispatchQueue, MainThreadBound};
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2::{AnyThread as _, DefinedClass as _, MainThreadMarker, define_class, msg_send};
use objc2_foundation::{NSArray, NSError, NSObject, NSObjectProtocol, NSString};
use objc2_network_extension::{NEFilterManager, NEFilterProviderConfiguration};
use objc2_system_extensions::{
    OSSystemExtensionManager, OSSystemExtensionProperties, OSSystemExtensionReplacementAction,
    OSSystemExtensionRequest, OSSystemExtensionRequestDelegate, OSSystemExtensionRequestResult,
};

use crate::activation::{Installed, Outcome, Step, Task, failure, steps};

/// The extension's bundle identifier.
const IDENTIFIER: &str = "com.toktra.agent.extension";
/// How long the system takes for an answer that needs nobody.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a person has for an approval before the request is left alone; the system goes on asking.
const APPROVAL: Duration = Duration::from_secs(10 * 60);
/// How long an old filter may take to go.
const STOP: Duration = Duration::from_secs(10);

/// What the system says of a request.
enum Said {
    Found(Installed),
    NeedsApproval,
    Ended(Outcome),
}

#[derive(Clone, Copy)]
enum Request {
    Properties,
    Activate,
    Deactivate,
}

define_class!(
    // SAFETY: NSObject has no requirements for subclasses; the class does not implement `Drop`.
    #[unsafe(super(NSObject))]
    #[thread_kind = objc2::AnyThread]
    #[ivars = Sender<Said>]
    struct Delegate;

    // SAFETY: a protocol without requirements.
    unsafe impl NSObjectProtocol for Delegate {}

    // SAFETY: the methods are those of the protocol.
    unsafe impl OSSystemExtensionRequestDelegate for Delegate {
        #[unsafe(method(request:actionForReplacingExtension:withExtension:))]
        fn replace(
            &self,
            _request: &OSSystemExtensionRequest,
            _existing: &OSSystemExtensionProperties,
            _new: &OSSystemExtensionProperties,
        ) -> OSSystemExtensionReplacementAction {
            OSSystemExtensionReplacementAction::Replace
        }

        #[unsafe(method(requestNeedsUserApproval:))]
        fn needs_approval(&self, _request: &OSSystemExtensionRequest) {
            self.say(Said::NeedsApproval);
        }

        #[unsafe(method(request:didFinishWithResult:))]
        fn finished(&self, _request: &OSSystemExtensionRequest, result: OSSystemExtensionRequestResult) {
            self.say(Said::Ended(match result {
                OSSystemExtensionRequestResult::WillCompleteAfterReboot => Outcome::AfterRestart,
                _ => Outcome::Completed,
            }));
        }

        #[unsafe(method(request:didFailWithError:))]
        fn failed(&self, _request: &OSSystemExtensionRequest, error: &NSError) {
            self.say(Said::Ended(Outcome::Failed(failure(error.code(), &error.localizedDescription().to_string()))));
        }

        #[unsafe(method(request:foundProperties:))]
        fn found(&self, _request: &OSSystemExtensionRequest, properties: &NSArray<OSSystemExtensionProperties>) {
            self.say(Said::Found(installed(properties)));
        }
    }
);

impl Delegate {
    fn new(said: Sender<Said>) -> Retained<Self> {
        let this = Self::alloc().set_ivars(said);
        // SAFETY: NSObject's `init`.
        unsafe { msg_send![super(this), init] }
    }

    fn say(&self, said: Said) {
        // Whoever no longer waits has its reasons.
        let _ = self.ivars().send(said);
    }
}

/// Of several copies, the one that is active.
fn installed(properties: &NSArray<OSSystemExtensionProperties>) -> Installed {
    let mut found = Installed::Nothing;
    for one in properties.to_vec() {
        // SAFETY: properties of an object that lives as long as the call.
        let (enabled, awaits, leaves, version) = unsafe {
            (one.isEnabled(), one.isAwaitingUserApproval(), one.isUninstalling(), one.bundleShortVersion())
        };
        if enabled {
            return Installed::Active(version.to_string());
        }
        if awaits {
            found = Installed::AwaitsApproval;
        } else if leaves && found == Installed::Nothing {
            found = Installed::Leaves;
        }
    }
    found
}

/// What the system has of our extension; why that is not known, in words.
pub fn look() -> Result<Installed, String> {
    let mut found = Installed::Nothing;
    let outcome = submit(Request::Properties, &mut |said| {
        if let Said::Found(installed) = said {
            found = installed;
        }
    });
    match outcome {
        Outcome::Failed(why) => Err(why),
        _ => Ok(found),
    }
}

/// Carries a task out, step by step; `told` hears of an approval that is awaited. `is_stopped` says whether the
/// old filter is gone; where a profile `manages` the filter, it is not turned on or off.
pub fn carry_out(
    task: Task,
    replaces: bool,
    managed: bool,
    is_stopped: &dyn Fn() -> bool,
    told: &mut dyn FnMut(&Outcome),
) -> Outcome {
    let mut outcome = Outcome::Completed;
    for step in steps(task, replaces, managed) {
        tracing::info!(?step, "The extension is seen to.");
        let after = match step {
            Step::Disable => filter(Change::Off),
            Step::Enable => filter(Change::On),
            Step::RemoveFilter => filter(Change::Away),
            Step::AwaitStop => {
                let end = Instant::now() + STOP;
                while !is_stopped() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(250));
                }
                Outcome::Completed
            }
            Step::Activate | Step::Deactivate => {
                let request = if step == Step::Activate { Request::Activate } else { Request::Deactivate };
                submit(request, &mut |said| {
                    if let Said::NeedsApproval = said {
                        told(&Outcome::NeedsApproval);
                    }
                })
            }
        };
        match after {
            Outcome::Completed => {}
            // The filter can be turned on before its extension runs.
            Outcome::AfterRestart => outcome = Outcome::AfterRestart,
            other => return other,
        }
    }
    outcome
}

/// Submits a request and waits for its end.
fn submit(request: Request, heard: &mut dyn FnMut(Said)) -> Outcome {
    let (sender, said) = channel();
    // Request and delegate are held until the end: one that is released is one that is withdrawn.
    let (held, hold) = channel();
    DispatchQueue::main().exec_async(move || {
        let Some(main) = MainThreadMarker::new() else { return };
        let delegate = Delegate::new(sender);
        let identifier = NSString::from_str(IDENTIFIER);
        let queue = DispatchQueue::main();
        // SAFETY: the delegate outlives the request, which holds it weakly.
        let request = unsafe {
            let request = match request {
                Request::Properties => {
                    OSSystemExtensionRequest::propertiesRequestForExtension_queue(&identifier, queue)
                }
                Request::Activate => {
                    OSSystemExtensionRequest::activationRequestForExtension_queue(&identifier, queue)
                }
                Request::Deactivate => {
                    OSSystemExtensionRequest::deactivationRequestForExtension_queue(&identifier, queue)
                }
            };
            request.setDelegate(Some(ProtocolObject::from_ref(&*delegate)));
            OSSystemExtensionManager::sharedManager().submitRequest(&request);
            request
        };
        let _ = held.send(MainThreadBound::new((request, delegate), main));
    });
    let mut wait = ANSWER;
    loop {
        match said.recv_timeout(wait) {
            Ok(Said::Ended(outcome)) => break drop_after(hold, outcome),
            Ok(Said::NeedsApproval) => {
                wait = APPROVAL;
                heard(Said::NeedsApproval);
            }
            // The properties are all of that answer.
            Ok(found @ Said::Found(_)) => {
                heard(found);
                break drop_after(hold, Outcome::Completed);
            }
            Err(RecvTimeoutError::Timeout) if wait == APPROVAL => {
                // The system goes on asking on behalf of a request that lives.
                std::mem::forget(hold);
                break Outcome::NeedsApproval;
            }
            Err(_) => {
                std::mem::forget(hold);
                break Outcome::Failed(
                    "the system does not answer; restart this Mac and ask again".to_owned(),
                );
            }
        }
    }
}

/// Lets go what was held for a request.
fn drop_after<T>(held: T, outcome: Outcome) -> Outcome {
    drop(held);
    outcome
}

/// What is to become of the filter.
#[derive(Clone, Copy)]
enum Change {
    On,
    Off,
    Away,
}

/// Loads the filter's configuration, changes it and saves it: each on the main queue, one after the other.
fn filter(change: Change) -> Outcome {
    let steps: [fn(&NEFilterManager, Change, Sender<Option<String>>); 2] = [load, save];
    for step in steps {
        let (sender, answer) = channel();
        DispatchQueue::main().exec_async(move || {
            // SAFETY: on the main queue, as the framework wants it.
            let manager = unsafe { NEFilterManager::sharedManager() };
            step(&manager, change, sender);
        });
        match answer.recv_timeout(APPROVAL) {
            Ok(None) => {}
            Ok(Some(error)) => {
                return Outcome::Failed(format!("the content filter cannot be changed: {error}"));
            }
            Err(_) => {
                return Outcome::Failed("the system does not answer about the content filter".to_owned());
            }
        }
    }
    Outcome::Completed
}

fn load(manager: &NEFilterManager, _: Change, sender: Sender<Option<String>>) {
    // SAFETY: the block is copied by the framework.
    unsafe { manager.loadFromPreferencesWithCompletionHandler(&answered(sender)) };
}

fn save(manager: &NEFilterManager, change: Change, sender: Sender<Option<String>>) {
    // SAFETY: the configuration was loaded before, and this is the main queue.
    unsafe {
        let is_there = manager.providerConfiguration().is_some();
        match change {
            Change::Away if is_there => {
                manager.removeFromPreferencesWithCompletionHandler(&answered(sender));
                return;
            }
            Change::Away | Change::Off if !is_there => {
                let _ = sender.send(None);
                return;
            }
            Change::On if !is_there => {
                let configuration = NEFilterProviderConfiguration::new();
                configuration.setFilterSockets(true);
                configuration.setFilterPackets(false);
                configuration.setFilterDataProviderBundleIdentifier(Some(&NSString::from_str(IDENTIFIER)));
                configuration.setOrganization(Some(&NSString::from_str("Toktra")));
                manager.setProviderConfiguration(Some(&configuration));
                manager.setLocalizedDescription(Some(&NSString::from_str("Toktra")));
            }
            _ => {}
        }
        manager.setEnabled(matches!(change, Change::On));
        manager.saveToPreferencesWithCompletionHandler(&answered(sender));
    }
}

/// A completion handler that tells an error's words, or that there is none.
fn answered(sender: Sender<Option<String>>) -> RcBlock<dyn Fn(*mut NSError)> {
    RcBlock::new(move |error: *mut NSError| {
        // SAFETY: null, or an error that lives as long as the call.
        let words = unsafe { error.as_ref() }.map(|error| error.localizedDescription().to_string());
        let _ = sender.send(words);
    })
}
