//! The backend's authority: certifies as the test tells it to, and judges a certificate after the
//! handshake, as the real one does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    PublicKeyData,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use toktra_protocol::{Code, Problem, UnixSeconds};

pub const DAY: i64 = 24 * 60 * 60;

/// What was certified, and what is to become of requests.
#[derive(Default)]
pub struct Register {
    pub issued: Vec<Issued>,
    /// Terms of the next certificates, in seconds from now; then 90 days from five minutes ago.
    pub terms: VecDeque<(i64, i64)>,
    /// Refuses enrolment.
    pub refuse: Option<Code>,
    /// Refuses renewal.
    pub refuse_renewal: Option<Code>,
    /// Certifies, but so many answers are lost.
    pub lose: u32,
    /// Leaves renewals without an answer for now.
    pub hold: bool,
    /// Whether one waits, or has waited.
    pub held: bool,
    /// Keys that enrolment or renewal was asked for.
    pub asked: Vec<Vec<u8>>,
    /// The authorities that renewals are told; the present one if it is left out.
    pub roots: Option<String>,
    /// Certifies devices in the place of the backend's authority.
    pub certifier: Option<Arc<Authority>>,
    /// Requests that were refused because of the certificate.
    pub refusals: u32,
}

pub struct Issued {
    der: CertificateDer<'static>,
    chain: String,
    key: Vec<u8>,
    until: u64,
    used: bool,
    pub recovered: bool,
}

impl Register {
    /// Whether the certificate serves for a request, and notes its first use.
    pub fn judge(
        &mut self,
        shown: Option<&CertificateDer<'_>>,
        now: UnixSeconds,
        renews: bool,
    ) -> Result<(), Code> {
        let index = self.issued.iter().position(|issued| Some(&issued.der) == shown);
        let outcome = match index {
            None => Err(Code::CertificateRequired),
            Some(index) if self.issued[index + 1..].iter().any(|later| later.used) => {
                Err(Code::CertificateSuperseded)
            }
            Some(index) if self.issued[index].until <= now.0 && !renews => Err(Code::CertificateExpired),
            Some(index) => {
                self.issued[index].used = true;
                Ok(())
            }
        };
        self.refusals += u32::from(outcome.is_err());
        outcome
    }

    /// The certificate for a request, the same one until it is used; `None`: the answer is lost.
    pub fn certify(
        &mut self,
        authority: &Authority,
        csr: &str,
        now: UnixSeconds,
        recovered: bool,
        may_issue: impl FnOnce() -> Result<(), Problem>,
    ) -> Option<Result<String, Problem>> {
        let der = STANDARD.decode(csr).unwrap();
        let mut csr = CertificateSigningRequestParams::from_der(&der.as_slice().into()).unwrap();
        let key = csr.public_key.der_bytes().to_vec();
        self.asked.push(key.clone());
        let chain = match self.issued.iter().find(|issued| issued.key == key) {
            Some(issued) if issued.used => return Some(Err(Problem::new(Code::KeyUsed, "Make another."))),
            Some(issued) => issued.chain.clone(),
            None => {
                if let Err(problem) = may_issue() {
                    return Some(Err(problem));
                }
                let (from, until) = self.terms.pop_front().unwrap_or((-300, 90 * DAY));
                let until = now.0.saturating_add_signed(until);
                set_term(&mut csr.params, now.0.saturating_add_signed(from), until);
                let authority = self.certifier.as_deref().unwrap_or(authority);
                let certificate = csr.signed_by(&authority.issuer).unwrap();
                let (der, chain) = (certificate.der().clone(), certificate.pem());
                self.issued.push(Issued { der, chain: chain.clone(), key, until, used: false, recovered });
                chain
            }
        };
        if self.lose > 0 {
            self.lose -= 1;
            return None;
        }
        Some(Ok(chain))
    }
}

impl Register {
    /// Whether the certificate's time is over.
    pub fn has_expired(&self, shown: Option<&CertificateDer<'_>>, now: UnixSeconds) -> bool {
        self.issued.iter().any(|issued| Some(&issued.der) == shown && issued.until <= now.0)
    }
}

/// A root that certifies devices and the backend's own host names.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The backend's side of TLS. Its certificate is good from a month ago for a year.
    pub fn tls(&self, now: UnixSeconds) -> Arc<ServerConfig> {
        let names = ["api.toktra.localhost".to_owned(), "ingest.toktra.localhost".to_owned()];
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        let day = |days: i64| now.0.saturating_add_signed(days * DAY);
        set_term(&mut params, day(-30), day(330));
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anyone(provider)))
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap()
            .into()
    }
}

fn set_term(params: &mut CertificateParams, from: u64, until: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
}

/// Proof of the key is all that the handshake asks for.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
