//! Believing a backend whose certificate is good in everything but its time, for one question: what
//! time is it? A device whose clock is wrong would otherwise never hear that it is.
//!
//! What an attacker gains: one who holds the private key of a certificate of the backend's name that
//! has expired can make a device take a time in that certificate's term, and then be believed by it
//! for as long. Against that, no time is taken that is earlier than the newest that the device has
//! ever heard from its backend, and no certificate that had expired by then; so what serves is at most
//! what would serve against a device whose clock stood still since it was last connected. A
//! certificate of another authority or for another name never serves. Whoever is believed wrongly
//! sees usage events, and can forge neither a directive, which the key pinned at enrolment signs, nor
//! the device.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use toktra_protocol::UnixSeconds;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Verifies a server in everything but the time.
#[derive(Debug)]
pub struct Timeless {
    strict: Arc<dyn ServerCertVerifier>,
    newest: UnixSeconds,
    term: Mutex<Option<Term>>,
}

/// First and last second.
type Term = (u64, u64);

impl Timeless {
    /// Judges as `strict` does, at a time in the certificate's term that is no earlier than `newest`,
    /// the newest time that the device has heard from its backend.
    pub fn new(strict: Arc<dyn ServerCertVerifier>, newest: UnixSeconds) -> Self {
        Self { strict, newest, term: Mutex::default() }
    }

    /// Whether the time that the server gave may be believed: it lies in the term of the certificate
    /// that the server has shown, and is not earlier than the newest that was heard.
    pub fn accepts(&self, time: UnixSeconds) -> bool {
        let term = *self.term.lock().unwrap_or_else(PoisonError::into_inner);
        time >= self.newest && term.is_some_and(|(from, until)| (from..=until).contains(&time.0))
    }
}

impl ServerCertVerifier for Timeless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = term(end_entity)?;
        let mut common = leaf;
        for intermediate in intermediates {
            let (from, until) = term(intermediate)?;
            common = (common.0.max(from), common.1.min(until));
        }
        // Not every certificate that is shown need be of the path.
        let (from, until) = if common.0 <= common.1 { common } else { leaf };
        if until < self.newest.0 || from > until {
            return Err(CertificateError::Expired.into());
        }
        let at = now.as_secs().clamp(from.max(self.newest.0), until);
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
        let verified =
            self.strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)?;
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, until));
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

fn term(certificate: &CertificateDer<'_>) -> Result<Term, Error> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let seconds = |time: i64| u64::try_from(time).map_err(|_| Error::from(CertificateError::BadEncoding));
    let validity = certificate.validity();
    Ok((seconds(validity.not_before.timestamp())?, seconds(validity.not_after.timestamp())?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;

    use super::*;

    /// 2030-01-01 to 2030-12-31.
    const TERM: (u64, u64) = (1_893_456_000, 1_924_905_600);

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        strict: Arc<dyn ServerCertVerifier>,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let mut roots = RootCertStore::empty();
            roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let strict = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            Self { issuer: Issuer::new(params, key), strict }
        }

        fn server(&self) -> CertificateDer<'static> {
            let mut params = CertificateParams::new(vec!["api.acme.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2030, 1, 1);
            params.not_after = rcgen::date_time_ymd(2030, 12, 31);
            params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().clone()
        }
    }

    fn verify(
        verifier: &dyn ServerCertVerifier,
        server: &CertificateDer<'_>,
        name: &str,
        now: u64,
    ) -> Result<ServerCertVerified, Error> {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(
            server,
            &[],
            &name,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
        )
    }

    #[test]
    fn only_the_time_is_forgiven() {
        let (ours, other) = (Authority::new(), Authority::new());
        let server = ours.server();
        for now in [0, TERM.0 - 1, TERM.1 + 1, u64::MAX / 2] {
            assert!(verify(ours.strict.as_ref(), &server, "api.acme.example", now).is_err());
            let timeless = Timeless::new(Arc::clone(&ours.strict), UnixSeconds(0));
            verify(&timeless, &server, "api.acme.example", now).unwrap();
            assert!(verify(&timeless, &server, "api.other.example", now).is_err());
            assert!(verify(&timeless, &other.server(), "api.acme.example", now).is_err());
        }
    }

    #[test]
    fn no_time_is_believed_that_is_outside_the_term_or_before_the_newest_heard() {
        let ours = Authority::new();
        let newest = UnixSeconds(TERM.0 + 1_000);
        let timeless = Timeless::new(Arc::clone(&ours.strict), newest);
        assert!(!timeless.accepts(newest), "no server was verified yet");
        verify(&timeless, &ours.server(), "api.acme.example", 0).unwrap();
        assert!(timeless.accepts(newest) && timeless.accepts(UnixSeconds(TERM.1)));
        assert!(!timeless.accepts(UnixSeconds(newest.0 - 1)) && !timeless.accepts(UnixSeconds(TERM.1 + 1)));
    }

    #[test]
    fn a_certificate_that_had_expired_when_the_backend_was_last_heard_is_refused() {
        let ours = Authority::new();
        let timeless = Timeless::new(Arc::clone(&ours.strict), UnixSeconds(TERM.1 + 1));
        for now in [0, TERM.0, TERM.1 + 10] {
            assert!(verify(&timeless, &ours.server(), "api.acme.example", now).is_err());
        }
    }
}
