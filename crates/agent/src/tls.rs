//! Whom the agent believes, and as whom it comes: TLS configurations for the backend's hosts. All
//! judge certificates by the backend's time and not by the machine's clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use toktra_identity::{Credential, Timeless};
use toktra_protocol::UnixSeconds;

use crate::clock::BackendTime;

/// Which authorities make a backend believable.
pub fn trust(ca_pem: Option<&str>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca_pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots
                    .add(certificate.context("the CA file is not PEM")?)
                    .context("the CA file holds no CA")?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    anyhow::ensure!(!roots.is_empty(), "no authority to trust: give the backend's CA with --ca FILE");
    Ok(roots)
}

/// Reads a CA file; an error if it holds no certificate.
pub fn read_ca(path: &Path) -> anyhow::Result<String> {
    let pem = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    trust(Some(&pem)).with_context(|| format!("in {}", path.display()))?;
    Ok(pem)
}

/// Whether authorities vouch for a device's certificate: leaf first, PEM.
pub fn vouch(ca_pem: &str, chain_pem: &str, now: UnixSeconds) -> bool {
    let judged = || {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>().ok()?;
        let (leaf, intermediates) = chain.split_first()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(trust(Some(ca_pem)).ok()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().ok()?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        verifier.verify_client_cert(leaf, intermediates, now).ok()
    };
    judged().is_some()
}

/// Whether a handshake failed because of the time and of nothing else.
pub fn is_about_time(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(
        cause,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        ))
    )
}

/// Whom to believe and as whom to come. Costs a trust store, so it is shared; a renewal replaces it.
#[derive(Debug)]
pub struct Tls {
    verifier: Arc<WebPkiServerVerifier>,
    time: Arc<BackendTime>,
    strict: Arc<ClientConfig>,
}

impl Tls {
    /// Without a client certificate, as for the API host.
    pub fn anonymous(ca_pem: Option<&str>, time: Arc<BackendTime>) -> anyhow::Result<Arc<Self>> {
        Self::new(ca_pem, None, time)
    }

    /// With the device's certificate, as for the ingest host.
    pub fn of_device(credential: &Credential, time: Arc<BackendTime>) -> anyhow::Result<Arc<Self>> {
        let key = SingleCertAndKey::from(credential.certified_key()?);
        Self::new(credential.enrolled().ca.as_deref(), Some(Arc::new(key)), time)
    }

    fn new(
        ca_pem: Option<&str>,
        key: Option<Arc<dyn ResolvesClientCert>>,
        time: Arc<BackendTime>,
    ) -> anyhow::Result<Arc<Self>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(trust(ca_pem)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let builder = ClientConfig::builder_with_details(provider, Arc::clone(&time) as _)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(Arc::clone(&verifier));
        let strict = match key {
            Some(key) => builder.with_client_cert_resolver(key),
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(Self { verifier, time, strict: finish(strict) }))
    }

    /// The configuration for everything but the question of the time.
    pub fn strict(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.strict)
    }

    /// The backend's time.
    pub fn time(&self) -> &BackendTime {
        &self.time
    }

    /// The configuration for the question of the time, and who judges the answer.
    pub fn timeless(&self) -> anyhow::Result<(Arc<ClientConfig>, Arc<Timeless>)> {
        let timeless = Arc::new(Timeless::new(Arc::clone(&self.verifier) as _, self.time.newest()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&timeless) as _)
            .with_no_client_auth();
        Ok((finish(config), timeless))
    }
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
