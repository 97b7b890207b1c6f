//! End-to-end tests live in this crate's `tests/` folder; here is what they share.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "test code")]

pub mod clients;
