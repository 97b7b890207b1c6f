//! The only source of time in the agent. [`Clock`] is the machine's: its wall clock, which people and
//! NTP set, and the time that has passed, which goes on while the machine sleeps. [`BackendTime`] is
//! the backend's as far as the device knows it; by it certificates are judged.
//!
//! Invariants: no timer is trusted across a sleep, since tokio's do not count it: a long wait is a
//! [`Clock::pause`], and a decision is made on what the clock says now.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::time::sleep;
use toktra_protocol::{Minute, UnixSeconds};

/// A pause looks at the time at least this often, so that a sleep of the machine prolongs it by no more.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A wall clock that is off by more, in seconds, is reported, and put right in what is recorded.
pub const SKEW_LIMIT_S: u64 = 120;
/// A difference that is not one, in seconds: answers take time, and clocks are read in whole seconds.
const NOISE_S: u64 = 5;
/// An answer that took longer than any request may was slept over, and says what time it was before.
const ANSWER_AGE: Duration = Duration::from_secs(120);
/// What the clock that nobody sets may be off by, in seconds, since the backend was heard.
const DRIFT_S: u64 = 24 * 60 * 60;

/// A source of time; tests set their own.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// Always this.
    Fixed(UnixSeconds),
    /// The machine's, as a test has moved it.
    Moved(&'static Mutex<Moved>),
}

/// By how much a test has moved the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// The wall clock is ahead by this, in seconds.
    pub ahead_s: i64,
    /// The machine has slept for so long.
    pub slept: Duration,
}

impl Clock {
    /// Seconds since 1970 by the wall clock.
    pub fn now(self) -> UnixSeconds {
        let system = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixSeconds(since.as_secs())
        };
        match self {
            Self::Fixed(at) => at,
            Self::System => system(),
            Self::Moved(by) => {
                let by = *by.lock().unwrap_or_else(PoisonError::into_inner);
                UnixSeconds(system().plus(by.slept.as_secs()).0.saturating_add_signed(by.ahead_s))
            }
        }
    }

    /// Time since the machine started, sleep included. Nobody sets it.
    pub fn elapsed(self) -> Duration {
        // On macOS this one goes on while the machine sleeps.
        #[cfg(not(target_os = "linux"))]
        const ID: ClockId = ClockId::Monotonic;
        #[cfg(target_os = "linux")]
        const ID: ClockId = ClockId::Boottime;
        let at = clock_gettime(ID);
        let elapsed = Duration::from_secs(at.tv_sec.unsigned_abs())
            + Duration::from_nanos(u64::try_from(at.tv_nsec).unwrap_or_default());
        match self {
            Self::Moved(by) => elapsed + by.lock().unwrap_or_else(PoisonError::into_inner).slept,
            _ => elapsed,
        }
    }

    /// Waits for so long, sleep of the machine included.
    pub async fn pause(self, wait: Duration) {
        let end = self.elapsed().saturating_add(wait);
        loop {
            let rest = end.saturating_sub(self.elapsed());
            if rest.is_zero() {
                return;
            }
            sleep(rest.min(LOOK_EVERY)).await;
        }
    }
}

/// The backend's time. Once the backend has said it on a connection that was verified, it runs on the
/// clock that nobody sets; before that, it is the wall clock's, but never earlier than the newest time
/// that the backend is known to have lived.
#[derive(Debug)]
pub struct BackendTime {
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// What the backend said, and when.
    said: Option<(UnixSeconds, Duration)>,
    /// In seconds since 1970; zero until something is known.
    newest: u64,
}

impl BackendTime {
    /// Nothing is known but the wall clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time.
    pub fn now(&self) -> UnixSeconds {
        let known = *self.known();
        match known.said {
            Some((time, at)) => time.plus(self.clock.elapsed().saturating_sub(at).as_secs()),
            None => self.clock.now().max(UnixSeconds(known.newest)),
        }
    }

    /// Whether the backend has said it in this run.
    pub fn is_confirmed(&self) -> bool {
        self.known().said.is_some()
    }

    /// Time since the machine started; for [`Self::confirm`].
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The backend has said the time, on a connection that was verified, when it was asked at this
    /// time since the machine started.
    pub fn confirm(&self, time: UnixSeconds, asked: Duration) {
        let elapsed = self.clock.elapsed();
        if elapsed.saturating_sub(asked) > ANSWER_AGE {
            return;
        }
        let mut known = self.known();
        known.said = Some((time, elapsed));
        known.newest = known.newest.max(time.0);
    }

    /// What the backend said last is not to be believed after all.
    pub fn doubt(&self, newest: UnixSeconds) {
        *self.known() = Known { said: None, newest: newest.0 };
    }

    /// The backend has lived this time: it signed or dated something then.
    pub fn remember(&self, time: UnixSeconds) {
        let mut known = self.known();
        known.newest = known.newest.max(time.0);
    }

    /// No earlier time is believed: the newest that the backend is known to have lived, and what has
    /// passed since it was heard in this run, which no one can turn back.
    pub fn newest(&self) -> UnixSeconds {
        let newest = self.known().newest;
        let passed = if self.is_confirmed() { self.now().0.saturating_sub(DRIFT_S) } else { 0 };
        UnixSeconds(newest.max(passed))
    }

    /// By how much the wall clock is ahead (negative: behind), in seconds; zero if it is not worth
    /// speaking of.
    pub fn ahead_s(&self) -> i64 {
        let ahead_s = self.clock.now().0.cast_signed().saturating_sub(self.now().0.cast_signed());
        if ahead_s.unsigned_abs() <= NOISE_S { 0 } else { ahead_s }
    }

    /// A time of the backend's as the wall clock will show it.
    pub fn on_wall(&self, time: UnixSeconds) -> UnixSeconds {
        UnixSeconds(time.0.saturating_add_signed(self.ahead_s()))
    }

    /// A minute that was read from the wall clock lately, put right if that is wrong. None is before the
    /// machine started, nor after now, whatever was done to the clock since it was read.
    pub fn minute(&self, read: Minute) -> Minute {
        let (now, ahead_s) = (self.now(), self.ahead_s());
        let started = UnixSeconds(now.0.saturating_sub(self.clock.elapsed().as_secs()));
        let off_min = if ahead_s.unsigned_abs() <= SKEW_LIMIT_S { 0 } else { ahead_s / 60 };
        let right = Minute(read.0.saturating_add_signed(-off_min));
        right.clamp(started.minute(), now.plus(SKEW_LIMIT_S).minute())
    }
}

impl TimeProvider for BackendTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now().0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_S: i64 = 365 * 24 * 60 * 60;

    fn moved() -> (&'static Mutex<Moved>, BackendTime) {
        let by: &'static Mutex<Moved> = Box::leak(Box::default());
        (by, BackendTime::new(Clock::Moved(by)))
    }

    #[test]
    fn what_the_backend_said_runs_on_whatever_is_done_to_the_wall_clock() {
        let (by, time) = moved();
        let truth = Clock::System.now();
        by.lock().unwrap().ahead_s = 2 * YEAR_S;
        assert!(!time.is_confirmed() && time.now() >= truth.plus(2 * YEAR_S as u64));
        time.confirm(truth, time.elapsed());
        assert!(time.now().0.abs_diff(truth.0) < 60 && time.ahead_s() >= 2 * YEAR_S - 60);
        by.lock().unwrap().ahead_s = -2 * YEAR_S;
        assert!(time.now().0.abs_diff(truth.0) < 60 && time.ahead_s() <= -2 * YEAR_S + 60);
        by.lock().unwrap().slept = Duration::from_secs(3_600);
        assert!(time.now().0.abs_diff(truth.0 + 3_600) < 60);
        let minute = Clock::Moved(by).now().minute();
        assert!(time.minute(minute).0.abs_diff(truth.0 / 60 + 60) <= 1);
    }

    #[test]
    fn a_wall_clock_that_is_behind_what_the_backend_has_signed_is_not_believed() {
        let (by, time) = moved();
        let signed = Clock::System.now();
        by.lock().unwrap().ahead_s = -2 * YEAR_S;
        time.remember(signed);
        assert_eq!((time.now(), time.newest(), time.is_confirmed()), (signed, signed, false));
    }

    #[test]
    fn an_answer_that_the_machine_slept_over_says_nothing() {
        let (by, time) = moved();
        let (truth, asked) = (Clock::System.now(), time.elapsed());
        by.lock().unwrap().slept = Duration::from_secs(60 * 24 * 60 * 60);
        time.confirm(truth, asked);
        assert!(!time.is_confirmed());
        time.confirm(truth, time.elapsed());
        assert!(time.is_confirmed());
    }

    #[test]
    fn what_has_passed_since_the_backend_was_heard_is_not_turned_back() {
        const DAY_S: u64 = 24 * 60 * 60;
        let (by, time) = moved();
        let truth = Clock::System.now();
        time.confirm(truth, time.elapsed());
        by.lock().unwrap().slept = Duration::from_secs(60 * DAY_S);
        assert!(time.newest() >= truth.plus(59 * DAY_S));
    }

    #[test]
    fn a_minute_that_was_read_before_the_clock_was_set_lies_between_start_and_now() {
        let (by, time) = moved();
        let elapsed = Clock::System.elapsed().as_secs();
        for ahead_s in [-20 * YEAR_S, 20 * YEAR_S] {
            by.lock().unwrap().ahead_s = ahead_s;
            let read = Clock::Moved(by).now().minute();
            by.lock().unwrap().ahead_s = 0;
            let (minute, now) = (time.minute(read), Clock::System.now());
            assert!(minute <= now.plus(SKEW_LIMIT_S).minute());
            assert!(minute.0 + 1 >= UnixSeconds(now.0 - elapsed).minute().0, "{minute:?}");
        }
    }

    #[test]
    fn elapsed_time_goes_on() {
        let before = Clock::System.elapsed();
        while Clock::System.elapsed() == before {}
        assert!(Clock::System.elapsed() > before);
    }
}
