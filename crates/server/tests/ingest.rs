//! Device traffic over mutual TLS: batches count once, refusals change nothing, revocation
//! and directives reach connections that are open.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use support::{API, Backend, Client, Device, INGEST, tls, usage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use toktra_protocol::codec::{COMPRESSED_LIMIT, EVENTS_LIMIT};
use toktra_protocol::{Batch, Code, Directive, Estimate, SignedDirective, UnixSeconds};
use toktra_store::ledger::{Cost, Tariff};
use toktra_store::price_mix::Share;
use toktra_store::{Ledger, devices};

#[tokio::test]
async fn a_batch_sent_twice_counts_once_and_an_overlap_counts_its_new_part() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    assert_eq!(client.book(1..=50).await, Ok(50));
    let once = backend.rows().await;
    assert_eq!(client.book(1..=50).await, Ok(50));
    assert_eq!(client.book(7..=9).await, Ok(50));
    assert_eq!(backend.rows().await, once);
    assert_eq!(client.book(41..=60).await, Ok(60));
    let rows = backend.rows().await;
    assert_eq!(rows[3], ("events", 60));
    assert_eq!(rows[5], ("booked events", 60));
    let (tokens, unpriced, cost): (i64, i64, i64) = sqlx::query_as(
        "SELECT SUM(tokens_in_point + tokens_out_point), SUM(tokens_unpriced), SUM(cost_point_micros)
         FROM usage_hourly",
    )
    .fetch_one(backend.app.store.reader())
    .await
    .unwrap();
    assert_eq!(tokens, 60 * 110);
    assert!((unpriced == tokens) != (cost > 0), "either priced or unpriced: {unpriced} {cost}");
    backend.stop().await;
}

#[tokio::test]
async fn every_bad_batch_gets_its_documented_status_and_changes_nothing() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    assert_eq!(client.book(1..=10).await, Ok(10));
    let rows = backend.rows().await;

    let encode = |sequences: &[u64]| {
        Batch { events: sequences.iter().copied().map(usage).collect() }.encode().unwrap()
    };
    let zstd = |json: &[u8]| zstd_bytes(json);
    let bomb = zstd(&vec![b' '; 16 * 1024 * 1024]);
    let many: Vec<u64> = (11..=11 + EVENTS_LIMIT as u64).collect();
    let mut sequence = serde_json::to_value(usage(11)).unwrap();
    sequence["body"]["usage"]["sizes"] = serde_json::json!([1, 2, 3]);
    let sequence = serde_json::json!({ "events": [sequence] }).to_string();
    let mut inverted = usage(11);
    if let toktra_protocol::EventBody::Usage(usage) = &mut inverted.body {
        usage.tokens_in.low = 12;
    }
    let inverted = Batch { events: vec![inverted] }.encode().unwrap();
    let cases = [
        ("not JSON", zstd(b"hello"), Code::BadRequest),
        ("not zstd", b"{\"events\":[]}".to_vec(), Code::BadRequest),
        ("a sequence of sizes", zstd(sequence.as_bytes()), Code::BadRequest),
        ("nothing", zstd(b"{\"events\":[]}"), Code::BatchOrder),
        ("a gap after what is stored", encode(&[12, 13]), Code::BatchOrder),
        ("a gap within", encode(&[11, 13]), Code::BatchOrder),
        ("backwards", encode(&[12, 11]), Code::BatchOrder),
        ("a repetition", encode(&[11, 11]), Code::BatchOrder),
        ("zero", encode(&[0, 1]), Code::BatchOrder),
        ("an inverted estimate", inverted, Code::BadEvent),
        ("too many events", encode(&many), Code::TooLarge),
        ("a decompression bomb", bomb, Code::TooLarge),
        ("too many bytes", vec![0; COMPRESSED_LIMIT + 1], Code::TooLarge),
    ];
    for (case, body, code) in cases {
        let reply = backend.ingest(&device).await.post_zstd(body).await;
        assert_eq!(reply.code(), code, "{case}: {}", reply.text());
        assert_eq!(backend.rows().await, rows, "{case} changed something");
    }
    let gzip = Request::post("/v1/events")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    assert_eq!(client.send(gzip, "x").await.code(), Code::MediaType);
    let text = Request::post("/v1/events").header("content-type", "text/plain");
    assert_eq!(client.send(text, "x").await.code(), Code::MediaType);
    assert_eq!(client.get("/v1/events").await.code(), Code::Method);
    assert_eq!(client.get("/v1/enroll").await.code(), Code::NotFound);
    assert_eq!(client.get("/v1/directive?after=x").await.code(), Code::BadRequest);
    assert_eq!(backend.rows().await, rows);
    assert_eq!(client.book(11..=12).await, Ok(12), "the device goes on where it was");
    backend.stop().await;
}

fn zstd_bytes(json: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(json, 3).unwrap()
}

#[tokio::test]
async fn whoever_shows_no_good_certificate_is_told_why_and_changes_nothing() {
    let backend = Backend::start().await;
    let elsewhere = Backend::start().await;
    let foreign = elsewhere.device().await;
    let expired = backend.device_at(UnixSeconds(backend.app.clock.now().0 - 91 * 86_400), true).await;
    let unknown = backend.device_at(backend.app.clock.now(), false).await;
    let rows = backend.rows().await;

    let anonymous = backend.trusting().with_no_client_auth();
    let mut nobody = Client::connect(backend.address, INGEST, anonymous).await;
    assert_eq!(nobody.book([1]).await, Err(Code::CertificateRequired));
    assert_eq!(nobody.get("/v1/directive").await.code(), Code::CertificateRequired);
    for (device, code) in [
        (&foreign, Code::CertificateRequired),
        (&expired, Code::CertificateExpired),
        (&unknown, Code::UnknownDevice),
    ] {
        let mut client = backend.ingest(device).await;
        assert_eq!(client.book([1]).await, Err(code));
        assert_eq!(client.get("/v1/directive").await.code(), code);
    }
    assert_eq!(backend.rows().await, rows);
    elsewhere.stop().await;
    backend.stop().await;
}

#[tokio::test]
async fn a_certificate_of_the_server_ca_is_no_devices() {
    let backend = Backend::start().await;
    let server = backend.app.authority().issue_server(INGEST, backend.app.clock.now()).unwrap();
    let config = backend.trusting().with_client_auth_cert(server.chain, server.key).unwrap();
    let mut client = Client::connect(backend.address, INGEST, config).await;
    assert_eq!(client.book([1]).await, Err(Code::CertificateRequired));
    backend.stop().await;
}

#[tokio::test]
async fn revocation_takes_effect_on_a_connection_that_is_open() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    let mut polling = backend.ingest(&device).await;
    assert_eq!(client.book(1..=3).await, Ok(3));
    let poll = tokio::spawn(async move { polling.get("/v1/directive?after=1").await.code() });
    devices::revoke(&backend.app.store, device.id, "test", backend.app.clock.now()).await.unwrap();
    assert_eq!(poll.await.unwrap(), Code::Revoked, "the waiting poll is answered");
    let rows = backend.rows().await;
    assert_eq!(client.book(4..=6).await, Err(Code::Revoked));
    assert_eq!(client.get("/v1/directive").await.code(), Code::Revoked);
    assert_eq!(backend.ingest(&device).await.book(4..=6).await, Err(Code::Revoked));
    assert_eq!(backend.rows().await, rows);
    backend.stop().await;
}

#[tokio::test]
async fn a_device_cannot_resume_a_tls_session_and_a_browser_can() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let resuming = rustls::client::Resumption::in_memory_sessions(16);
    let mut config = backend.config_of(&device);
    config.resumption = resuming;
    let mut kinds = Vec::new();
    for (host, path) in [(INGEST, "/v1/directive"), (API, "/healthz")].into_iter().cycle().take(6) {
        let mut stream = tls(backend.address, host, config.clone()).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    assert_eq!(kinds, [full, full, full, resumed, full, resumed]);
    backend.stop().await;
}

#[tokio::test]
async fn a_device_cannot_speak_an_older_tls_which_shows_its_certificate_to_the_network() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut roots = rustls::RootCertStore::empty();
    let root = toktra_pki::Authority::root_certificate_file(backend.data.path());
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(device.chain(), device.key.private())
        .unwrap();
    assert!(
        support::try_tls(backend.address, API, config.clone()).await.is_ok(),
        "the configuration is sound"
    );
    let error = support::try_tls(backend.address, INGEST, config).await.unwrap_err();
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let expected = rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion);
    assert_eq!(cause, Some(&expected), "{error}");
    backend.stop().await;
}

#[tokio::test]
async fn an_unknown_server_name_is_refused_with_its_alert() {
    let backend = Backend::start().await;
    let tcp = tokio::net::TcpStream::connect(backend.address).await.unwrap();
    let config = backend.trusting().with_no_client_auth();
    let name = "console.toktra.localhost".try_into().unwrap();
    let error = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap_err();
    let expected = rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName);
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    assert_eq!(cause, Some(&expected), "{error}");
    backend.stop().await;
}

#[tokio::test]
async fn a_lock_reaches_a_waiting_device_signed() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    let first = directive(&device, &client.get("/v1/directive").await.body);
    assert_eq!((first.version, first.lock), (1, None));
    let waiting = tokio::spawn(async move { client.get("/v1/directive?after=1&applied=1").await.body });
    let now = backend.app.clock.now();
    devices::set_lock(&backend.app.store, device.id, Some("Ask IT."), "test", now).await.unwrap();
    let second = directive(&device, &waiting.await.unwrap());
    assert_eq!(second.version, 2);
    assert_eq!(second.lock.unwrap().message, "Ask IT.");
    assert!(second.valid_until > second.issued_at);
    backend.stop().await;
}

#[tokio::test]
async fn a_departments_block_reaches_its_devices_and_those_that_enrol_later() {
    let backend = Backend::start().await;
    let early = backend.device().await;
    let block = toktra_protocol::Block {
        reason: toktra_protocol::BlockReason::Budget,
        message: "Over budget.".into(),
        providers: vec!["openai".into(), "anthropic".into()],
        until: None,
        budget: None,
    };
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    let count = devices::set_department_block(store, &backend.department, Some(&block), "test", now).await;
    assert_eq!(count.unwrap(), 1);
    let late = backend.device().await;
    for device in [&early, &late] {
        let after = u64::from(device.id == early.id);
        let path = format!("/v1/directive?after={after}");
        let body = backend.ingest(device).await.get(&path).await.body;
        assert_eq!(directive(device, &body).block.as_ref(), Some(&block));
    }
    backend.stop().await;
}

/// Verifies and reads a directive as a device does.
fn directive(device: &Device, body: &[u8]) -> Directive {
    let signed: SignedDirective = serde_json::from_slice(body).unwrap();
    let key = STANDARD.decode(&device.enrolled.directive_key).unwrap();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
        .verify(&signed.signed_bytes(), &STANDARD.decode(&signed.signature).unwrap())
        .unwrap();
    let document = signed.document().unwrap();
    assert_eq!(document.device, device.id);
    document
}

#[tokio::test]
async fn a_device_has_so_many_requests_at_once_and_leaves_others_theirs() {
    let backend = Backend::start().await;
    let (greedy, other) = (backend.device().await, backend.device().await);
    let mut polls = tokio::task::JoinSet::new();
    for _ in 0..17 {
        let mut client = backend.ingest(&greedy).await;
        polls.spawn(async move { client.get("/v1/directive?after=1").await });
    }
    // Sixteen wait for news; the one too many is answered at once.
    let refused = polls.join_next().await.unwrap().unwrap();
    assert_eq!(refused.code(), Code::RateLimited);
    assert_eq!(refused.retry_after, Some(1));
    assert_eq!(backend.ingest(&other).await.book([1]).await, Ok(1));
    backend.app.stop.send_replace(true);
    backend.running.await.unwrap();
}

#[tokio::test]
async fn a_device_ahead_of_a_restored_database_is_told_where_to_go_on_and_gets_a_newer_directive() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    assert_eq!(client.book(1..=3).await, Ok(3));
    let ahead = Batch { events: (8..=9).map(usage).collect() };
    let reply = client.post_zstd(ahead.encode().unwrap()).await;
    assert_eq!(reply.code(), Code::BatchOrder);
    let problem: toktra_protocol::Problem = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem.acknowledged, Some(3));
    assert_eq!(client.book(4..=5).await, Ok(5));
    let body = client.get("/v1/directive?after=7&applied=7").await.body;
    assert_eq!(directive(&device, &body).version, 8);
    backend.stop().await;
}

/// A fault of ours in the ledger.
struct Faulty;

impl Tariff for Faulty {
    #[allow(clippy::panic, reason = "the fault that is tested")]
    fn cost(&self, _: &[Share], _: &str, _: UnixSeconds, _: Estimate, _: Estimate) -> Option<Cost> {
        panic!("a fault in the ledger")
    }
}

#[tokio::test]
async fn a_server_whose_ledger_has_failed_ends_so_that_it_is_started_anew() {
    let backend = Backend::start_with(|app| {
        let clock = app.clock;
        app.ledger = Ledger::start(app.store.clone(), Box::new(Faulty), move || clock.now()).0;
    })
    .await;
    let device = backend.device().await;
    assert_eq!(backend.ingest(&device).await.book([1]).await, Err(Code::Internal));
    backend.running.await.unwrap();
    assert!(backend.app.ledger.has_failed());
}

#[tokio::test]
async fn at_shutdown_a_waiting_poll_is_answered() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let mut client = backend.ingest(&device).await;
    client.get("/v1/directive").await;
    let waiting = tokio::spawn(async move { client.get("/v1/directive?after=1").await });
    // The poll may come before or after the stop; both must end at once.
    backend.app.stop.send_replace(true);
    backend.running.await.unwrap();
    if let Ok(reply) = waiting.await {
        assert_eq!(reply.code(), Code::Busy);
        assert_eq!(reply.retry_after, Some(1));
    }
}

#[tokio::test]
async fn many_devices_at_once_are_all_booked_exactly() {
    let backend = Backend::start().await;
    let mut sending = Vec::new();
    for _ in 0..12 {
        let device = backend.device().await;
        let mut client = backend.ingest(&device).await;
        sending.push(tokio::spawn(async move {
            for batch in 0..10 {
                let first = batch * 20 + 1;
                assert_eq!(client.book(first..first + 20).await, Ok(first + 19));
                assert_eq!(client.book(first..first + 20).await, Ok(first + 19));
            }
        }));
    }
    for device in sending {
        device.await.unwrap();
    }
    let rows = backend.rows().await;
    assert_eq!(rows[3], ("events", 12 * 200));
    assert_eq!(rows[5], ("booked events", 12 * 200));
    backend.stop().await;
}
