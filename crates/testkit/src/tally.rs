//! What the simulator counts, at the socket and below TLS, so that it is independent of
//! everything under test. One [`Tally`] for each connection; a [`Ledger`] holds them all.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// TLS over TCP.
    Tcp,
    /// QUIC over UDP.
    Quic,
    /// A connection with the proxy; what it carries appears as another connection too.
    Proxy,
}

/// What is true of one connection so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// TCP or QUIC.
    pub transport: Transport,
    /// The client's address.
    pub client: SocketAddr,
    /// The name in the client's hello, once it was read.
    pub server_name: Option<String>,
    /// The application protocol that was agreed.
    pub alpn: Option<String>,
    /// Ciphertext bytes that the simulator received: TCP payload, or UDP payload.
    pub bytes_in: u64,
    /// Ciphertext bytes that the simulator sent.
    pub bytes_out: u64,
    /// Requests answered.
    pub requests: u64,
    /// Tokens that clients sent, one for every four characters of prompt.
    pub tokens_in: u64,
    /// Tokens that the simulator replied with.
    pub tokens_out: u64,
    /// It is over.
    pub closed: bool,
}

impl Connection {
    /// Ciphertext bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes_in + self.bytes_out
    }
}

/// The counters of one connection.
#[derive(Debug)]
pub struct Tally {
    transport: Transport,
    client: SocketAddr,
    named: Mutex<(Option<String>, Option<String>)>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    requests: AtomicU64,
    tokens_in: AtomicU64,
    tokens_out: AtomicU64,
    closed: AtomicBool,
}

impl Tally {
    /// Sets what the handshake brought to light.
    pub fn name(&self, server_name: Option<&str>, alpn: Option<&[u8]>) {
        let alpn = alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned());
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = (server_name.map(str::to_owned), alpn);
    }

    /// Counts a request and the tokens of its prompt.
    pub fn request(&self, tokens_in: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.tokens_in.fetch_add(tokens_in, Relaxed);
    }

    /// Counts tokens that were handed to the connection.
    pub fn reply(&self, tokens_out: u64) {
        self.tokens_out.fetch_add(tokens_out, Relaxed);
    }

    /// Counts ciphertext bytes.
    pub fn add(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.fetch_add(bytes_in, Relaxed);
        self.bytes_out.fetch_add(bytes_out, Relaxed);
    }

    /// Marks the end.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    fn snapshot(&self) -> Connection {
        let (server_name, alpn) = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Connection {
            transport: self.transport,
            client: self.client,
            server_name,
            alpn,
            closed: self.closed.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            requests: self.requests.load(Relaxed),
            tokens_in: self.tokens_in.load(Relaxed),
            tokens_out: self.tokens_out.load(Relaxed),
        }
    }
}

/// The tallies of all connections since the start, in the order in which they opened.
#[derive(Debug, Default)]
pub struct Ledger {
    tallies: Mutex<Vec<Arc<Tally>>>,
}

impl Ledger {
    /// Opens a connection's tally.
    pub fn open(&self, transport: Transport, client: SocketAddr) -> Arc<Tally> {
        let tally = Arc::new(Tally {
            transport,
            client,
            named: Mutex::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tokens_in: AtomicU64::new(0),
            tokens_out: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        tally
    }

    /// Every connection as it is now.
    pub fn connections(&self) -> Vec<Connection> {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().map(|tally| tally.snapshot()).collect()
    }
}

/// A socket that adds what passes to a tally.
#[derive(Debug)]
pub struct Counted<S> {
    socket: S,
    tally: Arc<Tally>,
}

impl<S> Counted<S> {
    /// Counts what passes through `socket`.
    pub fn new(socket: S, tally: Arc<Tally>) -> Self {
        Self { socket, tally }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let ready = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.tally.add((buf.filled().len() - before) as u64, 0);
        ready
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let ready = Pin::new(&mut self.socket).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = ready {
            self.tally.add(0, written as u64);
        }
        ready
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A stream whose end is exact: it says nothing more to a peer that has hung up, and reads
/// on to the peer's end before it goes, so that no byte is on its way when counts are compared.
#[derive(Debug)]
pub struct Lingering<S> {
    stream: S,
    peer_closed: bool,
    shut: bool,
}

impl<S> Lingering<S> {
    /// Lingers over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, peer_closed: false, shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let ready = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(ready, Poll::Ready(_)) && buf.filled().len() == before && buf.remaining() > 0 {
            self.peer_closed = true;
        }
        ready
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.peer_closed && !self.shut {
            std::task::ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
        }
        let mut waste = [0; 4096];
        while !self.peer_closed {
            let mut buf = ReadBuf::new(&mut waste);
            if std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)).is_err()
                || buf.filled().is_empty()
            {
                self.peer_closed = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}
