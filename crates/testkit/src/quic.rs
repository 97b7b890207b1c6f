//! The simulator's HTTP/3 half. UDP payload bytes are counted at the socket, by the client's
//! address, so that every datagram counts, whatever QUIC makes of it.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Buf as _, Bytes};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::udp::{RecvMeta, Transmit as Datagrams};
use quinn::{AsyncUdpSocket, EndpointConfig, Runtime as _, TokioRuntime, UdpPoller};

use crate::authority::Authority;
use crate::reply::reply;
use crate::simulator::{REQUEST_LIMIT, respond, server_config};
use crate::tally::{Ledger, Tally, Transport};

type Resolver = h3::server::RequestResolver<h3_quinn::Connection, Bytes>;

/// The endpoint and what it counts.
#[derive(Debug)]
pub(crate) struct Quic {
    endpoint: quinn::Endpoint,
    socket: Arc<CountedSocket>,
}

/// A UDP socket that adds what passes to the tally of the client's address.
#[derive(Debug)]
struct CountedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    ledger: Arc<Ledger>,
    tallies: Mutex<HashMap<SocketAddr, Arc<Tally>>>,
}

impl Quic {
    /// Opens the UDP socket.
    pub(crate) fn bind(
        listen: SocketAddr,
        authority: Arc<Authority>,
        ledger: Arc<Ledger>,
    ) -> anyhow::Result<Self> {
        let mut tls = server_config(authority)?;
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        let runtime = Arc::new(TokioRuntime);
        let socket = runtime.wrap_udp_socket(UdpSocket::bind(listen)?)?;
        let socket = Arc::new(CountedSocket { socket, ledger, tallies: Mutex::default() });
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            Some(config),
            socket.clone(),
            runtime,
        )?;
        Ok(Self { endpoint, socket })
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self, pace: Duration) {
        while let Some(incoming) = self.endpoint.accept().await {
            let tally = self.socket.tally(incoming.remote_address());
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    name(&connection, &tally);
                    http(connection.clone(), &tally, pace).await;
                    connection.closed().await;
                }
                tally.close();
            });
        }
    }
}

impl CountedSocket {
    fn tally(&self, client: SocketAddr) -> Arc<Tally> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.entry(client).or_insert_with(|| self.ledger.open(Transport::Quic, client)).clone()
    }
}

impl AsyncUdpSocket for CountedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, datagrams: &Datagrams<'_>) -> io::Result<()> {
        self.socket.try_send(datagrams)?;
        self.tally(datagrams.destination).add(0, datagrams.contents.len() as u64);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(cx, bufs, meta))?;
        for datagrams in meta.iter().take(count) {
            self.tally(datagrams.addr).add(datagrams.len as u64, 0);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

fn name(connection: &quinn::Connection, tally: &Tally) {
    let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    if let Some(data) = handshake {
        tally.name(data.server_name.as_deref(), data.protocol.as_deref());
    }
}

async fn http(connection: quinn::Connection, tally: &Arc<Tally>, pace: Duration) {
    let Ok(mut http) = h3::server::Connection::new(h3_quinn::Connection::new(connection)).await else {
        return;
    };
    while let Ok(Some(resolver)) = http.accept().await {
        let tally = tally.clone();
        tokio::spawn(async move {
            // A client that hangs up is part of the trade.
            let _ = request(resolver, &tally, pace).await;
        });
    }
}

async fn request(resolver: Resolver, tally: &Arc<Tally>, pace: Duration) -> anyhow::Result<()> {
    let (request, mut stream): (Request<()>, _) = resolver.resolve_request().await?;
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await? {
        anyhow::ensure!(body.len() + data.remaining() <= REQUEST_LIMIT, "the request is too large");
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    let reply = reply(request.method().as_str(), request.uri().path(), &body);
    tally.request(reply.tokens_in);
    let (head, mut body) = respond(reply, tally.clone(), pace).into_parts();
    stream.send_response(hyper::Response::from_parts(head, ())).await?;
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            stream.send_data(data).await?;
        }
    }
    stream.finish().await?;
    Ok(())
}
