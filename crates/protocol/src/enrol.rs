//! Enrolment: `POST {api}/v1/enroll`. Errors are [`crate::Problem`]s.

use serde::{Deserialize, Serialize};

use crate::{DeviceId, UnixSeconds};

/// Path of the endpoint, on the API host, without a client certificate.
pub const PATH: &str = "/v1/enroll";
/// Largest body of a request, in bytes.
pub const REQUEST_LIMIT: usize = 16 * 1024;

/// What a new device asks.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The one-time token. Secret: this type's `Debug` leaves it out.
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
    /// The server's clock, so that the device can notice its own skew.
    pub server_time: UnixSeconds,
}
