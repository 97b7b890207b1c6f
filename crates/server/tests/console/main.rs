//! The console: its pages as an HTTP client sees them, and as a browser shows them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

#[path = "../support/authority.rs"]
mod authority;
mod browser;
mod budgets;
mod client;
mod fleet;
mod look;
mod pages;
mod perks;
mod roles;
mod safety;
mod usage;
