//! Certificate revocation lists (RFC 5280, 5), one for each intermediate, for verifiers other
//! than the backend. The backend itself asks its own roster with every request.

use std::time::Duration;

use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use toktra_protocol::UnixSeconds;

use crate::{Authority, AuthorityError};

/// How long a list may be used.
pub const CRL_VALID_S: u64 = 24 * 60 * 60;

/// A certificate that is not to be believed though its time is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Hexadecimal.
    pub serial: String,
    /// Since when.
    pub revoked_at: UnixSeconds,
}

impl Authority {
    /// Signs the list of an intermediate, DER. `number` grows with every list. None: the
    /// intermediate is not (or no longer) trusted here. A serial number that is not hexadecimal is
    /// an error, since a list that left one out would vouch for it.
    pub fn crl(
        &self,
        issuer: &str,
        entries: &[RevokedCertificate],
        number: u64,
        now: UnixSeconds,
    ) -> Result<Option<Vec<u8>>, AuthorityError> {
        let Some(ca) = self.intermediate(issuer) else { return Ok(None) };
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let params = CertificateRevocationListParams {
            this_update: epoch + Duration::from_secs(now.0),
            next_update: epoch + Duration::from_secs(now.plus(CRL_VALID_S).0),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: entries.iter().map(entry).collect::<Result<_, _>>()?,
            key_identifier_method: KeyIdMethod::PreSpecified(ca.key_identifier.clone()),
        };
        Ok(Some(params.signed_by(&ca.issuer)?.der().to_vec()))
    }
}

fn entry(revoked: &RevokedCertificate) -> Result<RevokedCertParams, AuthorityError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&octets(&revoked.serial).ok_or(AuthorityError::Key)?),
        revocation_time: rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(revoked.revoked_at.0),
        // An administrator withdrew the device; nobody says that its key is lost.
        reason_code: Some(RevocationReason::PrivilegeWithdrawn),
        invalidity_date: None,
    })
}

fn octets(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.as_bytes();
    if digits.is_empty() || digits.len() > 40 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
