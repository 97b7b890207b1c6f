//! End-to-end tests live in this crate's `tests/` folder; here is what they share. They need
//! root, for network namespaces, a cgroup and eBPF, and the workspace's binaries, built.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "test code")]

pub mod blocking;
pub mod clients;
pub mod perks;
pub mod scene;
pub mod search;
