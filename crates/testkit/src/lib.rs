//! Provider simulator, lab of network namespaces, and handles on the real processes: what
//! the end-to-end tests and `make demo` share. Development only; nothing here ships.

#![allow(clippy::print_stdout, reason = "the demo's screen is its purpose")]

pub mod authority;
pub mod capture_file;
pub mod demo;
pub mod fleet;
pub mod installation;
pub mod lab;
pub mod member;
pub mod metered;
pub mod past;
pub mod process;
mod proxy;
mod quic;
pub mod reply;
pub mod simulator;
pub mod tally;
