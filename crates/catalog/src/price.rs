//! What tokens cost. Prices are integer micro-dollars per million tokens, dated. The model
//! behind a connection is not visible, so a cost is a point (the provider's typical model)
//! within an interval (its cheapest and dearest plausible ones). Chat sites are paid by seat
//! and have no price here.

use serde::Deserialize;

/// Tokens: a point within an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Lower bound.
    pub low: u64,
    /// Best guess.
    pub point: u64,
    /// Upper bound.
    pub high: u64,
}

/// A cost in micro-dollars: a point within an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The cheapest plausible model on the lower bounds, everything sent from its cache.
    pub low_micros: u64,
    /// The typical model on the points.
    pub point_micros: u64,
    /// The dearest plausible model on the upper bounds.
    pub high_micros: u64,
}

/// A model's list price from a date on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The provider's name for it.
    pub name: String,
    /// Whether the point estimate takes it: of those in force the one that came last.
    #[serde(default)]
    pub typical: bool,
    /// Micro-dollars per million tokens sent.
    pub input_micros_per_mtok: u64,
    /// The same for tokens that the provider had in its cache, where it takes less for them.
    pub cached_input_micros_per_mtok: Option<u64>,
    /// Micro-dollars per million tokens received.
    pub output_micros_per_mtok: u64,
    /// First day on which it holds, UTC: `2025-08-07`.
    pub valid_from: String,
    /// First day on which it no longer holds, if it has ended.
    pub valid_until: Option<String>,
    /// The price list: where to check it, not where it was read.
    pub source: String,
    /// Day of the newest evidence for it; whether that was the price list itself, the data file says.
    pub checked_on: String,
}

impl Model {
    fn holds_at(&self, at_unix_s: u64) -> bool {
        let from = seconds_of_date(&self.valid_from);
        let until = self.valid_until.as_deref().and_then(seconds_of_date);
        from.is_some_and(|from| from <= at_unix_s) && until.is_none_or(|until| at_unix_s < until)
    }

    /// At the full price.
    fn micros(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        micros([(tokens_in, self.input_micros_per_mtok), (tokens_out, self.output_micros_per_mtok)])
    }

    /// As if every token sent had been in the cache.
    fn least_micros(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        let price_in = self.cached_input_micros_per_mtok.unwrap_or(self.input_micros_per_mtok);
        micros([(tokens_in, price_in), (tokens_out, self.output_micros_per_mtok)])
    }
}

fn micros(parts: [(u64, u64); 2]) -> u64 {
    let sum: u128 = parts.iter().map(|&(tokens, price)| u128::from(tokens) * u128::from(price)).sum();
    u64::try_from(sum / 1_000_000).unwrap_or(u64::MAX)
}

/// The cost of tokens at a time, or `None` when no price is in force.
pub(crate) fn cost(models: &[Model], at_unix_s: u64, tokens_in: Tokens, tokens_out: Tokens) -> Option<Cost> {
    let in_force = || models.iter().filter(|model| model.holds_at(at_unix_s));
    let low_micros = in_force().map(|model| model.least_micros(tokens_in.low, tokens_out.low)).min()?;
    let high_micros = in_force().map(|model| model.micros(tokens_in.high, tokens_out.high)).max()?;
    let typical = in_force().filter(|model| model.typical).max_by_key(|model| &model.valid_from)?;
    let point_micros = typical.micros(tokens_in.point, tokens_out.point).clamp(low_micros, high_micros);
    Some(Cost { low_micros, point_micros, high_micros })
}

/// Midnight UTC of a date `YYYY-MM-DD` from 1970 on (proleptic Gregorian, ISO 8601).
pub(crate) fn seconds_of_date(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length)?.parse::<u64>().ok();
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *months.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if parts.next().is_some() || year < 1970 || day == 0 || day > length {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = years + months.iter().take(month as usize - 1).sum::<u64>() + day - 1;
    Some(days * 86_400)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(name: &str, price: u64, typical: bool, from: &str) -> Model {
        Model {
            name: name.into(),
            typical,
            input_micros_per_mtok: price,
            cached_input_micros_per_mtok: None,
            output_micros_per_mtok: price * 4,
            valid_from: from.into(),
            valid_until: None,
            source: "https://provider.example/pricing".into(),
            checked_on: from.into(),
        }
    }

    fn tokens(low: u64, point: u64, high: u64) -> Tokens {
        Tokens { low, point, high }
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        assert_eq!(seconds_of_date("1970-01-01"), Some(0));
        assert_eq!(seconds_of_date("2000-03-01"), Some(951_868_800));
        assert_eq!(seconds_of_date("2026-11-23"), Some(1_795_392_000));
        for text in
            ["2026-02-29", "2026-13-01", "2026-00-01", "2026-1-1", "26-01-01", "2026-01-01-01", "", "x"]
        {
            assert_eq!(seconds_of_date(text), None, "{text}");
        }
    }

    #[test]
    fn a_cost_spans_the_plausible_models() {
        let models =
            [model("small", 100_000, false, "2025-01-01"), model("big", 1_000_000, true, "2025-01-01")];
        let million = 1_000_000;
        let cost = cost(&models, 1_795_392_000, tokens(million, 2 * million, 3 * million), Tokens::default());
        assert_eq!(cost, Some(Cost { low_micros: 100_000, point_micros: 2_000_000, high_micros: 3_000_000 }));
    }

    #[test]
    fn before_the_first_price_it_is_unpriced_and_never_free() {
        let models = [model("m", 1, true, "2025-01-01")];
        assert_eq!(cost(&models, 0, tokens(1, 1, 1), tokens(1, 1, 1)), None);
        assert_eq!(cost(&[], 1_795_392_000, tokens(1, 1, 1), tokens(1, 1, 1)), None);
    }

    #[test]
    fn a_price_ends_where_the_next_begins() {
        let mut old = model("m", 2_000_000, true, "2025-01-01");
        old.valid_until = Some("2026-01-01".into());
        let models = [old, model("m", 1_000_000, true, "2026-01-01")];
        let at = |date| {
            cost(&models, seconds_of_date(date).unwrap(), tokens(0, 1_000_000, 1_000_000), Tokens::default())
        };
        assert_eq!(at("2025-12-31").unwrap().point_micros, 2_000_000);
        assert_eq!(at("2026-01-01").unwrap().point_micros, 1_000_000);
    }

    #[test]
    fn the_lower_bound_allows_for_the_cache_and_the_typical_model_is_the_latest() {
        let mut old = model("old", 4_000_000, true, "2025-01-01");
        old.cached_input_micros_per_mtok = Some(400_000);
        let models = [old, model("new", 2_000_000, true, "2026-01-01")];
        let million = tokens(1_000_000, 1_000_000, 1_000_000);
        let cost = cost(&models, 1_795_392_000, million, Tokens::default()).unwrap();
        assert_eq!((cost.low_micros, cost.point_micros, cost.high_micros), (400_000, 2_000_000, 4_000_000));
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_point_whatever_the_tokens(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
            let mut sorted = [a, b, c];
            sorted.sort_unstable();
            let any = tokens(sorted[0], sorted[1], sorted[2]);
            let models = [model("a", 3, false, "2025-01-01"), model("b", u64::from(u32::MAX), true, "2025-01-01")];
            let cost = cost(&models, 1_795_392_000, any, any).unwrap();
            prop_assert!(cost.low_micros <= cost.point_micros && cost.point_micros <= cost.high_micros);
        }
    }
}
