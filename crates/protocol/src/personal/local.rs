//! Personal mode between extension and agent. The agent says whose flows it covers and until when; the
//! extension answers once that is in force, and sends records with numbers of their own, which the agent
//! acknowledges once they are sealed and on disk.
//!
//! Invariants: a record has no room for the account: the agent knows whose mode it is. Of what was blocked,
//! there is no record.

use serde::{Deserialize, Serialize};

use crate::{Minute, UnixSeconds};

/// Personal mode of one local account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalMode {
    /// The account whose flows it covers, as events name accounts.
    pub account: String,
    /// When it ends by itself, by the device's clock; `None` is never.
    pub until: Option<UnixSeconds>,
    /// The allowance is exhausted and the user would rather stop: new connections to providers are
    /// refused and open ones cut.
    pub stopped: bool,
}

impl PersonalMode {
    /// Whether it lasts.
    pub fn lasts(&self, now: UnixSeconds) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A record for the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalRecord {
    /// 1, 2, 3… within the extension's run; records of events are numbered apart.
    pub number: u64,
    /// The minute in which it was made.
    pub minute: Minute,
    /// Records before this one that found no room, and have no number.
    pub lost: u64,
    /// What happened.
    pub usage: PersonalUsage,
}

/// Traffic of one connection with a provider, in personal mode, since its last record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalUsage {
    /// Provider's identifier in the catalogue, for example `openai`.
    pub provider: String,
    /// Service's identifier in the catalogue, for example `openai-api`.
    pub service: String,
    /// The server name, lower case.
    pub host: String,
    /// The application's name, without path or arguments.
    pub application: Option<String>,
    /// Requests with their replies.
    pub exchanges: u32,
    /// Payload bytes that left, TLS handshake set apart.
    pub bytes_out: u64,
    /// Payload bytes that came, TLS handshake set apart.
    pub bytes_in: u64,
    /// Bytes of the TLS handshake, both directions.
    pub bytes_handshake: u64,
    /// Whole seconds in which the connection carried traffic.
    pub duration_s: u32,
    /// Whether the replies looked like a token stream.
    pub streaming: bool,
    /// The connection was older than the capture; what it carried before is unknown.
    pub partial: bool,
    /// Estimate of the tokens sent.
    pub tokens_in: PersonalEstimate,
    /// Estimate of the tokens received.
    pub tokens_out: PersonalEstimate,
    /// Identifier of the calibration that made the estimates.
    pub calibration: String,
}

/// A point with an interval, in tokens. `low <= point <= high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalEstimate {
    /// Lower bound.
    pub low: u64,
    /// Best guess; what the user is shown, and what counts of an allowance.
    pub point: u64,
    /// Upper bound.
    pub high: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_its_end_and_without_one_for_good() {
        let mode = |until| PersonalMode { account: "ada".into(), until, stopped: false };
        assert!(mode(None).lasts(UnixSeconds(u64::MAX)));
        assert!(mode(Some(UnixSeconds(9))).lasts(UnixSeconds(8)));
        assert!(!mode(Some(UnixSeconds(9))).lasts(UnixSeconds(9)));
    }
}
