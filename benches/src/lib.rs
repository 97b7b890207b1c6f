//! Benchmarks live in this crate's `benches/` folder and `src/bin/`; here is what the latter share.

pub mod device;
