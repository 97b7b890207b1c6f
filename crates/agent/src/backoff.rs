//! How long to wait after a failure: exponential, with full jitter, at most [`LONGEST`]; or
//! what the server asked for in `Retry-After` (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

/// The longest wait of our own choice.
pub const LONGEST: Duration = Duration::from_secs(5 * 60);
/// The longest wait that a server may ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);
/// Between attempts when the backend refuses this device, which only a person can change.
pub const REFUSED: Duration = Duration::from_secs(15 * 60);
const FIRST: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: anything up to twice the last bound. What the server
    /// asked for is never undercut, and spread by a tenth. `random` is uniform.
    pub fn next(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        match asked.map(|asked| asked.min(LONGEST_ASKED)) {
            Some(asked) => asked + fraction(asked / 10 + FIRST, random),
            None => fraction(bound, random),
        }
    }
}

/// The wait while a device is refused: the slow pace, spread by a tenth.
pub fn refused(random: u64) -> Duration {
    REFUSED + fraction(REFUSED / 10, random)
}

/// A random part of a duration.
pub fn fraction(bound: Duration, random: u64) -> Duration {
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

/// Reads `Retry-After`: seconds, or an HTTP date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes_and_no_further() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next(None, u64::MAX).as_secs()).collect();
        assert_eq!(waits[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(waits[39], 300);
        backoff.reset();
        assert_eq!(backoff.next(None, u64::MAX).as_secs(), 1);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff { failures: 9 };
        assert_eq!(backoff.next(None, 0), Duration::ZERO);
        assert_eq!(backoff.next(None, u64::MAX / 2).as_secs(), 150);
    }

    #[test]
    fn what_the_server_asks_is_never_undercut_but_bounded() {
        let ask = |seconds| Backoff::default().next(Some(Duration::from_secs(seconds)), 0).as_secs();
        assert_eq!(ask(120), 120);
        assert_eq!(ask(u64::MAX), 3600);
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:48:37 GMT", now), Some(Duration::ZERO));
        for hostile in ["", "-1", "soon", "1e9", "99999999999999999999"] {
            assert_eq!(retry_after(hostile, now), None, "{hostile}");
        }
    }
}
