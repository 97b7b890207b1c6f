//! Privacy hours against an independent oracle: `chrono-tz` shows the clock on the wall minute by minute,
//! and a window lasts from the first minute at which it shows the beginning or more to the last at which
//! it shows the end or less. Zones, years and windows are random; half of the moments lie at changes of
//! a zone's offset.

#![allow(clippy::unwrap_used, reason = "test code")]

use chrono::{
    DateTime, Datelike as _, Days, NaiveDate, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _,
};
use chrono_tz::{TZ_VARIANTS, Tz};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use proptest::prelude::*;
use toktra_policy::hours::{Hours, Window, parse};
use toktra_protocol::UnixSeconds;

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
/// 1975 and 2035. Offsets are whole minutes from 1973 on.
const YEARS: std::ops::Range<i64> = 157_766_400..2_051_222_400;

/// What the clock on the wall shows at each minute around a moment.
struct Wall {
    first: i64,
    shown: Vec<NaiveDateTime>,
    /// The most that it has shown up to a minute.
    most: Vec<NaiveDateTime>,
    /// The least that it shows from a minute on.
    least: Vec<NaiveDateTime>,
}

impl Wall {
    fn new(zone: Tz, now: i64, days_ahead: i64) -> Self {
        let first = now - 3 * DAY;
        let minutes = ((days_ahead + 6) * DAY / MINUTE) as usize;
        let show = |minute: usize| {
            let at = DateTime::from_timestamp(first + minute as i64 * MINUTE, 0).unwrap();
            zone.from_utc_datetime(&at.naive_utc()).naive_local()
        };
        let shown: Vec<_> = (0..minutes).map(show).collect();
        let (mut most, mut least) = (shown.clone(), shown.clone());
        for at in 1..minutes {
            most[at] = most[at].max(most[at - 1]);
            let back = minutes - 1 - at;
            least[back] = least[back].min(least[back + 1]);
        }
        Self { first, shown, most, least }
    }

    fn minute(&self, now: i64) -> usize {
        ((now - self.first) / MINUTE) as usize
    }

    fn is_inside(&self, windows: &[Window], minute: usize) -> bool {
        let today = self.shown[minute].date();
        (-3..=3i64).any(|days| {
            let date = shift(today, days);
            windows.iter().any(|window| self.lasts(window, date, minute))
        })
    }

    fn lasts(&self, window: &Window, date: NaiveDate, minute: usize) -> bool {
        if !window.begins_on(date.weekday().num_days_from_monday() as u8) {
            return false;
        }
        let time = |minutes: u16| date.and_hms_opt(0, 0, 0).unwrap() + TimeDelta::minutes(i64::from(minutes));
        let (start, end) = (time(window.start_minute()), time(window.end_minute()));
        self.most[minute] >= start && (self.least[minute] < end || self.least[minute + 1] <= end)
    }
}

/// From the database that is compiled in: the machine's own may be older than the oracle's.
fn in_jiff(zone: Tz) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(zone.name()).ok()
}

fn shift(date: NaiveDate, days: i64) -> NaiveDate {
    let count = Days::new(days.unsigned_abs());
    if days < 0 { date - count } else { date + count }
}

/// Whether both databases say the same of a zone, hour by hour around a moment: one may be newer.
fn agree(zone: Tz, now: i64) -> bool {
    let theirs = in_jiff(zone).unwrap();
    (-4 * 24..18 * 24).all(|hour| {
        let at = now + hour * 60 * MINUTE;
        let other = theirs.to_offset(jiff::Timestamp::from_second(at).unwrap()).seconds();
        offset(zone, at) == other
    })
}

fn offset(zone: Tz, at: i64) -> i32 {
    let at = DateTime::from_timestamp(at, 0).unwrap().naive_utc();
    zone.offset_from_utc_datetime(&at).fix().local_minus_utc()
}

/// The first minute at or after `now` at which the zone's offset is another one than before, within a year.
fn next_change(zone: Tz, now: i64) -> Option<i64> {
    let offset = |at: i64| offset(zone, at);
    let day = (0..365).find(|day| offset(now + day * DAY) != offset(now + (day + 1) * DAY))?;
    let (mut low, mut high) = (now + day * DAY, now + (day + 1) * DAY);
    while high - low > MINUTE {
        let middle = low + (high - low) / MINUTE / 2 * MINUTE;
        if offset(middle) == offset(low) { low = middle } else { high = middle }
    }
    Some(high)
}

/// Days, and times that are often near those at which clocks are set.
fn window() -> impl Strategy<Value = String> {
    let days = prop_oneof![
        Just(""),
        Just("mon-fri "),
        Just("sat,sun "),
        Just("sun "),
        Just("sat "),
        Just("fri-mon "),
        Just("wed "),
    ];
    let time = || {
        prop_oneof![0u16..1440, (0u16..5, prop_oneof![Just(0u16), 0u16..60]).prop_map(|(h, m)| h * 60 + m)]
    };
    (days, time(), time()).prop_filter_map("it begins when it ends", |(days, start, end)| {
        let show = |at: u16| format!("{:02}:{:02}", at / 60, at % 60);
        (start != end).then(|| format!("{days}{}-{}", show(start), show(end)))
    })
}

fn zones() -> impl Strategy<Value = Tz> {
    // Of the zones that are only in one of the two databases there is nothing to compare.
    let known: Vec<Tz> = TZ_VARIANTS.iter().copied().filter(|zone| in_jiff(*zone).is_some()).collect();
    prop::sample::select(known)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn hours_are_what_the_clock_on_the_wall_shows(
        zone in zones(),
        windows in prop::collection::vec(window(), 1..5),
        now in YEARS,
        at_change: bool,
        near_minutes in -180i64..180,
    ) {
        let now = now / MINUTE * MINUTE;
        let change = next_change(zone, now).filter(|_| at_change);
        let now = change.map_or(now, |change| change + near_minutes * MINUTE);
        let windows = parse(&windows).unwrap();
        prop_assume!(agree(zone, now));
        let hours = Hours::new(windows.clone(), in_jiff(zone).unwrap());
        let wall = Wall::new(zone, now, 9);

        // Every second of a minute is alike; a few minutes in all directions.
        for (minutes, second) in [(0, 0), (0, 59), (-1, 59), (1, 0), (-61, 30), (60, 1), (-1440, 0), (1440, 7)] {
            let at = now + minutes * MINUTE;
            let place = hours.at(UnixSeconds((at + second) as u64));
            prop_assert_eq!(place.inside, wall.is_inside(&windows, wall.minute(at)), "{} {}", zone, at);
        }
        // The next edge is the first minute at which it is otherwise.
        let place = hours.at(UnixSeconds(now as u64));
        let start = wall.minute(now);
        let last = start + (8 * DAY / MINUTE) as usize;
        let edge = (start..last).find(|at| wall.is_inside(&windows, *at) != place.inside);
        let edge = edge.map(|at| UnixSeconds((wall.first + at as i64 * MINUTE) as u64));
        match edge {
            Some(edge) => prop_assert_eq!(place.until, Some(edge), "{} {}", zone, now),
            None => prop_assert!(place.until.is_none_or(|until| until.0 as i64 >= wall.first + last as i64 * MINUTE)),
        }
    }
}
