//! See `fuzz/vault_bodies.rs`.
#![no_main]

#[path = "../vault_bodies.rs"]
#[allow(dead_code)]
mod vault_bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| vault_bodies::sealed(input));
