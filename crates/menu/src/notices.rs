//! What the user is told without asking: each threshold once in its period, each block and
//! lock once, and their end. What was said is remembered across restarts by whoever keeps
//! [`Announced`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toktra_protocol::local::Status;
use toktra_protocol::{Block, Budget, UnixSeconds};

use crate::state::{block_in_force, reason};
use crate::words::{self, MESSAGE_LIMIT, NAME_LIMIT};
use crate::{Situation, personal};

/// Most budgets that are remembered.
const REMEMBERED: usize = 64;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub urgency: Urgency,
    /// One line, plain text.
    pub summary: String,
    /// What, why, until when, and what to do; plain text.
    pub body: String,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It may vanish by itself.
    Normal,
    /// It stays until it was read.
    Critical,
}

/// What was said already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Announced {
    /// By budget: the period, its end, and the highest threshold.
    thresholds: BTreeMap<String, Threshold>,
    block: Option<Told>,
    lock: Option<String>,
    personal: Option<personal::Said>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Threshold {
    period_start: UnixSeconds,
    period_end: UnixSeconds,
    percent: u8,
    #[serde(default)]
    limit: u64,
}

/// What makes a block another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    why: String,
    budget: Option<String>,
    until: Option<UnixSeconds>,
}

impl Announced {
    /// What is new, and is from now on remembered as said. Says nothing while the agent is
    /// away or has no directive: what it will say then is not known.
    pub fn news(&mut self, situation: &Situation<'_>) -> Vec<Notice> {
        let Some(status) = situation.status.filter(|status| status.directive_version.is_some()) else {
            return Vec::new();
        };
        let mut news = Vec::new();
        news.extend(self.lock(status));
        news.extend(self.block(status, situation));
        news.extend(self.personal(situation));
        for budget in &status.budgets {
            news.extend(self.threshold(budget, status, situation));
        }
        self.forget(situation.now);
        news
    }

    fn lock(&mut self, status: &Status) -> Option<Notice> {
        let lock = status.lock.as_ref().map(|lock| words::clean(&lock.message, MESSAGE_LIMIT));
        if lock == self.lock {
            return None;
        }
        self.lock.clone_from(&lock);
        Some(match lock {
            Some(message) => Notice {
                urgency: Urgency::Critical,
                summary: "Language models are locked on this device".to_owned(),
                body: sentences([
                    "Connections to every provider are refused, because an administrator locked this device",
                    &message,
                    "It holds until an administrator lifts it: ask yours",
                ]),
            },
            None => Notice {
                urgency: Urgency::Normal,
                summary: "The lock was lifted".to_owned(),
                body: "An administrator unlocked this device.".to_owned(),
            },
        })
    }

    fn personal(&mut self, situation: &Situation<'_>) -> Option<Notice> {
        let ledger = situation.ledger()?;
        let notice = personal::notice(self.personal, ledger, situation);
        self.personal = Some(personal::Said::of(ledger));
        notice
    }

    fn block(&mut self, status: &Status, situation: &Situation<'_>) -> Option<Notice> {
        let block = block_in_force(status, situation.now);
        let told = block.map(|block| Told {
            why: format!("{:?} {}", block.reason, words::what_blocked(block)),
            budget: block.budget.clone(),
            until: block.until,
        });
        if told == self.block {
            return None;
        }
        self.block = told;
        Some(match block {
            Some(block) => blocked(block, status, situation),
            None => Notice {
                urgency: Urgency::Normal,
                summary: "Language models are open again".to_owned(),
                body: if status.cap_opened {
                    "The backend has been out of reach for so long that the cap was opened.".to_owned()
                } else {
                    "The block has ended.".to_owned()
                },
            },
        })
    }

    fn threshold(&mut self, budget: &Budget, status: &Status, situation: &Situation<'_>) -> Option<Notice> {
        let Budget { period_start, period_end, limit, .. } = *budget;
        let percent = budget.threshold_reached().unwrap_or_default();
        let said = self.thresholds.get_mut(&budget.id).filter(|said| said.period_start == period_start);
        if let Some(said) = said {
            // Of more, less is spent: what comes then is said again, where it stands now is not.
            if limit > said.limit {
                said.percent = said.percent.min(percent);
            }
            said.limit = limit;
            if said.percent >= percent {
                return None;
            }
        } else if percent == 0 {
            return None;
        }
        self.thresholds.insert(budget.id.clone(), Threshold { period_start, period_end, percent, limit });
        // The block says it already.
        let blocked = block_in_force(status, situation.now)
            .is_some_and(|block| block.budget.as_deref() == Some(budget.id.as_str()));
        (!blocked).then(|| reached(budget, percent, situation))
    }

    /// Periods that are over, and whatever a backend makes up beyond reason.
    fn forget(&mut self, now: UnixSeconds) {
        self.thresholds.retain(|_, threshold| now < threshold.period_end);
        while self.thresholds.len() > REMEMBERED {
            self.thresholds.pop_first();
        }
    }
}

fn blocked(block: &Block, status: &Status, situation: &Situation<'_>) -> Notice {
    let budget = status.budgets.iter().find(|budget| Some(&budget.id) == block.budget.as_ref());
    let name = budget.map(|budget| format!(" ({})", words::clean(&budget.name, NAME_LIMIT)));
    let why = format!(
        "Connections to {} are refused: {}{}",
        words::what_blocked(block),
        reason(block.reason),
        name.unwrap_or_default()
    );
    let until = block
        .until
        .map(|until| format!("Until {}", words::moment(until, situation.now, situation.zone)))
        .unwrap_or_default();
    let what_to_do = if block.budget.is_some() {
        "To ask for more, choose Request more in the menu, or run: toktra-agent budget request --reason TEXT"
    } else {
        "Ask your administrator"
    };
    Notice {
        urgency: Urgency::Critical,
        summary: "Language models are blocked".to_owned(),
        body: sentences([&why, &words::clean(&block.message, MESSAGE_LIMIT), &until, what_to_do]),
    }
}

fn reached(budget: &Budget, percent: u8, situation: &Situation<'_>) -> Notice {
    let name = words::clean(&budget.name, NAME_LIMIT);
    let spent = format!(
        "{} of {} is spent",
        words::estimate(budget.unit, budget.spent),
        words::amount(budget.unit, budget.limit)
    );
    let ends = format!("The period ends {}", words::moment(budget.period_end, situation.now, situation.zone));
    let then = if budget.hard {
        "When the limit is passed, providers are blocked until then. To ask for more, choose Request more in the menu"
    } else {
        "Nothing will be blocked"
    };
    Notice {
        urgency: Urgency::Normal,
        summary: format!("{name}: {percent} % is spent"),
        body: sentences([&spent, &ends, then]),
    }
}

/// Joins what is there, each with its full stop.
fn sentences<const N: usize>(parts: [&str; N]) -> String {
    let stop = |part: &&str| match part.ends_with(['.', '!', '?', '…']) {
        true => (*part).to_owned(),
        false => format!("{part}."),
    };
    parts.iter().filter(|part| !part.is_empty()).map(stop).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use toktra_protocol::Lock;

    use super::*;
    use crate::state::tests::{NOW, block, budget, situation, well};

    fn news(announced: &mut Announced, status: &Status) -> Vec<String> {
        let notices = announced.news(&situation(Some(status), &TimeZone::UTC));
        notices.into_iter().map(|notice| format!("{}\n{}", notice.summary, notice.body)).collect()
    }

    #[test]
    fn each_threshold_is_said_once_in_its_period() {
        let mut announced = Announced::default();
        let at = |point| Status { budgets: vec![budget(1_000_000, point)], ..well() };
        assert!(news(&mut announced, &at(740_000)).is_empty());
        let said = news(&mut announced, &at(750_000));
        assert_eq!(
            said,
            ["Research: 75 % is spent\n\
              750 k tokens (between 675 k and 825 k) of 1.00 M tokens is spent. \
              The period ends Mon 30 Nov 2026, 17:33 (in 6 days). When the limit is passed, \
              providers are blocked until then. To ask for more, choose Request more in the menu."]
        );
        assert!(news(&mut announced, &at(760_000)).is_empty());
        assert_eq!(news(&mut announced, &at(1_000_000)).len(), 1, "one, for the highest");
        assert!(news(&mut announced, &at(950_000)).is_empty(), "an estimate that fell says nothing anew");
        let json = serde_json::to_string(&announced).unwrap();
        let mut after_restart: Announced = serde_json::from_str(&json).unwrap();
        assert!(news(&mut after_restart, &at(1_000_000)).is_empty());
        let mut next = at(800_000);
        next.budgets[0].period_start = NOW;
        assert_eq!(news(&mut after_restart, &next).len(), 1);
    }

    #[test]
    fn a_limit_that_was_raised_is_warned_of_again_on_the_way_to_it() {
        let mut announced = Announced::default();
        let at = |limit, point| Status { budgets: vec![budget(limit, point)], ..well() };
        assert_eq!(news(&mut announced, &at(100, 100)).len(), 1);
        assert!(news(&mut announced, &at(200, 100)).is_empty(), "half of it is no news");
        assert_eq!(news(&mut announced, &at(200, 180)).len(), 1, "90 % of more");
        assert!(news(&mut announced, &at(201, 181)).is_empty(), "where it stands already is no news");
        assert_eq!(news(&mut announced, &at(201, 201)).len(), 1);
        assert!(news(&mut announced, &at(150, 201)).is_empty(), "nor is a lower limit");
    }

    #[test]
    fn a_block_says_what_why_until_when_and_what_to_do_and_its_end_is_said_too() {
        let mut announced = Announced::default();
        let mut status = Status { block: Some(block()), budgets: vec![budget(100, 120)], ..well() };
        assert_eq!(
            news(&mut announced, &status),
            ["Language models are blocked\n\
              Connections to every provider are refused: the budget is spent (Research). Ask Ms Lee. \
              Until Mon 30 Nov 2026, 17:33 (in 6 days). To ask for more, choose Request more in the \
              menu, or run: toktra-agent budget request --reason TEXT."]
        );
        status.block_until = Some(NOW.plus(50));
        assert!(news(&mut announced, &status).is_empty(), "a longer validity is no other block");
        let away = Announced::news(&mut announced, &situation(None, &TimeZone::UTC));
        assert!(away.is_empty());
        let starting = Status { directive_version: None, block: None, ..well() };
        assert!(news(&mut announced, &starting).is_empty(), "not known yet is not open");
        status.block = None;
        let said = news(&mut announced, &status);
        assert!(said[0].starts_with("Language models are open again"), "{said:?}");
    }

    #[test]
    fn a_lock_is_said_and_so_is_its_end() {
        let mut announced = Announced::default();
        let locked = Status { lock: Some(Lock { message: "Call 4711".into() }), ..well() };
        let said = news(&mut announced, &locked);
        assert!(said[0].contains("Call 4711. It holds until"), "{said:?}");
        assert!(news(&mut announced, &locked).is_empty());
        assert!(news(&mut announced, &well())[0].starts_with("The lock was lifted"));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut announced = Announced::default();
        let budgets = (0..1000).map(|number| Budget { id: format!("b{number:04}"), ..budget(100, 80) });
        news(&mut announced, &Status { budgets: budgets.collect(), ..well() });
        assert_eq!(announced.thresholds.len(), REMEMBERED);
    }
}
