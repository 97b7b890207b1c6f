//! Privacy hours on the device: the administrator's window from the configuration, united with the
//! user's own, which are kept here. One schedule for the machine, whoever works at it.
//!
//! The user's own are in `privacy` in the state directory, one window a line, replaced as a whole. A file
//! that cannot be read is left as it is; until windows are set anew nothing is recorded, since nobody
//! knows which they were.
//!
//! Invariants: what is refused changes nothing; what was set is on disk before it is in force; whether
//! hours last is found anew from the wall clock and the machine's zone each time it is asked.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use toktra_policy::hours::{Hours, Place, Window, parse};
use toktra_protocol::UnixSeconds;
use toktra_protocol::privacy::{PrivacyHours, Source, SourcedWindow, WindowError};

/// Name of the file in the state directory.
pub const FILE: &str = "privacy";
/// Far more than the most windows take, in bytes.
const LIMIT: u64 = 16 * 1024;
/// What tells who sits at the machine.
pub const SEAT: &str = toktra_peer::SEAT;

/// Why windows were not set. In words for the user.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// They are not windows.
    #[error("`{text}` is no window: {error}. Nothing was changed")]
    Window {
        /// What was given.
        text: String,
        /// What is wrong with it.
        error: WindowError,
    },
    /// They could not be kept.
    #[error("privacy hours cannot be stored, nothing was changed: {0}")]
    Store(#[from] std::io::Error),
    /// Nothing was ever opened to keep them in.
    #[error("the agent is starting; try again in a moment")]
    Starting,
}

/// The schedule.
#[derive(Debug, Default)]
pub struct Schedule {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    file: Option<PathBuf>,
    administrator: Option<Window>,
    /// It was read at least once.
    administered: bool,
    /// What is configured cannot be read, and never could.
    unknown: bool,
    own: Vec<Window>,
    unreadable: Option<String>,
}

/// What the extension is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// All windows.
    pub windows: Vec<Window>,
    /// Some could not be read.
    pub unreadable: bool,
}

impl Schedule {
    /// Takes up the administrator's window, or that it cannot be read: then the former stays, and where there
    /// was none nothing is recorded.
    pub fn administer(&self, window: Result<Option<Window>, ()>) {
        match window {
            Ok(window) => {
                let mut known = self.known();
                (known.administrator, known.administered, known.unknown) = (window, true, false);
            }
            Err(()) => {
                let mut known = self.known();
                known.unknown = !known.administered;
            }
        }
    }

    /// Takes up what is kept in the state directory.
    pub fn open(&self, state: &Path) {
        let file = state.join(FILE);
        let (own, unreadable) = match read(&file) {
            Ok(own) => (own, None),
            Err(error) => {
                tracing::error!("Privacy hours cannot be read, so nothing is recorded: {error}");
                (Vec::new(), Some(error))
            }
        };
        let mut known = self.known();
        (known.file, known.own, known.unreadable) = (Some(file), own, unreadable);
    }

    /// Puts windows in place of the user's own.
    pub fn set(&self, texts: &[String]) -> Result<(), SetError> {
        let own = parse(texts).map_err(|(text, error)| SetError::Window { text, error })?;
        let mut known = self.known();
        let file = known.file.as_deref().ok_or(SetError::Starting)?;
        write(file, &own)?;
        (known.own, known.unreadable) = (own, None);
        Ok(())
    }

    /// What the extension is told.
    pub fn told(&self) -> Told {
        let known = self.known();
        let windows = known.administrator.iter().chain(&known.own).copied().collect();
        Told { windows, unreadable: known.unreadable.is_some() || known.unknown }
    }

    /// Where a moment lies, in the machine's zone.
    pub fn place(&self, now: UnixSeconds) -> Place {
        self.told().hours(TimeZone::system()).at(now)
    }

    /// What is true of privacy hours.
    pub fn describe(&self, now: UnixSeconds) -> PrivacyHours {
        let zone = TimeZone::system();
        let name = zone.iana_name().map(str::to_owned);
        let place = self.told().hours(zone).at(now);
        let known = self.known();
        let sourced = |source| move |&window: &Window| SourcedWindow { window, source };
        let administrator = known.administrator.iter().map(sourced(Source::Administrator));
        PrivacyHours {
            active: place.inside,
            changes_at: place.until,
            windows: administrator.chain(known.own.iter().map(sourced(Source::Own))).collect(),
            zone: name,
            unreadable: known.unreadable.clone(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn hours(self, zone: TimeZone) -> Hours {
        if self.unreadable { Hours::Unknown } else { Hours::new(self.windows, zone) }
    }
}

/// Whether an account may set the user's hours: root, and whoever sits at the machine.
pub fn may_set(uid: u32, seat: &Path) -> bool {
    uid == 0 || sits_here(uid, seat)
}

/// Whether an account is that of who sits at the machine, by what the system says there.
pub fn sits_here(uid: u32, seat: &Path) -> bool {
    toktra_peer::sits_at(uid, seat)
}

fn read(file: &Path) -> Result<Vec<Window>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    match file.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > LIMIT => return Err(format!("{} is too large", file.display())),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let lines: Vec<&str> = text.lines().collect();
    parse(&lines).map_err(|(text, error)| format!("{}: `{text}`: {error}", file.display()))
}

fn write(file: &Path, windows: &[Window]) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    for window in windows {
        writeln!(new, "{window}")?;
    }
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Monday, 12:00 by UTC.
    const NOON: UnixSeconds = UnixSeconds(1_795_435_200);

    fn opened(state: &Path, administrator: Option<&str>) -> Schedule {
        let schedule = Schedule::default();
        schedule.administer(Ok(administrator.map(|window| window.parse().unwrap())));
        schedule.open(state);
        schedule
    }

    fn set(schedule: &Schedule, windows: &[&str]) -> Result<(), SetError> {
        schedule.set(&windows.iter().map(|&window| window.to_owned()).collect::<Vec<_>>())
    }

    fn windows(schedule: &Schedule) -> Vec<String> {
        let described = schedule.describe(NOON).windows;
        described.iter().map(|one| format!("{:?} {}", one.source, one.window)).collect()
    }

    #[test]
    fn the_users_own_windows_are_united_with_the_administrators_and_outlive_the_agent() {
        let state = tempfile::tempdir().unwrap();
        let schedule = opened(state.path(), Some("mon-fri 12:00-13:00"));
        set(&schedule, &["20:00-24:00", "sat,sun 00:00-24:00"]).unwrap();
        let all = ["Administrator mon-fri 12:00-13:00", "Own 20:00-24:00", "Own sat,sun 00:00-24:00"];
        assert_eq!(windows(&schedule), all);
        let again = opened(state.path(), Some("mon-fri 12:00-13:00"));
        assert_eq!(windows(&again), all);
        set(&again, &[]).unwrap();
        assert_eq!(windows(&again), all[..1]);
        assert!(opened(state.path(), None).told().windows.is_empty());
    }

    #[test]
    fn a_configuration_that_cannot_be_read_changes_nothing_and_at_the_start_nothing_is_recorded() {
        let state = tempfile::tempdir().unwrap();
        let schedule = Schedule::default();
        schedule.administer(Err(()));
        schedule.open(state.path());
        assert!(schedule.told().unreadable && schedule.describe(NOON).active);
        schedule.administer(Ok(Some("20:00-24:00".parse().unwrap())));
        assert!(!schedule.told().unreadable && !schedule.describe(NOON).active);
        schedule.administer(Err(()));
        assert_eq!(windows(&schedule), ["Administrator 20:00-24:00"]);
        assert!(!schedule.told().unreadable);
    }

    #[test]
    fn a_mistake_is_named_and_changes_nothing() {
        let state = tempfile::tempdir().unwrap();
        let schedule = opened(state.path(), None);
        set(&schedule, &["20:00-24:00"]).unwrap();
        let error = set(&schedule, &["08:00-09:00", "8-9"]).unwrap_err().to_string();
        assert!(
            error.starts_with("`8-9` is no window: ") && error.ends_with("Nothing was changed"),
            "{error}"
        );
        assert_eq!(windows(&schedule), ["Own 20:00-24:00"]);
        assert_eq!(std::fs::read_to_string(state.path().join(FILE)).unwrap(), "20:00-24:00\n");
    }

    #[test]
    fn where_the_file_is_damaged_nothing_is_recorded_until_windows_are_set_anew() {
        let state = tempfile::tempdir().unwrap();
        for damage in [&b"20:00-2"[..], b"\xff\xfe", &[b'1'; 20_000]] {
            std::fs::write(state.path().join(FILE), damage).unwrap();
            let schedule = opened(state.path(), None);
            let described = schedule.describe(NOON);
            assert!(described.active && described.changes_at.is_none(), "{described:?}");
            assert!(described.unreadable.is_some() && schedule.told().unreadable);
            assert_eq!(std::fs::read(state.path().join(FILE)).unwrap(), damage, "nothing is lost");
            set(&schedule, &[]).unwrap();
            assert_eq!(
                schedule.describe(NOON),
                PrivacyHours { zone: schedule.describe(NOON).zone, ..PrivacyHours::default() }
            );
        }
    }

    #[test]
    fn root_and_who_sits_at_the_machine_may_set() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seat0");
        assert!(may_set(0, &file) && !may_set(1000, &file));
        std::fs::write(&file, "# This is private data. Do not parse.\nACTIVE=3\nACTIVE_UID=1000\n").unwrap();
        assert!(may_set(1000, &file) && !may_set(1001, &file));
        assert!(!sits_here(0, &file), "root is not enough to sit at a machine");
    }
}
