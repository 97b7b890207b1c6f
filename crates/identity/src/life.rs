//! When a device enrols, renews and recovers: a state machine without I/O, clock or randomness.
//!
//! [`Life`] remembers only what the backend said last and when to ask again; everything else is a
//! fact that the caller brings each time. A decision is made on levels ("is it now past the time?"),
//! never on edges, so that a sleep, a step of the clock or a restart between two calls cannot lose
//! one. Drawn in `docs/identity.md`.
//!
//! Invariants: nothing is asked for sooner than it is due; a certificate is replaced on a time that
//! the backend has confirmed in this run and never on the device's own word alone; while the device
//! holds anything to ask with, it asks again some time; every wait has a bound.

use std::time::Duration;

use toktra_protocol::local::IdentityPhase;
use toktra_protocol::{Code, UnixSeconds};

/// Jitter of a renewal that the backend asked for, in seconds.
const ASKED_SPREAD_S: u64 = 60 * 60;
/// A certificate is that old, in seconds, before it is renewed because the backend asks: whatever
/// the backend asks for, it is asked for at most once in this time.
const ASKED_AGE_S: u64 = 60 * 60;
/// The backend dates certificates back by this much, in seconds.
const BACKDATE_S: u64 = 5 * 60;
/// First and longest wait after an attempt that failed.
const FAILED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(15 * 60));
/// While an administrator has yet to approve, and the backend does not say when to ask again.
const PENDING: Duration = Duration::from_secs(60);
/// The longest wait that the backend may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);
/// After a refusal that more attempts will not change, but that may not be final.
const REFUSED: Duration = Duration::from_secs(60 * 60);
/// After a revocation.
const REVOKED: Duration = Duration::from_secs(24 * 60 * 60);

/// The term of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its first second.
    pub from: UnixSeconds,
    /// Its last.
    pub until: UnixSeconds,
    /// Of the certificate and uniform over certificates: what spreads renewals, and stays.
    pub spread: u64,
}

impl Term {
    /// When the certificate is to be renewed: after two thirds of its term, give or take a twentieth
    /// of it; sooner if the certificate began before what the backend names in its directive.
    pub fn renews_at(&self, renew_before: Option<UnixSeconds>) -> UnixSeconds {
        let life = self.until.0.saturating_sub(self.from.0);
        let usual = self.from.plus(life / 3 * 2 - life / 20).plus(portion(life / 10, self.spread));
        match renew_before {
            Some(before) if self.from < before => {
                let asked = before.max(self.from.plus(BACKDATE_S + ASKED_AGE_S));
                usual.min(asked.plus(portion(ASKED_SPREAD_S, self.spread)))
            }
            _ => usual,
        }
    }
}

/// What is true when [`Life`] is asked.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The time, corrected by the backend's.
    pub now: UnixSeconds,
    /// Whether the backend has confirmed that time in this run.
    pub confirmed: bool,
    /// Time since any fixed moment of this run; it goes on while the machine sleeps.
    pub elapsed: Duration,
    /// The certificate that the device holds.
    pub term: Option<Term>,
    /// Whether the device holds an application: a token and the key to enrol with.
    pub applied: bool,
    /// What the directive in force asks for.
    pub renew_before: Option<UnixSeconds>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask with the application.
    Enrol,
    /// Ask for a new certificate with the one held.
    Renew,
    /// The same, with one that has expired.
    Recover,
    /// Ask the backend for the time, before anything is decided by it.
    AskTime,
    /// Nothing for so long, by what is known now. Ask again sooner if you like.
    Wait(Duration),
    /// There is nothing to ask with; a person must act.
    Stopped,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend gave what was asked for.
    Done,
    /// The backend refused.
    Refused {
        /// Why.
        code: Code,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nobody answered, or nothing that could be used.
    Failed,
}

/// What the caller does with what it keeps, after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything stays: the attempt will be repeated with the same key.
    All,
    /// The key that was to be certified goes; the next attempt makes another.
    NotTheKey,
    /// The application goes: its token will never be taken.
    NotTheApplication,
}

/// Why a device that held a certificate cannot go on with it, if this code says so.
pub fn is_lost(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownDevice | Code::RecoveryClosed | Code::CertificateSuperseded | Code::CertificateRequired
    )
}

/// How long everything that shows the certificate waits after a refusal that is about the device and
/// not about the request; `random` is uniform and spreads it by a tenth. `None`: it is not.
pub fn pause(code: Code, random: u64) -> Option<Duration> {
    let pause = match code {
        Code::Revoked => REVOKED,
        Code::Forbidden => REFUSED,
        code if is_lost(code) => REFUSED,
        _ => return None,
    };
    Some(pause + fraction(pause / 10, random))
}

/// What is kept after a step was refused as this.
pub fn keep(step: Step, code: Code) -> Keep {
    match (step, code) {
        (_, Code::KeyUsed) => Keep::NotTheKey,
        (
            Step::Enrol,
            Code::Denied | Code::TokenUnknown | Code::TokenUsed | Code::TokenClosed | Code::TokenExpired,
        ) => Keep::NotTheApplication,
        _ => Keep::All,
    }
}

/// What the device remembers of asking.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    enrolment: Pace,
    certificate: Pace,
}

impl Life {
    /// What to do now.
    pub fn next(&self, facts: &Facts) -> Step {
        let until = |pace: &Pace| pace.not_before.saturating_sub(facts.elapsed);
        let mut wait = None;
        if facts.applied {
            let rest = until(&self.enrolment);
            if rest.is_zero() {
                return Step::Enrol;
            }
            wait = Some(rest);
        }
        if let Some(term) = &facts.term {
            let expired = self.has_expired(facts, term);
            let due = term.renews_at(facts.renew_before);
            // By a clock that is behind, nothing would ever be due: an unconfirmed time is asked for at once.
            let is_due = expired || !facts.confirmed;
            let to_due = if is_due { 0 } else { due.0.saturating_sub(facts.now.0) };
            let rest = until(&self.certificate).max(Duration::from_secs(to_due));
            match (rest.is_zero(), facts.confirmed, expired) {
                (true, false, _) => return Step::AskTime,
                (true, true, true) => return Step::Recover,
                (true, true, false) => return Step::Renew,
                _ => wait = Some(wait.map_or(rest, |wait| rest.min(wait))),
            }
        }
        wait.map_or(Step::Stopped, Step::Wait)
    }

    /// What is going on, in the words of the status.
    pub fn phase(&self, facts: &Facts) -> IdentityPhase {
        match (&facts.term, self.certificate.refused) {
            (None, _) if facts.applied => IdentityPhase::Pending,
            (None, _) => IdentityPhase::Unenrolled,
            (Some(_), Some(Code::Revoked)) => IdentityPhase::Revoked,
            (Some(_), Some(code)) if is_lost(code) => IdentityPhase::Lost,
            (Some(term), _) if self.has_expired(facts, term) => IdentityPhase::Recovering,
            (Some(term), _) if term.renews_at(facts.renew_before) <= facts.now => IdentityPhase::Renewing,
            (Some(_), _) => IdentityPhase::Enrolled,
        }
    }

    /// Why the backend refused last, if it did.
    pub fn refused(&self) -> Option<Code> {
        self.certificate.refused.or(self.enrolment.refused)
    }

    /// Notes what came of a step; `random` is uniform. Also what became of [`Step::AskTime`].
    pub fn note(&mut self, step: Step, outcome: Outcome, elapsed: Duration, random: u64) -> Keep {
        let pace = if step == Step::Enrol { &mut self.enrolment } else { &mut self.certificate };
        match outcome {
            Outcome::Done if step == Step::AskTime => {
                pace.not_before = elapsed;
                Keep::All
            }
            Outcome::Done => {
                *self = Self::default();
                Keep::All
            }
            Outcome::Failed => {
                pace.failed(None, elapsed, random);
                Keep::All
            }
            Outcome::Refused { code, retry_after } => {
                pace.refused = Some(code);
                pace.refuse(code, retry_after, elapsed, random);
                keep(step, code)
            }
        }
    }

    /// Another request that showed the certificate held was refused as this.
    pub fn note_refusal(&mut self, code: Code, elapsed: Duration, random: u64) {
        let pace = &mut self.certificate;
        if let Some(pause) = pause(code, random) {
            if pace.refused != Some(code) {
                pace.not_before = pace.not_before.max(elapsed.saturating_add(pause));
            }
            pace.refused = Some(code);
        } else if matches!(code, Code::CertificateExpired | Code::ClockSkew)
            // Nor is a certificate less lost or revoked for having expired.
            && pace.refused.is_none_or(|refused| pause(refused, 0).is_none())
        {
            pace.refused = Some(code);
        }
    }

    /// The machine was asleep: attempts that failed before say nothing about the network it woke in.
    pub fn wake(&mut self) {
        (self.enrolment.failures, self.certificate.failures) = (0, 0);
    }

    /// Another request that showed the certificate held was answered: it is good.
    pub fn note_accepted(&mut self) {
        if self.certificate.refused.is_some() {
            self.certificate = Pace::default();
        }
    }

    /// There is a new application: nothing said of a former one holds.
    pub fn apply(&mut self) {
        self.enrolment = Pace::default();
    }

    fn has_expired(&self, facts: &Facts, term: &Term) -> bool {
        term.until <= facts.now || self.certificate.refused == Some(Code::CertificateExpired)
    }
}

/// When to ask again.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    failures: u32,
    not_before: Duration,
    refused: Option<Code>,
}

impl Pace {
    fn refuse(&mut self, code: Code, asked: Option<Duration>, elapsed: Duration, random: u64) {
        let passing = [
            Code::RateLimited,
            Code::Busy,
            Code::Internal,
            Code::ClockSkew,
            Code::KeyUsed,
            Code::CertificateExpired,
        ];
        if passing.contains(&code) {
            return self.failed(asked, elapsed, random);
        }
        let wait = match code {
            Code::Pending => spread(asked.unwrap_or(PENDING).clamp(PENDING / 4, LONGEST_ASKED), random),
            _ => pause(code, random).unwrap_or_else(|| spread(REFUSED, random)),
        };
        self.failures = 0;
        self.not_before = elapsed.saturating_add(wait);
    }

    /// Doubling, half of it random; what the backend asks is not undercut.
    fn failed(&mut self, asked: Option<Duration>, elapsed: Duration, random: u64) {
        let bound = FAILED.0.saturating_mul(1 << self.failures.min(8)).min(FAILED.1);
        self.failures = self.failures.saturating_add(1);
        let own = bound / 2 + fraction(bound / 2, random);
        let wait = asked.map_or(own, |asked| own.max(spread(asked.min(LONGEST_ASKED), random)));
        self.not_before = elapsed.saturating_add(wait);
    }
}

fn spread(wait: Duration, random: u64) -> Duration {
    wait + fraction(wait / 10, random)
}

fn fraction(bound: Duration, random: u64) -> Duration {
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

/// `spread` of 2⁶⁴ parts of `bound`.
fn portion(bound: u64, spread: u64) -> u64 {
    ((u128::from(bound) * u128::from(spread)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn term(spread: u64) -> Term {
        Term { from: UnixSeconds(1_000 * DAY), until: UnixSeconds(1_090 * DAY), spread }
    }

    fn facts(day: f64) -> Facts {
        Facts {
            now: UnixSeconds((day * DAY as f64) as u64),
            confirmed: true,
            elapsed: Duration::ZERO,
            term: Some(term(u64::MAX / 2)),
            applied: false,
            renew_before: None,
        }
    }

    fn refusal(code: Code) -> Outcome {
        Outcome::Refused { code, retry_after: None }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_give_or_take_a_twentieth() {
        let day = |spread| term(spread).renews_at(None).0 as f64 / DAY as f64 - 1_000.0;
        assert_eq!(day(0), 55.5);
        assert!((day(u64::MAX) - 64.5).abs() < 0.001);
        assert!((day(u64::MAX / 2) - 60.0).abs() < 0.001);
        let life = Life::default();
        assert!(matches!(life.next(&facts(1_059.9)), Step::Wait(wait) if wait.as_secs() <= DAY / 10));
        assert_eq!(life.next(&facts(1_060.1)), Step::Renew);
        assert_eq!(life.next(&facts(1_090.0)), Step::Recover);
    }

    #[test]
    fn what_the_backend_asks_for_is_done_within_an_hour_and_once() {
        let before = UnixSeconds(1_010 * DAY);
        for spread in [0, u64::MAX / 2, u64::MAX] {
            let at = term(spread).renews_at(Some(before));
            assert!(at >= before && at <= before.plus(ASKED_SPREAD_S));
        }
        // One that begins at that moment is not renewed again, one that began before is.
        let new = Term { from: before, until: before.plus(90 * DAY), spread: 0 };
        assert_eq!(new.renews_at(Some(before)), new.renews_at(None));
        let last = Term { from: UnixSeconds(before.0 - 1), ..new };
        assert_eq!(last.renews_at(Some(before)), last.from.plus(BACKDATE_S + ASKED_AGE_S));
        // Nor does a backend whose wishes cannot be met make it hurry.
        let future = before.plus(DAY * 400);
        assert!(new.renews_at(Some(future)) >= new.from.plus(ASKED_AGE_S));
    }

    #[test]
    fn by_an_unconfirmed_time_nothing_is_replaced_but_the_time_is_asked() {
        let unsure = Facts { confirmed: false, ..facts(1_095.0) };
        let mut life = Life::default();
        assert_eq!(life.next(&unsure), Step::AskTime);
        life.note(Step::AskTime, Outcome::Failed, Duration::ZERO, 0);
        assert!(matches!(life.next(&unsure), Step::Wait(_)));
        life.note(Step::AskTime, Outcome::Done, Duration::from_secs(60), 0);
        let sure = Facts { elapsed: Duration::from_secs(60), ..facts(1_061.0) };
        assert_eq!(life.next(&sure), Step::Renew);
    }

    #[test]
    fn a_backend_that_calls_the_certificate_expired_is_believed() {
        let mut life = Life::default();
        life.note_refusal(Code::CertificateExpired, Duration::ZERO, 0);
        assert_eq!(life.next(&facts(1_010.0)), Step::Recover);
        assert_eq!(life.phase(&facts(1_010.0)), IdentityPhase::Recovering);
        life.note(Step::Recover, Outcome::Done, Duration::ZERO, 0);
        assert_eq!(life.phase(&facts(1_010.0)), IdentityPhase::Enrolled);
    }

    #[test]
    fn what_is_lost_is_not_said_to_recover_because_it_has_also_expired() {
        let mut life = Life::default();
        life.note(Step::Recover, refusal(Code::RecoveryClosed), Duration::ZERO, 0);
        life.note_refusal(Code::CertificateExpired, Duration::ZERO, 0);
        assert_eq!(life.phase(&facts(1_300.0)), IdentityPhase::Lost);
        assert_eq!(life.refused(), Some(Code::RecoveryClosed));
    }

    #[test]
    fn each_refusal_has_its_own_answer() {
        let at = Duration::from_secs(10);
        let applied = Facts { term: None, applied: true, elapsed: at, ..facts(1_000.0) };
        let ask = |code| {
            let mut life = Life::default();
            let keep = life.note(Step::Enrol, refusal(code), at, 0);
            let Step::Wait(wait) = life.next(&applied) else { panic!("{code:?} is asked again at once") };
            (keep, wait.as_secs())
        };
        assert_eq!(ask(Code::Pending), (Keep::All, 60));
        assert_eq!(ask(Code::TokenUsed).0, Keep::NotTheApplication);
        assert_eq!(ask(Code::Denied).0, Keep::NotTheApplication);
        assert_eq!(ask(Code::KeyUsed).0, Keep::NotTheKey);
        assert_eq!(ask(Code::Busy), (Keep::All, 7));
        assert_eq!(ask(Code::BadCsr), (Keep::All, 3600));
        let due = Facts { elapsed: at, ..facts(1_070.0) };
        for (code, phase, wait) in [
            (Code::Revoked, IdentityPhase::Revoked, DAY),
            (Code::UnknownDevice, IdentityPhase::Lost, 3600),
            (Code::RecoveryClosed, IdentityPhase::Lost, 3600),
            (Code::CertificateSuperseded, IdentityPhase::Lost, 3600),
            (Code::ClockSkew, IdentityPhase::Renewing, 7),
        ] {
            let mut life = Life::default();
            life.note(Step::Renew, refusal(code), at, 0);
            assert_eq!(life.phase(&due), phase, "{code:?}");
            assert_eq!(life.refused(), Some(code));
            assert!(matches!(life.next(&due), Step::Wait(w) if w.as_secs() == wait), "{code:?}");
            life.note_accepted();
            assert_eq!((life.phase(&due), life.refused()), (IdentityPhase::Renewing, None));
        }
    }

    #[test]
    fn what_the_backend_asks_to_wait_is_not_undercut_and_has_a_bound() {
        let mut life = Life::default();
        let ask = |life: &mut Life, seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            let outcome = Outcome::Refused { code: Code::RateLimited, retry_after };
            life.note(Step::Renew, outcome, Duration::ZERO, 0);
            match life.next(&facts(1_070.0)) {
                Step::Wait(wait) => wait.as_secs(),
                step => panic!("{step:?}"),
            }
        };
        assert_eq!(ask(&mut life, 120), 120);
        assert_eq!(ask(&mut life, u64::MAX), 3600);
        for _ in 0..100 {
            life.note(Step::Renew, Outcome::Failed, Duration::ZERO, u64::MAX);
        }
        assert!(matches!(life.next(&facts(1_070.0)), Step::Wait(wait) if wait.as_secs() == 900));
    }

    #[test]
    fn with_nothing_to_ask_with_it_stops() {
        let nothing = Facts { term: None, ..facts(1_000.0) };
        assert_eq!(Life::default().next(&nothing), Step::Stopped);
        assert_eq!(Life::default().phase(&nothing), IdentityPhase::Unenrolled);
    }
}
