//! The backend: authority, enrolment, ingest, directives and console behind one listener.
//! The binary is a thin command line over this library, so that tests can start a part of it.
//!
//! Invariants: which of the three hosts a request is for is decided by the TLS server name
//! alone, and with it the TLS configuration and the routes. On the ingest host nothing is
//! served without a [`toktra_pki::DeviceIdentity`] whose validity and standing are checked
//! anew with every request. Every error is a [`toktra_protocol::Problem`]. Every body, table
//! and wait has a limit. No SQL is here.

mod amount;
pub mod app;
mod authority;
mod budgets;
pub mod commands;
mod config;
mod connections;
pub mod console;
mod crl;
pub mod demo;
mod directives;
mod enrol;
mod est;
mod exemptions;
mod ingest;
pub mod metrics;
mod notify;
pub mod password;
pub mod peer;
mod prices;
mod refusal;
mod refusals;
mod renew;
mod retention;
mod roster;
pub mod routes;
pub mod serve;
mod time;
mod tls;
mod vault;

pub use app::{App, Clock, SharedApp};
pub use config::Config;
pub use refusal::Refusal;
