//! Enrolment over real TLS: what is refused, how, and that a refusal changes nothing.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use serde_json::json;
use support::{Backend, Key, enrol_request};
use toktra_protocol::{Code, UnixSeconds};

fn body(token: &str, csr: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&enrol_request(token, csr)).unwrap()
}

#[tokio::test]
async fn every_bad_enrolment_gets_its_documented_status_and_changes_nothing() {
    let backend = Backend::start().await;
    let elsewhere = Backend::start().await;
    let good = backend.token().await;
    let used = backend.token().await;
    let expired = backend.token_until(UnixSeconds(1)).await;
    let foreign = elsewhere.token().await;
    let key = Key::new();
    let csr = key.csr();
    let mut client = backend.anonymous().await;
    assert_eq!(client.post_json("/v1/enroll", body(&used, &csr)).await.status, 200);
    let rows = backend.rows().await;

    let trailing = [&csr[..], &[0]].concat();
    let mut forged = csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut unknown_field = serde_json::to_value(enrol_request(&good, &csr)).unwrap();
    unknown_field["admin"] = json!(true);
    let mut hostile_name = serde_json::to_value(enrol_request(&good, &csr)).unwrap();
    hostile_name["device"]["hostname"] = json!("a\u{1b}[31m");
    let mut not_base64 = serde_json::to_value(enrol_request(&good, &csr)).unwrap();
    not_base64["csr"] = json!("!");
    let cases: [(&str, Vec<u8>, Code); 13] = [
        ("not JSON", b"token=x".to_vec(), Code::BadRequest),
        ("empty", Vec::new(), Code::BadRequest),
        ("an unknown field", unknown_field.to_string().into(), Code::BadRequest),
        ("control characters", hostile_name.to_string().into(), Code::BadRequest),
        ("too large", vec![b' '; 16 * 1024 + 1], Code::TooLarge),
        ("a CSR that is not base64", not_base64.to_string().into(), Code::BadCsr),
        ("a malformed CSR", body(&good, b"\x30\x03abc"), Code::BadCsr),
        ("a CSR cut short", body(&good, &csr[..csr.len() - 1]), Code::BadCsr),
        ("bytes after the CSR", body(&good, &trailing), Code::BadCsr),
        ("a forged CSR", body(&good, &forged), Code::BadCsr),
        ("a used token", body(&used, &Key::new().csr()), Code::TokenUsed),
        ("an expired token", body(&expired, &csr), Code::TokenExpired),
        ("a foreign token", body(&foreign, &csr), Code::TokenUnknown),
    ];
    for (case, body, code) in cases {
        let reply = backend.anonymous().await.post_json("/v1/enroll", body).await;
        assert_eq!(reply.code(), code, "{case}");
        assert_eq!(backend.rows().await, rows, "{case} changed something");
    }
    let plain = client.send(hyper::Request::post("/v1/enroll"), body(&good, &csr)).await;
    assert_eq!(plain.code(), Code::MediaType);

    assert_eq!(client.post_json("/v1/enroll", body(&good, &csr)).await.code(), Code::KeyUsed);
    let fresh = body(&good, &Key::new().csr());
    assert_eq!(client.post_json("/v1/enroll", fresh).await.status, 200, "the token is still good");
    elsewhere.stop().await;
    backend.stop().await;
}

#[tokio::test]
async fn of_parallel_enrolments_with_one_token_exactly_one_gets_a_certificate() {
    let backend = Backend::start().await;
    let token = backend.token().await;
    let before = backend.rows().await;
    let mut attempts = Vec::new();
    for _ in 0..50 {
        let mut client = backend.anonymous().await;
        let body = body(&token, &Key::new().csr());
        attempts.push(tokio::spawn(async move { client.post_json("/v1/enroll", body).await }));
    }
    let mut enrolled = 0;
    for attempt in attempts {
        let reply = attempt.await.unwrap();
        if reply.status == 200 {
            enrolled += 1;
        } else {
            // After twenty, the address is slowed down.
            assert!(matches!(reply.code(), Code::TokenUsed | Code::RateLimited), "{}", reply.text());
        }
    }
    assert_eq!(enrolled, 1);
    let after = backend.rows().await;
    let grown: Vec<_> = before.iter().zip(&after).map(|(before, after)| after.1 - before.1).collect();
    assert_eq!(grown[..3], [1, 1, 1], "one device, one certificate, one token used");
    backend.stop().await;
}

#[tokio::test]
async fn a_guesser_of_tokens_is_slowed_down_and_told_for_how_long() {
    let backend = Backend::start().await;
    let csr = Key::new().csr();
    let mut client = backend.anonymous().await;
    let limited = loop {
        let reply = client.post_json("/v1/enroll", body("guess", &csr)).await;
        match reply.code() {
            Code::TokenUnknown => {}
            _ => break reply,
        }
    };
    assert_eq!(limited.code(), Code::RateLimited);
    assert!(limited.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
    backend.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_get_problems() {
    let backend = Backend::start().await;
    let mut client = backend.anonymous().await;
    assert_eq!(client.get("/v1/enroll").await.code(), Code::Method);
    assert_eq!(client.get("/v1/events").await.code(), Code::NotFound);
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 200);
    backend.stop().await;
}
