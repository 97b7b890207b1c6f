//! A budget as its row shows it.

use toktra_protocol::Estimate;
use toktra_protocol::budget::{Budget, Unit};
use toktra_store::budgets::{BudgetRow, period_name};
use toktra_store::usage::Interval;

use super::super::figures::{self, Figure};
use super::draft::Draft;
use crate::amount;

/// The deepest indentation that the style sheet knows.
const DEPTHS: usize = 6;

/// A budget as its row shows it.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    /// Whose spend counts.
    pub(super) of: String,
    pub(super) depth: usize,
    pub(super) period: &'static str,
    pub(super) spent: Figure,
    /// The limit, with what was carried over.
    pub(super) limit: String,
    /// What was carried over; empty: nothing.
    pub(super) carried: String,
    pub(super) left: String,
    /// Spent of the limit, in whole percent.
    pub(super) percent: u128,
    /// The same, as far as the bar goes.
    pub(super) bar: u128,
    pub(super) tone: &'static str,
    pub(super) state: String,
    /// Where it warns, in percent, as far as the bar goes.
    pub(super) marks: Vec<u8>,
    pub(super) ends: String,
    pub(super) ends_machine: String,
    /// What an administrator may not have meant, or should know; empty: nothing.
    pub(super) note: String,
    pub(super) form: Draft,
}

impl Row {
    pub(super) fn new(budget: &BudgetRow, standing: Budget, of: String, depth: usize, caps: bool) -> Self {
        let settings = &budget.settings;
        let unit = settings.unit;
        let percent = u128::from(standing.spent.point) * 100 / u128::from(standing.limit.max(1));
        let (tone, state) = state(&standing, caps);
        let ends = i64::try_from(standing.period_end.0).unwrap_or(i64::MAX);
        let carried = standing.limit.saturating_sub(settings.amount);
        Self {
            id: budget.id.clone(),
            name: budget.name.clone(),
            of,
            depth: depth.min(DEPTHS),
            period: period_name(settings.period),
            spent: figure(standing.spent, unit),
            limit: amount::text(standing.limit, unit),
            carried: if carried > 0 { amount::text(carried, unit) } else { String::new() },
            left: match unit {
                Unit::Tokens => amount::text(standing.remaining(), unit),
                Unit::Micros => figures::dollars(i64::try_from(standing.remaining()).unwrap_or(i64::MAX)),
            },
            percent,
            bar: percent.min(100),
            tone,
            state,
            marks: settings.thresholds.iter().copied().filter(|&percent| percent < 100).collect(),
            ends: figures::full_time(ends),
            ends_machine: figures::machine_time(ends),
            note: note(&standing, settings.amount),
            form: Draft::of(&budget.id, settings),
        }
    }
}

/// How grave it is, and in words.
fn state(standing: &Budget, caps: bool) -> (&'static str, String) {
    let words = |text: &str| text.to_owned();
    match (standing.hard, standing.is_passed(), standing.threshold_reached()) {
        (true, true, _) if caps => ("bad", words("Blocks")),
        (true, true, _) => ("warn", words("Passed; hard caps are off")),
        (false, true, _) => ("warn", words("Passed; warns only")),
        (_, false, Some(percent)) => ("warn", format!("{percent} % reached")),
        (true, false, None) if caps => ("good", words("Hard cap")),
        (true, false, None) => ("idle", words("Hard cap, off")),
        (false, false, None) => ("good", words("Warns only")),
    }
}

fn figure(spent: Estimate, unit: Unit) -> Figure {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let interval = Interval { low: number(spent.low), point: number(spent.point), high: number(spent.high) };
    match unit {
        Unit::Tokens => figures::tokens(interval),
        Unit::Micros => Figure {
            value: Some(interval.point),
            text: figures::dollars(interval.point),
            range: if interval.low == interval.high {
                String::new()
            } else {
                format!("{}–{}", figures::dollars(interval.low), figures::dollars(interval.high))
            },
            full: amount::text(spent.point, unit),
            note: String::new(),
        },
    }
}

fn note(standing: &Budget, amount: u64) -> String {
    let unpriced = (standing.unit == Unit::Micros && standing.tokens_unpriced > 0).then(|| {
        let tokens = amount::text(standing.tokens_unpriced, Unit::Tokens);
        format!("{tokens} of this period have no price and do not count")
    });
    amount::doubt(standing.unit, amount).or(unpriced).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use toktra_protocol::UnixSeconds;
    use toktra_protocol::budget::{Period, Scope};

    use super::*;

    fn standing(hard: bool, low: u64, point: u64) -> Budget {
        Budget {
            id: "b".into(),
            name: "Research".into(),
            scope: Scope::Department,
            unit: Unit::Tokens,
            period: Period::Monthly,
            period_start: UnixSeconds(0),
            period_end: UnixSeconds(1),
            limit: 1_000_000,
            spent: Estimate { low, point, high: point },
            tokens_unpriced: 0,
            thresholds: vec![75, 90],
            hard,
            exempt_until: None,
        }
    }

    #[test]
    fn a_state_says_what_happens_to_the_users() {
        let words = |hard, low, point, caps| state(&standing(hard, low, point), caps).1;
        assert_eq!(words(true, 1_000_000, 1_200_000, true), "Blocks");
        assert_eq!(words(true, 1_000_000, 1_200_000, false), "Passed; hard caps are off");
        // The point is beyond, the lower bound is not: nobody is blocked by an estimate's error.
        assert_eq!(words(true, 999_999, 1_200_000, true), "90 % reached");
        assert_eq!(words(false, 1_000_000, 1_000_000, true), "Passed; warns only");
        assert_eq!(words(true, 0, 0, true), "Hard cap");
        assert_eq!(words(true, 0, 0, false), "Hard cap, off");
        assert_eq!(words(false, 0, 749_999, true), "Warns only");
    }
}
