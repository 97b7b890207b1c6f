//! Numbers as people read them. Money comes from integer micro-dollars and is rounded half up;
//! what has no price is *unpriced*, never $0; an estimate is shown with its interval. No
//! floating point, so that what is shown is what is stored.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use toktra_store::usage::{Interval, Sums};

/// Narrow no-break space: keeps a number and its unit on one line.
const THIN: char = '\u{202f}';

/// An estimate ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figure {
    /// The stored point estimate, for `<data value>`; `None` where there is no price.
    pub(super) value: Option<i64>,
    /// Short, for example `1.2 M`, `$12.34` or `unpriced`.
    pub(super) text: String,
    /// The interval, for example `1.1–1.4 M`; empty when there is none to show.
    pub(super) range: String,
    /// Every digit, for a tool tip.
    pub(super) full: String,
    /// What the figure leaves out, for example `+ 1.2 M unpriced`; mostly empty.
    pub(super) note: String,
}

/// A number of tokens.
pub(super) fn tokens(estimate: Interval) -> Figure {
    Figure {
        value: Some(estimate.point),
        text: compact(estimate.point),
        range: if is_exact(estimate) { String::new() } else { compact_range(estimate.low, estimate.high) },
        full: if is_exact(estimate) {
            format!("{} tokens", grouped(estimate.point))
        } else {
            format!(
                "{} tokens, between {} and {}",
                grouped(estimate.point),
                grouped(estimate.low),
                grouped(estimate.high)
            )
        },
        note: String::new(),
    }
}

/// What the tokens cost, and how many have no price.
pub(super) fn cost(sums: &Sums) -> Figure {
    if sums.is_unpriced() {
        return Figure {
            value: None,
            text: "unpriced".to_owned(),
            range: String::new(),
            full: format!("{} tokens, none of them with a known price", grouped(sums.tokens_unpriced)),
            note: String::new(),
        };
    }
    let estimate = sums.cost_micros;
    let unpriced = sums.tokens_unpriced > 0;
    Figure {
        value: Some(estimate.point),
        text: dollars(estimate.point),
        range: if is_exact(estimate) {
            String::new()
        } else {
            format!("{}–{}", rough_dollars(estimate.low), rough_dollars(estimate.high))
        },
        full: if is_exact(estimate) {
            exact_dollars(estimate.point)
        } else {
            format!(
                "{}, between {} and {}",
                exact_dollars(estimate.point),
                exact_dollars(estimate.low),
                exact_dollars(estimate.high)
            )
        },
        note: if unpriced { format!("+ {} unpriced", compact(sums.tokens_unpriced)) } else { String::new() },
    }
}

/// Where there was nothing that could have had a price.
pub(super) fn nothing() -> Figure {
    Figure {
        value: None,
        text: "–".to_owned(),
        range: String::new(),
        full: "nothing was used".to_owned(),
        note: String::new(),
    }
}

/// A count: `1,234`, or `1.2 M` from a hundred thousand on.
pub(super) fn count(number: i64) -> Figure {
    Figure {
        value: Some(number),
        text: if number.abs() < 100_000 { grouped(number) } else { compact(number) },
        range: String::new(),
        full: grouped(number),
        note: String::new(),
    }
}

/// Digits in groups of three: `1,234,567`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        text.push('−');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Two or three digits and a unit: `950`, `1.2 M`, `12.3 M`, `123 M`.
pub(super) fn compact(number: i64) -> String {
    let (digits, unit) = compact_parts(number);
    if unit.is_empty() { digits } else { format!("{digits}{THIN}{unit}") }
}

/// Dollars of micro-dollars: `$1,234.56`, below ten cents `$0.0012`.
pub(super) fn dollars(micros: i64) -> String {
    let sign = if micros < 0 { "−" } else { "" };
    let micros = micros.unsigned_abs();
    if micros == 0 {
        return "$0.00".to_owned();
    }
    let ten_thousandths = micros.saturating_add(50) / 100;
    if ten_thousandths == 0 {
        return format!("<{sign}$0.0001");
    }
    if ten_thousandths < 1000 {
        return format!("{sign}$0.{ten_thousandths:04}");
    }
    let cents = micros.saturating_add(5_000) / 10_000;
    let whole = i64::try_from(cents / 100).unwrap_or(i64::MAX);
    format!("{sign}${}.{:02}", grouped(whole), cents % 100)
}

/// How much `now` differs from `before`, in whole per cent: `+12 %`. `None` when there was nothing.
pub(super) fn change(before: i64, now: i64) -> Option<String> {
    if before <= 0 {
        return None;
    }
    let (before, now) = (i128::from(before), i128::from(now));
    let percent = ((now - before) * 200 + before).div_euclid(before * 2);
    Some(match percent {
        0 => format!("±0{THIN}%"),
        1..=999 => format!("+{percent}{THIN}%"),
        1000.. => format!("×{}", (now + before / 2) / before),
        _ => format!("−{}{THIN}%", percent.unsigned_abs()),
    })
}

/// The date of a Unix day, for example `23 Nov`.
pub(super) fn day(unix_day: i64) -> String {
    date(unix_day).strftime("%-d %b").to_string()
}

/// The date of a Unix day with its year, for example `23 Nov 2026`.
pub(super) fn full_day(unix_day: i64) -> String {
    date(unix_day).strftime("%-d %b %Y").to_string()
}

/// The date of a Unix day as machines write it, for example `2026-11-23`.
pub(super) fn machine_day(unix_day: i64) -> String {
    date(unix_day).to_string()
}

/// A moment for `<time datetime>`, RFC 3339 in UTC.
pub(super) fn machine_time(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A moment in full, for example `23 Nov 2026, 14:05 UTC`.
pub(super) fn full_time(unix_seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(unix_seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).strftime("%-d %b %Y, %H:%M UTC").to_string()
}

/// How long ago: `just now`, `4 min ago`, `3 h ago`, `2 days ago`.
pub(super) fn ago(unix_seconds: i64, now: i64) -> String {
    let seconds = now.saturating_sub(unix_seconds);
    match seconds {
        ..60 => "just now".to_owned(),
        60..3_600 => format!("{}{THIN}min ago", seconds / 60),
        3_600..86_400 => format!("{}{THIN}h ago", seconds / 3_600),
        86_400..172_800 => "a day ago".to_owned(),
        _ => format!("{} days ago", grouped(seconds / 86_400)),
    }
}

fn date(unix_day: i64) -> Date {
    let time = jiff::Timestamp::from_second(unix_day.saturating_mul(86_400));
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC).date()
}

fn is_exact(estimate: Interval) -> bool {
    estimate.low == estimate.high
}

fn compact_range(low: i64, high: i64) -> String {
    let ((low_digits, low_unit), (_, high_unit)) = (compact_parts(low), compact_parts(high));
    if low_unit == high_unit {
        format!("{low_digits}–{}", compact(high))
    } else {
        format!("{}–{}", compact(low), compact(high))
    }
}

fn compact_parts(number: i64) -> (String, &'static str) {
    const UNITS: [(&str, i128); 4] =
        [("k", 1_000), ("M", 1_000_000), ("B", 1_000_000_000), ("T", 1_000_000_000_000)];
    let sign = if number < 0 { "−" } else { "" };
    let size = i128::from(number).abs();
    if size < 1_000 {
        return (format!("{sign}{size}"), "");
    }
    let mut last = (String::new(), "");
    for (unit, scale) in UNITS {
        let tenths = (size * 10 + scale / 2) / scale;
        let whole = (size + scale / 2) / scale;
        let digits = if tenths < 1_000 {
            format!("{sign}{}.{}", tenths / 10, tenths % 10)
        } else {
            format!("{sign}{whole}")
        };
        last = (digits, unit);
        if whole < 1_000 {
            break;
        }
    }
    last
}

/// As [`dollars`], without cents from a hundred dollars on: nobody estimates to the cent.
fn rough_dollars(micros: i64) -> String {
    if micros < 100_000_000 {
        return dollars(micros);
    }
    format!("${}", grouped(micros.saturating_add(500_000) / 1_000_000))
}

fn exact_dollars(micros: i64) -> String {
    let sign = if micros < 0 { "−" } else { "" };
    let size = micros.unsigned_abs();
    let whole = i64::try_from(size / 1_000_000).unwrap_or(i64::MAX);
    format!("{sign}${}.{:06}", grouped(whole), size % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(low: i64, point: i64, high: i64) -> Interval {
        Interval { low, point, high }
    }

    #[test]
    fn tokens_are_short_with_every_digit_behind() {
        let figure = tokens(interval(1_100_000, 1_234_567, 1_400_000));
        assert_eq!(figure.text, "1.2\u{202f}M");
        assert_eq!(figure.range, "1.1–1.4\u{202f}M");
        assert_eq!(figure.full, "1,234,567 tokens, between 1,100,000 and 1,400,000");
        let across = tokens(interval(950_000, 1_000_000, 1_050_000));
        assert_eq!(across.range, "950\u{202f}k–1.1\u{202f}M");
        assert_eq!(tokens(interval(7, 7, 7)).range, "");
    }

    #[test]
    fn compact_numbers_carry_into_the_next_unit() {
        let shown: Vec<_> =
            [0, 999, 1_000, 99_949, 99_950, 999_499, 999_500, 12_345_678, i64::MAX].map(compact).into();
        let spaced = |text: &str| text.replace(' ', "\u{202f}");
        let expected =
            ["0", "999", "1.0 k", "99.9 k", "100 k", "999 k", "1.0 M", "12.3 M", "9223372 T"].map(spaced);
        assert_eq!(shown, expected);
    }

    #[test]
    fn money_is_rounded_half_up_and_small_values_keep_their_digits() {
        for (micros, text) in [
            (0, "$0.00"),
            (49, "<$0.0001"),
            (50, "$0.0001"),
            (1_200, "$0.0012"),
            (99_949, "$0.0999"),
            (99_950, "$0.10"),
            (999_999, "$1.00"),
            (12_345_000, "$12.35"),
            (12_344_999, "$12.34"),
            (1_234_567_890_000, "$1,234,567.89"),
        ] {
            assert_eq!(dollars(micros), text, "{micros}");
        }
    }

    #[test]
    fn what_has_no_price_is_unpriced_and_never_nothing() {
        let mut sums = Sums { tokens_out: interval(90, 100, 110), tokens_unpriced: 100, ..Sums::default() };
        let figure = cost(&sums);
        assert_eq!((figure.text.as_str(), figure.value), ("unpriced", None));
        sums.tokens_unpriced = 40;
        sums.cost_micros = interval(11_000_000, 12_340_000, 14_000_000);
        let figure = cost(&sums);
        assert_eq!(figure.text, "$12.34");
        assert_eq!(figure.range, "$11.00–$14.00");
        assert_eq!(figure.note, "+ 40 unpriced");
        sums.cost_micros = interval(99_990_000, 1_000_000_000, 1_234_500_000);
        assert_eq!(cost(&sums).range, "$99.99–$1,235");
        assert_eq!(cost(&Sums::default()).text, "$0.00");
    }

    #[test]
    fn changes_are_whole_per_cents_and_none_from_nothing() {
        let shown = |before, now| change(before, now).map(|text| text.replace('\u{202f}', " "));
        assert_eq!(shown(100, 112).as_deref(), Some("+12 %"));
        assert_eq!(shown(100, 50).as_deref(), Some("−50 %"));
        assert_eq!(shown(1_000, 1_001).as_deref(), Some("±0 %"));
        assert_eq!(shown(1, 40).as_deref(), Some("×40"));
        assert_eq!(shown(0, 5), None);
        assert!(shown(1, i64::MAX).is_some());
    }

    #[test]
    fn times_are_utc_and_say_how_long_ago() {
        assert_eq!(full_day(20_000), "4 Oct 2024");
        assert_eq!(day(20_000), "4 Oct");
        assert_eq!(full_time(1_800_000_000), "15 Jan 2027, 08:00 UTC");
        assert_eq!(machine_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(ago(1_000, 1_030), "just now");
        assert_eq!(ago(1_000, 900), "just now");
        assert_eq!(ago(0, 7_300).replace('\u{202f}', " "), "2 h ago");
        assert_eq!(ago(0, 86_400 * 3), "3 days ago");
        assert_eq!(full_day(i64::MAX), "1 Jan 1970");
    }
}
