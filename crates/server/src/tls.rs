//! Which of our hosts a connection is for, and its TLS configuration.
//!
//! Invariants: the ingest host neither issues nor accepts a session ticket, since a resumed
//! session would skip the judgement of the certificate, and speaks TLS 1.3 only, since older
//! versions show a device's certificate to the network; each host has a certificate of its
//! own, so that no browser takes a connection to one of them for another. Server keys are
//! made at start and live in memory only.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use toktra_pki::Authority;
use toktra_protocol::{ToktraDomain, UnixSeconds};

/// Where whoever runs the backend may have the keys of connections written, to read what crosses them: one
/// line for each, in the form that other TLS programs use. Unset, no key leaves memory.
const KEY_LOG: &str = "SSLKEYLOGFILE";
/// A CA that expires sooner is warned of at start and weekly, in seconds.
const EXPIRY_WARNING_S: u64 = 120 * 24 * 60 * 60;

/// One of the three hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Enrolment, public API, console.
    Api,
    /// Device traffic.
    Ingest,
    /// Signed updates.
    Updates,
}

impl Host {
    /// By the server name of a ClientHello.
    pub fn by_name(name: Option<&str>, domain: &ToktraDomain) -> Option<Self> {
        let name = name?.to_ascii_lowercase();
        match name.strip_suffix(domain.host())? {
            "api." => Some(Self::Api),
            "ingest." => Some(Self::Ingest),
            "updates." => Some(Self::Updates),
            _ => None,
        }
    }
}

/// The TLS configurations of the three hosts.
#[derive(Debug)]
pub struct Configurations {
    api: Arc<ServerConfig>,
    ingest: Arc<ServerConfig>,
    updates: Arc<ServerConfig>,
}

impl Configurations {
    /// Makes new keys and certificates for all three.
    pub fn new(authority: &Authority, domain: &ToktraDomain, now: UnixSeconds) -> anyhow::Result<Self> {
        if authority.expires_at() < now.plus(EXPIRY_WARNING_S) {
            tracing::warn!(
                expires_at = authority.expires_at().0,
                "A CA expires soon, or has; rotate it (toktra-server ca status), or nobody can connect after that."
            );
        }
        if let Some(file) = std::env::var_os(KEY_LOG) {
            tracing::warn!(file = %file.display(), "The keys of all connections are written to a file, as {KEY_LOG} says.");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut ingest = configuration(authority, &provider, &domain.ingest_host(), Peers::Devices, now)?;
        ingest.session_storage = Arc::new(NoServerSessionStorage {});
        ingest.send_tls13_tickets = 0;
        Ok(Self {
            api: configuration(authority, &provider, &domain.api_host(), Peers::Anyone, now)?.into(),
            ingest: ingest.into(),
            updates: configuration(authority, &provider, &domain.updates_host(), Peers::Anyone, now)?.into(),
        })
    }

    /// A host's.
    pub fn of(&self, host: Host) -> Arc<ServerConfig> {
        Arc::clone(match host {
            Host::Api => &self.api,
            Host::Ingest => &self.ingest,
            Host::Updates => &self.updates,
        })
    }
}

/// Whom a host is for.
#[derive(Clone, Copy)]
enum Peers {
    /// Our agents, with certificates.
    Devices,
    /// Browsers and devices that have no certificate yet.
    Anyone,
}

fn configuration(
    authority: &Authority,
    provider: &Arc<CryptoProvider>,
    host: &str,
    peers: Peers,
    now: UnixSeconds,
) -> anyhow::Result<ServerConfig> {
    let certificate = authority.issue_server(host, now)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    let builder = match peers {
        Peers::Devices => builder
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(authority.trust().proof_of_possession(provider)),
        Peers::Anyone => builder.with_safe_default_protocol_versions()?.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificate.chain, certificate.key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // It asks for KEY_LOG itself, and does nothing without.
    config.key_log = Arc::new(rustls::KeyLogFile::new());
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_three_names_are_hosts() {
        let domain = "Acme.example:8443".parse().unwrap();
        let by_name = |name| Host::by_name(Some(name), &domain);
        assert_eq!(by_name("api.acme.example"), Some(Host::Api));
        assert_eq!(by_name("INGEST.acme.example"), Some(Host::Ingest));
        assert_eq!(by_name("updates.acme.example"), Some(Host::Updates));
        for name in ["acme.example", "x.acme.example", "api.acme.example.evil", "api.api.acme.example"] {
            assert_eq!(by_name(name), None, "{name}");
        }
        assert_eq!(Host::by_name(None, &domain), None);
    }
}
