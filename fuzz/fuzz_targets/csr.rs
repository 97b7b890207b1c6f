//! See `fuzz/csr_body.rs`.
#![no_main]

#[path = "../csr_body.rs"]
mod csr_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| csr_body::csr(input));
