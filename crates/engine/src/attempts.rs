//! Which blocked attempts are told: a program that tries again in a loop makes one record a minute and
//! host, not one for each attempt. How often it tried is in the capture's counts.

use std::collections::HashSet;

use toktra_protocol::Minute;
use toktra_protocol::event::Blocked;

/// Most that are told in a minute; hosts of a provider's customers may be any number.
const LIMIT: usize = 256;

/// What was told in the current minute.
#[derive(Default)]
pub(crate) struct Attempts {
    minute: Option<Minute>,
    told: HashSet<Attempt>,
}

/// Who was kept from where.
#[derive(PartialEq, Eq, Hash)]
struct Attempt {
    host: String,
    user_account: Option<String>,
    application: Option<String>,
    cut: bool,
}

/// What is to be done with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Record it.
    Yes,
    /// The like of it was recorded in this minute.
    Told,
    /// Too many were: count it as lost.
    TooMany,
}

impl Attempts {
    /// Whether to record this one.
    pub(crate) fn tell(&mut self, minute: Minute, blocked: &Blocked) -> Tell {
        if self.minute != Some(minute) {
            self.minute = Some(minute);
            self.told.clear();
        }
        let attempt = Attempt {
            host: blocked.host.clone(),
            user_account: blocked.user_account.clone(),
            application: blocked.application.clone(),
            cut: blocked.cut,
        };
        if self.told.contains(&attempt) {
            return Tell::Told;
        }
        if self.told.len() >= LIMIT {
            return Tell::TooMany;
        }
        self.told.insert(attempt);
        Tell::Yes
    }
}
