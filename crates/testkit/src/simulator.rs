//! The provider simulator: TLS 1.2 and 1.3 with HTTP/1.1 and HTTP/2 over TCP, HTTP/3 over
//! QUIC, under whatever name a client asks for. It answers with [`crate::reply`], and
//! counts every ciphertext byte below TLS in a [`Ledger`]. Beside it a proxy (HTTP CONNECT,
//! SOCKS4a, SOCKS5) that leads to the simulator and nowhere else.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::proxy;
use crate::quic::Quic;
use crate::reply::{Chunk, Reply, reply};
use crate::tally::{Counted, Ledger, Lingering, Tally, Transport};

/// Largest body of a request.
pub(crate) const REQUEST_LIMIT: usize = 16 * 1024 * 1024;
/// Time between two tokens of a stream, as a quick model has it.
const PACE: Duration = Duration::from_millis(5);

/// Ports and pace of a simulator.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where TLS over TCP and QUIC are answered.
    pub listen: SocketAddr,
    /// Where the proxy is, if there is to be one.
    pub proxy: Option<SocketAddr>,
    /// Time between two tokens of a stream.
    pub pace: Duration,
}

impl Options {
    /// A simulator on `listen`, without a proxy, at a quick model's pace.
    pub fn on(listen: SocketAddr) -> Self {
        Self { listen, proxy: None, pace: PACE }
    }
}

/// A simulator whose sockets are open.
pub struct Simulator {
    tcp: TcpListener,
    quic: Quic,
    proxy: Option<TcpListener>,
    acceptor: TlsAcceptor,
    ledger: Arc<Ledger>,
    pace: Duration,
}

impl Simulator {
    /// Opens the sockets, in the network namespace of the calling thread.
    pub async fn bind(
        options: Options,
        authority: Arc<Authority>,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(options.listen).await.context("listen for TLS over TCP")?;
        let quic =
            Quic::bind(tcp.local_addr()?, authority.clone(), ledger.clone()).context("listen for QUIC")?;
        let proxy = match options.proxy {
            Some(address) => Some(TcpListener::bind(address).await.context("listen as a proxy")?),
            None => None,
        };
        let mut tls = server_config(authority)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        Ok(Self { tcp, quic, proxy, acceptor, ledger, pace: options.pace })
    }

    /// Where it listens.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.tcp.local_addr()?)
    }

    /// Where the proxy listens.
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref()?.local_addr().ok()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        let quic = self.quic.serve(self.pace);
        let target = self.tcp.local_addr().ok();
        let proxy = async {
            if let (Some(listener), Some(target)) = (self.proxy, target) {
                proxy::serve(listener, target, self.ledger.clone()).await;
            }
        };
        let tcp = async {
            loop {
                let Ok((socket, client)) = self.tcp.accept().await else { continue };
                let tally = self.ledger.open(Transport::Tcp, client);
                tokio::spawn(connection(socket, self.acceptor.clone(), tally, self.pace));
            }
        };
        tokio::join!(quic, proxy, tcp);
    }
}

/// TLS with certificates by name.
pub(crate) fn server_config(authority: Arc<Authority>) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_no_client_auth()
        .with_cert_resolver(authority))
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, tally: Arc<Tally>, pace: Duration) {
    // Each event its own segment, as the providers send them.
    let _ = socket.set_nodelay(true);
    if let Ok(stream) = acceptor.accept(Counted::new(socket, tally.clone())).await {
        let (_, tls) = stream.get_ref();
        tally.name(tls.server_name(), tls.alpn_protocol());
        http(Lingering::new(stream), &tally, pace).await;
    }
    tally.close();
}

async fn http<S>(stream: S, tally: &Arc<Tally>, pace: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let tally = tally.clone();
        async move { Ok::<_, Infallible>(answer(request, tally, pace).await) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A client that hangs up or is cut off is part of the trade.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, tally: Arc<Tally>, pace: Duration) -> Response<ReplyBody> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, REQUEST_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let reply = reply(parts.method.as_str(), parts.uri.path(), &body);
    tally.request(reply.tokens_in);
    let (head, body) = respond(reply, tally, pace).into_parts();
    Response::from_parts(head, body)
}

/// A response whose body comes at the reply's pace.
pub(crate) fn respond(reply: Reply, tally: Arc<Tally>, pace: Duration) -> Response<ReplyBody> {
    let pace = if reply.is_stream { pace } else { Duration::ZERO };
    let body = ReplyBody { chunks: reply.chunks, pace, tally, pause: None };
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or_default();
    let content_type = HeaderValue::from_static(reply.content_type);
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, content_type);
    for (name, value) in reply.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// A body that comes chunk by chunk, with a pause after each; tokens count when their chunk goes.
pub(crate) struct ReplyBody {
    chunks: Box<dyn Iterator<Item = Chunk> + Send>,
    pace: Duration,
    tally: Arc<Tally>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let Some(chunk) = self.chunks.next() else { return Poll::Ready(None) };
        if !self.pace.is_zero() {
            self.pause = Some(Box::pin(tokio::time::sleep(self.pace)));
        }
        self.tally.reply(chunk.tokens);
        Poll::Ready(Some(Ok(Frame::data(chunk.bytes.into()))))
    }
}
