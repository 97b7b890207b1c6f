//! `kill -9` of the server at twenty moments while devices send: whatever was acknowledged is
//! stored, and nothing is counted twice.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::net::SocketAddr;

use hyper::Request;
use rustls::ClientConfig;
use support::{Backend, Client, Device, INGEST, usage};
use tokio::sync::mpsc;
use toktra_protocol::{Ack, Batch};
use toktra_store::Store;

const DEVICES: usize = 4;
const KILLS: u64 = 20;

#[tokio::test]
async fn killing_the_server_loses_nothing_acknowledged_and_counts_nothing_twice() {
    // The devices are enrolled in this process; then the real binary takes the directory over.
    let backend = Backend::start().await;
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(backend.device().await);
    }
    let configs: Vec<_> = devices.iter().map(|device| backend.config_of(device)).collect();
    backend.app.stop.send_replace(true);
    backend.running.await.unwrap();

    let mut acknowledged = vec![0; DEVICES];
    for round in 0..KILLS {
        let (mut server, address) =
            support::serve(backend.data.path(), &backend.data.path().join("test.passphrase")).await;
        let (acks, mut seen) = mpsc::unbounded_channel();
        let sending: Vec<_> = configs
            .iter()
            .zip(&acknowledged)
            .map(|(config, &from)| {
                tokio::spawn(send_until_killed(address, config.clone(), from, acks.clone()))
            })
            .collect();
        drop(acks);
        // A different number of acknowledgements each time: 1 to 58, in no order.
        for _ in 0..1 + round * 23 % 58 {
            assert!(seen.recv().await.is_some(), "the devices stopped before the server was killed");
        }
        server.kill().await.unwrap();
        for (device, sending) in sending.into_iter().enumerate() {
            acknowledged[device] = sending.await.unwrap();
        }
    }

    let store = Store::open(&backend.data.path().join("toktra.db")).await.unwrap();
    for (device, &acknowledged) in devices.iter().zip(&acknowledged) {
        check(&store, device, acknowledged).await;
    }
    store.close().await;
}

/// Sends batches of various sizes, and some of them twice, until the server is gone.
async fn send_until_killed(
    address: SocketAddr,
    config: ClientConfig,
    mut acknowledged: u64,
    acks: mpsc::UnboundedSender<()>,
) -> u64 {
    let Ok(mut client) = Client::try_connect(address, INGEST, config).await else { return acknowledged };
    loop {
        let first = acknowledged + 1;
        let size = 1 + acknowledged * 7 % 40;
        let batch = Batch { events: (first..first + size).map(usage).collect() };
        for _ in 0..1 + first % 2 {
            let request = Request::post("/v1/events")
                .header("content-type", "application/json")
                .header("content-encoding", "zstd");
            let Ok(reply) = client.try_send(request, batch.encode().unwrap()).await else {
                return acknowledged;
            };
            assert_eq!(reply.status, 200, "{}", reply.text());
            let ack: Ack = serde_json::from_slice(&reply.body).unwrap();
            assert!(ack.acknowledged >= acknowledged, "the server forgot what it had acknowledged");
            acknowledged = ack.acknowledged;
        }
        let _ = acks.send(());
    }
}

async fn check(store: &Store, device: &Device, acknowledged: u64) {
    let id = device.id.to_string();
    let (events, lowest, highest, position): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT COUNT(*), MIN(e.sequence), MAX(e.sequence), MAX(d.acknowledged_sequence)
         FROM events e INNER JOIN devices d ON d.id = e.device_id WHERE d.id = $1",
    )
    .bind(&id)
    .fetch_one(store.reader())
    .await
    .unwrap();
    assert!(highest >= acknowledged as i64, "acknowledged {acknowledged}, stored up to {highest}");
    assert_eq!((lowest, events, position), (1, highest, highest), "no hole, and the position agrees");
    let booked: (i64, i64) =
        sqlx::query_as("SELECT SUM(events), SUM(tokens_out_point) FROM usage_hourly WHERE device_id = $1")
            .bind(&id)
            .fetch_one(store.reader())
            .await
            .unwrap();
    assert_eq!(booked, (events, events * 100), "the ledger has each event once");
}
