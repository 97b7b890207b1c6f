//! See `fuzz/windows_body.rs`.
#![no_main]

#[path = "../windows_body.rs"]
mod windows_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| windows_body::windows(input));
