//! What tokens cost. Prices are integer micro-dollars per million tokens, dated. The model
//! behind a connection is not visible, so a cost is a point within an interval: of the models
//! that the organisation says it uses, where it said so, or else of all that the provider has.
//! Chat sites are paid by seat and have no price here.
//!
//! Invariants: `low <= point <= high`; sums saturate and never wrap; a mix of one model is that
//! model's price. A price is refused at load unless it is one that a model can have: whoever
//! enters dollars, or a price per token, where micro-dollars per million are meant, is a
//! thousand times off at least.

use std::ops::RangeInclusive;

use serde::Deserialize;

/// What a million tokens can cost, in micro-dollars: a tenth of a cent to a thousand dollars.
const PLAUSIBLE: RangeInclusive<u64> = 1_000..=1_000_000_000;
/// The same for tokens that were in the cache: down to a hundredth of a cent.
const PLAUSIBLE_CACHED: RangeInclusive<u64> = 100..=1_000_000_000;

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

/// A model that an organisation says it uses, and for how much of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// The provider's name for it.
    pub model: &'a str,
    /// Its weight beside the others'; thousandths where they add up to 1000.
    pub permille: u32,
}

/// A cost in micro-dollars: a point within an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The cheapest model on the lower bounds, everything sent from its cache.
    pub low_micros: u64,
    /// The typical model, or the weighted mean of those declared, on the points.
    pub point_micros: u64,
    /// The dearest model on the upper bounds.
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
    /// Whether it is so seldom used that it does not raise the upper bound unless it is declared.
    #[serde(default)]
    pub rare: bool,
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
    /// The provider's price list: where to check it, not where it was read.
    pub source: String,
    /// Day of the newest evidence for it.
    pub checked_on: String,
    /// Which public list it was read from, with its version; entered by hand if absent.
    pub read_from: Option<String>,
    /// What else a reader must know.
    pub note: Option<String>,
}

/// A model with its dates read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dated {
    pub model: Model,
    from_unix_s: u64,
    until_unix_s: u64,
}

impl Dated {
    /// Checks a price; the error says what is wrong with it.
    pub(crate) fn new(model: Model) -> Result<Self, &'static str> {
        let date = |text: &str| seconds_of_date(text).ok_or("has a date that is not YYYY-MM-DD");
        let from_unix_s = date(&model.valid_from)?;
        let until_unix_s = model.valid_until.as_deref().map_or(Ok(u64::MAX), date)?;
        date(&model.checked_on)?;
        if until_unix_s <= from_unix_s {
            return Err("ends before it begins");
        }
        if model.typical && model.rare {
            return Err("is both typical and rare");
        }
        check_plausible(
            model.input_micros_per_mtok,
            model.cached_input_micros_per_mtok,
            model.output_micros_per_mtok,
        )?;
        Ok(Self { model, from_unix_s, until_unix_s })
    }

    /// Whether both are prices of one model at one time.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.model.name == other.model.name
            && self.from_unix_s < other.until_unix_s
            && other.from_unix_s < self.until_unix_s
    }

    pub(crate) fn holds_at(&self, at_unix_s: u64) -> bool {
        (self.from_unix_s..self.until_unix_s).contains(&at_unix_s)
    }

    /// At the full price, in millionths of a micro-dollar.
    fn full(&self, tokens_in: u64, tokens_out: u64) -> u128 {
        price(tokens_in, self.model.input_micros_per_mtok)
            .saturating_add(price(tokens_out, self.model.output_micros_per_mtok))
    }

    /// As if every token sent had been in the cache.
    fn least(&self, tokens_in: u64, tokens_out: u64) -> u128 {
        let price_in = self.model.cached_input_micros_per_mtok.unwrap_or(self.model.input_micros_per_mtok);
        price(tokens_in, price_in).saturating_add(price(tokens_out, self.model.output_micros_per_mtok))
    }
}

/// Whether a million tokens can cost that, in micro-dollars; the error says why not.
pub fn check_plausible(input: u64, cached_input: Option<u64>, output: u64) -> Result<(), &'static str> {
    if input < *PLAUSIBLE.start() || output < *PLAUSIBLE.start() {
        return Err("costs less than $0.001 per million tokens: in dollars, or per token, by mistake?");
    }
    if input > *PLAUSIBLE.end() || output > *PLAUSIBLE.end() {
        return Err("costs more than $1,000 per million tokens: is it a price per token times a million?");
    }
    match cached_input {
        Some(cached) if !PLAUSIBLE_CACHED.contains(&cached) => {
            Err("has a price from the cache that cannot be")
        }
        Some(cached) if cached > input => Err("costs more from the cache than without it"),
        _ => Ok(()),
    }
}

fn price(tokens: u64, micros_per_mtok: u64) -> u128 {
    u128::from(tokens) * u128::from(micros_per_mtok)
}

fn micros(millionths: u128) -> u64 {
    u64::try_from(millionths / 1_000_000).unwrap_or(u64::MAX)
}

/// The cost of tokens at a time, or `None` when no price is in force. A mix of which a model has
/// no price at that time says nothing, since what is left of it may be dearer than the truth.
pub(crate) fn cost(
    models: &[Dated],
    mix: &[Share<'_>],
    at_unix_s: u64,
    tokens_in: Tokens,
    tokens_out: Tokens,
) -> Option<Cost> {
    cost_of_mix(models, mix, at_unix_s, tokens_in, tokens_out)
        .or_else(|| cost_of_any(models, at_unix_s, tokens_in, tokens_out))
}

fn cost_of_any(models: &[Dated], at_unix_s: u64, tokens_in: Tokens, tokens_out: Tokens) -> Option<Cost> {
    let in_force = || models.iter().filter(|dated| dated.holds_at(at_unix_s));
    let low = in_force().map(|dated| dated.least(tokens_in.low, tokens_out.low)).min()?;
    let usual = in_force().filter(|dated| !dated.model.rare);
    let high = usual.map(|dated| dated.full(tokens_in.high, tokens_out.high)).max()?;
    let typical = in_force().filter(|dated| dated.model.typical).max_by_key(|dated| dated.from_unix_s)?;
    Some(ordered(low, typical.full(tokens_in.point, tokens_out.point), high))
}

fn cost_of_mix(
    models: &[Dated],
    mix: &[Share<'_>],
    at_unix_s: u64,
    tokens_in: Tokens,
    tokens_out: Tokens,
) -> Option<Cost> {
    let (mut low, mut high, mut weighted, mut weights) = (u128::MAX, 0, 0_u128, 0_u128);
    for share in mix {
        let named = |dated: &&Dated| dated.model.name == share.model && dated.holds_at(at_unix_s);
        let dated = models.iter().find(named)?;
        let weight = u128::from(share.permille);
        low = low.min(dated.least(tokens_in.low, tokens_out.low));
        high = high.max(dated.full(tokens_in.high, tokens_out.high));
        let part = dated.full(tokens_in.point, tokens_out.point).saturating_mul(weight);
        weighted = weighted.saturating_add(part);
        weights = weights.saturating_add(weight);
    }
    Some(ordered(low, weighted.checked_div(weights)?, high))
}

/// The tokens' own bounds enclose their point, unless somebody's are nonsense.
fn ordered(low: u128, point: u128, high: u128) -> Cost {
    let low_micros = micros(low);
    let point_micros = micros(point).max(low_micros);
    Cost { low_micros, point_micros, high_micros: micros(high).max(point_micros) }
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
            rare: false,
            input_micros_per_mtok: price,
            cached_input_micros_per_mtok: None,
            output_micros_per_mtok: price * 4,
            valid_from: from.into(),
            valid_until: None,
            source: "https://provider.example/pricing".into(),
            checked_on: from.into(),
            read_from: None,
            note: None,
        }
    }

    fn dated<const N: usize>(models: [Model; N]) -> [Dated; N] {
        models.map(|model| Dated::new(model).unwrap())
    }

    fn cost(models: &[Dated], at_unix_s: u64, tokens_in: Tokens, tokens_out: Tokens) -> Option<Cost> {
        super::cost(models, &[], at_unix_s, tokens_in, tokens_out)
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
        let models = dated([
            model("small", 100_000, false, "2025-01-01"),
            model("big", 1_000_000, true, "2025-01-01"),
        ]);
        let million = 1_000_000;
        let cost = cost(&models, 1_795_392_000, tokens(million, 2 * million, 3 * million), Tokens::default());
        assert_eq!(cost, Some(Cost { low_micros: 100_000, point_micros: 2_000_000, high_micros: 3_000_000 }));
    }

    #[test]
    fn before_the_first_price_it_is_unpriced_and_never_free() {
        let models = dated([model("m", 1_000, true, "2025-01-01")]);
        assert_eq!(cost(&models, 0, tokens(1, 1, 1), tokens(1, 1, 1)), None);
        assert_eq!(cost(&[], 1_795_392_000, tokens(1, 1, 1), tokens(1, 1, 1)), None);
    }

    #[test]
    fn a_price_ends_where_the_next_begins() {
        let mut old = model("m", 2_000_000, true, "2025-01-01");
        old.valid_until = Some("2026-01-01".into());
        let models = dated([old, model("m", 1_000_000, true, "2026-01-01")]);
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
        let models = dated([old, model("new", 2_000_000, true, "2026-01-01")]);
        let million = tokens(1_000_000, 1_000_000, 1_000_000);
        let cost = cost(&models, 1_795_392_000, million, Tokens::default()).unwrap();
        assert_eq!((cost.low_micros, cost.point_micros, cost.high_micros), (400_000, 2_000_000, 4_000_000));
    }

    #[test]
    fn a_rare_model_lowers_the_lower_bound_but_does_not_raise_the_upper() {
        let rare = |name, price| Model { rare: true, ..model(name, price, false, "2025-01-01") };
        let usual = model("usual", 2_000_000, true, "2025-01-01");
        let models = dated([rare("dear", 100_000_000), usual, rare("cheap", 1_000)]);
        let cost = cost(&models, NOW, of(1_000_000), Tokens::default()).unwrap();
        assert_eq!((cost.low_micros, cost.point_micros, cost.high_micros), (1_000, 2_000_000, 2_000_000));
    }

    #[test]
    fn a_mix_is_the_weighted_mean_within_the_declared_models() {
        let models = dated([
            model("small", 1_000_000, false, "2025-01-01"),
            model("big", 10_000_000, false, "2025-01-01"),
            model("never used", 100_000_000, true, "2025-01-01"),
        ]);
        let mix = [Share { model: "small", permille: 700 }, Share { model: "big", permille: 300 }];
        let cost = super::cost(&models, &mix, NOW, of(1_000_000), Tokens::default()).unwrap();
        assert_eq!(
            (cost.low_micros, cost.point_micros, cost.high_micros),
            (1_000_000, 3_700_000, 10_000_000)
        );
    }

    #[test]
    fn a_mix_of_which_a_model_has_no_price_says_nothing() {
        let models =
            dated([model("a", 1_000_000, true, "2025-01-01"), model("b", 9_000_000, false, "2030-01-01")]);
        let any = cost(&models, NOW, of(1_000_000), of(5));
        for model in ["b", "no such model"] {
            let mix = [Share { model: "a", permille: 500 }, Share { model, permille: 500 }];
            assert_eq!(super::cost(&models, &mix, NOW, of(1_000_000), of(5)), any);
        }
        let weightless = [Share { model: "a", permille: 0 }];
        assert_eq!(super::cost(&models, &weightless, NOW, of(1_000_000), of(5)), any);
    }

    #[test]
    fn a_price_in_another_unit_is_refused() {
        let entered = |input, output| {
            let mut model = model("m", 2_500_000, true, "2025-01-01");
            (model.input_micros_per_mtok, model.output_micros_per_mtok) = (input, output);
            Dated::new(model).map(|_| ())
        };
        assert_eq!(entered(2_500_000, 10_000_000), Ok(()), "micro-dollars per million");
        assert!(entered(2, 10).is_err(), "dollars per million, or micro-dollars per token");
        assert!(entered(2_500_000_000_000, 10_000_000_000_000).is_err(), "a million times too much");
        assert!(entered(2_500_000, 10).is_err() && entered(2, 10_000_000).is_err(), "one of the two");
        assert!(entered(0, 0).is_err(), "free is unpriced");
    }

    #[test]
    fn a_price_that_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut Model)| {
            let mut model = model("m", 2_500_000, false, "2025-01-01");
            change(&mut model);
            Dated::new(model).is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|model| model.valid_from = "2025-1-1".into()));
        assert!(refused(|model| model.checked_on = String::new()));
        assert!(refused(|model| model.valid_until = Some("2025-01-01".into())));
        assert!(refused(|model| model.cached_input_micros_per_mtok = Some(2_500_001)));
        assert!(refused(|model| model.cached_input_micros_per_mtok = Some(0)));
        assert!(refused(|model| (model.typical, model.rare) = (true, true)));
    }

    const NOW: u64 = 1_795_392_000;

    fn of(count: u64) -> Tokens {
        tokens(count, count, count)
    }

    prop_compose! {
        fn any_tokens()(mut sorted in any::<[u64; 3]>()) -> Tokens {
            sorted.sort_unstable();
            tokens(sorted[0], sorted[1], sorted[2])
        }
    }

    prop_compose! {
        /// Of any prices that pass the door, the first of them typical.
        fn any_models()(prices in proptest::collection::vec((1_000_u64..=1_000_000_000, 1_000_u64..=1_000_000_000, any::<bool>(), any::<bool>()), 1..8))
            -> Vec<Dated>
        {
            let named = |(index, (input, output, cached, rare)): (usize, (u64, u64, bool, bool))| {
                let mut model = model(&index.to_string(), 1_000, index == 0, "2025-01-01");
                (model.input_micros_per_mtok, model.output_micros_per_mtok) = (input, output);
                model.cached_input_micros_per_mtok = cached.then_some(input / 10);
                model.rare = rare && index > 0;
                Dated::new(model).unwrap()
            };
            prices.into_iter().enumerate().map(named).collect()
        }
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_point_whatever_the_tokens_and_the_mix(
            sent in any_tokens(), received in any_tokens(), models in any_models(),
            weights in proptest::collection::vec(0_u32..=1000, 0..8),
        ) {
            let names: Vec<_> = (0..weights.len()).map(|index| index.to_string()).collect();
            let mix: Vec<_> = names.iter().zip(weights).map(|(model, permille)| Share { model, permille }).collect();
            let cost = super::cost(&models, &mix, NOW, sent, received).unwrap();
            prop_assert!(cost.low_micros <= cost.point_micros && cost.point_micros <= cost.high_micros);
        }

        #[test]
        fn a_mix_lies_within_its_models_each_alone(
            sent in any_tokens(), received in any_tokens(), models in any_models(), weight in 1_u32..=1000,
        ) {
            let alone = |model: &Dated| {
                let mix = [Share { model: &model.model.name, permille: 1000 }];
                super::cost(&models, &mix, NOW, sent, received).unwrap()
            };
            let mix: Vec<_> = models.iter().map(|dated| Share { model: &dated.model.name, permille: weight }).collect();
            let cost = super::cost(&models, &mix, NOW, sent, received).unwrap();
            let each = || models.iter().map(alone);
            prop_assert_eq!(Some(cost.low_micros), each().map(|cost| cost.low_micros).min());
            prop_assert_eq!(Some(cost.high_micros), each().map(|cost| cost.high_micros).max());
            prop_assert!(each().map(|cost| cost.point_micros).min() <= Some(cost.point_micros));
            prop_assert!(Some(cost.point_micros) <= each().map(|cost| cost.point_micros).max());
        }

        #[test]
        fn a_mix_of_one_model_is_that_model(
            sent in any_tokens(), received in any_tokens(), models in any_models(), weight in 1_u32..=1000,
        ) {
            let only = vec![models[0].clone()];
            let mix = [Share { model: "0", permille: weight }];
            prop_assert_eq!(
                super::cost(&models, &mix, NOW, sent, received),
                super::cost(&only, &[], NOW, sent, received)
            );
        }

        #[test]
        fn more_tokens_never_cost_less_and_the_sum_saturates(models in any_models(), count in any::<u64>()) {
            let fewer = cost(&models, NOW, of(count / 2), of(count / 2)).unwrap();
            let more = cost(&models, NOW, of(count), of(count)).unwrap();
            prop_assert!(fewer.low_micros <= more.low_micros && fewer.high_micros <= more.high_micros);
            let most = cost(&models, NOW, of(u64::MAX), of(u64::MAX)).unwrap();
            prop_assert!(more.high_micros <= most.high_micros);
        }
    }
}
