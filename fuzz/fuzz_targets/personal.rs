//! See `fuzz/protocol_bodies.rs`.
#![no_main]

#[path = "../protocol_bodies.rs"]
#[allow(dead_code)]
mod protocol_bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| protocol_bodies::personal(input));
