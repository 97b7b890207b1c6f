//! The listener: accepts, hands each connection to its host, and stops gracefully.
//!
//! Limits: connections at once ([`crate::connections`]); a handshake has [`HANDSHAKE_TIMEOUT`], a
//! request's head [`HEAD_TIMEOUT`] and all of it [`REQUEST_TIMEOUT`]; a connection without a
//! request is ended after [`IDLE_TIMEOUT`]; HTTP/2 carries [`STREAMS`] requests at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use toktra_protocol::Code;
use tower::ServiceExt as _;

use crate::app::SharedApp;
use crate::authority;
use crate::connections::{Activity, Places, UnderWay};
use crate::peer::{Peer, Who};
use crate::refusal::Refusal;
use crate::retention;
use crate::routes;
use crate::tls::{Configurations, Host};
use crate::vault::{self, Vault};

const STREAMS: u32 = 16;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// From a request's head to its answer; longer than a long poll and a slow body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than a device is silent that sends what it has every minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long what is being written may take once a connection is to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const HEAD_LIMIT: usize = 32 * 1024;
/// How long requests under way may take once the server is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often changes are looked for that others made in the database; the ledger's own are told at once.
const CHANGES_EVERY: Duration = Duration::from_millis(50);
/// Certificates live 90 days; new ones are made every so often.
const RENEW_EVERY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A fatal alert `unrecognized_name` (RFC 6066, 3) as a TLS record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A server that listens.
pub struct Server {
    app: SharedApp,
    listener: TcpListener,
    configurations: ArcSwap<Configurations>,
    places: Places,
    api: Router,
    ingest: Router,
    updates: Router,
    /// None where it cannot be opened.
    vault: Option<Arc<Vault>>,
}

impl Server {
    /// Binds the address and makes the hosts' certificates.
    pub async fn bind(app: SharedApp, address: SocketAddr) -> anyhow::Result<Self> {
        let configurations = Configurations::new(&app.authority(), &app.domain, app.clock.now())?;
        app.budgets.follow(&app.store, &app.roster, None, app.clock.now()).await?;
        let vault = Vault::open(Arc::clone(&app)).await;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Self {
            listener,
            configurations: ArcSwap::from_pointee(configurations),
            places: Places::default(),
            api: routes::api(Arc::clone(&app)),
            ingest: routes::ingest(Arc::clone(&app), vault::router(vault.clone())),
            updates: routes::updates(),
            vault,
            app,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until [`crate::App::stop`] becomes true or the ledger fails, then lets requests under way end.
    pub async fn run(self) {
        let server = Arc::new(self);
        let mut stop = server.app.stop.subscribe();
        let background = [
            tokio::spawn(watch_changes(Arc::clone(&server.app))),
            tokio::spawn(authority::follow(Arc::clone(&server))),
            tokio::spawn(renew(Arc::clone(&server))),
            tokio::spawn(retention::keep_sweeping(Arc::clone(&server.app))),
            tokio::spawn(vault::keep_sweeping(server.vault.clone())),
        ];
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&server, &mut connections) => {}
            _ = stop.wait_for(|stop| *stop) => {}
            () = server.app.ledger.failed() => {
                tracing::error!("The ledger has failed; nothing can be booked. The server stops.");
                server.app.stop.send_replace(true);
            }
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
        let drained = timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(connections = connections.len(), "Connections were cut at shutdown.");
            connections.shutdown().await;
        }
        if let Some(vault) = &server.vault {
            vault.close().await;
        }
        server.app.store.close().await;
    }

    pub(crate) fn app(&self) -> &SharedApp {
        &self.app
    }

    /// Makes the hosts' certificates anew; connections to come are shown these.
    pub(crate) fn make_certificates(&self) -> anyhow::Result<()> {
        let app = &self.app;
        let configurations = Configurations::new(&app.authority(), &app.domain, app.clock.now())?;
        self.configurations.store(Arc::new(configurations));
        Ok(())
    }

    fn router(&self, host: Host) -> Router {
        match host {
            Host::Api => self.api.clone(),
            Host::Ingest => self.ingest.clone(),
            Host::Updates => self.updates.clone(),
        }
    }
}

async fn accept(server: &Arc<Server>, connections: &mut JoinSet<()>) {
    loop {
        let Some(place) = server.places.any().await else { return };
        match server.listener.accept().await {
            Ok((stream, address)) => {
                connections.spawn(connection(Arc::clone(server), stream, address, place));
            }
            Err(error) => {
                // Usually out of descriptors: others must end before the next can come.
                tracing::warn!(%error, "A connection could not be accepted.");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    address: SocketAddr,
    _place: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(Some((host, stream)))) = timeout(HANDSHAKE_TIMEOUT, handshake(&server, stream)).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let who = Who::of(certificates, server.app.authority().trust());
    let Some(_strangers_place) = server.places.of(&who) else { return };
    let peer = Peer { address, who };
    serve(stream, server.router(host), peer, server.app.stop.subscribe()).await;
}

async fn handshake(
    server: &Server,
    stream: TcpStream,
) -> std::io::Result<Option<(Host, TlsStream<TcpStream>)>> {
    let mut start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let Some(host) = Host::by_name(start.client_hello().server_name(), &server.app.domain) else {
        start.io.write_all(&UNRECOGNIZED_NAME).await?;
        start.io.shutdown().await?;
        return Ok(None);
    };
    let configuration = server.configurations.load().of(host);
    Ok(Some((host, start.into_stream(configuration).await?)))
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    peer: Peer,
    mut stop: watch::Receiver<bool>,
) {
    let activity = Activity::default();
    let counted = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        answer(router.clone(), peer.clone(), request, counted.request())
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_LIMIT as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let limit = tokio::select! {
        ended = connection.as_mut() => return note_end(ended),
        _ = stop.wait_for(|stop| *stop) => STOP_TIMEOUT,
        () = activity.ceased(IDLE_TIMEOUT) => END_TIMEOUT,
    };
    connection.as_mut().graceful_shutdown();
    match timeout(limit, connection).await {
        Ok(ended) => note_end(ended),
        Err(_) => tracing::debug!("A connection that would not end was cut."),
    }
}

fn note_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection ended early.");
    }
}

async fn answer(
    router: Router,
    peer: Peer,
    mut request: Request<Incoming>,
    _under_way: UnderWay,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(peer);
    match timeout(REQUEST_TIMEOUT, router.oneshot(request.map(Body::new))).await {
        Ok(answer) => answer,
        Err(_) => {
            let detail =
                format!("The request took over {} seconds. Send it again.", REQUEST_TIMEOUT.as_secs());
            Ok(Refusal::new(Code::Busy, detail).retry_after(1).into_response())
        }
    }
}

async fn watch_changes(app: SharedApp) {
    let mut ticks = tokio::time::interval(CHANGES_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.ledger.changed() => {}
        }
        match app.budgets.follow(&app.store, &app.roster, seen, app.clock.now()).await {
            Ok(counter) => seen = Some(counter),
            Err(error) => tracing::error!(%error, "The devices could not be read anew."),
        }
    }
}

async fn renew(server: Arc<Server>) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        if let Err(error) = server.make_certificates() {
            tracing::error!("The server's certificates could not be renewed: {error:#}.");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Form;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

    use super::*;

    /// The client's end of a connection to a server whose time passes by itself.
    fn connect(stop: &watch::Sender<bool>) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/form", post(async |_: Form<Vec<(String, String)>>| "ok"));
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), who: Who::Anonymous };
        tokio::spawn(serve(theirs, router, peer, stop.subscribe()));
        ours
    }

    /// Sends this, then waits until the server hangs up.
    async fn last_words(sent: &[u8]) -> String {
        let stop = watch::Sender::new(false);
        let mut stream = connect(&stop);
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let hour = Duration::from_secs(3600);
        timeout(hour, stream.read_to_end(&mut answer)).await.expect("the server hung up").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_or_half_a_head_is_hung_up_on() {
        for silence in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n"] {
            last_words(silence).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn http_2_without_a_request_is_hung_up_on_though_pings_are_answered() {
        let stop = watch::Sender::new(false);
        let mut stream = connect(&stop);
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let answering = async {
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
                let mut payload = vec![0; length];
                stream.read_exact(&mut payload).await.unwrap();
                let (kind, flags) = (head[3], head[4]);
                if kind == 6 && flags & 1 == 0 {
                    head[4] = 1;
                    let _ = stream.write_all(&[&head[..], &payload].concat()).await;
                }
            }
        };
        timeout(Duration::from_secs(3600), answering).await.expect("the server hung up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_form_that_never_comes_whole_is_answered_in_the_end() {
        let head = b"POST /form HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\
            content-type: application/x-www-form-urlencoded\r\n\r\na=";
        let answer = last_words(head).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("busy"), "{answer}");
    }
}
