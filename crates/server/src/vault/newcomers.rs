//! How many members a user made. A member is whatever a device says it is; without this, one user
//! could pass for five people and learn what a sixth used, or fill the disk under ever new names.
//!
//! Invariants: it knows how many, never which, and only this process's memory does. So after a restart
//! a user may pass for one person more; what is told of it is in `docs/personal.md`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use toktra_protocol::personal::Month;
use toktra_vault_store::Newcomer;

/// Most new members of a user in a month: a few lost keys.
pub(super) const PER_MONTH: u8 = 8;

/// What each user made.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<HashMap<String, (Month, u8)>>);

impl Newcomers {
    /// Judges a member whom the vault does not know.
    pub(super) fn judge(&self, user: &str, month: Month) -> Newcomer {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, made)) = users.get_mut(user) else {
            users.insert(user.to_owned(), (month, 1));
            return Newcomer::Person;
        };
        if *last != month {
            (*last, *made) = (month, 0);
        }
        if *made >= PER_MONTH {
            return Newcomer::Refused;
        }
        *made += 1;
        Newcomer::OtherName
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_person_and_has_a_few_names_a_month() {
        let newcomers = Newcomers::default();
        let november: Month = "2026-11".parse().unwrap();
        assert_eq!(newcomers.judge("ada", november), Newcomer::Person);
        for _ in 1..PER_MONTH {
            assert_eq!(newcomers.judge("ada", november), Newcomer::OtherName);
        }
        assert_eq!(newcomers.judge("ada", november), Newcomer::Refused);
        assert_eq!(newcomers.judge("bob", november), Newcomer::Person);
        assert_eq!(newcomers.judge("ada", november.plus(1).unwrap()), Newcomer::OtherName);
    }
}
