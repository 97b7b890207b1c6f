//! Whether privacy hours last. Found anew whenever the wall clock is not where it was expected, so that
//! only what the clock says now decides; while it runs on, a comparison is enough for each packet.

use toktra_policy::hours::Hours;
use toktra_protocol::{Minute, UnixSeconds};

/// An answer that has no end is found anew after this, in seconds.
const LOOK_EVERY_S: u64 = 60 * 60;

/// Whether privacy hours last, and the times by the wall clock for which that is known.
pub(crate) struct Privacy {
    lasts: bool,
    from: UnixSeconds,
    until: UnixSeconds,
    /// When they did not last, the last time that somebody looked.
    outside: UnixSeconds,
    /// The next edge, as of then.
    edge: Option<UnixSeconds>,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Stays,
    /// They last now; the last minute that was outside.
    Begins {
        last_minute: Minute,
    },
    /// The same, but they are over again: nobody looked meanwhile.
    Passed {
        last_minute: Minute,
    },
    Ends,
}

impl Default for Privacy {
    fn default() -> Self {
        let never = UnixSeconds(0);
        Self { lasts: false, from: never, until: never, outside: never, edge: None }
    }
}

impl Privacy {
    /// Whether they last, as of the last turn.
    pub(crate) fn lasts(&self) -> bool {
        self.lasts
    }

    /// The schedule or the zone is another one.
    pub(crate) fn forget(&mut self) {
        self.until = self.from;
    }

    /// Looks at the clock.
    pub(crate) fn turn(&mut self, hours: &Hours, wall: UnixSeconds) -> Turn {
        let (before, last_minute) = (self.lasts, self.outside.minute());
        let missed = !before && self.edge.is_some_and(|edge| edge <= wall);
        if !(self.from <= wall && wall < self.until) {
            let place = hours.at(wall);
            self.lasts = place.inside;
            self.from = wall;
            self.edge = place.until;
            self.until = place.until.unwrap_or(UnixSeconds(u64::MAX)).min(wall.plus(LOOK_EVERY_S));
        }
        if !self.lasts {
            self.outside = wall;
        }
        match (before, self.lasts) {
            (false, true) => Turn::Begins { last_minute },
            (false, false) if missed => Turn::Passed { last_minute },
            (true, false) => Turn::Ends,
            _ => Turn::Stays,
        }
    }
}
