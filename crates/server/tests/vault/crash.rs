//! `kill -9` of the server while a device sends sealed records and totals: what was acknowledged is
//! there, once and in order.

use std::path::Path;

use hyper::Request;
use tokio::process::Command;
use tokio::sync::mpsc;
use toktra_protocol::Code;
use toktra_protocol::personal::wire::{Body as _, LIST_PATH, RECORDS_PATH};
use toktra_protocol::personal::{PersonalAck, PersonalPage, PersonalQuery};
use toktra_server::Clock;

use super::people::{Person, backend_at, read};
use super::support::{Client, INGEST, serve};

const KILLS: u64 = 10;

#[tokio::test]
async fn killing_the_server_loses_no_sealed_record_that_was_acknowledged() {
    let backend = backend_at(Clock::System).await;
    let ada = Person::enrolled(&backend, "ada").await;
    let config = backend.config_of(&ada.device);
    backend.app.stop.send_replace(true);
    backend.running.await.unwrap();
    let passphrase = backend.data.path().join("test.passphrase");
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let (mut server, address) = serve(backend.data.path(), &passphrase).await;
        let (acks, mut seen) = mpsc::unbounded_channel();
        let sending = async {
            let mut client = Client::try_connect(address, INGEST, config.clone()).await.unwrap();
            loop {
                let first = acknowledged + 1;
                let batch = ada.batch(first..=first + acknowledged * 7 % 40).encode().unwrap();
                for _ in 0..1 + first % 2 {
                    let request = Request::post(RECORDS_PATH).header("content-type", "application/json");
                    let Ok(reply) = client.try_send(request, batch.to_vec()).await else { return };
                    let ack = read::<PersonalAck>(&reply).unwrap();
                    assert!(ack.acknowledged >= acknowledged, "the server forgot what it had acknowledged");
                    acknowledged = ack.acknowledged;
                }
                let _ = acks.send(());
            }
        };
        let killing = async {
            for _ in 0..1 + round * 7 % 17 {
                seen.recv().await.unwrap();
            }
            server.kill().await.unwrap();
        };
        tokio::join!(sending, killing);
    }
    let (mut server, address) = serve(backend.data.path(), &passphrase).await;
    let mut client = Client::try_connect(address, INGEST, config).await.unwrap();
    let (mut number, mut after) = (0, 0);
    loop {
        let query = PersonalQuery { member: ada.member.clone(), after }.encode().unwrap();
        let page = read::<PersonalPage>(&client.post_json(LIST_PATH, query.to_vec()).await).unwrap();
        for record in &page.records {
            number += 1;
            assert_eq!((record.number, record.place), (number, number), "no hole, and nothing twice");
        }
        after = page.next;
        if !page.more {
            break;
        }
    }
    assert!(number >= acknowledged && acknowledged > 0, "acknowledged {acknowledged}, stored {number}");
    server.kill().await.unwrap();
}

#[tokio::test]
async fn a_backup_has_the_vault_and_after_a_restore_devices_go_on() {
    let backend = backend_at(Clock::System).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    ada.append(1..=64).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let (backup, data) = (place.path().join("backup"), place.path().join("data"));
    let passphrase = backend.data.path().join("test.passphrase");
    let run = async |data: &Path, arguments: [&str; 2], other: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toktra-server"));
        command.arg("--data").arg(data).arg("--passphrase-file").arg(&passphrase).args(arguments).arg(other);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(backend.data.path(), ["backup", "--to"], &backup).await;
    ada.append(65..=80).await.unwrap();
    run(&data, ["restore", "--from"], &backup).await;
    let (mut server, address) = serve(&data, &passphrase).await;
    ada.client = Client::connect(address, INGEST, backend.config_of(&ada.device)).await;
    assert_eq!(ada.list().await.unwrap().len(), 64);
    assert_eq!(ada.append(81..=81).await, Err(Code::BatchOrder));
    assert_eq!(ada.append(65..=81).await, Ok(81));
    server.kill().await.unwrap();
    backend.stop().await;
}

#[tokio::test]
async fn a_vault_that_cannot_be_opened_is_left_as_it_is_and_all_else_goes_on() {
    let backend = backend_at(Clock::System).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    ada.append(1..=3).await.unwrap();
    let config = backend.config_of(&ada.device);
    backend.app.stop.send_replace(true);
    backend.running.await.unwrap();
    let passphrase = backend.data.path().join("test.passphrase");
    let file = backend.data.path().join("vault.db");
    let (whole, damaged) = (std::fs::read(&file).unwrap(), b"no database begins so. ".repeat(200));
    std::fs::write(&file, &damaged).unwrap();
    let (mut server, address) = serve(backend.data.path(), &passphrase).await;
    ada.client = Client::connect(address, INGEST, config.clone()).await;
    assert_eq!(ada.append(4..=4).await, Err(Code::Busy));
    assert_eq!(ada.list().await.unwrap_err(), Code::Busy);
    assert_eq!(ada.leave().await, Err(Code::Busy));
    assert_eq!(ada.client.book(1..=5).await, Ok(5), "what the organisation counts goes on");
    server.kill().await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), damaged);
    std::fs::write(&file, whole).unwrap();
    let (mut server, address) = serve(backend.data.path(), &passphrase).await;
    ada.client = Client::connect(address, INGEST, config).await;
    assert_eq!(ada.list().await.unwrap().len(), 3, "and nothing is lost");
    assert_eq!(ada.append(4..=4).await, Ok(4));
    server.kill().await.unwrap();
}
