//! Privacy hours as people write them and as they cross the local socket: weekly windows, each with
//! the days on which it begins. When they are, in instants, `toktra-policy` says.
//!
//! Invariants: a window that is parsed is not empty and lasts at most a day; what is printed parses
//! to the same window. Nothing here ever leaves the device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;

/// Most windows of one source.
pub const WINDOWS_LIMIT: usize = 32;
const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EVERY_DAY: u8 = 0b111_1111;

/// A window that comes back every week, by the clock on the wall: `mon-fri 18:00-09:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Window {
    /// Monday is the lowest bit.
    days: u8,
    start_minute: u16,
    end_minute: u16,
}

/// Why a text is not a window. Says how to write one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not of the form.
    #[error(
        "write a window as `18:00-09:00`, or with the days on which it begins as `mon-fri 18:00-09:00` or `sat,sun 00:00-24:00`"
    )]
    Form,
    /// Not a day.
    #[error("days are mon, tue, wed, thu, fri, sat and sun, as `mon-fri` or `sat,sun`")]
    Day,
    /// Not a time.
    #[error("write times as `HH:MM`, from 00:00 to 23:59; a window may end at 24:00")]
    Time,
    /// It begins when it ends.
    #[error("a window must not begin when it ends; a whole day is `00:00-24:00`")]
    Empty,
    /// More than [`WINDOWS_LIMIT`].
    #[error("there are more than {WINDOWS_LIMIT} windows")]
    TooMany,
}

impl Window {
    /// A window from `start` to `end`, both `HH:MM`, that begins on these days; on every day if none are given.
    pub fn new(days: Option<&str>, start: &str, end: &str) -> Result<Self, WindowError> {
        let window = Self {
            days: days.map_or(Ok(EVERY_DAY), parse_days)?,
            start_minute: parse_time(start)?,
            end_minute: parse_time(end)?,
        };
        match window {
            Self { start_minute: DAY_MINUTES, .. } => Err(WindowError::Time),
            Self { start_minute, end_minute, .. } if start_minute == end_minute => Err(WindowError::Empty),
            _ => Ok(window),
        }
    }

    /// Whether it begins on a day of the week; Monday is 0.
    pub fn begins_on(&self, day: u8) -> bool {
        self.days >> day & 1 == 1
    }

    /// When it begins, in minutes after midnight.
    pub fn start_minute(&self) -> u16 {
        self.start_minute
    }

    /// When it ends, in minutes after the midnight with which the day of its beginning begins.
    pub fn end_minute(&self) -> u16 {
        if self.end_minute <= self.start_minute { self.end_minute + DAY_MINUTES } else { self.end_minute }
    }
}

/// Reads windows, at most [`WINDOWS_LIMIT`]; one that comes twice counts once. The error names the text.
pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Window>, (String, WindowError)> {
    let mut windows = Vec::new();
    for text in texts {
        let text = text.as_ref();
        let said = || text.chars().filter(|one| !one.is_control()).take(60).collect();
        let window: Window = text.parse().map_err(|error| (said(), error))?;
        if !windows.contains(&window) {
            windows.push(window);
        }
        if windows.len() > WINDOWS_LIMIT {
            return Err((said(), WindowError::TooMany));
        }
    }
    Ok(windows)
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let (days, times) = match text.split_once(' ') {
            Some((days, times)) => (Some(days), times),
            None => (None, text),
        };
        let (start, end) = times.split_once('-').ok_or(WindowError::Form)?;
        Self::new(days, start, end)
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            write!(f, "{} ", days(self.days))?;
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.start_minute), time(self.end_minute))
    }
}

/// `mon-fri`, `sat`, `mon,wed,fri-sun`; days may go round the week, as in `fri-mon`.
fn parse_days(text: &str) -> Result<u8, WindowError> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name).ok_or(WindowError::Day);
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        days |= 1 << at;
        while at != last {
            at = (at + 1) % DAYS.len();
            days |= 1 << at;
        }
    }
    Ok(days)
}

/// `HH:MM`, two digits each, from 00:00 to 24:00.
fn parse_time(text: &str) -> Result<u16, WindowError> {
    let &[h1, h2, b':', m1, m2] = text.as_bytes() else { return Err(WindowError::Time) };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(u16::from(byte - b'0')),
        _ => Err(WindowError::Time),
    };
    let (hours, minutes) = (digit(h1)? * 10 + digit(h2)?, digit(m1)? * 10 + digit(m2)?);
    let minute = hours * 60 + minutes;
    if minutes > 59 || minute > DAY_MINUTES { Err(WindowError::Time) } else { Ok(minute) }
}

/// The days in words that parse: runs of three and more as `mon-wed`.
fn days(days: u8) -> String {
    let on = |day: usize| days >> day & 1 == 1;
    let mut parts = Vec::new();
    let mut day = 0;
    while day < DAYS.len() {
        let mut end = day;
        while end < DAYS.len() && on(end) {
            end += 1;
        }
        match end - day {
            0 => end = day + 1,
            1 | 2 => parts.extend(DAYS[day..end].iter().map(|&name| name.to_owned())),
            _ => parts.push(format!("{}-{}", DAYS[day], DAYS[end - 1])),
        }
        day = end;
    }
    parts.join(",")
}

/// Whose a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Set by who uses the machine.
    Own,
    /// Set by the administrator in the configuration; only there it can be changed.
    Administrator,
}

/// A window and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcedWindow {
    /// The window.
    pub window: Window,
    /// Whose it is.
    pub source: Source,
}

/// What is true of privacy hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyHours {
    /// Whether they last: nothing is recorded and no usage is sent.
    pub active: bool,
    /// The next edge: when they end or begin, by the device's clock. `None`: never.
    pub changes_at: Option<UnixSeconds>,
    /// Every window.
    pub windows: Vec<SourcedWindow>,
    /// In whose times the windows are: the machine's zone.
    pub zone: Option<String>,
    /// Why the user's own windows cannot be read, if so. Until they are set anew, hours last.
    pub unreadable: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, WindowError> {
        text.parse::<Window>().map(|window| window.to_string())
    }

    #[test]
    fn windows_are_read_strictly_and_printed_as_they_are_read() {
        for text in ["18:00-09:00", "mon-fri 18:00-09:00", "sat,sun 00:00-24:00", "mon,wed-fri 12:00-13:00"] {
            assert_eq!(parsed(text).as_deref(), Ok(text));
        }
        assert_eq!(parsed("fri-mon 00:00-00:01").as_deref(), Ok("mon,fri-sun 00:00-00:01"));
        assert_eq!(parsed("mon-sun 00:00-00:01").as_deref(), Ok("00:00-00:01"));
        for (text, error) in [
            ("", WindowError::Form),
            ("18:00", WindowError::Form),
            ("18:00 09:00", WindowError::Form),
            ("18:00-9:00", WindowError::Time),
            ("18:00-09:0٠", WindowError::Time),
            ("24:00-09:00", WindowError::Time),
            ("18:00-24:01", WindowError::Time),
            ("18:60-19:00", WindowError::Time),
            ("+1:00-19:00", WindowError::Time),
            ("18:00-19:00-20:00", WindowError::Time),
            (" 18:00-19:00", WindowError::Day),
            ("Mon 18:00-19:00", WindowError::Day),
            ("mon, 18:00-19:00", WindowError::Day),
            ("mon  18:00-19:00", WindowError::Time),
            ("18:00-18:00", WindowError::Empty),
        ] {
            assert_eq!(parsed(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_named_and_too_many_windows_are_refused() {
        assert_eq!(parse(&["08:00-09:00", "noon\n"]), Err(("noon".into(), WindowError::Form)));
        let many: Vec<String> = (0..=WINDOWS_LIMIT).map(|n| format!("10:{n:02}-11:00")).collect();
        assert!(matches!(parse(&many), Err((_, WindowError::TooMany))));
        assert_eq!(parse(&vec!["10:00-11:00"; 1000]).unwrap().len(), 1);
        assert!(serde_json::from_str::<Window>("\"25:00-26:00\"").is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(days in 1u8..128, start in 0u16..1440, end in 0u16..=1440) {
            prop_assume!(start != end);
            let window = Window { days, start_minute: start, end_minute: end };
            prop_assert_eq!(window.to_string().parse(), Ok(window));
            let json = serde_json::to_string(&window).unwrap();
            prop_assert_eq!(serde_json::from_str::<Window>(&json).unwrap(), window);
        }

        #[test]
        fn any_text_is_a_window_of_less_than_a_day_or_an_error(
            text in "([a-z,-]{0,9} )?[0-9]{0,2}:?[0-9٠]{0,3}-?.{0,6}",
        ) {
            if let Ok(window) = text.parse::<Window>() {
                prop_assert!(window.start_minute() < 1440 && window.start_minute() < window.end_minute());
                prop_assert!(window.end_minute() - window.start_minute() <= 1440);
                prop_assert_eq!(window.to_string().parse(), Ok(window));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = text.parse::<Window>();
        }
    }
}
