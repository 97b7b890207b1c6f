//! What the reader does with whole streams and datagrams.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../../../fuzz/bodies.rs"]
mod bodies;
mod differential;
mod fuzz_corpus;
mod preludes;
mod quic;
mod splits;
mod support;
mod tcp;
mod vectors;
