//! What the real server logs at its most talkative while people use personal mode: nothing of it.

use std::fs::{self, File};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use toktra_protocol::Code;
use toktra_server::Clock;

use super::people::{Person, backend_at, sealed};
use super::support::{Client, INGEST, serve_with};

#[tokio::test]
async fn no_line_of_any_level_has_a_member_a_pseudonym_a_slot_or_what_was_sealed() {
    let backend = backend_at(Clock::System).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    let mut bob = Person::new(&backend, "bob").await;
    let month = ada.directive(0).await.perks.unwrap().month.to_string();
    let [of_ada, of_bob] = [&ada, &bob].map(|person| backend.config_of(&person.device));
    backend.app.stop.send_replace(true);
    backend.running.await.unwrap();
    let file = backend.data.path().join("server.log");
    let log = File::create(&file).unwrap();
    let (mut server, address) =
        serve_with(backend.data.path(), &backend.data.path().join("test.passphrase"), |server| {
            server.env("TOKTRA_LOG", "trace").stderr(log);
        })
        .await;
    ada.client = Client::connect(address, INGEST, of_ada).await;
    bob.client = Client::connect(address, INGEST, of_bob).await;
    ada.append(1..=3).await.unwrap();
    assert_eq!(ada.append(5..=5).await, Err(Code::BatchOrder));
    ada.total(&month, 987_654).await.unwrap();
    ada.list().await.unwrap();
    assert_eq!(bob.append(1..=3).await, Err(Code::PerksNotEnrolled));
    let wrong = format!(r#"{{"member":"{}","x":1}}"#, URL_SAFE_NO_PAD.encode(ada.member.bytes()));
    assert_eq!(ada.client.post_json("/v1/vault/leave", wrong).await.status, 400);
    ada.leave().await.unwrap();
    server.kill().await.unwrap();

    let log = fs::read_to_string(&file).unwrap();
    for said in ["DEBUG", "INSERT INTO sealed_records", "INSERT INTO monthly_totals"] {
        assert!(log.contains(said), "the log would not have it if it could: {said}");
    }
    for person in [&ada, &bob] {
        let hash = ring::digest::digest(&ring::digest::SHA256, person.member.bytes());
        for mark in [
            URL_SAFE_NO_PAD.encode(person.member.bytes()),
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            URL_SAFE_NO_PAD.encode(person.slot.bytes()),
            STANDARD.encode(sealed(person.slot, 1).bytes())[..40].to_owned(),
        ] {
            assert!(!log.contains(&mark), "the log has {mark}");
        }
        let id = person.device.id.to_string();
        for line in log.lines().filter(|line| line.contains("vault")) {
            assert!(!line.contains(&id) && !line.contains(&person.user.email), "who asked is logged: {line}");
        }
    }
    assert!(!log.contains("toktra sealed") && !log.contains("987654"));
}
