//! The providers: host patterns, calibration constants, prices.
//!
//! The facts are data (`data/*.toml`, compiled in); this crate parses them once, checks
//! them, and answers three questions: whose service is this host ([`Catalog::lookup`]), how
//! do its bytes become tokens ([`Catalog::calibration`]), what do those tokens cost
//! ([`Catalog::cost`]). `docs/catalog.md` describes the format.
//!
//! Invariants: a look-up allocates nothing and is linear in the name's length; a name that
//! no pattern covers label by label is nobody's; money is integer micro-dollars; what has no
//! price in force is unpriced, never free.

mod calibration;
mod data;
mod pattern;
mod price;
mod trie;

pub use calibration::Calibration;
pub use data::{Catalog, CatalogError, Kind, Prices, Provider, Service};
pub use pattern::{Pattern, PatternError};
pub use price::{Cost, Model, Share, Tokens, check_plausible};

/// Outer names of Encrypted Client Hello (RFC 9849): what a client-facing server shows in
/// place of the true name. They say nothing of who is behind.
const ECH_PUBLIC_NAMES: &[&str] = &["cloudflare-ech.com"];

/// Whether a server name is a known public name of Encrypted Client Hello.
pub fn is_ech_public_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    ECH_PUBLIC_NAMES.iter().any(|name| name.eq_ignore_ascii_case(host))
}
