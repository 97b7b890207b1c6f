//! What changed most since last week, among departments and services: the last seven days against the seven
//! before them.

use std::collections::BTreeMap;

use toktra_store::Store;
use toktra_store::period::{Day, Days};
use toktra_store::usage::{self, DEAREST, Dimension, Share, Sums};

use super::super::failure::Failure;
use super::super::figures::{self, Figure};
use super::super::shares;
use super::super::sight::Sight;

/// Rows of the table.
const ROWS: usize = 8;
/// Most departments, and most services, that are compared.
const COMPARED: u32 = 1000;

/// A department or service, and what it used in both weeks.
pub(super) struct Change {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) before: [Figure; 2],
    pub(super) now: [Figure; 2],
    /// Of the tokens: `+12 %`, `new`, `none any more`.
    pub(super) text: String,
    pub(super) is_more: bool,
}

/// The largest changes by cost, then by tokens.
pub(super) async fn since_last_week(store: &Store, sight: &Sight) -> Result<Vec<Change>, Failure> {
    let week = sight.last_days(7);
    let before = Days { start: Day(week.start.0 - 7), end: week.start };
    let mut pairs: Vec<(Dimension, String, Sums, Sums)> = Vec::new();
    for dimension in [Dimension::Department, Dimension::Service] {
        let mut rows: BTreeMap<String, (String, Sums, Sums)> = BTreeMap::new();
        for (days, is_now) in [(before, false), (week, true)] {
            let question = sight.question(days);
            for share in usage::by(store, &question, dimension, DEAREST, (0, COMPARED)).await? {
                let name = shares::name(dimension, &share);
                let Share { id, sums, .. } = share;
                let row = rows.entry(id).or_insert((name, Sums::default(), Sums::default()));
                *(if is_now { &mut row.2 } else { &mut row.1 }) = sums;
            }
        }
        pairs.extend(rows.into_values().map(|(name, was, is)| (dimension, name, was, is)));
    }
    pairs.retain(|(_, _, was, is)| was.tokens() != is.tokens());
    pairs.sort_by_key(|(_, _, was, is)| {
        let distance = |was: i64, is: i64| std::cmp::Reverse(was.abs_diff(is));
        (
            distance(was.cost_micros.point, is.cost_micros.point),
            distance(was.tokens().point, is.tokens().point),
        )
    });
    pairs.truncate(ROWS);
    Ok(pairs.into_iter().map(|(dimension, name, was, is)| change(dimension, name, &was, &is)).collect())
}

fn change(dimension: Dimension, name: String, was: &Sums, is: &Sums) -> Change {
    let (before, now) = (was.tokens().point, is.tokens().point);
    let both = |sums: &Sums| match sums.tokens().point {
        0 => [figures::nothing(), figures::nothing()],
        _ => [figures::tokens(sums.tokens()), figures::cost(sums)],
    };
    Change {
        kind: shares::kind(dimension),
        name,
        before: both(was),
        now: both(is),
        text: match figures::change(before, now) {
            Some(_) if now == 0 => "none any more".to_owned(),
            Some(change) => change,
            None => "new".to_owned(),
        },
        is_more: now > before,
    }
}
