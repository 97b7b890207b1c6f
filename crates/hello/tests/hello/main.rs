//! What the reader does with whole streams and datagrams.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod differential;
mod preludes;
mod quic;
mod splits;
mod support;
mod tcp;
mod vectors;
