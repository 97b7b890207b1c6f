//! What may be told of a month: sums over at least [`PEOPLE`] people, from which no difference can be
//! taken that is a sum over fewer.
//!
//! A tier stands by itself if at least [`PEOPLE`] people of it used anything. All others are one group;
//! if that has fewer, the first tier that stands by itself takes it in. If none stands, nothing is told.
//!
//! Invariants: every member is in at most one sum of a month, so that the sums and whatever is added or
//! subtracted from them cover at least [`PEOPLE`] people or nobody. Which sums there are depends on how
//! many people used anything, never on how much. What a sum is called does not tell whether a small
//! group is in it: the sum that takes others in is called so even if there are none. A month's sums are
//! made once ([`crate::closing`]), so that no two tellings of a month differ.

use std::collections::BTreeMap;

/// Fewest people of a sum.
pub const PEOPLE: usize = 5;

/// What a member used in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The tier's identifier; empty: a small one.
    pub tier: String,
    /// Whether the member counts as one of the people.
    pub is_person: bool,
    /// Tokens.
    pub tokens: u64,
}

/// A sum that may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The tier's identifier; `None`: of no tier by itself.
    pub tier: Option<String>,
    /// Whether it takes in every tier that has no sum of its own.
    pub others: bool,
    /// Tokens.
    pub tokens: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    people: usize,
    tokens: u64,
}

impl Group {
    fn add(&mut self, other: Self) {
        self.people += other.people;
        self.tokens = self.tokens.saturating_add(other.tokens);
    }
}

/// The sums of a month.
pub fn of(shares: &[Share]) -> Vec<Sum> {
    let mut tiers: BTreeMap<&str, Group> = BTreeMap::new();
    for share in shares {
        let group = Group { people: usize::from(share.is_person), tokens: share.tokens };
        tiers.entry(&share.tier).or_default().add(group);
    }
    let (mut standing, mut rest) = (Vec::new(), Group::default());
    for (tier, group) in tiers {
        if tier.is_empty() || group.people < PEOPLE {
            rest.add(group);
        } else {
            standing.push(Sum { tier: Some(tier.to_owned()), others: false, tokens: group.tokens });
        }
    }
    if rest.people >= PEOPLE {
        standing.push(Sum { tier: None, others: true, tokens: rest.tokens });
    } else if let Some(first) = standing.first_mut() {
        first.others = true;
        first.tokens = first.tokens.saturating_add(rest.tokens);
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(tier: &str, people: usize, tokens: u64) -> Vec<Share> {
        vec![Share { tier: tier.into(), is_person: true, tokens }; people]
    }

    fn sum(tier: Option<&str>, others: bool, tokens: u64) -> Sum {
        Sum { tier: tier.map(Into::into), others, tokens }
    }

    #[test]
    fn four_people_are_nobodys_sum_and_five_are_one() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&shares("a", 4, 10)), []);
        assert_eq!(of(&shares("a", 5, 10)), [sum(Some("a"), true, 50)]);
    }

    #[test]
    fn small_tiers_are_one_group_and_a_group_that_is_too_small_is_taken_in() {
        let large = [shares("b", 5, 10), shares("c", 6, 10)].concat();
        assert_eq!(of(&large), [sum(Some("b"), true, 50), sum(Some("c"), false, 60)]);
        let with_four = [large.clone(), shares("a", 2, 1), shares("", 2, 1)].concat();
        assert_eq!(of(&with_four), [sum(Some("b"), true, 54), sum(Some("c"), false, 60)]);
        let with_five = [large, shares("a", 2, 1), shares("", 3, 1)].concat();
        assert_eq!(
            of(&with_five),
            [sum(Some("b"), false, 50), sum(Some("c"), false, 60), sum(None, true, 5)]
        );
        assert_eq!(of(&[shares("a", 3, 1), shares("", 2, 1)].concat()), [sum(None, true, 5)]);
    }

    #[test]
    fn another_name_of_somebody_adds_tokens_but_no_person() {
        let mut five = shares("a", 5, 10);
        five[4].is_person = false;
        assert_eq!(of(&five), []);
        five.extend(shares("a", 1, 10));
        assert_eq!(of(&five), [sum(Some("a"), true, 60)]);
    }
}
