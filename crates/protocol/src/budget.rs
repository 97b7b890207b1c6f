//! A budget as a device and its owner see it: how much, of what, until when, and how much of
//! it is spent. Sums only; what each connection spent is in the events.

use serde::{Deserialize, Serialize};

use crate::{Estimate, UnixSeconds};

/// Path of the endpoint by which a device's user asks for more, on the ingest host.
pub const EXEMPTION_PATH: &str = "/v1/exemptions";
/// Longest reason for an exemption, in bytes.
pub const REASON_LIMIT: usize = 1000;
/// Most budgets that apply to one device.
pub const BUDGETS_LIMIT: usize = 32;

/// A budget that applies to a device, and where it stands in the current period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The backend's identifier.
    pub id: String,
    /// For display, for example `Research, monthly`.
    pub name: String,
    /// Whose spend counts.
    pub scope: Scope,
    /// What `limit` and `spent` count.
    pub unit: Unit,
    /// How long a period is.
    pub period: Period,
    /// First second of the current period.
    pub period_start: UnixSeconds,
    /// First second of the next period.
    pub period_end: UnixSeconds,
    /// What may be spent in this period, what was carried over included.
    pub limit: u64,
    /// What was spent in this period as the backend knows it. A hard cap acts on `low`, a
    /// warning on `point`.
    pub spent: Estimate,
    /// Of the point estimate, tokens that no price is known for; with [`Unit::Micros`] they are not in `spent`.
    pub tokens_unpriced: u64,
    /// Shares of the limit at which to warn, in percent, ascending.
    pub thresholds: Vec<u8>,
    /// Whether providers are blocked when `limit` is passed: a hard cap, and the flag is on.
    pub hard: bool,
    /// While in the future, the cap does not block this device.
    pub exempt_until: Option<UnixSeconds>,
}

/// Whose spend a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Every device of the organisation.
    Organisation,
    /// A department and those below it.
    Department,
    /// A person's devices.
    User,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Tokens, sent and received.
    Tokens,
    /// Micro-dollars at list price.
    Micros,
}

/// How long a budget's period is, in the organisation's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// From midnight to midnight.
    Daily,
    /// From Monday (ISO 8601).
    Weekly,
    /// From the first of the month.
    Monthly,
    /// From the first of January, April, July and October.
    Quarterly,
    /// From the first of January.
    Annual,
}

/// What a device's user asks: `POST {ingest}/v1/exemptions`. Answered with 204.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExemptionRequest {
    /// [`Budget::id`].
    pub budget: String,
    /// Why, in the user's words; at most [`REASON_LIMIT`] bytes.
    pub reason: String,
}

impl Budget {
    /// What is left of the limit by the point estimate.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.spent.point)
    }

    /// Whether the lower bound has reached the limit.
    pub fn is_passed(&self) -> bool {
        self.spent.low >= self.limit
    }

    /// The highest threshold that the point estimate has reached, in percent.
    pub fn threshold_reached(&self) -> Option<u8> {
        let reached =
            |percent: u8| u128::from(self.spent.point) * 100 >= u128::from(self.limit) * u128::from(percent);
        self.thresholds.iter().copied().filter(|&percent| reached(percent)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: u64, low: u64, point: u64) -> Budget {
        Budget {
            id: "b".into(),
            name: "Research".into(),
            scope: Scope::Department,
            unit: Unit::Tokens,
            period: Period::Monthly,
            period_start: UnixSeconds(0),
            period_end: UnixSeconds(1),
            limit,
            spent: Estimate { low, point, high: point },
            tokens_unpriced: 0,
            thresholds: vec![75, 90, 100],
            hard: true,
            exempt_until: None,
        }
    }

    #[test]
    fn a_threshold_is_reached_by_the_point_and_a_cap_by_the_lower_bound() {
        assert_eq!(budget(100, 10, 74).threshold_reached(), None);
        assert_eq!(budget(100, 10, 75).threshold_reached(), Some(75));
        assert_eq!(budget(100, 99, u64::MAX).threshold_reached(), Some(100));
        assert!(!budget(100, 99, 500).is_passed());
        assert!(budget(100, 100, 500).is_passed());
        assert_eq!(budget(100, 10, 130).remaining(), 0);
    }
}
