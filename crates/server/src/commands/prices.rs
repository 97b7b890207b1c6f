//! Commands on prices: what the catalogue has, and which models an organisation says it uses.

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use toktra_catalog::{Catalog, Kind, Model, Provider};
use toktra_store::Store;
use toktra_store::price_mix::{self, Mix, Share};

use super::arguments::InOrganisation;
use super::directory::{now, organisation_of, print};
use super::{ACTOR, note};

/// Prices of models.
#[derive(Debug, Subcommand)]
pub enum Price {
    /// List the models of a service with the prices in force, in dollars per million tokens.
    List {
        /// The service's identifier, for example `openai-api`.
        #[arg(long)]
        service: String,
    },
    /// Which models the organisation uses of a service, where the connection does not show it.
    #[command(subcommand)]
    Mix(MixCommand),
}

/// Which models the organisation uses of a service.
#[derive(Debug, Subcommand)]
pub enum MixCommand {
    /// Declare it: shares in thousandths that add up to 1000. For what is booked from now on.
    Set {
        /// The service's identifier, for example `openai-api`.
        #[arg(long)]
        service: String,
        /// `MODEL=PERMILLE`, for example `gpt-5=700 gpt-5-mini=300`.
        #[arg(required = true, value_parser = share)]
        shares: Vec<Share>,
        /// The organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// List what is declared.
    List {
        /// The organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Withdraw it: costs span every model of the provider again.
    Remove {
        /// The service's identifier.
        #[arg(long)]
        service: String,
        /// The organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Lists the prices in force of a service.
pub fn list(service: &str) -> anyhow::Result<()> {
    let rows = provider_of(service)?.models_at(now().0).map(|model| {
        let cached = model.cached_input_micros_per_mtok.map_or("-".into(), dollars);
        let class = match (model.typical, model.rare) {
            (true, _) => "typical",
            (_, true) => "rare",
            _ => "",
        };
        [
            model.name.clone(),
            dollars(model.input_micros_per_mtok),
            cached,
            dollars(model.output_micros_per_mtok),
            model.valid_from.clone(),
            model.checked_on.clone(),
            class.to_owned(),
        ]
    });
    print(["model", "in", "cached", "out", "from", "checked", ""], rows)
}

/// Declares, lists and withdraws mixes.
pub async fn mix(store: &Store, command: MixCommand) -> anyhow::Result<()> {
    match command {
        MixCommand::Set { service, shares, within } => {
            let provider = provider_of(&service)?;
            for share in &shares {
                check_priced(provider, &service, &share.model)?;
            }
            let organisation = organisation_of(store, &within).await?;
            price_mix::set(store, &organisation, &Mix { service, shares }, ACTOR, now()).await?;
            note("What is booked from now on is priced so; what was booked keeps its cost.")
        }
        MixCommand::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let mixes = price_mix::of_organisation(store, &organisation.id).await?;
            let rows = mixes.into_iter().flat_map(|mix| {
                let known = mix.shares.iter().all(|share| is_priced(&mix.service, &share.model));
                let used = if known { "yes" } else { "no: a model has no price today" };
                let row = move |share: Share| {
                    [mix.service.clone(), share.model, share.permille.to_string(), used.into()]
                };
                mix.shares.clone().into_iter().map(row).collect::<Vec<_>>()
            });
            print(["service", "model", "permille", "in use"], rows)
        }
        MixCommand::Remove { service, within } => {
            let organisation = organisation_of(store, &within).await?;
            Ok(price_mix::remove(store, &organisation, &service, ACTOR, now()).await?)
        }
    }
}

/// The provider of a service that is paid by token and has prices.
fn provider_of(service: &str) -> anyhow::Result<&'static Provider> {
    let catalog = Catalog::builtin();
    let known = catalog.service(service).with_context(|| {
        format!(
            "the catalogue has no service `{service}`; its identifiers are in docs/catalog.md's data files"
        )
    })?;
    let paid_by_token = matches!(known.kind, Kind::Api | Kind::Cloud);
    ensure!(paid_by_token, "`{service}` is paid by seat; it has no price per token");
    let provider = catalog.provider(known);
    ensure!(
        provider.models().next().is_some(),
        "`{service}` is unpriced: the catalogue has no price of its models"
    );
    Ok(provider)
}

/// A mistyped model would make the mix say nothing.
fn check_priced(provider: &Provider, service: &str, model: &str) -> anyhow::Result<()> {
    let mut names = provider.models_at(now().0).map(|model: &Model| model.name.as_str());
    if !names.any(|name| name == model) {
        bail!(
            "`{service}` has no model `{model}` with a price today; `price list --service {service}` lists them"
        );
    }
    Ok(())
}

fn is_priced(service: &str, model: &str) -> bool {
    provider_of(service).is_ok_and(|provider| check_priced(provider, service, model).is_ok())
}

fn share(text: &str) -> Result<Share, String> {
    let hint = || format!("`{text}` is not MODEL=PERMILLE, for example gpt-5=700");
    let (model, permille) = text.rsplit_once('=').ok_or_else(hint)?;
    let permille = permille.parse().map_err(|_| hint())?;
    if model.is_empty() {
        return Err(hint());
    }
    Ok(Share { model: model.to_owned(), permille })
}

/// In full.
fn dollars(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    format!("${}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_model_and_thousandths() {
        let model = "amazon.nova-lite-v1:0";
        assert_eq!(share("amazon.nova-lite-v1:0=30"), Ok(Share { model: model.into(), permille: 30 }));
        for bad in ["gpt-5", "gpt-5=", "=5", "gpt-5=-1", "gpt-5=70%", "gpt-5=99999999999"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn money_is_shown_in_full() {
        assert_eq!([dollars(5_000), dollars(1_250_000), dollars(30_000_000)], ["$0.005", "$1.25", "$30"]);
    }

    #[test]
    fn only_models_with_a_price_of_a_service_paid_by_token_can_be_declared() {
        assert!(is_priced("openai-api", "gpt-5-mini"));
        assert!(!is_priced("openai-api", "claude-opus-5") && !is_priced("chatgpt", "gpt-5"));
        assert!(!is_priced("no-such-service", "gpt-5") && !is_priced("elevenlabs-api", "x"));
    }
}
