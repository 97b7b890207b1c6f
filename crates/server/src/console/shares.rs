//! Usage told apart by provider, service, department, person, device or application, as tables show it.

use std::collections::HashMap;
use std::sync::LazyLock;

use toktra_catalog::Catalog;
use toktra_store::usage::{Dimension, Share, Sums};

use super::figures::{self, Figure};

/// A table of the parts of a total.
pub(super) struct Table {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) kind: &'static str,
    pub(super) rows: Vec<Row>,
    /// Where all of it is; empty: nowhere.
    pub(super) all: String,
}

/// A part of a total.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) is_rest: bool,
    pub(super) tokens: Figure,
    pub(super) cost: Figure,
    /// Of the cost of all, or of all tokens where nothing has a price: `42.31%`.
    pub(super) share: String,
    pub(super) share_text: String,
}

/// How an address names a dimension.
pub(super) fn key(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Provider => "provider",
        Dimension::Service => "service",
        Dimension::Department => "department",
        Dimension::User => "user",
        Dimension::Device => "device",
        Dimension::Application => "application",
    }
}

/// What a page calls it.
pub(super) fn kind(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Provider => "Provider",
        Dimension::Service => "Service",
        Dimension::Department => "Department",
        Dimension::User => "Person",
        Dimension::Device => "Device",
        Dimension::Application => "Application",
    }
}

/// What a row is called: the catalogue's name of a provider or service, or the identifier where a newer
/// catalogue is on the devices.
pub(super) fn name(dimension: Dimension, share: &Share) -> String {
    static SERVICES: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
        let services = Catalog::builtin().services().iter();
        services.map(|service| (service.id.as_str(), service.name.as_str())).collect()
    });
    static PROVIDERS: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
        let providers = Catalog::builtin().providers().iter();
        providers.map(|provider| (provider.id.as_str(), provider.name.as_str())).collect()
    });
    let id = share.id.as_str();
    match dimension {
        Dimension::Provider => PROVIDERS.get(id).copied().unwrap_or(id).to_owned(),
        Dimension::Service => SERVICES.get(id).copied().unwrap_or(id).to_owned(),
        Dimension::Application if id.is_empty() => "Unknown application".to_owned(),
        Dimension::Application => id.to_owned(),
        Dimension::Department | Dimension::User | Dimension::Device => match &share.name {
            Some(name) => name.clone(),
            None if id.is_empty() => format!("No {}", kind(dimension).to_lowercase()),
            None => format!("Unknown {}", kind(dimension).to_lowercase()),
        },
    }
}

/// A table of the first so many of these; what is left of the total is summed up below them.
pub(super) fn table(
    (dimension, title): (Dimension, &str),
    shares: &[Share],
    rows: usize,
    total: &Sums,
    all: String,
) -> Table {
    let (shown, hidden) = shares.split_at(shares.len().min(rows));
    let mut rows: Vec<Row> = shown
        .iter()
        .map(|share| row(share.id.clone(), name(dimension, share), false, &share.sums, total))
        .collect();
    if !hidden.is_empty() {
        let rest = shown.iter().fold(*total, |rest, share| rest.minus(share.sums));
        rows.push(row(String::new(), "All others".to_owned(), true, &rest, total));
    }
    Table { id: key(dimension), title: title.to_owned(), kind: kind(dimension), rows, all }
}

fn row(id: String, name: String, is_rest: bool, sums: &Sums, total: &Sums) -> Row {
    let (part, all, of) = if total.cost_micros.point > 0 {
        (sums.cost_micros.point, total.cost_micros.point, "cost")
    } else {
        (sums.tokens().point, total.tokens().point, "tokens")
    };
    let part = (i128::from(part.max(0)) * 10_000 / i128::from(all.max(1))).min(10_000);
    Row {
        id,
        name,
        is_rest,
        tokens: figures::tokens(sums.tokens()),
        cost: figures::cost(sums),
        share: format!("{}.{:02}%", part / 100, part % 100),
        share_text: match (part + 50) / 100 {
            _ if of == "cost" && sums.is_unpriced() => "no known price".to_owned(),
            0 if part > 0 => format!("<1\u{202f}% of {of}"),
            percent => format!("{percent}\u{202f}% of {of}"),
        },
    }
}
