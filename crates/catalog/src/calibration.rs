//! How the bytes of an endpoint's streamed replies become tokens: constants fitted on
//! captures whose token counts are known, with their error, their date and their source.

use serde::Deserialize;

/// Constants of an endpoint's streamed replies: `tokens = (bytes - base) / bytes_per_token`
/// for each exchange, in TLS payload bytes without the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Identifier, named by every estimate that it makes.
    pub id: String,
    /// What was captured.
    pub name: String,
    /// Bytes of a reply that carry no token: its headers, its first and last events.
    pub base_bytes: u32,
    /// Error of `base_bytes`, up and down.
    pub base_error_bytes: u32,
    /// Bytes of a reply for each token.
    pub bytes_per_token: u32,
    /// Bytes per token of the most talkative shape that the same hosts serve, if another: for the lower bound.
    pub sparsest_bytes_per_token: Option<u32>,
    /// Bytes per token of the densest shape that the same hosts serve, if another: for the upper bound.
    pub densest_bytes_per_token: Option<u32>,
    /// Residual error of a reply's estimate, in thousandths of it.
    pub residual_permille: u32,
    /// Replies that it was fitted on.
    pub samples: u32,
    /// When they were captured: `2026-03-29`, or the first day of the month that is known.
    pub captured_on: String,
    /// Where the captures are.
    pub source: String,
}

impl Calibration {
    /// When the captures were made, in seconds since 1970.
    pub fn captured_at(&self) -> Option<u64> {
        crate::price::seconds_of_date(&self.captured_on)
    }
}
