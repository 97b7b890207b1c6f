//! The catalogue as parsed from its data files, and the checks that make a broken file a
//! build that fails its tests rather than a wrong name in the field.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::price::{self, Dated};
use crate::trie::Trie;
use crate::{Calibration, Cost, Model, Pattern, PatternError, Share, Tokens};

/// The data files, compiled in.
const FILES: &[(&str, &str)] = &[
    ("anthropic", include_str!("../data/anthropic.toml")),
    ("asia", include_str!("../data/asia.toml")),
    ("assistants", include_str!("../data/assistants.toml")),
    ("aws", include_str!("../data/aws.toml")),
    ("coding", include_str!("../data/coding.toml")),
    ("gateways", include_str!("../data/gateways.toml")),
    ("google", include_str!("../data/google.toml")),
    ("inference", include_str!("../data/inference.toml")),
    ("media", include_str!("../data/media.toml")),
    ("microsoft", include_str!("../data/microsoft.toml")),
    ("models", include_str!("../data/models.toml")),
    ("openai", include_str!("../data/openai.toml")),
    ("prices/anthropic", include_str!("../data/prices/anthropic.toml")),
    ("prices/aws", include_str!("../data/prices/aws.toml")),
    ("prices/azure", include_str!("../data/prices/azure.toml")),
    ("prices/cohere", include_str!("../data/prices/cohere.toml")),
    ("prices/deepseek", include_str!("../data/prices/deepseek.toml")),
    ("prices/google", include_str!("../data/prices/google.toml")),
    ("prices/groq", include_str!("../data/prices/groq.toml")),
    ("prices/mistral", include_str!("../data/prices/mistral.toml")),
    ("prices/moonshot", include_str!("../data/prices/moonshot.toml")),
    ("prices/openai", include_str!("../data/prices/openai.toml")),
    ("prices/perplexity", include_str!("../data/prices/perplexity.toml")),
    ("prices/xai", include_str!("../data/prices/xai.toml")),
];

/// Who offers services.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Identifier, for example `openai`.
    pub id: String,
    /// As written for people.
    pub name: String,
    #[serde(default, rename = "service")]
    services: Vec<Service>,
    #[serde(default, rename = "calibration")]
    calibrations: Vec<Calibration>,
    /// Set when the catalogue is put together.
    #[serde(skip)]
    prices: Vec<Dated>,
}

/// A service: what one set of hosts is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Identifier, for example `openai-api`.
    pub id: String,
    /// As written for people.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    hosts: Vec<String>,
    /// Where its hosts are documented.
    pub source: String,
    /// Identifier of the calibration of its streamed replies, if there is one.
    pub calibration: Option<String>,
    /// Set when the catalogue is put together.
    #[serde(skip)]
    provider: usize,
}

/// What a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Programs call it; paid by token.
    Api,
    /// A cloud's endpoint of models, often of several makers; paid by token.
    Cloud,
    /// People talk to it in a browser or an application; paid by seat or not at all.
    Chat,
    /// Works inside another program, such as an editor; paid by seat.
    Assistant,
}

/// Every provider, and the means to find one by host.
#[derive(Debug)]
pub struct Catalog {
    providers: Vec<Provider>,
    services: Vec<Service>,
    calibrations: Vec<Calibration>,
    by_id: HashMap<String, usize>,
    trie: Trie,
}

/// Why data files are not a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Not TOML of the catalogue's form.
    #[error("{file}.toml is not a catalogue file")]
    Toml {
        /// The file's name.
        file: String,
        /// What the parser says.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A host pattern that is not one.
    #[error("service `{service}` has a bad host pattern")]
    Pattern {
        /// The service's identifier.
        service: String,
        /// What is wrong.
        #[source]
        source: PatternError,
    },
    /// Two services claim one pattern, or two things one identifier.
    #[error("`{0}` occurs twice")]
    Twice(String),
    /// A service names a calibration that is not there.
    #[error("service `{service}` names the calibration `{calibration}`, which is not there")]
    NoCalibration {
        /// The service's identifier.
        service: String,
        /// The calibration's.
        calibration: String,
    },
    /// Prices are of a provider that is not there.
    #[error("there are prices of the provider `{0}`, which is not there")]
    NoProvider(String),
    /// A price that cannot be.
    #[error("the price of `{model}` of `{provider}` {reason}")]
    Price {
        /// The provider's identifier.
        provider: String,
        /// The model's name.
        model: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A date that is not `YYYY-MM-DD`, a divisor of zero, or a source that is no https address.
    #[error("`{0}` has a bad date, number or source")]
    Value(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "provider")]
    providers: Vec<Provider>,
    #[serde(default)]
    prices: Vec<Prices>,
}

/// The prices of a provider's models.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// The provider's identifier.
    pub of: String,
    /// In any order; two of one name must not hold at one time.
    #[serde(rename = "model")]
    pub models: Vec<Model>,
}

impl Prices {
    /// Reads the prices of a data file, without checking them.
    pub fn parse(name: &str, text: &str) -> Result<Vec<Self>, CatalogError> {
        Ok(File::parse(name, text)?.prices)
    }
}

impl File {
    fn parse(name: &str, text: &str) -> Result<Self, CatalogError> {
        toml::from_str(text)
            .map_err(|source| CatalogError::Toml { file: name.to_owned(), source: Box::new(source) })
    }
}

static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
    // The compiled-in files are checked by a test; should they be broken all the same,
    // nothing is a provider's (fail open).
    Catalog::from_files(FILES.iter().copied()).unwrap_or_else(|_| Catalog::empty())
});

impl Catalog {
    /// The compiled-in catalogue.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads and checks data files, given as names and texts.
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogError> {
        let mut catalog = Self::empty();
        let mut prices = Vec::new();
        for (name, text) in files {
            let file = File::parse(name, text)?;
            for provider in file.providers {
                catalog.add_provider(provider)?;
            }
            prices.extend(file.prices);
        }
        for prices in prices {
            catalog.add_prices(prices)?;
        }
        catalog.check_calibrations()?;
        Ok(catalog)
    }

    /// The service that a host belongs to. Upper and lower case and a trailing dot do not matter.
    pub fn lookup(&self, host: &str) -> Option<&Service> {
        self.services.get(self.trie.lookup(host)?)
    }

    /// Who offers a service.
    pub fn provider(&self, service: &Service) -> &Provider {
        // Services come only from a catalogue, which sets the index.
        &self.providers[service.provider]
    }

    /// The service with this identifier.
    pub fn service(&self, id: &str) -> Option<&Service> {
        self.services.get(*self.by_id.get(id)?)
    }

    /// The calibration of a service's streamed replies.
    pub fn calibration(&self, service: &Service) -> Option<&Calibration> {
        let id = service.calibration.as_deref()?;
        self.calibrations.iter().find(|calibration| calibration.id == id)
    }

    /// What tokens of a service cost at a time (seconds since 1970); `None` is unpriced. `mix` is
    /// which of the provider's models are used, empty where nobody said.
    pub fn cost(
        &self,
        service_id: &str,
        mix: &[Share<'_>],
        at_unix_s: u64,
        tokens_in: Tokens,
        tokens_out: Tokens,
    ) -> Option<Cost> {
        let service = self.service(service_id)?;
        match service.kind {
            Kind::Api | Kind::Cloud => {
                price::cost(&self.provider(service).prices, mix, at_unix_s, tokens_in, tokens_out)
            }
            Kind::Assistant | Kind::Chat => None,
        }
    }

    /// Every provider.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// Every service.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Every calibration.
    pub fn calibrations(&self) -> &[Calibration] {
        &self.calibrations
    }

    fn empty() -> Self {
        Self {
            providers: Vec::new(),
            services: Vec::new(),
            calibrations: Vec::new(),
            by_id: HashMap::new(),
            trie: Trie::new(),
        }
    }

    fn add_provider(&mut self, mut provider: Provider) -> Result<(), CatalogError> {
        if self.providers.iter().any(|known| known.id == provider.id) {
            return Err(CatalogError::Twice(provider.id));
        }
        for service in std::mem::take(&mut provider.services) {
            self.add_service(service)?;
        }
        for calibration in std::mem::take(&mut provider.calibrations) {
            self.add_calibration(calibration)?;
        }
        self.providers.push(provider);
        Ok(())
    }

    fn add_prices(&mut self, prices: Prices) -> Result<(), CatalogError> {
        let Some(provider) = self.providers.iter_mut().find(|provider| provider.id == prices.of) else {
            return Err(CatalogError::NoProvider(prices.of));
        };
        for model in prices.models {
            let name = model.name.clone();
            let wrong = |reason| CatalogError::Price { provider: prices.of.clone(), model: name, reason };
            if !is_source(&model.source) {
                return Err(wrong("has a source that is no https address"));
            }
            match Dated::new(model) {
                Err(reason) => return Err(wrong(reason)),
                Ok(dated) if provider.prices.iter().any(|known| known.overlaps(&dated)) => {
                    return Err(wrong("has two prices at one time"));
                }
                Ok(dated) => provider.prices.push(dated),
            }
        }
        Ok(())
    }

    fn add_service(&mut self, mut service: Service) -> Result<(), CatalogError> {
        // Its provider is pushed once it is whole.
        service.provider = self.providers.len();
        let index = self.services.len();
        if service.hosts.is_empty() || !is_source(&service.source) {
            return Err(CatalogError::Value(service.id));
        }
        for host in &service.hosts {
            let pattern = Pattern::parse(host)
                .map_err(|source| CatalogError::Pattern { service: service.id.clone(), source })?;
            if self.trie.insert(&pattern, index).is_some() {
                return Err(CatalogError::Twice(host.clone()));
            }
        }
        if self.by_id.insert(service.id.clone(), index).is_some() {
            return Err(CatalogError::Twice(service.id));
        }
        self.services.push(service);
        Ok(())
    }

    fn add_calibration(&mut self, calibration: Calibration) -> Result<(), CatalogError> {
        let divisors = [
            Some(calibration.bytes_per_token),
            calibration.sparsest_bytes_per_token,
            calibration.densest_bytes_per_token,
        ];
        let sound = divisors.into_iter().flatten().all(|divisor| divisor > 0)
            && calibration.captured_at().is_some()
            && is_source(&calibration.source);
        if !sound {
            return Err(CatalogError::Value(calibration.id));
        }
        if self.calibrations.iter().any(|known| known.id == calibration.id) {
            return Err(CatalogError::Twice(calibration.id));
        }
        self.calibrations.push(calibration);
        Ok(())
    }

    fn check_calibrations(&self) -> Result<(), CatalogError> {
        for service in &self.services {
            if let Some(id) = &service.calibration
                && self.calibration(service).is_none()
            {
                return Err(CatalogError::NoCalibration {
                    service: service.id.clone(),
                    calibration: id.clone(),
                });
            }
        }
        Ok(())
    }
}

impl Provider {
    /// Its models' prices.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.prices.iter().map(|dated| &dated.model)
    }

    /// Its models with a price at a time (seconds since 1970).
    pub fn models_at(&self, at_unix_s: u64) -> impl Iterator<Item = &Model> {
        self.prices.iter().filter(move |dated| dated.holds_at(at_unix_s)).map(|dated| &dated.model)
    }
}

impl Service {
    /// Its host patterns, as written.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }
}

fn is_source(source: &str) -> bool {
    source.starts_with("https://") && source.len() > "https://".len()
}
