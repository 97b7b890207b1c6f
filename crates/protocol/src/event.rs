//! What a device reports: usage of a provider's service, attempts that were blocked, and
//! what had to be dropped. Totals only: there is no field that could hold a payload byte,
//! a path, or a sequence of sizes or times (sequences of sizes reveal topics, see
//! Weiss et al., USENIX Security 2024, and McDonald and Bar Or, arXiv 2511.03675).

use serde::{Deserialize, Serialize};

use crate::{BlockReason, Minute};

/// Longest text in any field of an event, in bytes (a host name has at most 253).
pub const TEXT_LIMIT: usize = 256;

/// One numbered record of a device. `(device, sequence)` is its identity everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// 1, 2, 3… per device, made durable before it is sent; a gap is a loss.
    pub sequence: u64,
    /// The minute in which the record was made.
    pub minute: Minute,
    /// What happened.
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventBody {
    /// Traffic of one connection with a provider since its last record.
    Usage(Usage),
    /// A connection that was refused or cut.
    Blocked(Blocked),
    /// Records that a limit on the device forced out.
    Dropped(Dropped),
}

/// Traffic of one connection with a provider since its last record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Provider's identifier in the catalogue, for example `openai`.
    pub provider: String,
    /// Service's identifier in the catalogue, for example `openai-api`.
    pub service: String,
    /// The server name, lower case.
    pub host: String,
    /// Where that name came from.
    pub name_source: NameSource,
    /// The local user account that opened the connection.
    pub user_account: Option<String>,
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
    pub tokens_in: Estimate,
    /// Estimate of the tokens received.
    pub tokens_out: Estimate,
    /// Identifier of the calibration that made the estimates.
    pub calibration: String,
}

/// A connection that was refused or cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    /// Provider's identifier in the catalogue.
    pub provider: String,
    /// Service's identifier in the catalogue.
    pub service: String,
    /// The server name, lower case.
    pub host: String,
    /// Where that name came from.
    pub name_source: NameSource,
    /// The local user account that opened the connection.
    pub user_account: Option<String>,
    /// The application's name, without path or arguments.
    pub application: Option<String>,
    /// Why.
    pub reason: BlockReason,
    /// The connection was already open and was cut.
    pub cut: bool,
}

/// Records that a limit on the device forced out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// How many.
    pub events: u64,
    /// Where, for example `spool` or `engine`.
    pub place: String,
}

/// Where a server name came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// server_name of a ClientHello over TCP (RFC 6066).
    Sni,
    /// server_name of a ClientHello in QUIC Initial packets (RFC 9001).
    QuicSni,
    /// server_name beside an encrypted_client_hello: the outer name, or the true one if that was GREASE.
    EchOuter,
    /// The name the application asked the system for.
    Asked,
    /// Learned from another connection to the same address: the connection is older than the capture.
    Address,
}

/// A point with an interval, in tokens. `low <= point <= high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Lower bound; hard caps act on it.
    pub low: u64,
    /// Best guess; soft caps and reports act on it.
    pub point: u64,
    /// Upper bound.
    pub high: u64,
}

impl Estimate {
    /// Sum of two estimates whose errors may be correlated: bounds add.
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            point: self.point.saturating_add(other.point),
            high: self.high.saturating_add(other.high),
        }
    }

    /// Whether the bounds enclose the point.
    pub fn is_ordered(self) -> bool {
        self.low <= self.point && self.point <= self.high
    }
}

/// Why an event that decoded is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A text is longer than [`TEXT_LIMIT`] or holds a control character.
    #[error("event {sequence}: field `{field}` is too long or holds control characters")]
    Text {
        /// The event's number.
        sequence: u64,
        /// The field's name.
        field: &'static str,
    },
    /// The bounds of an estimate do not enclose its point.
    #[error("event {0}: an estimate's bounds do not enclose its point")]
    Estimate(u64),
    /// A number does not fit a signed 64-bit column.
    #[error("event {0}: a number is out of range")]
    Range(u64),
}

impl Event {
    /// Checks what the types cannot: lengths, characters, order of bounds, ranges.
    pub fn check(&self) -> Result<(), EventError> {
        let text = |field, value: &str| {
            let fits = value.len() <= TEXT_LIMIT && !value.chars().any(char::is_control);
            if fits { Ok(()) } else { Err(EventError::Text { sequence: self.sequence, field }) }
        };
        let whose = |account: &Option<String>, application: &Option<String>| {
            text("user_account", account.as_deref().unwrap_or_default())?;
            text("application", application.as_deref().unwrap_or_default())
        };
        let range = |number: u64| {
            if number <= i64::MAX as u64 { Ok(()) } else { Err(EventError::Range(self.sequence)) }
        };
        range(self.sequence)?;
        // Some ten thousand years; keeps every product with 60 in range.
        if self.minute.0 > 5_000_000_000 {
            return Err(EventError::Range(self.sequence));
        }
        match &self.body {
            EventBody::Usage(usage) => {
                text("provider", &usage.provider)?;
                text("service", &usage.service)?;
                text("host", &usage.host)?;
                text("calibration", &usage.calibration)?;
                whose(&usage.user_account, &usage.application)?;
                range(usage.bytes_out)?;
                range(usage.bytes_in)?;
                range(usage.bytes_handshake)?;
                range(usage.tokens_in.high)?;
                range(usage.tokens_out.high)?;
                if !usage.tokens_in.is_ordered() || !usage.tokens_out.is_ordered() {
                    return Err(EventError::Estimate(self.sequence));
                }
            }
            EventBody::Blocked(blocked) => {
                text("provider", &blocked.provider)?;
                text("service", &blocked.service)?;
                text("host", &blocked.host)?;
                whose(&blocked.user_account, &blocked.application)?;
            }
            EventBody::Dropped(dropped) => {
                text("place", &dropped.place)?;
                range(dropped.events)?;
            }
        }
        Ok(())
    }
}
