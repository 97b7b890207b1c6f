//! Personal mode through the whole backend: devices that speak to the vault over real TLS, commands
//! beside it, months that turn.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod directive;
mod ledger;
mod log;
mod months;
mod people;
mod refusals;
