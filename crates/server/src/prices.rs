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
