//! A simulated device, as the benchmarks of caps need one: enrolled, with a certificate and a connection
//! of its own, over TLS. And what those benchmarks share.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use toktra_identity::DirectiveKey;
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, EnrolResponse};
use toktra_protocol::{
    Directive, Estimate, Event, EventBody, NameSource, SignedDirective, UnixSeconds, Usage, codec, enrol,
};

/// Domain of the backends that are measured.
pub const DOMAIN: &str = "toktra.localhost";

/// An enrolled device.
#[derive(Debug)]
pub struct Device {
    number: usize,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    id: toktra_protocol::DeviceId,
    key: DirectiveKey,
}

impl Device {
    /// Enrols with a token, at the backend of [`DOMAIN`] that listens there.
    pub async fn enrol(
        address: SocketAddr,
        trust: &RootCertStore,
        number: usize,
        token: String,
    ) -> Result<Self> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        let request = EnrolRequest {
            token,
            csr: STANDARD.encode(csr.der()),
            device: DeviceDescription {
                hostname: format!("bench-{number}"),
                platform: "linux".into(),
                agent_version: "0".into(),
                hardware: None,
            },
        };
        let anonymous = Arc::new(config(trust)?.with_no_client_auth());
        let mut sender = connect(address, &format!("api.{DOMAIN}"), &anonymous).await?;
        let answer = post(&mut sender, "api", enrol::PATH, None, serde_json::to_vec(&request)?).await?;
        let enrolled: EnrolResponse = serde_json::from_slice(&answer)?;
        let chain = CertificateDer::pem_slice_iter(enrolled.certificate_chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the chain is not PEM")?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = config(trust)?.with_client_auth_cert(chain, private)?;
        tls.resumption = Resumption::disabled();
        let key = DirectiveKey::from_base64(&enrolled.directive_key).context("the directive key")?;
        Ok(Self { number, address, tls: Arc::new(tls), id: enrolled.device, key })
    }

    /// A connection to the backend, as this device.
    pub async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        connect(self.address, &format!("ingest.{DOMAIN}"), &self.tls).await
    }

    /// What it needs to judge what it is told.
    pub fn judge(&self) -> Judge {
        Judge { id: self.id, key: self.key.clone(), current: None }
    }

    /// Polls as an agent does, and tells of every directive when all of it is there. What a device does
    /// with it then, on a processor of its own, is the [`Judge`]'s.
    pub async fn follow(self, said: mpsc::UnboundedSender<Heard>) -> Result<()> {
        let mut sender = self.connect().await?;
        let mut after = 0;
        loop {
            let path = format!("{}?after={after}&applied={after}", codec::DIRECTIVE_PATH);
            let request =
                hyper::Request::get(path).header("host", format!("ingest.{DOMAIN}")).body(Full::default())?;
            let answer = answer(&mut sender, request).await?;
            let at = Instant::now();
            let signed: SignedDirective = serde_json::from_slice(&answer)?;
            let directive: Directive = serde_json::from_str(&signed.payload)?;
            after = directive.version;
            said.send(Heard { number: self.number, at, is_blocked: directive.block.is_some(), signed })?;
        }
    }
}

/// A directive that has arrived.
#[derive(Debug)]
pub struct Heard {
    /// The device's number.
    pub number: usize,
    /// When.
    pub at: Instant,
    /// Whether it says that the device is blocked.
    pub is_blocked: bool,
    /// Still to be judged.
    pub signed: SignedDirective,
}

/// Accepts directives with the key that its device pinned, as the agent does.
#[derive(Debug)]
pub struct Judge {
    id: toktra_protocol::DeviceId,
    key: DirectiveKey,
    current: Option<Directive>,
}

impl Judge {
    /// Accepts one, and gives what that took.
    pub fn accept(&mut self, heard: &Heard) -> Result<Duration> {
        let start = Instant::now();
        let directive = self.key.accept(&heard.signed, self.id, self.current.as_ref())?;
        self.current = Some(directive);
        Ok(start.elapsed())
    }
}

/// Usage of so many tokens, now.
pub fn usage(sequence: u64, tokens: u64) -> Event {
    let estimate = |point: u64| Estimate { low: point, point, high: point };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Event {
        sequence,
        minute: UnixSeconds(now.as_secs()).minute(),
        body: EventBody::Usage(Usage {
            provider: "openai".into(),
            service: "openai-api".into(),
            host: "api.openai.com".into(),
            name_source: NameSource::Sni,
            user_account: Some("ada".into()),
            application: Some("python3".into()),
            exchanges: 1,
            bytes_out: 2_000,
            bytes_in: 40_000,
            bytes_handshake: 5_321,
            duration_s: 5,
            streaming: true,
            partial: false,
            tokens_in: estimate(0),
            tokens_out: estimate(tokens),
            calibration: "bench".into(),
        }),
    }
}

async fn connect(
    address: SocketAddr,
    host: &str,
    config: &Arc<ClientConfig>,
) -> Result<SendRequest<Full<Bytes>>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned())?;
    let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Posts JSON to one of the backend's hosts and gives the answer's body.
pub async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    path: &str,
    encoding: Option<&str>,
    body: Vec<u8>,
) -> Result<Bytes> {
    let mut request = hyper::Request::post(path)
        .header("host", format!("{host}.{DOMAIN}"))
        .header("content-type", "application/json");
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    answer(sender, request.body(Full::from(body))?).await
}

async fn answer(
    sender: &mut SendRequest<Full<Bytes>>,
    request: hyper::Request<Full<Bytes>>,
) -> Result<Bytes> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// TLS that trusts these, and is still to be told who we are.
pub fn config(
    trust: &RootCertStore,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trust.clone()))
}

/// The certificates of a file.
pub fn roots(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

/// The percentile, by the nearest rank.
pub fn percentile<T: Copy + Default + Ord>(figures: &mut [T], percent: usize) -> T {
    figures.sort_unstable();
    let rank = (figures.len() * percent).div_ceil(100).max(1);
    figures.get(rank - 1).copied().unwrap_or_default()
}
