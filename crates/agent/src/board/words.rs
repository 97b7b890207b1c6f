//! The status in words: who the device is, what is in force, and what is not as it should be and what to
//! do about it. Pure.

use std::time::Duration;

use toktra_identity::Credential;
use toktra_protocol::local::{IdentityPhase, REPLACE_EXTENSION, START_EXTENSION, Status};
use toktra_protocol::{Code, ToktraDomain, UnixSeconds};

use super::{Facts, Policy, Standing, Uplink};
use crate::budget::{InForce, Moment};
use crate::clock::SKEW_LIMIT_S;
use crate::enrolment;

/// A certificate that ends sooner, in seconds, is reported.
const EXPIRY_NOTICE_S: u64 = 14 * 24 * 60 * 60;

/// Said while a cap is open that the backend, when it was last heard, had closed.
pub const CAP_OPENED: &str = "a budget's cap is open, because the backend has been out of reach for too long; it closes when the backend is heard and still says so";

/// Said where a device is not enrolled.
pub const NOT_ENROLLED: &str = if cfg!(target_os = "macos") {
    "the device is not enrolled: set ToktraDomain and ToktraToken in the preferences com.toktra.agent, by a profile or with `defaults write`"
} else {
    "the device is not enrolled: run `toktra-agent enroll --domain DOMAIN --token TOKEN` as root"
};

impl Facts {
    /// What a user should know is not as it should be.
    pub(super) fn degraded(
        &self,
        now: UnixSeconds,
        configured: Option<&ToktraDomain>,
        standing: &Standing,
    ) -> Vec<String> {
        let mut degraded = Vec::new();
        let mut say = |words: String| degraded.push(words);
        match (&self.identity_error, &self.credential) {
            (Some(error), _) => say(error.clone()),
            (None, None) => say(unenrolled(standing)),
            (None, Some(credential)) => {
                ill(standing).into_iter().for_each(&mut say);
                let version = self.extension_version.as_deref();
                extension(self.connections > 0, version, self.blind).into_iter().for_each(&mut say);
                unsigned().into_iter().for_each(&mut say);
                expiry(credential, now).into_iter().for_each(&mut say);
                let enrolled = &credential.enrolled().domain;
                if let Some(other) = configured.filter(|&configured| configured != enrolled) {
                    say(format!(
                        "the configuration names {other}, but the device is enrolled with {enrolled}: enrol it again, or correct the configuration"
                    ));
                }
            }
        }
        if let Uplink::Refused(error) = &self.uplink {
            say(format!("the backend refuses this device, events are kept here: {error}"));
        }
        if let Some(error) = &self.directive_error {
            say(format!("directives do not arrive: {error}"));
        }
        if let Some(error) = &self.spool_error {
            say(format!("records cannot be stored: {error}"));
        }
        if let Some(health) = &self.health {
            degraded.extend(health.degraded.iter().cloned().chain(health.limits_hit()));
        }
        degraded
    }
}

/// What is to be said of a device that holds no credential.
fn unenrolled(standing: &Standing) -> String {
    let refused = standing.refused.and_then(enrolment::next_step);
    match (standing.phase, refused) {
        (IdentityPhase::Pending, None) => {
            "the device asks the backend to be enrolled, and has no answer yet".to_owned()
        }
        (IdentityPhase::Pending, Some(step)) => format!("the device is not enrolled yet: {step}"),
        (_, Some(step)) => format!("the device is not enrolled, the backend refused it: {step}"),
        (_, None) => NOT_ENROLLED.to_owned(),
    }
}

/// What is to be said of an identity that does not serve.
fn ill(standing: &Standing) -> Option<String> {
    let step = standing.refused.and_then(enrolment::next_step).unwrap_or_default();
    match standing.phase {
        IdentityPhase::Revoked => Some(format!(
            "the device was revoked: nothing is sent, what waits is kept here, and the backend is asked once a day. {step}"
        )),
        IdentityPhase::Lost => Some(format!(
            "the device has lost its identity: nothing is sent, what waits is kept here. {step}"
        )),
        IdentityPhase::Recovering => Some(
            "the device certificate has expired: the device recovers by itself when it reaches the backend"
                .to_owned(),
        ),
        _ if standing.refused == Some(Code::ClockSkew) => Some(
            "the backend's clock disagrees with its own certificates; tell your administrator".to_owned(),
        ),
        _ => None,
    }
}

/// What is to be said of the extension: whether it is connected, of which version the last one was that said
/// so, and whether it does not see what there is.
fn extension(connected: bool, version: Option<&str>, blind: bool) -> Option<String> {
    let ours = crate::VERSION;
    match (connected, version.filter(|version| *version != ours)) {
        (false, None) => {
            Some(format!("the extension is not connected, nothing is metered: {START_EXTENSION}"))
        }
        (false, Some(other)) => Some(format!(
            "the extension that was heard last is of version {other}, this agent of {ours}; none is connected, nothing is metered: {REPLACE_EXTENSION}"
        )),
        (true, Some(other)) => {
            Some(format!("the extension is of version {other}, this agent of {ours}: {REPLACE_EXTENSION}"))
        }
        (true, None) if blind => Some(
            "the extension is connected but sees no connection, not even this agent's own: nothing is metered; the documentation says which causes are known"
                .to_owned(),
        ),
        (true, None) => None,
    }
}

/// What is to be said of a build that cannot tell our programs from others.
fn unsigned() -> Option<String> {
    (!toktra_peer::is_signed()).then(|| {
        "this build has no signature, so that the extension is known by its account alone: install the package that your administrator signed".to_owned()
    })
}

/// What is to be said of a configuration that cannot be used.
pub fn misconfigured(error: &str) -> String {
    format!("the configuration cannot be used, and what was in force before goes on: {error}")
}

/// What is to be said of a clock that is wrong.
pub(super) fn skew(ahead_s: i64) -> Option<String> {
    let by = ahead_s.unsigned_abs();
    let direction = if ahead_s > 0 { "ahead of" } else { "behind" };
    (by > SKEW_LIMIT_S).then(|| {
        format!("this machine's clock is {by} s {direction} the backend's: set it, for example by NTP")
    })
}

/// The backend's own hosts.
pub(super) fn own_hosts(domain: &ToktraDomain) -> Vec<String> {
    vec![domain.api_host(), domain.ingest_host(), domain.updates_host()]
}

/// Puts down who the device is.
pub fn describe(status: &mut Status, credential: Option<&Credential>, configured: Option<&ToktraDomain>) {
    crate::VERSION.clone_into(&mut status.agent_version);
    status.domain = configured.map(ToString::to_string);
    if let Some(credential) = credential {
        let enrolled = credential.enrolled();
        status.domain = Some(enrolled.domain.to_string());
        status.device = Some(enrolled.device);
        status.organisation = Some(enrolled.organisation.clone());
        status.department.clone_from(&enrolled.department);
        status.certificate_until = Some(credential.valid_until());
    }
}

/// Puts down what a directive has in force, the device's own count left out.
pub fn in_force(status: &mut Status, policy: Policy, now: UnixSeconds) {
    let in_force = policy.in_force(&[], Moment { wall: now, elapsed: Duration::ZERO });
    put_down(status, policy, in_force);
}

/// Puts down what is in force.
pub(super) fn put_down(status: &mut Status, policy: Policy, in_force: InForce) {
    let Some(directive) = policy.directive else { return };
    status.directive_version = Some(directive.version);
    status.directive_issued_at = Some(directive.issued_at);
    status.lock = in_force.lock;
    status.block = in_force.block;
    status.block_until = in_force.block_until;
    status.budgets = in_force.budgets;
    status.cap_opened = in_force.cap_opened;
    if in_force.cap_opened {
        status.degraded.push(CAP_OPENED.to_owned());
    }
}

/// What is to be said of the certificate's end.
pub fn expiry(credential: &Credential, now: UnixSeconds) -> Option<String> {
    let until = credential.valid_until();
    if now < until && until <= now.plus(EXPIRY_NOTICE_S) {
        let days = (until.0 - now.0) / (24 * 60 * 60);
        Some(format!(
            "the device certificate expires in {days} days and could not be renewed yet: is the backend within reach?"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_of_another_release_or_one_that_sees_nothing_is_said() {
        let ours = Some(crate::VERSION);
        assert_eq!(extension(true, ours, false), None);
        assert!(extension(false, None, false).unwrap().contains("not connected"));
        assert!(extension(false, ours, false).unwrap().contains("not connected"));
        for connected in [true, false] {
            let said = extension(connected, Some("0.0.9"), true).unwrap();
            assert!(said.contains("0.0.9") && said.contains(crate::VERSION), "{said}");
            assert!(said.contains(REPLACE_EXTENSION), "{said}");
        }
        assert!(extension(true, ours, true).unwrap().contains("sees no connection"));
    }
}
