//! The listener: accepts, hands each connection to its host, and stops gracefully.
//!
//! Limits: [`CONNECTIONS`] at once; a handshake has [`HANDSHAKE_TIMEOUT`], a request's head
//! [`HEAD_TIMEOUT`]; an HTTP/2 connection carries [`STREAMS`] requests at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use crate::app::SharedApp;
use crate::peer::{Peer, Who};
use crate::routes;
use crate::tls::{Configurations, Host};

const CONNECTIONS: usize = 16 * 1024;
const STREAMS: u32 = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const HEAD_LIMIT: usize = 32 * 1024;
/// How long requests under way may take once the server is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often an administrator's changes are looked for.
const CHANGES_EVERY: Duration = Duration::from_millis(200);
/// Certificates live 90 days; new ones are made every so often.
const RENEW_EVERY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A fatal alert `unrecognized_name` (RFC 6066, 3) as a TLS record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A server that listens.
pub struct Server {
    app: SharedApp,
    listener: TcpListener,
    configurations: ArcSwap<Configurations>,
    api: Router,
    ingest: Router,
    updates: Router,
}

impl Server {
    /// Binds the address and makes the hosts' certificates.
    pub async fn bind(app: SharedApp, address: SocketAddr) -> anyhow::Result<Self> {
        let configurations = Configurations::new(&app.authority, &app.domain, app.clock.now())?;
        app.roster.refresh(&app.store).await?;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        Ok(Self {
            listener,
            configurations: ArcSwap::from_pointee(configurations),
            api: routes::api(Arc::clone(&app)),
            ingest: routes::ingest(Arc::clone(&app)),
            updates: routes::updates(),
            app,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until [`crate::App::stop`] becomes true, then lets requests under way end.
    pub async fn run(self) {
        let server = Arc::new(self);
        let mut stop = server.app.stop.subscribe();
        let background =
            [tokio::spawn(watch_changes(Arc::clone(&server.app))), tokio::spawn(renew(Arc::clone(&server)))];
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&server, &mut connections) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
        let drained = timeout(STOP_TIMEOUT, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(connections = connections.len(), "Connections were cut at shutdown.");
            connections.shutdown().await;
        }
        server.app.store.close().await;
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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match server.listener.accept().await {
            Ok((stream, address)) => {
                connections.spawn(connection(Arc::clone(server), stream, address, permit));
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
    _permit: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(Some((host, stream)))) = timeout(HANDSHAKE_TIMEOUT, handshake(&server, stream)).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let who = Who::of(certificates, server.app.authority.trust());
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

async fn serve(stream: TlsStream<TcpStream>, router: Router, peer: Peer, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), peer.clone(), request));
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
    let stopping = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopping => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection ended early.");
    }
}

async fn answer(router: Router, peer: Peer, mut request: Request<Incoming>) -> Result<Response, Infallible> {
    request.extensions_mut().insert(peer);
    router.oneshot(request.map(Body::new)).await
}

async fn watch_changes(app: SharedApp) {
    let mut ticks = tokio::time::interval(CHANGES_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        ticks.tick().await;
        let counter = app.store.changes().await;
        let read = match counter {
            Ok(counter) if seen == Some(counter) => continue,
            Ok(counter) => app.roster.refresh(&app.store).await.map(|()| counter),
            Err(error) => Err(error),
        };
        match read {
            Ok(counter) => seen = Some(counter),
            Err(error) => tracing::error!(%error, "The devices could not be read anew."),
        }
    }
}

async fn renew(server: Arc<Server>) {
    let app = &server.app;
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match Configurations::new(&app.authority, &app.domain, app.clock.now()) {
            Ok(configurations) => server.configurations.store(Arc::new(configurations)),
            Err(error) => tracing::error!("The server's certificates could not be renewed: {error:#}."),
        }
    }
}
