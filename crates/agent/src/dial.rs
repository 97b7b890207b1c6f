//! Connections to the backend: name, TCP, TLS 1.3, HTTP/1.1 with keep-alive. Each step has a
//! time limit; an answer has a size limit.
//!
//! Names under `localhost` resolve to loopback without DNS (RFC 6761, 6.3). Sessions are not
//! resumed, since a resumed session would show a certificate that may be of the past. Every answer
//! on a verified connection also says the backend's time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use toktra_protocol::enrol::{self, ServerTime};
use toktra_protocol::personal::wire::RECORDS_BODY_LIMIT;
use toktra_protocol::problem::MEDIA_TYPE;
use toktra_protocol::{Code, Problem, ToktraDomain, UnixSeconds};

use crate::backoff;
use crate::tls::{self, Tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const TIME_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: a page of sealed records.
const ANSWER_LIMIT: usize = RECORDS_BODY_LIMIT;

/// Why a request got no answer that it wanted.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answered, or not in time, or not somebody to be believed.
    #[error("{0}")]
    Unreachable(String),
    /// The backend's certificate is good in everything but its time, by the time that is known here.
    #[error("{0}")]
    Time(String),
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
            Self::Unreachable(_) | Self::Time(_) | Self::Foreign { .. } => None,
        }
    }

    /// How long the backend wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unreachable(_) | Self::Time(_) | Self::Foreign { .. } => None,
        }
    }
}

/// An answer that is as it should be.
#[derive(Debug)]
pub struct Answer {
    /// The body.
    pub body: Bytes,
}

/// One host of the backend and a connection to it, made when it is needed.
pub struct Host {
    name: String,
    domain: ToktraDomain,
    tls: watch::Receiver<Arc<Tls>>,
    link: Option<(SendRequest<Full<Bytes>>, Arc<Tls>)>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Host {
    /// The API host, without a client certificate.
    pub fn api(domain: &ToktraDomain, tls: Arc<Tls>) -> Self {
        let tls = watch::channel(tls).1;
        Self { name: domain.api_host(), domain: domain.clone(), tls, link: None }
    }

    /// The ingest host, with the device's certificate: the newest, from the first request on after a
    /// renewal.
    pub fn ingest(domain: &ToktraDomain, tls: watch::Receiver<Arc<Tls>>) -> Self {
        Self { name: domain.ingest_host(), domain: domain.clone(), tls, link: None }
    }

    /// Until the device's certificate is replaced.
    pub async fn renewed(&mut self) {
        if self.tls.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Sends a request and reads the answer within `limit`. The connection is kept; one that
    /// the server closed meanwhile is replaced once, so requests must be safe to repeat. So is one
    /// that was refused with a certificate that has been replaced meanwhile, and one that failed
    /// because of the time, once the backend has said what time it is.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, DialError> {
        let kept = self.link.is_some();
        let used = Arc::clone(&self.tls.borrow());
        match self.attempt(request.clone(), limit).await {
            Err(DialError::Unreachable(_)) if kept => self.attempt(request, limit).await,
            Err(DialError::Refused(_)) if !Arc::ptr_eq(&used, &self.tls.borrow()) => {
                self.attempt(request, limit).await
            }
            Err(DialError::Time(error)) => {
                let newest = used.time().newest();
                if let Err(why) = self.ask_time().await {
                    tracing::warn!(%error, %why, "The backend's time was not to be had.");
                    return Err(DialError::Time(error));
                }
                let outcome = self.attempt(request, limit).await;
                if matches!(outcome, Err(DialError::Time(_))) {
                    used.time().doubt(newest);
                }
                outcome
            }
            outcome => outcome,
        }
    }

    /// Asks the backend for the time on a connection that is verified in everything but the time.
    async fn ask_time(&self) -> Result<(), DialError> {
        let tls = Arc::clone(&self.tls.borrow());
        let (config, judge) = tls.timeless().map_err(|error| self.unreachable(error))?;
        let tls = watch::channel(tls).1;
        let host = Self { name: self.domain.api_host(), domain: self.domain.clone(), tls, link: None };
        let mut link = host.connect(config).await?;
        let asked = self.tls.borrow().time().elapsed();
        let request = Request::get(enrol::TIME_PATH)
            .header(header::HOST, host.authority())
            .body(Full::new(Bytes::new()))
            .map_err(|error| host.unreachable(error))?;
        let answer = host.judge(&host.exchange(&mut link, request, TIME_TIMEOUT).await?)?;
        let ServerTime { server_time } =
            serde_json::from_slice(&answer.body).map_err(|_| host.unreachable("the answer is no time"))?;
        if !judge.accepts(server_time) {
            return Err(host.unreachable("the time that it says is not believable"));
        }
        let time = host.tls.borrow();
        let known = time.time().is_confirmed();
        time.time().confirm(server_time, asked);
        if !known {
            tracing::warn!(
                ahead_s = time.time().ahead_s(),
                "This machine's clock is wrong; certificates are judged by the backend's."
            );
        }
        Ok(())
    }

    async fn attempt(
        &mut self,
        mut request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, DialError> {
        let tls = Arc::clone(&self.tls.borrow());
        let mut link = match self.link.take() {
            Some((link, used)) if !link.is_closed() && Arc::ptr_eq(&used, &tls) => link,
            _ => self.connect(tls.strict()).await?,
        };
        if let Ok(host) = header::HeaderValue::from_str(&self.authority()) {
            request.headers_mut().insert(header::HOST, host);
        }
        let asked = tls.time().elapsed();
        let response = self.exchange(&mut link, request, limit).await?;
        if let Some(date) = date(&response).and_then(|date| date.duration_since(UNIX_EPOCH).ok()) {
            tls.time().confirm(UnixSeconds(date.as_secs()), asked);
        }
        self.link = Some((link, tls));
        self.judge(&response)
    }

    async fn exchange(
        &self,
        link: &mut SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Response<Bytes>, DialError> {
        let exchange = async {
            link.ready().await?;
            link.send_request(request).await
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
        Ok(Response::from_parts(parts, body))
    }

    fn judge(&self, response: &Response<Bytes>) -> Result<Answer, DialError> {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if matches!(response.status(), StatusCode::OK | StatusCode::NO_CONTENT) {
            return Ok(Answer { body: response.body().clone() });
        }
        let retry_after = text(header::RETRY_AFTER)
            .and_then(|value| backoff::retry_after(value, date(response).unwrap_or_else(SystemTime::now)));
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

    async fn connect(&self, tls: Arc<ClientConfig>) -> Result<SendRequest<Full<Bytes>>, DialError> {
        let stream = timeout(CONNECT_TIMEOUT, self.connect_tcp())
            .await
            .map_err(|_| self.unreachable("no connection within 10 s"))??;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(self.name.clone())
            .map_err(|_| self.unreachable("the name is not a host name"))?;
        let handshake = TlsConnector::from(tls).connect(name, stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| self.unreachable("no TLS handshake within 10 s"))?
            .map_err(|error| {
                match (self.unreachable(format_args!("the TLS handshake failed: {error}")), error) {
                    (DialError::Unreachable(why), error) if tls::is_about_time(&error) => {
                        DialError::Time(why)
                    }
                    (failed, _) => failed,
                }
            })?;
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

fn date(response: &Response<Bytes>) -> Option<SystemTime> {
    let date = response.headers().get(header::DATE)?.to_str().ok()?;
    httpdate::parse_http_date(date).ok()
}

/// A problem's texts end up in logs and on terminals.
fn tame(mut problem: Problem) -> Problem {
    for text in [&mut problem.title, &mut problem.detail] {
        *text = text.chars().filter(|c| !c.is_control()).take(500).collect();
    }
    problem
}
