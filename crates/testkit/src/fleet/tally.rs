//! What happened in a year, in numbers, and which of them are not as they must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toktra_pki::rotation::{Line, Step};
use toktra_protocol::Code;
use toktra_protocol::local::IdentityPhase;

use super::{DAY, MINUTE};

/// A certificate is renewed on time between these ages, in days: two thirds of ninety days, give or
/// take a twentieth of them, and the five minutes that it was dated back.
const RENEWAL_DAYS: (f64, f64) = (55.4, 64.6);
/// With so many renewals on time, their ages must cover most of that.
const ENOUGH_RENEWALS: u64 = 40;

/// The numbers.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the table says what they are")]
pub struct Tally {
    pub opened_lids: u64,
    pub longest_sleep: u64,
    pub machine_restarts: u64,
    pub clock_steps: u64,
    pub requests: u64,
    pub lost: u64,
    pub backend_down: u64,
    pub disbelieved: u64,
    pub server_restarts: u64,
    pub approvals: u64,
    pub enrolments: u64,
    pub renewals: u64,
    pub asked_renewals: u64,
    pub recoveries: u64,
    pub certificates_lost: u64,
    pub same_certificates: u64,
    pub other_certificates: u64,
    pub longest_gap: u64,
    pub longest_delay: u64,
    pub on_time: u64,
    pub renewal_ages: Option<(u64, u64)>,
    pub spreads: Option<(u64, u64)>,
    pub refusals: BTreeMap<&'static str, u64>,
    pub issued: Vec<(String, u64)>,
    pub rotations: Vec<String>,
    pub phases: BTreeMap<String, u64>,
    pub dead_ends: BTreeMap<String, u64>,
    pub audited: i64,
    pub events: u64,
    stopped: BTreeSet<String>,
    unheeded: BTreeSet<String>,
}

impl Tally {
    pub(super) fn refused(&mut self, code: Code) {
        *self.refusals.entry(code.name()).or_default() += 1;
    }

    pub(super) fn certificate(&mut self, issuer: &str, spread: u64) {
        match self.issued.iter_mut().find(|(id, _)| id == issuer) {
            Some((_, count)) => *count += 1,
            None => self.issued.push((issuer.to_owned(), 1)),
        }
        widen(&mut self.spreads, spread);
    }

    pub(super) fn given_again(&mut self, is_same: bool) {
        *if is_same { &mut self.same_certificates } else { &mut self.other_certificates } += 1;
    }

    pub(super) fn renewed_on_time_at(&mut self, age: u64) {
        self.on_time += 1;
        widen(&mut self.renewal_ages, age);
    }

    /// From when it was due and the machine was online, where nothing was lost.
    pub(super) fn delay(&mut self, delay: u64) {
        self.longest_delay = self.longest_delay.max(delay);
    }

    pub(super) fn stopped(&mut self, hostname: &str) {
        self.stopped.insert(hostname.to_owned());
    }

    pub(super) fn unheeded(&mut self, hostname: &str) {
        self.unheeded.insert(hostname.to_owned());
    }

    pub(super) fn phase(&mut self, phase: IdentityPhase) {
        if matches!(phase, IdentityPhase::Lost | IdentityPhase::Revoked | IdentityPhase::Unenrolled) {
            *self.dead_ends.entry(format!("{phase:?}")).or_default() += 1;
        }
    }

    pub(super) fn ended(&mut self, phase: IdentityPhase) {
        *self.phases.entry(format!("{phase:?}")).or_default() += 1;
    }

    pub(super) fn rotated(&mut self, day: u64, line: Line, step: Step, dependent: u64) {
        let rest = if step == Step::Retire {
            format!(", {dependent} devices left on the old one")
        } else {
            String::new()
        };
        self.rotations.push(format!("day {day:>3}: {} {}{rest}", line.name(), step.name()));
    }

    /// What is not as it must be.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut demand = |holds: bool, complaint: String| {
            if !holds {
                complaints.push(complaint);
            }
        };
        demand(
            self.stopped.is_empty(),
            format!("devices that had nothing left to ask with: {:?}", self.stopped),
        );
        demand(self.unheeded.is_empty(), format!("asked to renew, these did not: {:?}", self.unheeded));
        demand(self.dead_ends.is_empty(), format!("devices were at a dead end: {:?}", self.dead_ends));
        for code in FINAL.iter().map(|code| code.name()).filter(|code| self.refusals.contains_key(code)) {
            demand(false, format!("{} requests were refused as {code}", self.refusals[code]));
        }
        demand(self.recoveries > 0, "no device recovered: the lids were not closed for long enough".into());
        demand(self.certificates_lost > 0, "no certificate was lost on its way".into());
        demand(
            self.other_certificates == 0,
            format!("{} lost answers were followed by another certificate", self.other_certificates),
        );
        demand(
            self.longest_delay <= MINUTE,
            format!("a device that lost nothing was {} s late", self.longest_delay),
        );
        if self.on_time >= ENOUGH_RENEWALS {
            let days = |seconds: u64| seconds as f64 / DAY as f64;
            let (first, last) = self.renewal_ages.map_or((0., 0.), |(first, last)| (days(first), days(last)));
            demand(
                first >= RENEWAL_DAYS.0 && last <= RENEWAL_DAYS.1 && last - first > 6.0,
                format!("renewals came after {first:.1} to {last:.1} days, not spread over {RENEWAL_DAYS:?}"),
            );
            let (least, most) = self.spreads.unwrap_or_default();
            let is_spread = least < u64::MAX / 20 && most > u64::MAX / 20 * 19;
            demand(is_spread, "the certificates' own spread covers little".into());
        }
        complaints
    }
}

/// Codes that no device may ever see in a year without a person's mistake.
const FINAL: [Code; 10] = [
    Code::Revoked,
    Code::UnknownDevice,
    Code::RecoveryClosed,
    Code::CertificateRequired,
    Code::CertificateSuperseded,
    Code::Denied,
    Code::TokenUnknown,
    Code::TokenUsed,
    Code::TokenClosed,
    Code::TokenExpired,
];

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |seconds: u64| format!("{:.1} days", seconds as f64 / DAY as f64);
        let ages = self
            .renewal_ages
            .map_or(String::new(), |(first, last)| format!("{} to {}", days(first), days(last)));
        let mut row = |name: &str, value: String| writeln!(f, "| {name} | {value} |");
        row("what", "how many".into())?;
        row("---", "---".into())?;
        row("lids opened", self.opened_lids.to_string())?;
        row("longest sleep", days(self.longest_sleep))?;
        row(
            "restarts of machines, of the server",
            format!("{}, {}", self.machine_restarts, self.server_restarts),
        )?;
        row("clocks set wrong, by minutes to years", self.clock_steps.to_string())?;
        row("requests answered", self.requests.to_string())?;
        row("requests or answers lost, server down", format!("{}, {}", self.lost, self.backend_down))?;
        row("connections that were not believed", self.disbelieved.to_string())?;
        row("enrolments, of these approved by hand", format!("{}, {}", self.enrolments, self.approvals))?;
        row("renewals, of these because asked for", format!("{}, {}", self.renewals, self.asked_renewals))?;
        row("recoveries with an expired certificate", self.recoveries.to_string())?;
        row("certificates lost on their way", self.certificates_lost.to_string())?;
        row(
            "of these given again; another given",
            format!("{}; {}", self.same_certificates, self.other_certificates),
        )?;
        row("longest time without a valid certificate (asleep)", days(self.longest_gap))?;
        row("longest delay of who was online and lost nothing", format!("{} s", self.longest_delay))?;
        row("renewals on time, and after", format!("{}, {ages}", self.on_time))?;
        row("refusals", format!("{:?}", self.refusals))?;
        row(
            "certificates by intermediate, in their order",
            format!("{:?}", self.issued.iter().map(|(_, count)| count).collect::<Vec<_>>()),
        )?;
        row("events stored, each once", self.events.to_string())?;
        row("rows of the audit trail, chained", self.audited.to_string())?;
        row("devices in the end", format!("{:?}", self.phases))?;
        self.rotations.iter().try_for_each(|rotation| row("rotation", rotation.clone()))
    }
}

fn widen(range: &mut Option<(u64, u64)>, value: u64) {
    let (least, most) = range.unwrap_or((value, value));
    *range = Some((least.min(value), most.max(value)));
}
