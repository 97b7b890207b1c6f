//! Calendars: which civil day a moment lies in, and which days make a budget's period.
//!
//! Invariants: a period is a half-open range of days, and every day lies in exactly one period of
//! each length; the next begins where one ends. Time zones come from the database that is compiled
//! in, never from the machine, so that all servers agree what a day is.

use std::sync::LazyLock;

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};
use toktra_protocol::UnixSeconds;
use toktra_protocol::budget::Period;
use toktra_protocol::personal::Month;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
const EPOCH: Date = Date::constant(1970, 1, 1);
const DAY_S: i64 = 24 * 60 * 60;
/// 9999-01-01: further than any budget, and within what the calendar can count.
const LAST_DAY: i64 = 2_932_532;

/// A civil day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

/// The days from `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Days {
    /// First day.
    pub start: Day,
    /// The day after the last.
    pub end: Day,
}

/// A time zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this name, for example `Europe/Berlin`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        ZONES.get(name).ok().map(Self)
    }

    /// Its name as the database writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The civil day of a moment.
    pub fn day(&self, at: UnixSeconds) -> Day {
        let at_s = i64::try_from(at.0).unwrap_or(i64::MAX).min(LAST_DAY * DAY_S);
        let offset_s = match Timestamp::from_second(at_s) {
            Ok(at) => i64::from(self.0.to_offset(at).seconds()),
            Err(_) => 0,
        };
        Day((at_s + offset_s).div_euclid(DAY_S))
    }

    /// The first second of a civil day. Where its midnight was skipped, the first that there was.
    pub fn start(&self, day: Day) -> UnixSeconds {
        let first = day.date().to_zoned(self.0.clone()).map(|first| first.timestamp().as_second());
        UnixSeconds(u64::try_from(first.unwrap_or(day.0 * DAY_S)).unwrap_or_default())
    }
}

impl Zone {
    /// The calendar month of a moment.
    pub fn month(&self, at: UnixSeconds) -> Month {
        let date = self.day(at).date();
        let year = u16::try_from(date.year()).unwrap_or_default();
        Month::new(year, date.month().unsigned_abs()).unwrap_or(Month::FIRST)
    }

    /// The first second after a calendar month.
    pub fn month_end(&self, month: Month) -> UnixSeconds {
        let year = i16::try_from(month.year()).unwrap_or_default();
        let first = Date::new(year, i8::try_from(month.number()).unwrap_or(1), 1).unwrap_or(EPOCH);
        self.start(Day::of(first.saturating_add(1.month())))
    }
}

impl Day {
    /// The day of a date.
    pub fn of(date: Date) -> Self {
        let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0));
        Self(midnight.map_or(LAST_DAY, |midnight| midnight.as_second().div_euclid(DAY_S)))
    }

    fn date(self) -> Date {
        EPOCH.saturating_add(self.0.clamp(-LAST_DAY, LAST_DAY).days())
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.date().fmt(f)
    }
}

impl Days {
    /// The period of this length that the day lies in.
    pub fn of(period: Period, day: Day) -> Self {
        let date = day.date();
        let january = Date::constant(date.year(), 1, 1);
        let (start, length) = match period {
            Period::Daily => (date, 1.day()),
            Period::Weekly => {
                let since_monday = date.weekday().since(Weekday::Monday);
                (date.saturating_sub(i64::from(since_monday).days()), 1.week())
            }
            Period::Monthly => (date.first_of_month(), 1.month()),
            Period::Quarterly => {
                let months = i64::from((date.month() - 1) / 3 * 3);
                (january.saturating_add(months.months()), 3.months())
            }
            Period::Annual => (january, 1.year()),
        };
        Self { start: Day::of(start), end: Day::of(start.saturating_add(length)) }
    }

    /// The period just before this one.
    pub fn before(self, period: Period) -> Self {
        Self::of(period, Day(self.start.0 - 1))
    }

    /// Whether the day is one of these.
    pub fn contains(self, day: Day) -> bool {
        (self.start..self.end).contains(&day)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIODS: [Period; 5] =
        [Period::Daily, Period::Weekly, Period::Monthly, Period::Quarterly, Period::Annual];

    fn date(text: &str) -> Day {
        Day::of(text.parse().unwrap())
    }

    fn at(text: &str) -> UnixSeconds {
        UnixSeconds(text.parse::<Timestamp>().unwrap().as_second().try_into().unwrap())
    }

    #[test]
    fn periods_begin_on_mondays_and_firsts() {
        for (period, day, start, end) in [
            (Period::Daily, "2026-11-23", "2026-11-23", "2026-11-24"),
            (Period::Weekly, "2026-11-29", "2026-11-23", "2026-11-30"),
            (Period::Weekly, "2027-01-01", "2026-12-28", "2027-01-04"),
            (Period::Monthly, "2028-02-29", "2028-02-01", "2028-03-01"),
            (Period::Monthly, "2026-12-31", "2026-12-01", "2027-01-01"),
            (Period::Quarterly, "2026-09-30", "2026-07-01", "2026-10-01"),
            (Period::Quarterly, "2026-11-23", "2026-10-01", "2027-01-01"),
            (Period::Annual, "2026-11-23", "2026-01-01", "2027-01-01"),
        ] {
            let expected = Days { start: date(start), end: date(end) };
            assert_eq!(Days::of(period, date(day)), expected, "{period:?} {day}");
        }
        let november = Days::of(Period::Monthly, date("2026-11-23"));
        assert_eq!(november.before(Period::Monthly).start, date("2026-10-01"));
    }

    #[test]
    fn a_day_has_as_many_hours_as_the_clocks_give_it() {
        let berlin = Zone::named("europe/berlin").unwrap();
        assert_eq!(berlin.name(), "Europe/Berlin");
        for (day, start, hours) in [
            ("2026-03-29", "2026-03-28T23:00:00Z", 23),
            ("2026-10-25", "2026-10-24T22:00:00Z", 25),
            ("2026-11-23", "2026-11-22T23:00:00Z", 24),
        ] {
            let day = date(day);
            assert_eq!(berlin.start(day), at(start));
            assert_eq!(berlin.start(Day(day.0 + 1)).0 - berlin.start(day).0, hours * 3600);
        }
        // Clocks go forward at midnight: the day begins at one.
        let havana = Zone::named("America/Havana").unwrap();
        assert_eq!(havana.start(date("2026-03-08")), at("2026-03-08T05:00:00Z"));
        assert_eq!(havana.day(at("2026-03-08T04:59:59Z")), date("2026-03-07"));
        assert_eq!(Zone::named("Mars/Olympus"), None);
    }

    #[test]
    fn a_month_ends_at_the_zones_midnight() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let month = |text: &str| text.parse::<Month>().unwrap();
        assert_eq!(berlin.month(at("2026-11-30T22:59:59Z")), month("2026-11"));
        assert_eq!(berlin.month(at("2026-11-30T23:00:00Z")), month("2026-12"));
        assert_eq!(berlin.month_end(month("2026-11")), at("2026-11-30T23:00:00Z"));
        assert_eq!(berlin.month_end(month("2026-12")), at("2026-12-31T23:00:00Z"));
        assert_eq!(Zone::UTC.month(UnixSeconds(0)), Month::FIRST);
        assert_eq!(Zone::UTC.month(UnixSeconds(u64::MAX)), month("9999-01"));
    }

    #[test]
    fn what_no_calendar_holds_does_no_harm() {
        for seconds in [0, u64::MAX, i64::MAX as u64] {
            let day = Zone::named("Pacific/Kiritimati").unwrap().day(UnixSeconds(seconds));
            for period in PERIODS {
                let days = Days::of(period, day);
                assert!(days.start <= day && day.0 <= days.end.0 + 1, "{period:?} {days:?}");
            }
        }
        assert_eq!(Zone::UTC.day(UnixSeconds(u64::MAX)).0, LAST_DAY);
    }

    fn zones() -> Vec<Zone> {
        ZONES.available().map(|name| Zone::named(name.as_str()).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_day_and_the_day_in_one_period_of_each_length(
            zone in proptest::sample::select(zones()),
            // 2024 to 2100.
            seconds in 1_704_067_200_u64..4_102_444_800,
        ) {
            let at = UnixSeconds(seconds);
            let day = zone.day(at);
            let civil = zone.0.to_datetime(Timestamp::from_second(seconds as i64).unwrap()).date();
            prop_assert_eq!(day.date(), civil);
            prop_assert!(zone.start(day) <= at && at < zone.start(Day(day.0 + 1)));
            prop_assert_eq!(zone.day(zone.start(day)), day);
            prop_assert_eq!(zone.day(UnixSeconds(zone.start(day).0 - 1)), Day(day.0 - 1));
            for period in PERIODS {
                let days = Days::of(period, day);
                prop_assert!(days.contains(day) && !days.contains(days.end));
                prop_assert_eq!(Days::of(period, days.start), days);
                prop_assert_eq!(Days::of(period, Day(days.end.0 - 1)), days);
                prop_assert_eq!(Days::of(period, days.end).start, days.end);
                prop_assert_eq!(Days::of(period, days.end).before(period), days);
                let (start, end) = (days.start.date(), days.end.date());
                match period {
                    Period::Daily => prop_assert_eq!(days.end.0 - days.start.0, 1),
                    Period::Weekly => {
                        prop_assert_eq!((start.weekday(), days.end.0 - days.start.0), (Weekday::Monday, 7));
                    }
                    Period::Monthly => {
                        prop_assert_eq!((start.day(), end.day(), start.month()), (1, 1, civil.month()));
                    }
                    Period::Quarterly => {
                        prop_assert_eq!((start.day(), start.month() % 3, end.month() % 3), (1, 1, 1));
                        prop_assert!((90..=92).contains(&(days.end.0 - days.start.0)));
                    }
                    Period::Annual => {
                        prop_assert_eq!((start.day(), start.month(), end.year()), (1, 1, start.year() + 1));
                    }
                }
            }
        }
    }
}
