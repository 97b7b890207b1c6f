//! The catalogue as parsed from its data files, and the checks that make a broken file a
//! build that fails its tests rather than a wrong name in the field.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::price::{self, seconds_of_date};
use crate::trie::Trie;
use crate::{Calibration, Cost, Model, Pattern, PatternError, Tokens};

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
    #[serde(default, rename = "model")]
    models: Vec<Model>,
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
    /// A date that is not `YYYY-MM-DD`, a divisor of zero, or a source that is no https address.
    #[error("`{0}` has a bad date, number or source")]
    Value(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "provider")]
    providers: Vec<Provider>,
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
        for (name, text) in files {
            let file: File = toml::from_str(text)
                .map_err(|source| CatalogError::Toml { file: name.to_owned(), source: Box::new(source) })?;
            for provider in file.providers {
                catalog.add_provider(provider)?;
            }
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

    /// What tokens of a service cost at a time (seconds since 1970); `None` is unpriced.
    pub fn cost(
        &self,
        service_id: &str,
        at_unix_s: u64,
        tokens_in: Tokens,
        tokens_out: Tokens,
    ) -> Option<Cost> {
        let service = self.service(service_id)?;
        match service.kind {
            Kind::Api | Kind::Cloud => {
                price::cost(&self.provider(service).models, at_unix_s, tokens_in, tokens_out)
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
        for model in &provider.models {
            let dates = [Some(&model.valid_from), model.valid_until.as_ref(), Some(&model.checked_on)];
            let dated = dates.into_iter().flatten().all(|date| seconds_of_date(date).is_some());
            if !dated || !is_source(&model.source) {
                return Err(CatalogError::Value(model.name.clone()));
            }
        }
        self.providers.push(provider);
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
    pub fn models(&self) -> &[Model] {
        &self.models
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
