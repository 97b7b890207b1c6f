//! The one error shape of every endpoint: `application/problem+json` (RFC 9457) with a
//! code that a program may branch on.

use serde::{Deserialize, Serialize};

/// Media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `https://toktra.dev/problems/` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's short meaning.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What a program branches on.
    pub code: Code,
    /// What happened here and what to do next. Never holds a secret.
    pub detail: String,
    /// With [`Code::BatchOrder`]: the highest contiguous number that is stored, where the device goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<u64>,
}

impl Problem {
    /// A problem of this code, with what happened and what to do next.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("https://toktra.dev/problems/{}", code.name()),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            acknowledged: None,
        }
    }

    /// The same, telling a device where to go on.
    pub fn with_acknowledged(self, acknowledged: u64) -> Self {
        Self { acknowledged: Some(acknowledged), ..self }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $status:literal, $title:literal;)*) => {
        /// What a program branches on. Documented in `docs/errors.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
            /// A code that this version does not know.
            #[serde(other)]
            Unknown,
        }

        impl Code {
            /// Every known code.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The code on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* Code::Unknown => "unknown" }
            }

            /// Its HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* Code::Unknown => 500 }
            }

            /// Its short meaning.
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* Code::Unknown => "Unknown error" }
            }
        }
    };
}

codes! {
    /// The body is not the JSON that the endpoint takes.
    BadRequest, "bad_request", 400, "The request cannot be read";
    /// The CSR is not one DER object with a valid signature and an accepted key.
    BadCsr, "bad_csr", 400, "The certificate signing request is not acceptable";
    /// The batch does not follow on what the server has.
    BatchOrder, "batch_order", 409, "The batch's numbers are not contiguous";
    /// An event in the batch breaks a rule; nothing of the batch was stored.
    BadEvent, "bad_event", 422, "An event is not acceptable";
    /// The body exceeds the limit, before or after decompression.
    TooLarge, "too_large", 413, "The request is too large";
    /// The body's media type or encoding is not supported.
    MediaType, "media_type", 415, "The content type or encoding is not supported";
    /// No client certificate, or none that this backend issued.
    CertificateRequired, "certificate_required", 401, "A device certificate is required";
    /// The device was revoked.
    Revoked, "revoked", 403, "The device was revoked";
    /// The certificate is good, but the backend knows no such device.
    UnknownDevice, "unknown_device", 403, "The device is not known";
    /// The certificate's time is over: renew with it, which recovers the device.
    CertificateExpired, "certificate_expired", 403, "The device certificate has expired";
    /// The certificate's time has not come: the device's clock or the server's is wrong.
    ClockSkew, "clock_skew", 403, "The clocks of device and server disagree";
    /// A newer certificate of this device is in use; two machines may hold one identity.
    CertificateSuperseded, "certificate_superseded", 403, "The device certificate was superseded";
    /// The certificate expired too long ago, or recovered too often.
    RecoveryClosed, "recovery_closed", 403, "The device can no longer recover by itself";
    /// The key has a certificate already, or had one.
    KeyUsed, "key_used", 403, "The key was certified before";
    /// An administrator has yet to approve the device.
    Pending, "pending", 403, "The device awaits approval";
    /// An administrator refused the device.
    Denied, "denied", 403, "The device was not approved";
    /// No such token, or another organisation's.
    TokenUnknown, "token_unknown", 403, "The enrolment token is not known";
    /// The token was used before.
    TokenUsed, "token_used", 403, "The enrolment token was used before";
    /// The token was withdrawn, or enrolled as many devices as it may.
    TokenClosed, "token_closed", 403, "The enrolment token takes no more devices";
    /// The token's time is over.
    TokenExpired, "token_expired", 403, "The enrolment token has expired";
    /// The device's user is not enrolled in perks, or the organisation has them off.
    PerksNotEnrolled, "perks_not_enrolled", 403, "The user is not enrolled in perks";
    /// A personal total of a month that takes none any more, or not yet.
    MonthClosed, "month_closed", 409, "The month takes no totals";
    /// The member's records fill what the vault keeps for one.
    VaultFull, "vault_full", 409, "The member's vault is full";
    /// Sign in first.
    SignIn, "sign_in", 401, "Sign-in is required";
    /// Signed in, but not allowed.
    Forbidden, "forbidden", 403, "Not allowed";
    /// No such thing.
    NotFound, "not_found", 404, "Not found";
    /// Not with this method.
    Method, "method_not_allowed", 405, "Method not allowed";
    /// Too many requests; see `Retry-After`.
    RateLimited, "rate_limited", 429, "Too many requests";
    /// The server's queue is full; see `Retry-After`.
    Busy, "busy", 503, "The server is busy";
    /// A fault of the server; the log has the cause.
    Internal, "internal", 500, "Internal error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_wire_and_a_new_one_reads_as_unknown() {
        for &code in Code::ALL {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.name()));
            assert_eq!(serde_json::from_str::<Code>(&json).unwrap(), code);
        }
        assert_eq!(serde_json::from_str::<Code>("\"from_the_future\"").unwrap(), Code::Unknown);
    }
}
