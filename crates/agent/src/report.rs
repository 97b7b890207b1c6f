//! The status for people: one aligned line for each fact, then what is not as it should be.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use toktra_protocol::local::Status;
use toktra_protocol::{BlockReason, UnixSeconds};

const LABEL_WIDTH: usize = 14;

/// The status as text.
pub fn text(status: &Status, now: UnixSeconds) -> String {
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
        line("Certificate", format!("until {} ({})", date(until), distance(until, now)));
    }
    let flush = status.last_flush.map(|at| format!("{} ({})", date(at), distance(at, now)));
    line("Last flush", flush.unwrap_or_else(|| "none since the agent started".to_owned()));
    if let Some(error) = &status.last_error {
        line("Last error", error.clone());
    }
    line("Waiting", events(status.events_waiting));
    line("Acknowledged", events(status.acknowledged));
    line("Dropped", events(status.events_dropped));
    line("Extension", extension(status));
    let issued = status.directive_issued_at.map(|at| format!(", issued {}", date(at))).unwrap_or_default();
    let directive = status.directive_version.map(|version| format!("version {version}{issued}"));
    line("Directive", directive.unwrap_or_else(|| "none".to_owned()));
    line("Lock", status.lock.as_ref().map_or("no".to_owned(), |lock| format!("yes: {}", lock.message)));
    line("Block", block(status));
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

fn block(status: &Status) -> String {
    let Some(block) = &status.block else { return "no".to_owned() };
    let reason = match block.reason {
        BlockReason::Budget => "the budget is spent",
        BlockReason::Lock => "an administrator's lock",
        BlockReason::Provider => "an administrator's choice",
    };
    let what =
        if block.providers.is_empty() { "every provider".to_owned() } else { block.providers.join(", ") };
    format!("{what}, {reason}: {}", block.message)
}

/// A time in UTC, as HTTP writes it.
fn date(at: UnixSeconds) -> String {
    // Year 9999 is where that form ends.
    let at = UNIX_EPOCH + Duration::from_secs(at.0.min(253_402_300_799));
    httpdate::fmt_http_date(at)
}

fn distance(at: UnixSeconds, now: UnixSeconds) -> String {
    let apart = match at.0.abs_diff(now.0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    };
    if at > now { format!("in {apart}") } else { format!("{apart} ago") }
}

#[cfg(test)]
mod tests {
    use toktra_protocol::{Block, DeviceId};

    use super::*;

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
                until: None,
                budget: None,
            }),
            degraded: vec!["something".into()],
            ..Status::default()
        };
        assert_eq!(
            text(&status, now),
            "Toktra agent 0.1.0
  Enrolled        with acme.example as 00000000-0000-0000-0000-000000000007
  Organisation    Acme, department Research
  Certificate     until Fri, 03 Feb 1995 08:49:37 GMT (in 89 days)
  Last flush      Sun, 06 Nov 1994 08:49:32 GMT (5 s ago)
  Waiting         1 event
  Acknowledged    12 events
  Dropped         0 events
  Extension       connected
  Directive       version 5
  Lock            no
  Block           openai, the budget is spent: Ask Ms Lee.
Not as it should be:
  - something
"
        );
    }

    #[test]
    fn any_number_makes_a_text() {
        let status = Status { certificate_until: Some(UnixSeconds(u64::MAX)), ..Status::default() };
        assert!(text(&status, UnixSeconds(0)).contains("9999"));
    }
}
