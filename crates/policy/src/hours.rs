//! When privacy hours last: weekly windows by the clock on the wall, a time zone and an instant in; inside
//! or outside, and the next edge, out.
//!
//! A window lasts from the **first** moment at which the clock on the wall shows its beginning, or has gone
//! past it, to the **last** at which it shows its end, or something before it. So
//!
//! - where clocks are set forward over an edge, the edge is the moment at which they are set; a window that
//!   lies wholly in the hour that does not exist does not take place;
//! - where clocks are set back, so that an hour is shown twice, a window that begins in that hour begins the
//!   first time, one that ends in it ends the second time, and in between it lasts without a gap: when in
//!   doubt, nothing is recorded.
//!
//! Invariants: no clock and no zone database is read; the answer depends on nothing but the arguments, so
//! that it is right again at once after a clock was set or the zone has changed; nobody's timer is trusted.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
pub use toktra_protocol::privacy::{Window, parse};

use toktra_protocol::UnixSeconds;

/// A window lasts a day, and clocks are set back by less than another.
const DAYS_BACK: i32 = 2;
/// A week's windows come back within this, also when one falls into an hour that does not exist.
const DAYS_AHEAD: i32 = 16;

/// Windows in a time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hours {
    /// There are no windows.
    #[default]
    Never,
    /// Nobody knows which windows there are, so that it may be one now.
    Unknown,
    /// These.
    Weekly {
        /// Where they overlap, they are one.
        windows: Vec<Window>,
        /// The zone of the clock on the wall.
        zone: TimeZone,
    },
}

/// Where a moment lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// In privacy hours.
    pub inside: bool,
    /// The next edge, after that moment: until then nothing changes. `None`: never.
    pub until: Option<UnixSeconds>,
}

/// Instants, in seconds since 1970; the end is outside.
type Stretch = (i64, i64);

impl Hours {
    /// Windows in the times of a zone.
    pub fn new(windows: Vec<Window>, zone: TimeZone) -> Self {
        if windows.is_empty() { Self::Never } else { Self::Weekly { windows, zone } }
    }

    /// Where a moment lies.
    pub fn at(&self, now: UnixSeconds) -> Place {
        match self {
            Self::Never => Place::default(),
            Self::Unknown => Place { inside: true, until: None },
            Self::Weekly { windows, zone } => place(windows, zone, now).unwrap_or_default(),
        }
    }
}

/// `None` for times that no calendar has.
fn place(windows: &[Window], zone: &TimeZone, now: UnixSeconds) -> Option<Place> {
    let now = i64::try_from(now.0).ok()?;
    let today = zone.to_datetime(Timestamp::from_second(now).ok()?).date();
    let mut stretches: Vec<Stretch> = (-DAYS_BACK..=DAYS_AHEAD)
        .filter_map(|days| today.checked_add(days.days()).ok())
        .flat_map(|date| windows.iter().filter_map(move |window| stretch(window, zone, date)))
        .filter(|(_, end)| now < *end)
        .collect();
    stretches.sort_unstable();
    let horizon = now + i64::from(DAYS_AHEAD - DAYS_BACK) * 24 * 60 * 60;
    let mut edge = now;
    for (start, end) in &stretches {
        if *start > edge {
            break;
        }
        edge = edge.max(*end);
    }
    let inside = edge > now;
    let until = if inside { Some(edge) } else { stretches.first().map(|(start, _)| *start) };
    // Whoever has every hour of the week has no edge.
    let until = until.filter(|until| *until < horizon).and_then(|until| u64::try_from(until).ok());
    Some(Place { inside, until: until.map(UnixSeconds) })
}

/// The window that begins on a date, if one does and it is not empty.
fn stretch(window: &Window, zone: &TimeZone, date: Date) -> Option<Stretch> {
    if !window.begins_on(date.weekday().to_monday_zero_offset().unsigned_abs()) {
        return None;
    }
    let civil = |minute: u16| date.at(0, 0, 0, 0).checked_add(i64::from(minute).minutes()).ok();
    let start = instant(zone, civil(window.start_minute())?, Edge::Start)?;
    let end = instant(zone, civil(window.end_minute())?, Edge::End)?;
    (start < end).then_some((start, end))
}

#[derive(Clone, Copy)]
enum Edge {
    Start,
    End,
}

/// The instant at which the clock on the wall shows a time, or jumps over it.
fn instant(zone: &TimeZone, civil: DateTime, edge: Edge) -> Option<i64> {
    let second = |offset: jiff::tz::Offset| Some(offset.to_timestamp(civil).ok()?.as_second());
    match (zone.to_ambiguous_timestamp(civil).offset(), edge) {
        (AmbiguousOffset::Unambiguous { offset }, _) => second(offset),
        (AmbiguousOffset::Fold { before, .. }, Edge::Start) => second(before),
        (AmbiguousOffset::Fold { after, .. }, Edge::End) => second(after),
        // Read by the later offset, it is before the jump; by the earlier one, it is not.
        (AmbiguousOffset::Gap { before, after }, _) => jump(zone, civil, second(after)?, second(before)?),
    }
}

/// The first instant after `low`, and not after `high`, at which the clock shows `civil` or more.
fn jump(zone: &TimeZone, civil: DateTime, mut low: i64, mut high: i64) -> Option<i64> {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if zone.to_datetime(Timestamp::from_second(middle).ok()?) >= civil {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(zone: &str, windows: &[&str]) -> Hours {
        Hours::new(parse(windows).unwrap(), TimeZone::get(zone).unwrap())
    }

    /// Whether it lasts at an instant, and its next edge.
    fn at(hours: &Hours, now: &str) -> (bool, Option<String>) {
        let now: Timestamp = now.parse().unwrap();
        let place = hours.at(UnixSeconds(now.as_second() as u64));
        let until = place.until.map(|at| Timestamp::from_second(at.0 as i64).unwrap().to_string());
        (place.inside, until)
    }

    fn edge(inside: bool, until: &str) -> (bool, Option<String>) {
        (inside, Some(until.to_owned()))
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let hours = hours("UTC", &["mon-fri 18:00-09:00"]);
        assert_eq!(at(&hours, "2026-11-27T17:59:59Z"), edge(false, "2026-11-27T18:00:00Z"));
        assert_eq!(at(&hours, "2026-11-27T18:00:00Z"), edge(true, "2026-11-28T09:00:00Z"));
        assert_eq!(at(&hours, "2026-11-28T08:59:59Z"), edge(true, "2026-11-28T09:00:00Z"));
        // Saturday evening is nobody's, and Monday morning is Sunday's.
        assert_eq!(at(&hours, "2026-11-28T18:00:00Z"), edge(false, "2026-11-30T18:00:00Z"));
    }

    #[test]
    fn windows_that_touch_or_overlap_are_one_and_a_whole_week_never_ends() {
        let joined = hours("UTC", &["12:00-13:00", "13:00-14:00", "13:30-15:00", "20:00-21:00"]);
        assert_eq!(at(&joined, "2026-11-27T12:00:00Z"), edge(true, "2026-11-27T15:00:00Z"));
        let always = hours("Europe/Berlin", &["00:00-12:00", "12:00-24:00"]);
        assert_eq!(at(&always, "2026-10-25T00:30:00Z"), (true, None));
        assert_eq!(Hours::Unknown.at(UnixSeconds(0)), Place { inside: true, until: None });
        assert_eq!(Hours::new(Vec::new(), TimeZone::UTC).at(UnixSeconds(0)), Place::default());
    }

    #[test]
    fn an_edge_that_the_clock_jumps_over_is_where_it_jumps() {
        // 2026-03-29, 02:00 to 03:00 in Berlin: 01:00 by UTC.
        let ends = hours("Europe/Berlin", &["sun 01:30-02:30"]);
        assert_eq!(at(&ends, "2026-03-29T00:30:00Z"), edge(true, "2026-03-29T01:00:00Z"));
        let begins = hours("Europe/Berlin", &["sun 02:30-03:30"]);
        assert_eq!(at(&begins, "2026-03-29T00:59:59Z"), edge(false, "2026-03-29T01:00:00Z"));
        assert_eq!(at(&begins, "2026-03-29T01:00:00Z"), edge(true, "2026-03-29T01:30:00Z"));
        let neither = hours("Europe/Berlin", &["sun 02:10-02:50"]);
        assert_eq!(at(&neither, "2026-03-29T00:59:59Z"), edge(false, "2026-04-05T00:10:00Z"));
    }

    #[test]
    fn in_an_hour_that_is_shown_twice_a_window_lasts_from_the_first_to_the_second() {
        // 2026-10-25, 03:00 to 02:00 in Berlin: 01:00 by UTC.
        let within = hours("Europe/Berlin", &["sun 02:10-02:20"]);
        assert_eq!(at(&within, "2026-10-25T00:10:00Z"), edge(true, "2026-10-25T01:20:00Z"));
        assert_eq!(at(&within, "2026-10-25T00:09:59Z"), edge(false, "2026-10-25T00:10:00Z"));
        let over = hours("Europe/Berlin", &["sun 02:30-04:00"]);
        assert_eq!(at(&over, "2026-10-25T01:10:00Z"), edge(true, "2026-10-25T03:00:00Z"));
    }

    #[test]
    fn a_day_that_a_zone_leaves_out_has_no_window() {
        // Samoa had no 30 December 2011, a Friday.
        let friday = hours("Pacific/Apia", &["fri 08:00-20:00"]);
        assert_eq!(at(&friday, "2011-12-30T09:00:00Z"), edge(false, "2012-01-05T18:00:00Z"));
        let eve = hours("Pacific/Apia", &["thu 18:00-09:00"]);
        assert_eq!(at(&eve, "2011-12-30T09:00:00Z"), edge(true, "2011-12-30T10:00:00Z"));
    }

    #[test]
    fn any_time_has_an_answer() {
        let hours = hours("Europe/Berlin", &["18:00-09:00"]);
        for now in [0, 1, u64::MAX, i64::MAX as u64, 253_402_207_200, 253_402_300_800] {
            hours.at(UnixSeconds(now));
        }
    }
}
