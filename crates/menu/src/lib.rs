//! The menu as data: the agent's status, the time and the zone in; icon, tooltip, items and
//! notices out. What draws it (StatusNotifierItem on Linux) adds nothing to what it says.
//!
//! Invariants: it decides nothing, it only says what the agent says; no I/O, no clock, no
//! D-Bus; icon, tooltip and first item come from one [`State`], so that they cannot disagree;
//! a text that came from elsewhere is cleaned and cut before it is shown.

mod icon;
mod items;
mod notices;
pub mod personal;
mod shape;
mod state;
pub mod words;

use jiff::tz::TimeZone;
use toktra_protocol::local::Status;
use toktra_protocol::personal::control::{PersonalLedger, PersonalStatus};
use toktra_protocol::privacy::PrivacyHours;
use toktra_protocol::{Budget, UnixSeconds};

pub use icon::{Icon, Pixmap, SIZES};
pub use items::{Action, Item};
pub use notices::{Announced, Notice, Urgency};
pub use state::State;

/// All that the menu depends on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What the agent last said; `None` while it is away.
    pub status: Option<&'a Status>,
    /// The wall clock.
    pub now: UnixSeconds,
    /// In which times are written.
    pub zone: &'a TimeZone,
}

/// The menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MenuModel {
    /// What is true, in one word.
    pub state: State,
    /// The icon.
    pub icon: Icon,
    /// The state, in a few words; the first item and the tooltip's title.
    pub headline: String,
    /// What else is to be known at a glance, one fact a line.
    pub tooltip: Vec<String>,
    /// From top to bottom.
    pub items: Vec<Item>,
}

impl MenuModel {
    /// The menu in a situation.
    pub fn new(situation: &Situation<'_>) -> Self {
        let state = State::of(situation);
        let headline = state::headline(state, situation);
        let left_percent = situation.budgets().first().map(words::left_percent);
        Self {
            state,
            icon: Icon::new(state, left_percent),
            tooltip: items::tooltip(situation),
            items: items::items(&headline, situation),
            headline,
        }
    }
}

impl<'a> Situation<'a> {
    /// The budgets that apply, least left first.
    fn budgets(&self) -> &'a [Budget] {
        self.status.map_or(&[], |status| &status.budgets)
    }

    /// Personal mode, as far as the agent has said.
    fn personal(&self) -> Option<&'a PersonalStatus> {
        self.status?.personal.as_ref()
    }

    /// The user's own ledger, if the user has one.
    fn ledger(&self) -> Option<&'a PersonalLedger> {
        self.personal()?.ledger.as_ref()
    }

    /// Privacy hours, as far as the agent has said.
    fn privacy(&self) -> Option<&'a PrivacyHours> {
        self.status?.privacy.as_ref()
    }
}
