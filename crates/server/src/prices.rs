//! The catalogue's prices as the ledger's tariff.

use toktra_catalog::{self as catalog, Catalog, Tokens};
use toktra_protocol::{Estimate, UnixSeconds};
use toktra_store::ledger::{Cost, Tariff};
use toktra_store::price_mix::Share;

/// Prices of the catalogue that is compiled in.
#[derive(Clone, Copy, Debug)]
pub struct CatalogPrices;

impl Tariff for CatalogPrices {
    fn cost(
        &self,
        mix: &[Share],
        service: &str,
        at: UnixSeconds,
        tokens_in: Estimate,
        tokens_out: Estimate,
    ) -> Option<Cost> {
        let mix: Vec<_> = mix
            .iter()
            .map(|share| catalog::Share { model: &share.model, permille: share.permille })
            .collect();
        let cost = Catalog::builtin().cost(service, &mix, at.0, tokens(tokens_in), tokens(tokens_out))?;
        Some(Cost {
            low_micros: cost.low_micros,
            point_micros: cost.point_micros,
            high_micros: cost.high_micros,
        })
    }
}

fn tokens(estimate: Estimate) -> Tokens {
    Tokens { low: estimate.low, point: estimate.point, high: estimate.high }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOVEMBER_2026: UnixSeconds = UnixSeconds(1_795_392_000);

    fn cost(mix: &[Share], service: &str) -> Option<[u64; 3]> {
        let million = Estimate { low: 1_000_000, point: 1_000_000, high: 1_000_000 };
        let cost = CatalogPrices.cost(mix, service, NOVEMBER_2026, million, million)?;
        Some([cost.low_micros, cost.point_micros, cost.high_micros])
    }

    #[test]
    fn a_declared_mix_narrows_the_range_and_without_one_it_spans_every_model() {
        let share = |model: &str, permille| Share { model: model.into(), permille };
        let mix = [share("gpt-5", 700), share("gpt-5-mini", 300)];
        assert_eq!(cost(&mix, "openai-api"), Some([2_025_000, 8_550_000, 11_250_000]));
        assert_eq!(cost(&[], "openai-api"), Some([405_000, 12_000_000, 60_000_000]));
        assert_eq!(cost(&mix, "chatgpt"), None);
    }
}
