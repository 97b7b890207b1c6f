//! What reports are made of: estimates with their bounds, and sums of them.
//! Nothing here overflows: what a hostile device claims is at worst a large number.

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
