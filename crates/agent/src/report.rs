//! The status for people: one aligned line for each fact, then what is not as it should be;
//! and the budgets in the words of the menu. Times are in the machine's zone.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use toktra_menu::words::{self, MESSAGE_LIMIT, NAME_LIMIT, moment};
use toktra_menu::{Situation, personal as menu};
use toktra_protocol::budget::Unit;
use toktra_protocol::local::{IdentityPhase, Status};
use toktra_protocol::personal::control::PersonalStatus;
use toktra_protocol::privacy::PrivacyHours;
use toktra_protocol::{Budget, UnixSeconds};

const LABEL_WIDTH: usize = 14;
/// Labels of a budget's facts are short.
const FACT_WIDTH: usize = 8;
/// Those of personal mode are a little longer.
const PERSONAL_WIDTH: usize = 10;

/// The status as text.
pub fn text(status: &Status, now: UnixSeconds, zone: &TimeZone) -> String {
    let mut text = format!("Toktra agent {}\n", status.agent_version);
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {label:<LABEL_WIDTH$}  {value}");
    };
    let domain = status.domain.as_deref().unwrap_or("no domain configured");
    match &status.device {
        Some(device) => line("Enrolled", format!("with {domain} as {device}")),
        None => line("Enrolled", format!("no ({domain})")),
    }
    if let Some(organisation) = &status.organisation {
        let department = status.department.as_ref().map(|name| format!(", department {name}"));
        line("Organisation", format!("{organisation}{}", department.unwrap_or_default()));
    }
    if let Some(until) = status.certificate_until {
        line("Certificate", format!("until {}", moment(until, now, zone)));
    }
    if let Some(words) = identity(status, now, zone) {
        line("Identity", words);
    }
    let flush = status.last_flush.map(|at| moment(at, now, zone));
    line("Last flush", flush.unwrap_or_else(|| "none since the agent started".to_owned()));
    if let Some(error) = &status.last_error {
        line("Last error", error.clone());
    }
    line("Waiting", events(status.events_waiting));
    line("Acknowledged", events(status.acknowledged));
    line("Dropped", events(status.events_dropped));
    line("Extension", extension(status));
    let issued = status.directive_issued_at.map(|at| format!(", issued {}", moment(at, now, zone)));
    let directive =
        status.directive_version.map(|version| format!("version {version}{}", issued.unwrap_or_default()));
    line("Directive", directive.unwrap_or_else(|| "none".to_owned()));
    line("Lock", status.lock.as_ref().map_or("no".to_owned(), |lock| format!("yes: {}", lock.message)));
    line("Block", block(status, now, zone));
    if let Some(privacy) = &status.privacy {
        line("Privacy hours", words::privacy_hours(privacy, now, zone));
    }
    if let Some(ledger) = status.personal.as_ref().and_then(|personal| personal.ledger.as_ref()) {
        line("Personal mode", menu::glance(ledger, &Situation { status: None, now, zone }));
    }
    for (index, budget) in status.budgets.iter().enumerate() {
        line(if index == 0 { "Budgets" } else { "" }, words::glance(budget));
    }
    if status.degraded.is_empty() {
        text.push_str("All is well.\n");
    } else {
        text.push_str("Not as it should be:\n");
        for words in &status.degraded {
            let _ = writeln!(text, "  - {words}");
        }
    }
    text
}

/// The budgets as text.
pub fn budgets(status: &Status, now: UnixSeconds, zone: &TimeZone) -> String {
    let mut text = String::new();
    if let Some(lock) = &status.lock {
        let _ = writeln!(text, "Locked by an administrator: {}", words::clean(&lock.message, MESSAGE_LIMIT));
    }
    if status.block.is_some() {
        let _ = writeln!(text, "Blocked: {}", block(status, now, zone));
    }
    if status.cap_opened {
        text.push_str("A hard cap is open: the backend has been out of reach too long.\n");
    }
    if status.budgets.is_empty() {
        text.push_str("No budget applies to this device.\n");
    }
    for budget in &status.budgets {
        one_budget(&mut text, budget, now, zone);
    }
    if let Some(issued) = status.directive_issued_at {
        let _ = writeln!(
            text,
            "As the backend knew {}, and what this device used since.",
            words::distance(issued, now)
        );
    }
    text
}

/// Privacy hours as text.
pub fn privacy(privacy: &PrivacyHours, now: UnixSeconds, zone: &TimeZone) -> String {
    let mut text = format!("Privacy hours: {}.\n", words::privacy_hours(privacy, now, zone));
    if let Some(error) = &privacy.unreadable {
        let _ = writeln!(text, "Your windows cannot be read; set them again: {error}");
    }
    for window in &privacy.windows {
        let _ = writeln!(text, "  {}", words::window(window));
    }
    let zone = privacy.zone.as_deref().unwrap_or("this machine's zone");
    let _ = writeln!(text, "Times are in {zone}. Nothing is recorded and no usage is sent in these hours.");
    text
}

/// Personal mode as text.
pub fn personal(status: &PersonalStatus, now: UnixSeconds, zone: &TimeZone) -> String {
    let mut text = String::new();
    if let Some(error) = &status.unreadable {
        let _ = writeln!(text, "Who opted in cannot be read, so personal mode is off; opt in anew: {error}");
    }
    let situation = Situation { status: None, now, zone };
    match (&status.ledger, &status.perks) {
        (Some(ledger), _) => {
            let _ = writeln!(text, "Personal mode: {}.", menu::glance(ledger, &situation));
            if ledger.mode.is_personal() {
                let _ = writeln!(text, "{}.", menu::headline(ledger, &situation));
            }
            for (label, value) in menu::facts(ledger) {
                let _ = writeln!(text, "  {label:<PERSONAL_WIDTH$}  {value}");
            }
            if let Some(error) = &ledger.last_error {
                let _ = writeln!(
                    text,
                    "  {:<PERSONAL_WIDTH$}  {}",
                    "Last error",
                    words::clean(error, MESSAGE_LIMIT)
                );
            }
        }
        (None, Some(perks)) => {
            let _ = writeln!(
                text,
                "Personal mode is offered to you: {}, {} a month. To opt in: toktra-agent personal opt-in",
                words::clean(&perks.tier, NAME_LIMIT),
                words::amount(Unit::Tokens, perks.monthly_tokens)
            );
        }
        (None, None) => text.push_str("Personal mode is not offered.\n"),
    }
    text
}

fn one_budget(text: &mut String, budget: &Budget, now: UnixSeconds, zone: &TimeZone) {
    let name = words::clean(&budget.name, NAME_LIMIT);
    let _ = writeln!(text, "{name}: {} (counts {})", words::glance(budget), words::scope(budget.scope));
    let facts = words::facts(budget, now, zone).into_iter();
    for (label, value) in facts.chain([("Id", words::clean(&budget.id, NAME_LIMIT))]) {
        let _ = writeln!(text, "  {label:<FACT_WIDTH$}  {value}");
    }
}

/// What is going on with the identity, where there is something to say.
fn identity(status: &Status, now: UnixSeconds, zone: &TimeZone) -> Option<String> {
    let phase = match status.identity.phase {
        IdentityPhase::Unenrolled => return None,
        IdentityPhase::Pending => "awaits an administrator's approval",
        IdentityPhase::Enrolled => "well",
        IdentityPhase::Renewing => "gets a new certificate",
        IdentityPhase::Recovering => "recovers with an expired certificate",
        IdentityPhase::Revoked => "revoked by an administrator",
        IdentityPhase::Lost => "not known to the backend: enrol the device again",
    };
    let renews = status.identity.renews_at.map(|at| format!(", renews {}", moment(at, now, zone)));
    let refused = status.identity.refused.map(|code| format!("; the backend said {}", code.name()));
    Some(format!("{phase}{}{}", renews.unwrap_or_default(), refused.unwrap_or_default()))
}

fn events(count: u64) -> String {
    format!("{count} {}", if count == 1 { "event" } else { "events" })
}

fn extension(status: &Status) -> String {
    match (status.extension_connected, &status.health) {
        (false, _) => "not connected".to_owned(),
        (true, None) => "connected".to_owned(),
        (true, Some(health)) => format!(
            "connected; of {} connections {} metered, {} blocked",
            health.flows_seen, health.flows_metered, health.flows_blocked
        ),
    }
}

fn block(status: &Status, now: UnixSeconds, zone: &TimeZone) -> String {
    let Some(block) = &status.block else { return "no".to_owned() };
    let until = block.until.map(|until| format!(", until {}", moment(until, now, zone)));
    let message = words::clean(&block.message, MESSAGE_LIMIT);
    format!("{}{}: {message}", words::why_blocked(block), until.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use toktra_protocol::budget::{Period, Scope};
    use toktra_protocol::{Block, BlockReason, DeviceId, Estimate};

    use super::*;

    fn budget(now: UnixSeconds) -> Budget {
        Budget {
            id: "b-7".into(),
            name: "Research".into(),
            scope: Scope::Department,
            unit: Unit::Micros,
            period: Period::Weekly,
            period_start: now,
            period_end: now.plus(86_400 * 3),
            limit: 100_000_000,
            spent: Estimate { low: 30_000_000, point: 38_000_000, high: 45_000_000 },
            tokens_unpriced: 1_000_000,
            thresholds: vec![90],
            hard: false,
            exempt_until: None,
        }
    }

    #[test]
    fn a_budget_has_all_its_facts_and_its_identifier() {
        let now = UnixSeconds(784_111_777);
        let issued = Some(UnixSeconds(now.0 - 180));
        let status = Status { budgets: vec![budget(now)], directive_issued_at: issued, ..Status::default() };
        assert_eq!(
            budgets(&status, now, &TimeZone::UTC),
            "Research: 62 % of Research left (counts the department)
  Spent     $38.00 (between $30.00 and $45.00)
  Unpriced  1.00 M tokens without a known price, not in these dollars
  Left      $62.00 of $100.00
  Limit     soft: warns at 90 %, never blocks
  Period    weekly, ends Wed 9 Nov 1994, 08:49 (in 3 days)
  Id        b-7
As the backend knew 3 min ago, and what this device used since.
"
        );
        assert_eq!(budgets(&Status::default(), now, &TimeZone::UTC), "No budget applies to this device.\n");
    }

    #[test]
    fn every_fact_has_its_line() {
        let now = UnixSeconds(784_111_777);
        let status = Status {
            agent_version: "0.1.0".into(),
            domain: Some("acme.example".into()),
            device: Some(DeviceId::from_u128(7)),
            organisation: Some("Acme".into()),
            department: Some("Research".into()),
            certificate_until: Some(now.plus(86_400 * 89)),
            last_flush: Some(UnixSeconds(now.0 - 5)),
            events_waiting: 1,
            acknowledged: 12,
            extension_connected: true,
            directive_version: Some(5),
            block: Some(Block {
                reason: BlockReason::Budget,
                message: "Ask Ms Lee.".into(),
                providers: vec!["openai".into()],
                until: Some(now.plus(86_400 * 3)),
                budget: None,
            }),
            budgets: vec![budget(now)],
            degraded: vec!["something".into()],
            ..Status::default()
        };
        assert_eq!(
            text(&status, now, &TimeZone::UTC),
            "Toktra agent 0.1.0
  Enrolled        with acme.example as 00000000-0000-0000-0000-000000000007
  Organisation    Acme, department Research
  Certificate     until Fri 3 Feb 1995, 08:49 (in 89 days)
  Last flush      Sun 6 Nov 1994, 08:49 (5 s ago)
  Waiting         1 event
  Acknowledged    12 events
  Dropped         0 events
  Extension       connected
  Directive       version 5
  Lock            no
  Block           openai, the budget is spent, until Wed 9 Nov 1994, 08:49 (in 3 days): Ask Ms Lee.
  Budgets         62 % of Research left
Not as it should be:
  - something
"
        );
    }

    #[test]
    fn any_number_makes_a_text() {
        let status = Status { certificate_until: Some(UnixSeconds(u64::MAX)), ..Status::default() };
        assert!(text(&status, UnixSeconds(0), &TimeZone::UTC).contains("9999"));
    }
}
