//! What reports are made of: estimates with their bounds, sums of them, and stretches of hours.
//! Nothing here overflows: what a hostile device claims is at worst a large number.

/// The hours from `start` up to, not including, `end`, as Unix hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// First hour.
    pub start: i64,
    /// The hour after the last.
    pub end: i64,
}

/// An estimate: the truth is expected between `low` and `high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Lower bound.
    pub low: i64,
    /// Best guess.
    pub point: i64,
    /// Upper bound.
    pub high: i64,
}

/// Sums over some part of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Tokens sent.
    pub tokens_in: Interval,
    /// Tokens received.
    pub tokens_out: Interval,
    /// Cost of the priced tokens, micro-dollars.
    pub cost_micros: Interval,
    /// Tokens (point estimates, both directions) that have no price.
    pub tokens_unpriced: i64,
    /// Requests and their replies.
    pub exchanges: i64,
    /// Attempts that were blocked.
    pub blocked: i64,
}

impl Hours {
    /// The `days` days that end with the hour `now` (inclusive): today and the days before it.
    pub fn last_days(days: i64, now: i64) -> Self {
        let tomorrow = now.div_euclid(24) + 1;
        Self { start: (tomorrow - days) * 24, end: tomorrow * 24 }
    }

    /// As many hours just before, up to where the hour `now` lies in these: a period that is
    /// under way is compared with the same stretch of the one before.
    pub fn previous(self, now: i64) -> Self {
        let length = self.end - self.start;
        Self { start: self.start - length, end: (now + 1).min(self.end) - length }
    }
}

impl Interval {
    /// Adds bound to bound, saturating.
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            point: self.point.saturating_add(other.point),
            high: self.high.saturating_add(other.high),
        }
    }

    /// What is left of a sum without one of its parts, bound by bound.
    pub fn minus(self, part: Self) -> Self {
        Self {
            low: self.low.saturating_sub(part.low),
            point: self.point.saturating_sub(part.point),
            high: self.high.saturating_sub(part.high),
        }
    }
}

impl Sums {
    /// Tokens of both directions.
    pub fn tokens(&self) -> Interval {
        self.tokens_in.plus(self.tokens_out)
    }

    /// What is left of a total without one of its parts.
    pub fn minus(&self, part: Self) -> Self {
        Self {
            tokens_in: self.tokens_in.minus(part.tokens_in),
            tokens_out: self.tokens_out.minus(part.tokens_out),
            cost_micros: self.cost_micros.minus(part.cost_micros),
            tokens_unpriced: self.tokens_unpriced.saturating_sub(part.tokens_unpriced),
            exchanges: self.exchanges.saturating_sub(part.exchanges),
            blocked: self.blocked.saturating_sub(part.blocked),
        }
    }

    /// Tokens were used and none of them has a price.
    pub fn is_unpriced(&self) -> bool {
        self.tokens_unpriced > 0 && self.tokens_unpriced >= self.tokens().point
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 20_000;

    #[test]
    fn the_previous_period_goes_as_far_as_this_one_has_come() {
        let now = DAY * 24 + 11;
        let hours = Hours::last_days(7, now);
        assert_eq!(hours.end - hours.start, 7 * 24);
        let expected = Hours { start: hours.start - 7 * 24, end: now + 1 - 7 * 24 };
        assert_eq!(hours.previous(now), expected);
        let over = Hours { start: hours.start - 7 * 24, end: hours.start };
        assert_eq!(hours.previous(now + 1_000), over);
    }
}
