//! When the system extension is activated, in which order, and what came of it. Activation tears down every
//! connection of the machine, so it waits for a moment at which nobody works.

use std::time::Duration;

/// After a start of the machine for so long, connections are young and few.
const AFTER_BOOT: Duration = Duration::from_secs(5 * 60);

/// What the system has of our extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing.
    Nothing,
    /// This version (`CFBundleShortVersionString`), active.
    Active(String),
    /// One that a person has yet to approve.
    AwaitsApproval,
    /// One that goes with the next restart.
    Leaves,
}

/// Why somebody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The menu has started, so long after the machine.
    Start {
        /// Since the machine started.
        since_boot: Duration,
    },
    /// The machine has woken: connections have died in its sleep.
    Wake,
    /// A person asks.
    Command,
}

/// Whether the extension of this version is to be activated now.
pub fn is_due(installed: &Installed, ours: &str, moment: Moment) -> bool {
    match (installed, moment) {
        (Installed::Active(version), _) if version == ours => false,
        (_, Moment::Command) => true,
        // The first of all: nothing is counted until then.
        (Installed::Nothing, _) => true,
        // Asking again would take the question from the screen.
        (Installed::AwaitsApproval | Installed::Leaves, _) => false,
        (Installed::Active(_), Moment::Start { since_boot }) => since_boot < AFTER_BOOT,
        (Installed::Active(_), Moment::Wake) => true,
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// This app's extension, filtering.
    Activate,
    /// No extension.
    Deactivate,
}

/// One thing to ask of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Turn the filter off.
    Disable,
    /// Wait until the old filter is gone: while it goes and the new one comes, no connection gets through.
    AwaitStop,
    /// Activate the extension.
    Activate,
    /// Turn the filter on.
    Enable,
    /// Take the filter's configuration away.
    RemoveFilter,
    /// Deactivate the extension.
    Deactivate,
}

/// The steps in their order. Where a profile `manages` the filter, it is the profile's to turn on and off.
pub fn steps(task: Task, replaces: bool, managed: bool) -> Vec<Step> {
    let all: &[Step] = match (task, replaces) {
        (Task::Activate, true) => &[Step::Disable, Step::AwaitStop, Step::Activate, Step::Enable],
        (Task::Activate, false) => &[Step::Activate, Step::Enable],
        (Task::Deactivate, _) => &[Step::Disable, Step::AwaitStop, Step::RemoveFilter, Step::Deactivate],
    };
    let is_profiles = |step: &Step| matches!(step, Step::Disable | Step::Enable | Step::RemoveFilter);
    let waits_for_nothing = |step: &Step| *step == Step::AwaitStop;
    all.iter().copied().filter(|step| !(managed && (is_profiles(step) || waits_for_nothing(step)))).collect()
}

/// What came of it: the four outcomes that a person sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Completed,
    /// Done after the next restart.
    AfterRestart,
    /// A person has to allow it.
    NeedsApproval,
    /// Not done: why, and what to do.
    Failed(String),
}

impl Outcome {
    /// In words.
    pub fn words(&self, task: Task) -> String {
        match (self, task) {
            (Self::Completed, Task::Activate) => "Toktra's extension is active.".to_owned(),
            (Self::Completed, Task::Deactivate) => "Toktra's extension is gone.".to_owned(),
            (Self::AfterRestart, Task::Activate) => {
                "Toktra's extension becomes active when this Mac is restarted.".to_owned()
            }
            (Self::AfterRestart, Task::Deactivate) => {
                "Toktra's extension goes when this Mac is restarted.".to_owned()
            }
            (Self::NeedsApproval, _) => {
                "Allow Toktra's extension: System Settings, General, Login Items & Extensions, Network Extensions (before macOS 15: Privacy & Security). Until then nothing is counted.".to_owned()
            }
            (Self::Failed(why), Task::Activate) => format!("Toktra's extension could not be activated: {why}"),
            (Self::Failed(why), Task::Deactivate) => {
                format!("Toktra's extension could not be deactivated: {why}")
            }
        }
    }
}

/// What an error of the system means, by its code (`OSSystemExtensionErrorCode`), and what to do.
pub fn failure(code: isize, said: &str) -> String {
    let advice = match code {
        2 => "the app lacks an entitlement; install the package that your administrator signed",
        3 => "the app must lie in /Applications; install the package again",
        4..=6 => "the app is damaged; install the package again",
        8 => "the signature does not hold; install the package again",
        9 => "the extension's description or profile does not fit; install a package of one release",
        10 => "a policy of your administrator forbids it; ask for Toktra's profile",
        11 => "it was cancelled; ask again",
        12 => "another request took its place; look again in a minute",
        13 => "it takes an administrator of this Mac",
        _ => "restart this Mac and ask again",
    };
    format!("{advice} (system: {said}, code {code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Moment = Moment::Start { since_boot: Duration::from_secs(60) };
    const OLD: Moment = Moment::Start { since_boot: Duration::from_secs(3 * 60 * 60) };

    #[test]
    fn the_first_activation_does_not_wait_and_an_upgrade_waits_for_a_quiet_moment() {
        let older = Installed::Active("0.0.9".into());
        for (installed, moment, due) in [
            (Installed::Nothing, OLD, true),
            (older.clone(), OLD, false),
            (older.clone(), YOUNG, true),
            (older.clone(), Moment::Wake, true),
            (older, Moment::Command, true),
            (Installed::AwaitsApproval, YOUNG, false),
            (Installed::AwaitsApproval, Moment::Wake, false),
            (Installed::Leaves, Moment::Wake, false),
            (Installed::Leaves, Moment::Command, true),
        ] {
            assert_eq!(is_due(&installed, "0.1.0", moment), due, "{installed:?} {moment:?}");
        }
    }

    #[test]
    fn the_version_that_is_active_is_never_activated_again() {
        for moment in [YOUNG, OLD, Moment::Wake, Moment::Command] {
            assert!(!is_due(&Installed::Active("0.1.0".into()), "0.1.0", moment));
        }
    }

    #[test]
    fn an_upgrade_turns_the_filter_off_and_waits_before_it_replaces_it() {
        use Step::{Activate, AwaitStop, Deactivate, Disable, Enable, RemoveFilter};
        assert_eq!(steps(Task::Activate, true, false), [Disable, AwaitStop, Activate, Enable]);
        assert_eq!(steps(Task::Activate, false, false), [Activate, Enable]);
        assert_eq!(steps(Task::Deactivate, true, false), [Disable, AwaitStop, RemoveFilter, Deactivate]);
    }

    #[test]
    fn a_profiles_filter_is_left_to_the_profile() {
        assert_eq!(steps(Task::Activate, true, true), [Step::Activate]);
        assert_eq!(steps(Task::Deactivate, true, true), [Step::Deactivate]);
    }

    #[test]
    fn each_outcome_says_what_it_means_and_a_failure_what_to_do() {
        let words = |outcome: Outcome| outcome.words(Task::Activate);
        assert!(words(Outcome::Completed).contains("active"));
        assert!(words(Outcome::AfterRestart).contains("restarted"));
        assert!(words(Outcome::NeedsApproval).contains("System Settings"));
        let failed = words(Outcome::Failed(failure(3, "OSSystemExtensionErrorDomain")));
        assert!(failed.contains("/Applications") && failed.contains("code 3"), "{failed}");
        assert!(failure(4711, "?").contains("restart"));
    }
}
