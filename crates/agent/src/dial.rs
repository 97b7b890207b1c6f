//! Connections to the backend: name, TCP, TLS 1.3, HTTP/1.1 with keep-alive. Each step has a
//! time limit; an answer has a size limit.
//!
//! Names under `localhost` resolve to loopback without DNS (RFC 6761, 6.3). Sessions are not
//! resumed, since a resumed session would show a certificate that may be of the past.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use toktra_protocol::problem::MEDIA_TYPE;
use toktra_protocol::{Code, Problem, ToktraDomain};

use crate::backoff;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 256 * 1024;

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

/// Why a request got no answer that it wanted.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answered, or not in time, or not somebody to be believed.
    #[error("{0}")]
    Unreachable(String),
    /// The backend said why not.
    #[error("{}: {}", .0.problem.title, .0.problem.detail)]
    Refused(Box<Refusal>),
    /// Something that is not our backend answered.
    #[error("{host} answered {status}, which the backend would not; is there a proxy in between?")]
    Foreign {
        /// Who.
        host: String,
        /// What.
        status: StatusCode,
    },
}

/// The backend's word.
#[derive(Debug)]
pub struct Refusal {
    /// What it said.
    pub problem: Problem,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl DialError {
    /// The backend's code, if it was the backend.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => Some(refusal.problem.code),
            Self::Unreachable(_) | Self::Foreign { .. } => None,
        }
    }

    /// How long the backend wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unreachable(_) | Self::Foreign { .. } => None,
        }
    }
}

/// An answer that is as it should be.
#[derive(Debug)]
pub struct Answer {
    /// The body.
    pub body: Bytes,
    /// The server's clock.
    pub date: Option<SystemTime>,
}

/// One host of the backend and a connection to it, made when it is needed.
pub struct Host {
    name: String,
    domain: ToktraDomain,
    tls: Arc<ClientConfig>,
    link: Option<SendRequest<Full<Bytes>>>,
}

impl Host {
    /// The API host, without a client certificate.
    pub fn api(domain: &ToktraDomain, ca_pem: Option<&str>) -> anyhow::Result<Self> {
        let tls = tls_config(trust(ca_pem)?, None)?;
        Ok(Self { name: domain.api_host(), domain: domain.clone(), tls, link: None })
    }

    /// The TLS configuration of device traffic; costs a trust store, so share it.
    pub fn device_tls(ca_pem: Option<&str>, key: CertifiedKey) -> anyhow::Result<Arc<ClientConfig>> {
        tls_config(trust(ca_pem)?, Some(key))
    }

    /// The ingest host, with the device's certificate.
    pub fn ingest(domain: &ToktraDomain, tls: Arc<ClientConfig>) -> Self {
        Self { name: domain.ingest_host(), domain: domain.clone(), tls, link: None }
    }

    /// Sends a request and reads the answer within `limit`. The connection is kept; one that
    /// the server closed meanwhile is replaced once, so requests must be safe to repeat.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, DialError> {
        let kept = self.link.is_some();
        match self.attempt(request.clone(), limit).await {
            Err(DialError::Unreachable(_)) if kept => self.attempt(request, limit).await,
            outcome => outcome,
        }
    }

    async fn attempt(
        &mut self,
        mut request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, DialError> {
        let mut link = match self.link.take() {
            Some(link) if !link.is_closed() => link,
            _ => self.connect().await?,
        };
        if let Ok(host) = header::HeaderValue::from_str(&self.authority()) {
            request.headers_mut().insert(header::HOST, host);
        }
        let exchange = async {
            link.ready().await?;
            let response = link.send_request(request).await?;
            Ok::<_, hyper::Error>(response)
        };
        let (parts, body) = timeout(limit, exchange)
            .await
            .map_err(|_| self.unreachable(format_args!("no answer within {} s", limit.as_secs())))?
            .map_err(|error| self.unreachable(format_args!("the connection failed: {error}")))?
            .into_parts();
        let body = timeout(limit, Limited::new(body, ANSWER_LIMIT).collect())
            .await
            .map_err(|_| self.unreachable("the answer did not end in time"))?
            .map_err(|error| self.unreachable(format_args!("the answer broke off: {error}")))?
            .to_bytes();
        self.link = Some(link);
        self.judge(&Response::from_parts(parts, body))
    }

    fn judge(&self, response: &Response<Bytes>) -> Result<Answer, DialError> {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let date = text(header::DATE).and_then(|value| httpdate::parse_http_date(value).ok());
        if matches!(response.status(), StatusCode::OK | StatusCode::NO_CONTENT) {
            return Ok(Answer { body: response.body().clone(), date });
        }
        let retry_after = text(header::RETRY_AFTER)
            .and_then(|value| backoff::retry_after(value, date.unwrap_or_else(SystemTime::now)));
        let is_problem = text(header::CONTENT_TYPE).is_some_and(|value| value.starts_with(MEDIA_TYPE));
        let problem = is_problem.then(|| serde_json::from_slice::<Problem>(response.body()).ok()).flatten();
        let problem = problem.or_else(|| {
            // A proxy in front may speak for a backend that is away or overloaded.
            let code = match response.status() {
                StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
                StatusCode::SERVICE_UNAVAILABLE => Code::Busy,
                StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
                _ => return None,
            };
            Some(Problem::new(code, "Try again later."))
        });
        Err(match problem {
            Some(problem) => DialError::Refused(Box::new(Refusal { problem: tame(problem), retry_after })),
            None => DialError::Foreign { host: self.name.clone(), status: response.status() },
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, DialError> {
        let stream = timeout(CONNECT_TIMEOUT, self.connect_tcp())
            .await
            .map_err(|_| self.unreachable("no connection within 10 s"))??;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.name.clone())
            .map_err(|_| self.unreachable("the name is not a host name"))?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| self.unreachable("no TLS handshake within 10 s"))?
            .map_err(|error| self.unreachable(format_args!("the TLS handshake failed: {error}")))?;
        let (link, connection) = http1::Builder::new()
            .max_buf_size(32 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "A connection to the backend ended.");
            }
        });
        Ok(link)
    }

    async fn connect_tcp(&self) -> Result<TcpStream, DialError> {
        let port = self.domain.port();
        let addresses: Vec<SocketAddr> = if self.domain.is_loopback() {
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            loopback.map(|address| SocketAddr::new(address, port)).to_vec()
        } else {
            tokio::net::lookup_host((self.name.as_str(), port))
                .await
                .map_err(|error| self.unreachable(format_args!("the name does not resolve: {error}")))?
                .collect()
        };
        let mut last = self.unreachable("the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = self.unreachable(format_args!("no connection: {error}")),
            }
        }
        Err(last)
    }

    fn authority(&self) -> String {
        match self.domain.port() {
            toktra_protocol::domain::DEFAULT_PORT => self.name.clone(),
            port => format!("{}:{port}", self.name),
        }
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> DialError {
        DialError::Unreachable(format!("{}: {why}", self.authority()))
    }
}

fn tls_config(roots: RootCertStore, key: Option<CertifiedKey>) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A problem's texts end up in logs and on terminals.
fn tame(mut problem: Problem) -> Problem {
    for text in [&mut problem.title, &mut problem.detail] {
        *text = text.chars().filter(|c| !c.is_control()).take(500).collect();
    }
    problem
}
