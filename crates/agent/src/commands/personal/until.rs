//! Reads when personal mode is to end.

use anyhow::{Context as _, bail, ensure};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, ToSpan as _};
use toktra_protocol::UnixSeconds;

/// The longest that may be given.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 31);

/// The moment that `HH:MM` or a duration means: of a time of day, the next; `None` if neither is given.
pub fn parse(
    until: Option<&str>,
    duration: Option<&str>,
    now: UnixSeconds,
    zone: &TimeZone,
) -> anyhow::Result<Option<UnixSeconds>> {
    let now = Timestamp::from_second(now.0.try_into()?)?;
    let at = match (until, duration) {
        (Some(text), _) => next(text, now, zone)?,
        (None, Some(text)) => after(text, now)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(UnixSeconds(at.as_second().try_into()?)))
}

fn next(text: &str, now: Timestamp, zone: &TimeZone) -> anyhow::Result<Timestamp> {
    let &[h1, h2, b':', m1, m2] = text.as_bytes() else {
        bail!("`{text}` is no time of day: write `HH:MM`, such as 18:30")
    };
    let number = |a: u8, b: u8| {
        let digits = a.is_ascii_digit() && b.is_ascii_digit();
        digits.then(|| ((a - b'0') * 10 + (b - b'0')) as i8)
    };
    let time =
        number(h1, h2).zip(number(m1, m2)).and_then(|(hour, minute)| Time::new(hour, minute, 0, 0).ok());
    let time =
        time.with_context(|| format!("`{text}` is no time of day: write `HH:MM`, from 00:00 to 23:59"))?;
    let today = now.to_zoned(zone.clone()).date();
    // Two days on at most, whatever the clocks do in between.
    for days in 0..3 {
        let at = today.checked_add(days.days())?.to_datetime(time).to_zoned(zone.clone())?.timestamp();
        if at > now {
            return Ok(at);
        }
    }
    bail!("`{text}` does not come within two days")
}

fn after(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let words = || format!("`{text}` is no duration: write it as `2h`, `90m` or `1h 30m`");
    let span: Span = text.parse().with_context(words)?;
    let at = now.checked_add(span).with_context(words)?;
    ensure!(at > now && now.duration_until(at) <= LONGEST, "{}, at most 31 days", words());
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mon 23 Nov 2026, 18:53:20 by UTC.
    const NOW: UnixSeconds = UnixSeconds(1_795_460_000);

    fn seconds(until: Option<&str>, duration: Option<&str>) -> Option<u64> {
        parse(until, duration, NOW, &TimeZone::UTC).ok()?.map(|at| at.0 - NOW.0)
    }

    #[test]
    fn a_time_of_day_is_the_next_and_a_duration_begins_now() {
        assert_eq!(seconds(Some("18:54"), None), Some(40));
        assert_eq!(seconds(Some("18:53"), None), Some(24 * 3600 - 20));
        assert_eq!(seconds(Some("00:00"), None), Some(5 * 3600 + 6 * 60 + 40));
        assert_eq!(seconds(None, Some("2h")), Some(7200));
        assert_eq!(seconds(None, Some("1h 30m")), Some(5400));
        assert_eq!(parse(None, None, NOW, &TimeZone::UTC).unwrap(), None);
    }

    #[test]
    fn a_mistake_says_how_to_write_it() {
        for (until, duration, said) in [
            (Some("6pm"), None, "HH:MM"),
            (Some("24:00"), None, "23:59"),
            (Some("1८:00"), None, "HH:MM"),
            (None, Some("soon"), "2h"),
            (None, Some("-2h"), "2h"),
            (None, Some("0s"), "2h"),
            (None, Some("99999h"), "31 days"),
        ] {
            let error = parse(until, duration, NOW, &TimeZone::UTC).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
