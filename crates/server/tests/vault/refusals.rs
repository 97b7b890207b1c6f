//! Every refusal of the vault's endpoints, and that nothing was stored.

use hyper::Request;
use toktra_protocol::Code;
use toktra_protocol::personal::wire::{
    BODY_LIMIT, LEAVE_PATH, LIST_PATH, RECORDS_BODY_LIMIT, RECORDS_PATH, TOTAL_PATH,
};
use toktra_protocol::personal::{Member, PersonalLeave, PersonalQuery};
use toktra_store::{devices, perks};

use super::people::{DAY_S, NOVEMBER, Person, Time, backend, enrol, flag};
use super::support::{Client, INGEST};

const PATHS: [&str; 4] = [RECORDS_PATH, TOTAL_PATH, LIST_PATH, LEAVE_PATH];

#[tokio::test]
async fn only_who_is_enrolled_while_the_flag_is_on_sends_but_all_may_list_and_leave() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut nobody = Person { device: backend.device().await, ..Person::new(&backend, "nobody").await };
    nobody.client = backend.ingest(&nobody.device).await;
    let mut bob = Person::new(&backend, "bob").await;
    for person in [&mut nobody, &mut bob] {
        assert_eq!(person.append(1..=1).await, Err(Code::PerksNotEnrolled));
        assert_eq!(person.total("2026-11", 1).await, Err(Code::PerksNotEnrolled));
        assert_eq!(person.list().await, Ok(Vec::new()));
        assert_eq!(person.leave().await, Ok(()));
    }
    let mut version = bob.directive(0).await.version;
    enrol(&backend, &bob.user, "Everyone").await;
    version = bob.directive(version).await.version;
    assert_eq!(bob.append(1..=3).await, Ok(3));
    flag(&backend, false).await;
    version = bob.directive(version).await.version;
    assert_eq!(bob.append(4..=4).await, Err(Code::PerksNotEnrolled));
    flag(&backend, true).await;
    version = bob.directive(version).await.version;
    assert_eq!(bob.append(4..=4).await, Ok(4));
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    perks::remove(store, &backend.organisation, &bob.user, "test", now).await.unwrap();
    bob.directive(version).await;
    assert_eq!(bob.append(5..=5).await, Err(Code::PerksNotEnrolled));
    assert_eq!(bob.total("2026-11", 1).await, Err(Code::PerksNotEnrolled));
    assert_eq!(bob.list().await.unwrap().len(), 4);
    bob.leave().await.unwrap();
    assert_eq!(bob.list().await, Ok(Vec::new()));
    backend.stop().await;
}

#[tokio::test]
async fn strangers_and_revoked_devices_are_refused_on_every_path() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut bob = Person::enrolled(&backend, "bob").await;
    bob.append(1..=1).await.unwrap();
    let config = backend.trusting().with_no_client_auth();
    let mut anonymous = Client::connect(backend.address, INGEST, config).await;
    for path in PATHS {
        assert_eq!(anonymous.post_json(path, "{}").await.code(), Code::CertificateRequired, "{path}");
        assert_eq!(bob.client.get(path).await.code(), Code::Method, "{path}");
        assert_eq!(backend.anonymous().await.post_json(path, "{}").await.code(), Code::NotFound, "{path}");
    }
    devices::revoke(&backend.app.store, bob.device.id, "test", backend.app.clock.now()).await.unwrap();
    let refused = async |bob: &mut Person| bob.list().await == Err(Code::Revoked);
    while !refused(&mut bob).await {
        tokio::task::yield_now().await;
    }
    assert_eq!(bob.append(2..=2).await, Err(Code::Revoked));
    assert_eq!(bob.total("2026-11", 1).await, Err(Code::Revoked));
    assert_eq!(bob.leave().await, Err(Code::Revoked));
    backend.stop().await;
}

#[tokio::test]
async fn a_device_of_another_organisation_reaches_no_member_of_this_one() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    ada.append(1..=3).await.unwrap();
    let mut spy = backend.device_of_another_organisation().await;
    let query = PersonalQuery { member: ada.member.clone(), after: 0 };
    let leave = PersonalLeave { member: ada.member.clone() };
    assert!(ada.post(LIST_PATH, &query).await.text().contains("\"number\":3"));
    let body = |body: &[u8]| body.to_vec();
    let (query, leave) = (serde_json::to_vec(&query).unwrap(), serde_json::to_vec(&leave).unwrap());
    assert_eq!(
        spy.post_json(LIST_PATH, body(&query)).await.text(),
        r#"{"records":[],"next":0,"more":false}"#
    );
    assert_eq!(spy.post_json(LEAVE_PATH, body(&leave)).await.status, 204);
    assert_eq!(ada.list().await.unwrap().len(), 3);
    backend.stop().await;
}

#[tokio::test]
async fn a_forged_member_finds_nothing_and_takes_nothing() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    ada.append(1..=3).await.unwrap();
    ada.total("2026-11", 100).await.unwrap();
    let mut forger = Person::enrolled(&backend, "mallory").await;
    let mut near = *ada.member.bytes();
    near[31] ^= 1;
    forger.member = Member::new(near);
    assert_eq!(forger.list().await, Ok(Vec::new()));
    assert_eq!(forger.total("2026-11", 1).await, Ok((0, 0)));
    forger.leave().await.unwrap();
    assert_eq!((ada.list().await.unwrap().len(), ada.total("2026-11", 100).await), (3, Ok((0, 0))));
    backend.stop().await;
}

#[tokio::test]
async fn what_is_malformed_or_too_much_is_refused_and_nothing_is_stored() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    let good = String::from_utf8(serde_json::to_vec(&ada.batch(1..=1)).unwrap()).unwrap();
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let sealed = good.split('"').rev().nth(1).unwrap().to_owned();
    for (body, code) in [
        ("{".to_owned(), Code::BadRequest),
        (with("{", r#"{"device":"laptop","#), Code::BadRequest),
        (with(&sealed, "cHJvbXB0"), Code::BadRequest),
        (with("\"first\":1", "\"first\":0"), Code::BatchOrder),
        (with("\"first\":1", "\"first\":2"), Code::BatchOrder),
        (with("\"first\":1", "\"first\":1.5"), Code::BadRequest),
        (with(&format!("[\"{sealed}\"]"), "[]"), Code::BatchOrder),
        (with("[", &format!("[{}", format!("\"{sealed}\",").repeat(64))), Code::TooLarge),
        (" ".repeat(RECORDS_BODY_LIMIT + 1), Code::TooLarge),
    ] {
        let reply = ada.client.post_json(RECORDS_PATH, body).await;
        assert_eq!(reply.code(), code, "{}", reply.text());
        assert!(!reply.text().contains(&sealed), "a refusal repeats what was sent");
        ada.client = backend.ingest(&ada.device).await;
    }
    let plain = Request::post(RECORDS_PATH).header("content-type", "text/plain");
    assert_eq!(ada.client.send(plain, good.clone()).await.code(), Code::MediaType);
    for path in [TOTAL_PATH, LIST_PATH, LEAVE_PATH] {
        let reply = ada.client.post_json(path, " ".repeat(BODY_LIMIT + 1)).await;
        assert_eq!(reply.code(), Code::TooLarge, "{path}");
        ada.client = backend.ingest(&ada.device).await;
    }
    for (month, code) in [("2026-12", Code::MonthClosed), ("2026-10", Code::MonthClosed)] {
        assert_eq!(ada.total(month, 1).await, Err(code), "{month}");
    }
    assert_eq!(ada.list().await, Ok(Vec::new()));
    assert_eq!(ada.client.post_json(RECORDS_PATH, good).await.status, 200);
    backend.stop().await;
}

#[tokio::test]
async fn numbers_are_contiguous_and_a_gap_says_where_to_go_on() {
    let backend = backend(Time::new(NOVEMBER)).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    assert_eq!(ada.append(1..=5).await, Ok(5));
    assert_eq!(ada.append(3..=8).await, Ok(8));
    let batch = ada.batch(10..=11);
    let reply = ada.post(RECORDS_PATH, &batch).await;
    assert_eq!(reply.code(), Code::BatchOrder);
    assert!(reply.text().contains("\"acknowledged\":8"), "{}", reply.text());
    let numbers: Vec<_> = ada.list().await.unwrap().iter().map(|record| record.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    backend.stop().await;
}

#[tokio::test]
async fn a_device_that_asks_too_often_and_a_user_of_many_names_wait() {
    let time = Time::new(NOVEMBER);
    let backend = backend(time).await;
    let mut ada = Person::enrolled(&backend, "ada").await;
    for name in 0..8 {
        ada.member = Member::new([name; 32]);
        assert_eq!(ada.total("2026-11", 1).await, Ok((0, 0)));
    }
    ada.member = Member::new([8; 32]);
    assert_eq!(ada.total("2026-11", 1).await, Err(Code::RateLimited));
    assert_eq!(ada.append(1..=1).await, Err(Code::RateLimited));
    ada.member = Member::new([7; 32]);
    assert_eq!(ada.append(1..=1).await, Ok(1), "one that is known goes on");
    let mut asked = 0;
    while ada.list().await != Err(Code::RateLimited) {
        asked += 1;
        assert!(asked <= 240);
    }
    time.set(NOVEMBER + DAY_S);
    assert!(ada.list().await.is_ok());
    backend.stop().await;
}
