//! Which of the list's models are ours, said explicitly: `crates/xtask/prices.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its parts.
    #[serde(rename = "provider")]
    pub providers: Vec<Mapping>,
}

/// A provider's part of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The list's identifier of the provider.
    pub list: String,
    /// The catalogue's.
    pub ours: String,
    /// The provider's own list of prices, of models that are new to us.
    pub source: String,
    /// Models that are taken, by the list's identifiers.
    #[serde(default)]
    pub usual: Vec<String>,
    /// The same, of models that do not raise the upper bound.
    #[serde(default)]
    pub rare: Vec<String>,
    /// Models that are not taken; a `*` at the end stands for the rest.
    #[serde(default)]
    pub ignored: Vec<String>,
    /// The catalogue's names where they are not the list's.
    #[serde(default)]
    pub renamed: BTreeMap<String, String>,
}

impl Mapping {
    /// The list's identifiers of the models that are taken, and whether each is rare.
    pub fn taken(&self) -> impl Iterator<Item = (&str, bool)> {
        let usual = self.usual.iter().map(|id| (id.as_str(), false));
        usual.chain(self.rare.iter().map(|id| (id.as_str(), true)))
    }

    /// The catalogue's name of a model of the list.
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.renamed.get(id).map_or(id, String::as_str)
    }

    /// Whether the table says anything of the model.
    pub fn knows(&self, id: &str) -> bool {
        let ignored = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => id.starts_with(beginning),
            None => id == pattern,
        };
        self.taken().any(|(taken, _)| taken == id) || self.ignored.iter().any(ignored)
    }
}
