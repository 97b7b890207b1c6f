//! Any bytes as a capture file: errors are typed, nothing panics, and reading ends.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (_, _) = toktra_capture_pcap::replay(input, |_| ());
});
