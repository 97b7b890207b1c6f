//! What of an organisation whoever signed in may see of usage, and on which days it is there.
//!
//! Invariants: a page that shows usage asks with [`Sight::question`] and with nothing else, so that whoever
//! sees a part sees that part everywhere. Whose part it is, [`Sight::of`] alone says.

use toktra_store::directory::{self, Department, Organisation};
use toktra_store::period::{Day, Days, Zone};
use toktra_store::roles::Reach;
use toktra_store::usage::{Dimension, Question};

use super::Console;
use super::failure::Failure;
use super::session::Administrator;

/// What somebody may see.
pub(super) struct Sight {
    pub(super) organisation: Organisation,
    pub(super) zone: Zone,
    /// Those whose usage may be seen, by name.
    pub(super) departments: Vec<Department>,
    /// Present day in that zone.
    pub(super) today: Day,
    /// Of these the identifiers; `None`: everything may be seen.
    own: Option<Vec<String>>,
}

impl Sight {
    /// Of whoever makes a request: what their role reaches.
    pub(super) async fn of(console: &Console, administrator: &Administrator) -> Result<Self, Failure> {
        let organisation = administrator.organisation(&console.store).await?;
        let zone = directory::time_zone(&console.store, &organisation).await?;
        let zone = Zone::named(&zone).unwrap_or(Zone::UTC);
        let mut departments = directory::departments(&console.store, &organisation.id).await?;
        departments.retain(|department| administrator.reach.department(Some(&department.id)));
        let own = match &administrator.reach {
            Reach::Organisation => None,
            Reach::Departments(ids) => Some(ids.iter().cloned().collect()),
        };
        let today = zone.day(console.clock.now());
        Ok(Self { organisation, zone, departments, today, own })
    }

    /// Whether everything of the organisation may be seen, also what is of no department.
    pub(super) fn is_whole(&self) -> bool {
        self.own.is_none()
    }

    /// All usage of these days that may be seen.
    pub(super) fn question(&self, days: Days) -> Question {
        let only = self.own.iter().map(|own| (Dimension::Department, own.clone())).collect();
        Question { organisation: self.organisation.id.clone(), days, only }
    }

    /// So many days up to today.
    pub(super) fn last_days(&self, days: i64) -> Days {
        Days { start: Day(self.today.0 + 1 - days), end: Day(self.today.0 + 1) }
    }

    /// A department and all below it.
    pub(super) fn with_below(&self, department: &str) -> Vec<String> {
        let mut found = vec![department.to_owned()];
        let mut next = 0;
        while let Some(above) = found.get(next).cloned() {
            let below = self.departments.iter().filter(|one| one.parent_id.as_ref() == Some(&above));
            let below: Vec<_> = below.map(|one| one.id.clone()).filter(|id| !found.contains(id)).collect();
            found.extend(below);
            next += 1;
        }
        found
    }
}
