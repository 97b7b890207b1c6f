//! What is in force: which CAs issue, which are trusted, how far a rotation has come. One small
//! file, `authority/state.json`, replaced whole, so that whoever reads it sees a step done or not
//! done; a directory without one is as `init` of an older version left it.
//!
//! Invariants: one rotation at a time. Until `retire` what was in force before stays in the
//! file beside what comes next, so that every step but the last can be undone.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toktra_protocol::UnixSeconds;

use crate::AuthorityError;
use crate::files::{read_text, replace};

/// The state's file, in the authority's directory.
pub(crate) const STATE: &str = "state.json";
const FORMAT: u32 = 1;

/// What is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The intermediate that issues devices.
    Devices,
    /// The CA that issues the hosts' certificates.
    Server,
    /// The root.
    Root,
}

impl Line {
    /// As the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Server => "server",
            Self::Root => "root",
        }
    }

    /// Its steps up to the last but one, each with the phase that it reaches; then `retire`.
    fn steps(self) -> &'static [(Step, Phase)] {
        match self {
            Self::Devices => &[
                (Step::Prepare, Phase::Prepared),
                (Step::Trust, Phase::Announced),
                (Step::Issue, Phase::Active),
            ],
            Self::Server => &[(Step::Prepare, Phase::Prepared), (Step::Issue, Phase::Active)],
            Self::Root => &[
                (Step::Prepare, Phase::Prepared),
                (Step::Distribute, Phase::Announced),
                (Step::Switch, Phase::Active),
            ],
        }
    }
}

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the next CA; nothing uses it.
    Prepare,
    /// Take devices of the next intermediate too.
    Trust,
    /// Issue with the next CA.
    Issue,
    /// Give devices the next root beside the old one.
    Distribute,
    /// Put the CAs under the next root, with a chain to the old one.
    Switch,
    /// Drop the old one. The last step; it cannot be undone.
    Retire,
    /// Undo the newest step.
    Rollback,
}

impl Step {
    /// As the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Trust => "trust",
            Self::Issue => "issue",
            Self::Distribute => "distribute",
            Self::Switch => "switch",
            Self::Retire => "retire",
            Self::Rollback => "rollback",
        }
    }
}

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The next CA lies ready.
    Prepared,
    /// It is trusted (devices) or given to devices (root).
    Announced,
    /// It issues.
    Active,
}

impl Phase {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Announced => "announced",
            Self::Active => "active",
        }
    }
}

/// Why a step cannot be taken now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Another rotation is under way.
    #[error("a rotation of `{0}` is under way; finish it or roll it back first")]
    OtherRotation(&'static str),
    /// Nothing is under way.
    #[error("no rotation of `{line}` is under way; it begins with `ca rotate {line} prepare`")]
    NotBegun {
        /// Which.
        line: &'static str,
    },
    /// It is another step's turn.
    #[error("the rotation of `{line}` is {phase}; what can follow is `{next}` or `rollback`")]
    OutOfTurn {
        /// Which.
        line: &'static str,
        /// How far it is.
        phase: &'static str,
        /// The step that can follow.
        next: &'static str,
    },
}

/// A CA's two files in the authority's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ca {
    pub(crate) key: String,
    pub(crate) certificate: String,
}

/// A rotation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    pub(crate) line: Line,
    pub(crate) phase: Phase,
    /// When the newest step was taken.
    pub(crate) since: UnixSeconds,
    pub(crate) next: Next,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Next {
    Ca(Ca),
    Root(NextRoot),
}

/// The next root's certificates, all files in the authority's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextRoot {
    pub(crate) certificate: String,
    /// The next root's key under the old root's name.
    pub(crate) cross: String,
    /// The CAs' certificates under it.
    pub(crate) under_it: Option<UnderRoot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnderRoot {
    pub(crate) devices: String,
    pub(crate) server: String,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    /// The root's certificate.
    pub(crate) root: String,
    pub(crate) devices: Ca,
    pub(crate) server: Ca,
    /// Device certificates that were issued before this are to be renewed now.
    pub(crate) renew_before: Option<UnixSeconds>,
    pub(crate) rotation: Option<Rotation>,
}

impl State {
    /// As `init` leaves it, the root's certificate in this file.
    pub(crate) fn initial(root: &str) -> Self {
        let ca = |name: &str| Ca { key: format!("{name}.key"), certificate: format!("{name}.pem") };
        Self {
            format: FORMAT,
            root: root.to_owned(),
            devices: ca("devices"),
            server: ca("server"),
            renew_before: None,
            rotation: None,
        }
    }

    pub(crate) fn read(online: &Path) -> Result<Self, AuthorityError> {
        let path = online.join(STATE);
        if !path.exists() && online.is_dir() {
            return Ok(Self::initial("../root.pem"));
        }
        let state: Self = serde_json::from_str(&read_text(&path)?)
            .map_err(|source| AuthorityError::State { path: path.clone(), source })?;
        if state.format == FORMAT { Ok(state) } else { Err(AuthorityError::StateFormat(path)) }
    }

    pub(crate) fn write(&self, online: &Path) -> Result<(), AuthorityError> {
        let path = online.join(STATE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| AuthorityError::State { path: path.clone(), source })?;
        replace(&path, 0o600, text.as_bytes())
    }

    /// How far the rotation of this line has come, if one is under way.
    pub(crate) fn phase(&self, line: Line) -> Option<Phase> {
        self.rotation.as_ref().filter(|rotation| rotation.line == line).map(|rotation| rotation.phase)
    }

    /// The CA that comes next on this line.
    pub(crate) fn next_ca(&self, line: Line) -> Option<&Ca> {
        match self.rotation.as_ref().filter(|rotation| rotation.line == line).map(|rotation| &rotation.next) {
            Some(Next::Ca(ca)) => Some(ca),
            _ => None,
        }
    }

    /// The root that comes next.
    pub(crate) fn next_root(&self) -> Option<&NextRoot> {
        match self.rotation.as_ref().map(|rotation| &rotation.next) {
            Some(Next::Root(root)) => Some(root),
            _ => None,
        }
    }

    /// The CAs that are in use on this line: first the one that issues.
    pub(crate) fn in_use(&self, line: Line) -> Vec<Ca> {
        let current = if line == Line::Server { &self.server } else { &self.devices };
        let mut current = current.clone();
        if let (Some(Phase::Active), Some(under)) =
            (self.phase(Line::Root), self.next_root().and_then(|root| root.under_it.as_ref()))
        {
            let file = if line == Line::Server { &under.server } else { &under.devices };
            current.certificate.clone_from(file);
        }
        match (self.phase(line), self.next_ca(line).cloned()) {
            (Some(Phase::Active), Some(next)) => vec![next, current],
            (Some(Phase::Announced), Some(next)) => vec![current, next],
            _ => vec![current],
        }
    }

    /// The certificates of the roots that devices are to believe.
    pub(crate) fn roots(&self) -> Vec<String> {
        let next = self.next_root().filter(|_| self.phase(Line::Root) >= Some(Phase::Announced));
        std::iter::once(&self.root).chain(next.map(|root| &root.certificate)).cloned().collect()
    }

    /// What a chain carries beyond the CA's own certificate.
    pub(crate) fn cross(&self) -> Option<String> {
        let active = self.phase(Line::Root) == Some(Phase::Active);
        self.next_root().filter(|_| active).map(|root| root.cross.clone())
    }

    /// Whether it is this step's turn.
    pub(crate) fn check(&self, line: Line, step: Step) -> Result<(), StepError> {
        if let Some(rotation) = self.rotation.as_ref().filter(|rotation| rotation.line != line) {
            return Err(StepError::OtherRotation(rotation.line.name()));
        }
        let Some(phase) = self.phase(line) else {
            let begins = step == Step::Prepare;
            return if begins { Ok(()) } else { Err(StepError::NotBegun { line: line.name() }) };
        };
        let next = following(line, phase);
        if step == Step::Rollback || step == next {
            return Ok(());
        }
        Err(StepError::OutOfTurn { line: line.name(), phase: phase.name(), next: next.name() })
    }

    /// The phase that a step reaches.
    pub(crate) fn reached(line: Line, step: Step) -> Option<Phase> {
        line.steps().iter().find(|(of, _)| *of == step).map(|(_, phase)| *phase)
    }

    /// The phase before this one.
    pub(crate) fn before(line: Line, phase: Phase) -> Option<Phase> {
        line.steps().iter().rev().map(|(_, reached)| *reached).find(|reached| *reached < phase)
    }
}

/// The step that follows a phase.
pub(crate) fn following(line: Line, phase: Phase) -> Step {
    line.steps().iter().find(|(_, reached)| *reached > phase).map_or(Step::Retire, |(step, _)| *step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: Line, phase: Phase) -> State {
        let next = match line {
            Line::Root => Next::Root(NextRoot {
                certificate: "root-2.pem".into(),
                cross: "cross-2.pem".into(),
                under_it: Some(UnderRoot { devices: "d-2.pem".into(), server: "s-2.pem".into() }),
            }),
            _ => Next::Ca(Ca { key: "next.key".into(), certificate: "next.pem".into() }),
        };
        let rotation = Some(Rotation { line, phase, since: UnixSeconds(1), next });
        State { rotation, ..State::initial("root.pem") }
    }

    fn certificates(state: &State, line: Line) -> Vec<String> {
        state.in_use(line).into_iter().map(|ca| ca.certificate).collect()
    }

    #[test]
    fn the_next_intermediate_is_trusted_before_it_issues_and_the_old_one_after() {
        let by_phase = |phase| certificates(&at(Line::Devices, phase), Line::Devices);
        assert_eq!(by_phase(Phase::Prepared), ["devices.pem"]);
        assert_eq!(by_phase(Phase::Announced), ["devices.pem", "next.pem"]);
        assert_eq!(by_phase(Phase::Active), ["next.pem", "devices.pem"]);
    }

    #[test]
    fn the_next_root_is_given_before_chains_lead_to_it() {
        let chain = |phase| {
            let state = at(Line::Root, phase);
            (state.roots(), certificates(&state, Line::Devices), state.cross())
        };
        let both = vec!["root.pem".to_owned(), "root-2.pem".to_owned()];
        assert_eq!(chain(Phase::Prepared), (vec!["root.pem".into()], vec!["devices.pem".into()], None));
        assert_eq!(chain(Phase::Announced), (both.clone(), vec!["devices.pem".into()], None));
        assert_eq!(chain(Phase::Active), (both, vec!["d-2.pem".into()], Some("cross-2.pem".into())));
    }

    #[test]
    fn steps_are_taken_in_turn_one_rotation_at_a_time() {
        let idle = State::initial("root.pem");
        assert_eq!(idle.check(Line::Root, Step::Prepare), Ok(()));
        assert_eq!(idle.check(Line::Root, Step::Switch), Err(StepError::NotBegun { line: "root" }));
        assert_eq!(idle.check(Line::Root, Step::Rollback), Err(StepError::NotBegun { line: "root" }));
        let trusted = at(Line::Devices, Phase::Announced);
        assert_eq!(trusted.check(Line::Devices, Step::Issue), Ok(()));
        assert_eq!(trusted.check(Line::Devices, Step::Rollback), Ok(()));
        assert_eq!(trusted.check(Line::Server, Step::Prepare), Err(StepError::OtherRotation("devices")));
        for early in [Step::Prepare, Step::Trust, Step::Retire, Step::Switch] {
            assert!(matches!(trusted.check(Line::Devices, early), Err(StepError::OutOfTurn { .. })));
        }
        assert_eq!(at(Line::Server, Phase::Active).check(Line::Server, Step::Retire), Ok(()));
        assert_eq!(following(Line::Server, Phase::Prepared), Step::Issue);
        assert_eq!(State::before(Line::Server, Phase::Active), Some(Phase::Prepared));
        assert_eq!(State::before(Line::Root, Phase::Prepared), None);
    }

    #[test]
    fn the_state_survives_its_file_and_a_torn_one_is_refused() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(State::read(place.path()).unwrap(), State::initial("../root.pem"));
        let state = at(Line::Root, Phase::Active);
        state.write(place.path()).unwrap();
        assert_eq!(State::read(place.path()).unwrap(), state);
        std::fs::write(place.path().join(STATE), "{\"format\":1").unwrap();
        assert!(matches!(State::read(place.path()), Err(AuthorityError::State { .. })));
    }
}
