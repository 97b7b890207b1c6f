//! Amounts, shares and times for people, and what is to be said of a budget. The menu, the
//! notifications and the command line use the same words.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::privacy::{PrivacyHours, Source, SourcedWindow};
use toktra_protocol::{Block, Budget, Estimate, UnixSeconds};

use crate::state;

/// Longest name that is shown whole, in characters.
pub const NAME_LIMIT: usize = 60;
/// Longest message that is shown whole, in characters.
pub const MESSAGE_LIMIT: usize = 300;
/// The last second that a calendar can write everywhere.
const LAST_SECOND: u64 = 253_402_200_000;

/// A text from elsewhere, fit to be shown in one line: without control characters or such as
/// turn the direction of writing, and cut at `limit` characters.
pub fn clean(text: &str, limit: usize) -> String {
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let mut shown: String = text
        .chars()
        .filter(|&c| !turns(c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limit + 1)
        .collect();
    if shown.chars().count() > limit {
        shown = shown.chars().take(limit.saturating_sub(1)).chain(['…']).collect();
    }
    shown.trim().to_owned()
}

/// An amount with its unit: `12.3 M tokens`, `$4.50`.
pub fn amount(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Tokens => format!("{} tokens", short(value)),
        Unit::Micros => dollars(value),
    }
}

/// An estimate: its point, and its interval where it has one.
pub fn estimate(unit: Unit, estimate: Estimate) -> String {
    let point = amount(unit, estimate.point);
    let bound = |value| match unit {
        Unit::Tokens => short(value),
        Unit::Micros => dollars(value),
    };
    let (low, high) = (bound(estimate.low), bound(estimate.high));
    if low == high { point } else { format!("{point} (between {low} and {high})") }
}

/// Three significant digits and a power of a thousand: `999`, `1.00 k`, `12.3 M`.
fn short(value: u64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if value < 1000 {
        return value.to_string();
    }
    let mut power = 1000_u128;
    let value = u128::from(value);
    for (index, unit) in UNITS.iter().enumerate() {
        let last = index + 1 == UNITS.len();
        for (below, digits) in [(10, 2), (100, 1), (1000, 0)] {
            let scale = 10_u128.pow(digits);
            let rounded = (value * scale + power / 2) / power;
            if rounded < below * scale || (last && digits == 0) {
                return decimal(rounded, scale, digits as usize, unit);
            }
        }
        power *= 1000;
    }
    value.to_string()
}

fn decimal(rounded: u128, scale: u128, digits: usize, unit: &str) -> String {
    match digits {
        0 => format!("{rounded} {unit}"),
        _ => format!("{}.{:0digits$} {unit}", rounded / scale, rounded % scale),
    }
}

/// Micro-dollars as dollars and cents, with groups of three.
fn dollars(micros: u64) -> String {
    const CENT: u64 = 10_000;
    if (1..CENT).contains(&micros) {
        return "under $0.01".to_owned();
    }
    let cents = (u128::from(micros) + u128::from(CENT / 2)) / u128::from(CENT);
    let whole = (cents / 100).to_string();
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("${grouped}.{:02}", cents % 100)
}

/// What is left of the limit by the point estimate, in whole percent, rounded down.
pub fn left_percent(budget: &Budget) -> u8 {
    if budget.limit == 0 {
        return 0;
    }
    let percent = u128::from(budget.remaining()) * 100 / u128::from(budget.limit);
    u8::try_from(percent).unwrap_or(100)
}

/// A budget at a glance: `62 % of Research left`.
pub fn glance(budget: &Budget) -> String {
    let name = clean(&budget.name, NAME_LIMIT);
    match (left_percent(budget), budget.remaining()) {
        (0, 0) => format!("nothing of {name} left"),
        (0, _) => format!("less than 1 % of {name} left"),
        (percent, _) => format!("{percent} % of {name} left"),
    }
}

/// What is to be said of a budget: labels and values.
pub fn facts(budget: &Budget, now: UnixSeconds, zone: &TimeZone) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Spent", estimate(budget.unit, budget.spent))];
    if budget.tokens_unpriced > 0 {
        let tokens = amount(Unit::Tokens, budget.tokens_unpriced);
        let left_out = if budget.unit == Unit::Micros { ", not in these dollars" } else { "" };
        facts.push(("Unpriced", format!("{tokens} without a known price{left_out}")));
    }
    let left = amount(budget.unit, budget.remaining());
    facts.push(("Left", format!("{left} of {}", amount(budget.unit, budget.limit))));
    facts.push(("Limit", limit(budget)));
    if let Some(until) = budget.exempt_until.filter(|&until| now < until) {
        facts.push(("Exempt", format!("until {}", moment(until, now, zone))));
    }
    facts.push((
        "Period",
        format!("{}, ends {}", period(budget.period), moment(budget.period_end, now, zone)),
    ));
    facts
}

/// The kind of a limit and what it does.
fn limit(budget: &Budget) -> String {
    let at: Vec<String> = budget.thresholds.iter().map(ToString::to_string).collect();
    let warns = match at.split_last() {
        None => String::new(),
        Some((last, [])) => format!("warns at {last} %"),
        Some((last, rest)) => format!("warns at {} and {last} %", rest.join(", ")),
    };
    match (budget.hard, warns.is_empty()) {
        (true, true) => "hard: blocks when it is passed".to_owned(),
        (true, false) => format!("hard: {warns}, blocks when it is passed"),
        (false, true) => "soft: never blocks".to_owned(),
        (false, false) => format!("soft: {warns}, never blocks"),
    }
}

/// Whose spend a budget counts.
pub fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Organisation => "the organisation",
        Scope::Department => "the department",
        Scope::User => "the devices of this device's user",
    }
}

fn period(period: Period) -> &'static str {
    match period {
        Period::Daily => "daily",
        Period::Weekly => "weekly",
        Period::Monthly => "monthly",
        Period::Quarterly => "quarterly",
        Period::Annual => "annual",
    }
}

/// What a block covers: `every provider`, or some by name.
pub fn what_blocked(block: &Block) -> String {
    if block.providers.is_empty() {
        return "every provider".to_owned();
    }
    let shown = block.providers.iter().take(5).map(|name| clean(name, NAME_LIMIT));
    let more = if block.providers.len() > 5 { " and others" } else { "" };
    format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
}

/// What is blocked and why, in a few words.
pub fn why_blocked(block: &Block) -> String {
    format!("{}, {}", what_blocked(block), state::reason(block.reason))
}

/// Whether privacy hours last, also if the agent has not been heard since they ended.
pub fn is_private(hours: &PrivacyHours, now: UnixSeconds) -> bool {
    hours.active && hours.changes_at.is_none_or(|until| now < until)
}

/// When privacy hours are: `now, until Mon 23 Nov 2026, 20:53 (in 2 h)`.
pub fn privacy_hours(hours: &PrivacyHours, now: UnixSeconds, zone: &TimeZone) -> String {
    let changes_at = hours.changes_at.filter(|&at| now < at).map(|at| moment(at, now, zone));
    match (is_private(hours, now), changes_at) {
        (true, Some(until)) => format!("now, until {until}"),
        (true, None) => "now, and at all hours".to_owned(),
        (false, Some(from)) if !hours.active => format!("not now, from {from}"),
        (false, _) if hours.windows.is_empty() => "none are set".to_owned(),
        (false, _) => "not now".to_owned(),
    }
}

/// A window and whose it is.
pub fn window(window: &SourcedWindow) -> String {
    match window.source {
        Source::Own => window.window.to_string(),
        Source::Administrator => format!("{} (set by your administrator)", window.window),
    }
}

/// A time for people, with how far it is.
pub fn moment(at: UnixSeconds, now: UnixSeconds, zone: &TimeZone) -> String {
    format!("{} ({})", date(at, zone), distance(at, now))
}

/// A time in a zone: `Tue 1 Dec 2026, 00:00`.
pub fn date(at: UnixSeconds, zone: &TimeZone) -> String {
    let second = at.0.min(LAST_SECOND).cast_signed();
    let timestamp = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.to_zoned(zone.clone()).strftime("%a %-d %b %Y, %H:%M").to_string()
}

/// How far a time is: `in 6 days`, `3 min ago`.
pub fn distance(at: UnixSeconds, now: UnixSeconds) -> String {
    let apart = lasting(at.0.abs_diff(now.0));
    if at > now { format!("in {apart}") } else { format!("{apart} ago") }
}

/// How long, in seconds, for people.
pub fn lasting(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{NOW, budget};

    #[test]
    fn amounts_have_three_digits_and_never_a_thousand_of_a_unit() {
        let tokens = |value| amount(Unit::Tokens, value);
        assert_eq!(tokens(0), "0 tokens");
        assert_eq!(tokens(999), "999 tokens");
        assert_eq!(tokens(1_000), "1.00 k tokens");
        assert_eq!(tokens(12_345_678), "12.3 M tokens");
        assert_eq!(tokens(999_499), "999 k tokens");
        assert_eq!(tokens(999_999), "1.00 M tokens");
        assert_eq!(tokens(99_960), "100 k tokens");
        assert_eq!(tokens(u64::MAX), "18.4 E tokens");
    }

    #[test]
    fn dollars_have_cents_and_a_trace_is_not_nothing() {
        let dollars = |micros| amount(Unit::Micros, micros);
        assert_eq!(dollars(0), "$0.00");
        assert_eq!(dollars(9_999), "under $0.01");
        assert_eq!(dollars(12_345_678), "$12.35");
        assert_eq!(dollars(1_234_567_890_000), "$1,234,567.89");
        assert_eq!(dollars(u64::MAX), "$18,446,744,073,709.55");
    }

    #[test]
    fn an_estimate_shows_its_interval_unless_it_is_a_point() {
        let spread = Estimate { low: 4_100_000, point: 4_700_000, high: 5_500_000 };
        assert_eq!(estimate(Unit::Tokens, spread), "4.70 M tokens (between 4.10 M and 5.50 M)");
        let exact = Estimate { low: 7, point: 7, high: 7 };
        assert_eq!(estimate(Unit::Tokens, exact), "7 tokens");
    }

    #[test]
    fn a_share_is_rounded_down_but_a_rest_is_not_called_nothing() {
        assert_eq!(glance(&budget(1000, 380)), "62 % of Research left");
        assert_eq!(glance(&budget(1000, 381)), "61 % of Research left");
        assert_eq!(glance(&budget(1000, 999)), "less than 1 % of Research left");
        assert_eq!(glance(&budget(1000, 5000)), "nothing of Research left");
        assert_eq!(glance(&budget(0, 0)), "nothing of Research left");
        assert_eq!(left_percent(&budget(u64::MAX, 0)), 100);
    }

    #[test]
    fn what_is_said_of_a_budget_is_whole() {
        let mut budget = budget(12_300_000, 4_700_000);
        budget.tokens_unpriced = 20_000;
        budget.exempt_until = Some(NOW.plus(3_600));
        let said: Vec<String> = facts(&budget, NOW, &TimeZone::UTC)
            .into_iter()
            .map(|(label, value)| format!("{label}: {value}"))
            .collect();
        assert_eq!(
            said,
            [
                "Spent: 4.70 M tokens (between 4.23 M and 5.17 M)",
                "Unpriced: 20.0 k tokens without a known price",
                "Left: 7.60 M tokens of 12.3 M tokens",
                "Limit: hard: warns at 75, 90 and 100 %, blocks when it is passed",
                "Exempt: until Mon 23 Nov 2026, 19:53 (in 60 min)",
                "Period: monthly, ends Mon 30 Nov 2026, 17:33 (in 6 days)",
            ]
        );
        budget.unit = Unit::Micros;
        budget.hard = false;
        budget.thresholds = vec![80];
        let said = format!("{:?}", facts(&budget, NOW, &TimeZone::UTC));
        assert!(said.contains("not in these dollars") && said.contains("soft: warns at 80 %"), "{said}");
    }

    #[test]
    fn a_text_from_elsewhere_cannot_break_lines_turn_writing_or_fill_the_screen() {
        assert_eq!(clean(" a\nb\u{202e}c\u{7}", 10), "a bc");
        assert_eq!(clean(&"x".repeat(1000), 5), "xxxx…");
        assert_eq!(clean("Größe", 5), "Größe");
    }

    #[test]
    fn any_time_can_be_written() {
        assert!(date(UnixSeconds(u64::MAX), &TimeZone::UTC).contains("9999"));
        assert_eq!(date(UnixSeconds(0), &TimeZone::UTC), "Thu 1 Jan 1970, 00:00");
        assert_eq!(distance(UnixSeconds(u64::MAX), UnixSeconds(0)), "in 213503982334601 days");
    }
}
