//! What the fuzz target of privacy windows does with its input. The tests of `toktra-policy` replay the corpus
//! through the same function on the stable toolchain.

use jiff::tz::TimeZone;
use toktra_policy::hours::{Hours, Window, parse};
use toktra_protocol::UnixSeconds;

/// Zones with changes at every hour of the day, by half an hour, and by a whole day.
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Kathmandu",
];
/// Some two hundred and seventy years from 1970.
const HORIZON: u64 = 1 << 33;

/// Reads the input as a zone (a byte), an instant (eight) and windows, one a line. What is read prints to what
/// reads the same, and up to the next edge, and not beyond it, a moment is inside or outside as now.
pub fn windows(input: &[u8]) {
    let Some((&zone, rest)) = input.split_first() else { return };
    let Some((now, text)) = rest.split_first_chunk() else { return };
    let (now, Ok(text)) = (u64::from_le_bytes(*now), std::str::from_utf8(text)) else { return };
    let lines: Vec<&str> = text.lines().collect();
    let Ok(windows) = parse(&lines) else { return };
    let printed: Vec<String> = windows.iter().map(Window::to_string).collect();
    assert_eq!(parse(&printed).unwrap(), windows);
    let hours = Hours::new(windows, TimeZone::get(ZONES[usize::from(zone) % ZONES.len()]).unwrap());
    // Any moment has a place.
    hours.at(UnixSeconds(now));
    let now = now % HORIZON;
    let place = hours.at(UnixSeconds(now));
    let Some(until) = place.until else { return };
    assert!(until.0 > now);
    assert_eq!(hours.at(UnixSeconds(until.0 - 1)).inside, place.inside);
    assert_ne!(hours.at(until).inside, place.inside);
}
