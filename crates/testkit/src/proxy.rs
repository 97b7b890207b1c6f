//! A proxy for the lab: HTTP CONNECT, SOCKS4a and SOCKS5 without authentication, told apart
//! by the first byte. Whatever name is asked for, it leads to the simulator and nowhere else.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::tally::{Counted, Ledger, Transport};

/// Longest prelude.
const PRELUDE_LIMIT: usize = 4096;

type Client = Counted<TcpStream>;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, target: SocketAddr, ledger: Arc<Ledger>) {
    loop {
        let Ok((socket, address)) = listener.accept().await else { continue };
        let tally = ledger.open(Transport::Proxy, address);
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            // A client that hangs up is part of the trade.
            let _ = connection(Counted::new(socket, tally.clone()), target).await;
            tally.close();
        });
    }
}

async fn connection(mut client: Client, target: SocketAddr) -> io::Result<()> {
    match client.read_u8().await? {
        4 => socks4(&mut client).await?,
        5 => socks5(&mut client).await?,
        _ => connect(&mut client).await?,
    }
    let target = match target {
        SocketAddr::V6(any) if any.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, any.port()).into(),
        SocketAddr::V4(any) if any.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, any.port()).into(),
        other => other,
    };
    let mut upstream = TcpStream::connect(target).await?;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// RFC 9110, 9.3.6.
async fn connect(client: &mut Client) -> io::Result<()> {
    read_until(client, b"\r\n\r\n").await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
}

/// "SOCKS: A protocol for TCP proxy across firewalls" and its 4A extension.
async fn socks4(client: &mut Client) -> io::Result<()> {
    let mut head = [0; 7];
    client.read_exact(&mut head).await?;
    read_until(client, b"\0").await?;
    let names_follow = head[3..6] == [0; 3] && head[6] != 0;
    if names_follow {
        read_until(client, b"\0").await?;
    }
    client.write_all(&[0, 90, 0, 0, 0, 0, 0, 0]).await
}

/// RFC 1928.
async fn socks5(client: &mut Client) -> io::Result<()> {
    let methods = client.read_u8().await?;
    skip(client, methods.into()).await?;
    client.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let address = match head[3] {
        1 => 4,
        3 => client.read_u8().await?.into(),
        4 => 16,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    skip(client, address + 2).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

async fn skip(client: &mut Client, length: usize) -> io::Result<()> {
    let mut waste = vec![0; length];
    client.read_exact(&mut waste).await.map(drop)
}

async fn read_until(client: &mut Client, end: &[u8]) -> io::Result<()> {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        if seen.len() == PRELUDE_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        seen.push(client.read_u8().await?);
    }
    Ok(())
}
