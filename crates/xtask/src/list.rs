//! The public list of prices as we use it: providers, models, prices from dates on. Its form is
//! that of `genai_prices/data.py` in the Python package `genai-prices`.
//!
//! What the list has and we do not take: prices of batches and other variants, of audio, images
//! and requests, and the upper steps of prices that grow with the length of the context.

use std::collections::BTreeMap;

use crate::micros::{MicrosError, micros};
use crate::python::{self, PythonError, Value};

/// Prices by provider and model, both by the list's identifiers.
pub type List = BTreeMap<String, BTreeMap<String, Result<Vec<Step>, Unread>>>;

/// A price from a date on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `YYYY-MM-DD`; none for the first, which always held.
    pub from: Option<String>,
    /// Micro-dollars per million tokens.
    pub price: Price,
}

/// Micro-dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Sent.
    pub input: u64,
    /// Sent, and in the cache.
    pub cached_input: Option<u64>,
    /// Received.
    pub output: u64,
}

/// Why a model's price was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A number that is not exact micro-dollars.
    #[error("has a price that {0}")]
    Number(#[from] MicrosError),
    /// It is not paid by tokens in and out.
    #[error("has no price per token in both directions")]
    NotByToken,
    /// The price depends on the time of day.
    #[error("has a price that depends on the time of day")]
    TimeOfDay,
    /// A form that we do not know.
    #[error("has prices of an unknown form")]
    Form,
}

/// Reads the list.
pub fn read(text: &str) -> Result<List, PythonError> {
    let providers = python::assigned(text, "providers")?;
    let mut list = List::new();
    for provider in providers.list().unwrap_or_default() {
        let id = provider.argument("id").and_then(Value::text);
        let models = provider.argument("models").and_then(Value::list);
        let (Some(id), Some(models)) = (id, models) else {
            return Err(PythonError { line: 1, what: "a provider has no identifier or no models" });
        };
        let into = list.entry(id.to_owned()).or_default();
        for model in models {
            let Some(id) = model.argument("id").and_then(Value::text) else {
                return Err(PythonError { line: 1, what: "a model has no identifier" });
            };
            into.insert(id.to_owned(), model.argument("prices").ok_or(Unread::Form).and_then(steps));
        }
    }
    Ok(list)
}

fn steps(prices: &Value) -> Result<Vec<Step>, Unread> {
    let Some(conditional) = prices.list() else {
        return Ok(vec![Step { from: None, price: price(prices)? }]);
    };
    let mut steps = Vec::with_capacity(conditional.len());
    for each in conditional {
        let from = each.argument("constraint").map(start).transpose()?;
        let price = price(each.argument("prices").ok_or(Unread::Form)?)?;
        steps.push(Step { from, price });
    }
    // From the oldest on; exactly the first has no date.
    let in_order = steps.windows(2).all(|pair| pair[0].from < pair[1].from);
    let begun = steps.first().is_some_and(|first| first.from.is_none());
    if in_order && begun { Ok(steps) } else { Err(Unread::Form) }
}

fn start(constraint: &Value) -> Result<String, Unread> {
    if constraint.call("TimeOfDateConstraint").is_some() {
        return Err(Unread::TimeOfDay);
    }
    let date = constraint.call("StartDateConstraint").and(constraint.argument("start_date"));
    match date.and_then(|date| date.call("datetime.date")) {
        Some([Value::Number(year), Value::Number(month), Value::Number(day)]) => {
            Ok(format!("{year}-{month:0>2}-{day:0>2}"))
        }
        _ => Err(Unread::Form),
    }
}

fn price(prices: &Value) -> Result<Price, Unread> {
    prices.call("ModelPrice").ok_or(Unread::Form)?;
    let of = |name| prices.argument(name).map(amount).transpose();
    match (of("input_mtok")?, of("output_mtok")?) {
        (Some(input), Some(output)) => Ok(Price { input, cached_input: of("cache_read_mtok")?, output }),
        _ => Err(Unread::NotByToken),
    }
}

/// Of a price in steps, the first.
fn amount(value: &Value) -> Result<u64, Unread> {
    let value = match value.call("TieredPrices") {
        Some(_) => value.argument("base").ok_or(Unread::Form)?,
        None => value,
    };
    match value.call("Decimal") {
        Some([Value::Text(dollars)]) => Ok(micros(dollars)?),
        _ => Err(Unread::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(prices: &str) -> Result<Vec<Step>, Unread> {
        let text = format!("providers = [Provider(id='p', models=[ModelInfo(id='m', prices={prices})])]");
        read(&text).unwrap()["p"]["m"].clone()
    }

    fn flat(input: u64, cached_input: Option<u64>, output: u64) -> Price {
        Price { input, cached_input, output }
    }

    #[test]
    fn a_price_and_its_history_are_read_exactly() {
        let price = "ModelPrice(input_mtok=Decimal('0.075'), cache_read_mtok=Decimal('0.003625'), output_mtok=Decimal('5'))";
        let expected = flat(75_000, Some(3_625), 5_000_000);
        assert_eq!(one(price), Ok(vec![Step { from: None, price: expected }]));
        let tiered = "ModelPrice(input_mtok=TieredPrices(base=Decimal('1'), tiers=[Tier(start=9, price=Decimal('2'))]), output_mtok=Decimal('3'))";
        let history = format!(
            "[ConditionalPrice(constraint=None, prices={tiered}), ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date(2026, 1, 5)), prices={price})]"
        );
        let steps = one(&history).unwrap();
        assert_eq!(steps[0], Step { from: None, price: flat(1_000_000, None, 3_000_000) });
        assert_eq!(steps[1], Step { from: Some("2026-01-05".into()), price: expected });
    }

    #[test]
    fn what_is_not_exact_or_not_by_token_is_said_to_be_unread() {
        let with = |input: &str| {
            one(&format!("ModelPrice(input_mtok=Decimal('{input}'), output_mtok=Decimal('1'))"))
        };
        assert_eq!(with("0.0000001"), Err(Unread::Number(MicrosError::Inexact)));
        assert_eq!(with("-1"), Err(Unread::Number(MicrosError::Negative)));
        assert_eq!(one("ModelPrice(input_mtok=0.1, output_mtok=0.2)"), Err(Unread::Form), "a float");
        assert_eq!(one("ModelPrice(input_mtok=Decimal('1'))"), Err(Unread::NotByToken));
        assert_eq!(one("ModelPrice()"), Err(Unread::NotByToken));
        assert_eq!(one("Surprise()"), Err(Unread::Form));
        assert_eq!(one("[]"), Err(Unread::Form));
        let peak = "[ConditionalPrice(constraint=TimeOfDateConstraint(start_time=datetime.time(1, 0)), prices=ModelPrice())]";
        assert_eq!(one(peak), Err(Unread::TimeOfDay));
    }
}
