//! The simulator's HTTP/3 half. QUIC counts its own UDP payload bytes; the tally takes
//! them over while a connection lives and at its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Buf as _, Bytes};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};

use crate::authority::Authority;
use crate::reply::reply;
use crate::simulator::{REQUEST_LIMIT, respond, server_config};
use crate::tally::{Ledger, Tally, Transport};

type Resolver = h3::server::RequestResolver<h3_quinn::Connection, Bytes>;

/// Opens the UDP socket.
pub(crate) fn bind(listen: SocketAddr, authority: Arc<Authority>) -> anyhow::Result<quinn::Endpoint> {
    let mut tls = server_config(authority)?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    Ok(quinn::Endpoint::server(config, listen)?)
}

/// Serves until it is dropped.
pub(crate) async fn serve(endpoint: quinn::Endpoint, ledger: Arc<Ledger>, pace: Duration) {
    while let Some(incoming) = endpoint.accept().await {
        let tally = ledger.open(Transport::Quic, incoming.remote_address());
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                name(&connection, &tally);
                http(connection.clone(), &tally, pace).await;
                connection.closed().await;
                count(&connection, &tally);
            }
            tally.close();
        });
    }
}

fn name(connection: &quinn::Connection, tally: &Tally) {
    let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    if let Some(data) = handshake {
        tally.name(data.server_name.as_deref(), data.protocol.as_deref());
    }
}

fn count(connection: &quinn::Connection, tally: &Tally) {
    let stats = connection.stats();
    tally.set_bytes(stats.udp_rx.bytes, stats.udp_tx.bytes);
}

async fn http(connection: quinn::Connection, tally: &Arc<Tally>, pace: Duration) {
    let Ok(mut http) = h3::server::Connection::new(h3_quinn::Connection::new(connection.clone())).await
    else {
        return;
    };
    while let Ok(Some(resolver)) = http.accept().await {
        let (connection, tally) = (connection.clone(), tally.clone());
        tokio::spawn(async move {
            // A client that hangs up is part of the trade.
            let _ = request(resolver, &tally, pace).await;
            count(&connection, &tally);
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
