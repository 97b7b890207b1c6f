//! Enrolment (`POST {api}/v1/enroll`) and renewal (`POST {ingest}/v1/renew`). Errors are
//! [`crate::Problem`]s.
//!
//! Both may be repeated with the same key until the certificate was used for the first time,
//! and give the same certificate again, so that a lost answer costs nothing. With a token that
//! needs approval, the same request is refused as `pending` until an administrator has decided.
//!
//! A renewal is authorised by the certificate of the TLS connection, within its time or, for a
//! recovery, after it: the handshake proves the old key, the request the new one.

use serde::{Deserialize, Serialize};

use crate::{DeviceId, UnixSeconds};

/// Path of the endpoint, on the API host, without a client certificate.
pub const PATH: &str = "/v1/enroll";
/// Largest body of a request, in bytes.
pub const REQUEST_LIMIT: usize = 16 * 1024;
/// Path of renewal and recovery, on the ingest host, with the device's certificate.
pub const RENEW_PATH: &str = "/v1/renew";
/// Path of the backend's clock, on the API host, for everyone.
pub const TIME_PATH: &str = "/v1/time";

/// What a new device asks.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The token. Secret: this type's `Debug` leaves it out.
    pub token: String,
    /// PKCS#10 certificate signing request (RFC 2986), DER in base64.
    pub csr: String,
    /// What the device says of itself. Shown to administrators, never proof of anything.
    pub device: DeviceDescription,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("device", &self.device).finish_non_exhaustive()
    }
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceDescription {
    /// Host name of the machine.
    pub hostname: String,
    /// `linux` or `macos`.
    pub platform: String,
    /// Version of the agent.
    pub agent_version: String,
    /// SHA-256 of the machine's own identifier under a name of ours, hexadecimal. Whoever clones
    /// a machine clones it too: it is compared and shown, never trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
}

/// What a device gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    /// The device's identifier from now on.
    pub device: DeviceId,
    /// The organisation's name, for display.
    pub organisation: String,
    /// The department's name, for display.
    pub department: Option<String>,
    /// Leaf and intermediate, PEM, leaf first.
    pub certificate_chain: String,
    /// Ed25519 public key that signs directives, raw 32 bytes in base64; the device pins it.
    pub directive_key: String,
    /// The roots to believe from now on, PEM; a device that was given roots puts these in their place.
    #[serde(default)]
    pub roots: String,
    /// The server's clock, so that the device can notice its own skew.
    pub server_time: UnixSeconds,
}

/// What an enrolled device asks to go on with a new key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10 request of the new key, DER in base64.
    pub csr: String,
    /// What the device says of itself now.
    pub device: DeviceDescription,
}

/// What it gets. The old certificate is good until the new one is first used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewResponse {
    /// Leaf and intermediate, PEM, leaf first.
    pub certificate_chain: String,
    /// The organisation's name, for display.
    pub organisation: String,
    /// The department's name, for display.
    pub department: Option<String>,
    /// The roots to believe from now on, PEM; a device that was given roots puts these in their place.
    pub roots: String,
    /// The server's clock.
    pub server_time: UnixSeconds,
}

/// What [`TIME_PATH`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTime {
    /// The server's clock.
    pub server_time: UnixSeconds,
}
