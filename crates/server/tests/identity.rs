//! The life of an identity over real TLS, and what whoever abuses it gets: each is refused with
//! its documented code, changes nothing and is audited.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ED25519,
    SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{API, Backend, Client, Device, INGEST, Key, Reply, enrol_request};
use toktra_protocol::enrol::{EnrolResponse, RenewRequest, RenewResponse, ServerTime};
use toktra_protocol::{Code, UnixSeconds};
use toktra_store::audit::AuditRow;
use toktra_store::{approvals, audit, devices, tokens};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const DAY_S: u64 = 86_400;
const DIRECTIVE: &str = "/v1/directive";

impl Backend {
    async fn enrol(&self, token: &str, csr: &[u8]) -> Reply {
        let body = serde_json::to_vec(&enrol_request(token, csr)).unwrap();
        self.anonymous().await.post_json("/v1/enroll", body).await
    }

    async fn renew(&self, device: &Device, csr: &[u8]) -> Reply {
        let enrol = enrol_request("", csr);
        let mut description = enrol.device;
        description.hostname = "renamed".into();
        let body = serde_json::to_vec(&RenewRequest { csr: enrol.csr, device: description }).unwrap();
        self.ingest(device).await.post_json("/v1/renew", body).await
    }

    async fn actions(&self) -> Vec<(String, String)> {
        let rows = audit::newest(&self.app.store, 1000).await.unwrap();
        rows.into_iter().map(|row| (row.action, row.detail)).collect()
    }

    async fn is_audited(&self, action: &str, code: Code) -> bool {
        self.actions().await.contains(&(action.to_owned(), code.name().to_owned()))
    }

    async fn row(&self, action: &str, code: Code) -> AuditRow {
        let rows = audit::newest(&self.app.store, 1000).await.unwrap();
        rows.into_iter().find(|row| row.action == action && row.detail == code.name()).unwrap()
    }

    /// Ends the backend, whose audit trail must be whole whatever happened.
    async fn end(self) {
        assert_eq!(audit::verify(&self.app.store, None).await.unwrap().fault, None);
        self.stop().await;
    }
}

/// The device with what a renewal gave it.
fn renewed(device: &Device, key: Key, reply: &Reply) -> Device {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let renewed: RenewResponse = serde_json::from_slice(&reply.body).unwrap();
    assert!(renewed.roots.starts_with("-----BEGIN CERTIFICATE-----"));
    let enrolled = EnrolResponse { certificate_chain: renewed.certificate_chain, ..device.enrolled.clone() };
    Device { id: device.id, key, enrolled }
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_until_the_certificate_is_used() {
    let backend = Backend::start().await;
    let (token, key) = (backend.token().await, Key::new());
    let read = |reply: &Reply| serde_json::from_slice::<EnrolResponse>(&reply.body).unwrap();
    let first = read(&backend.enrol(&token, &key.csr()).await);
    let again = read(&backend.enrol(&token, &key.csr()).await);
    assert_eq!((again.device, &again.certificate_chain), (first.device, &first.certificate_chain));
    let device = Device { id: first.device, key, enrolled: first };
    assert_eq!(backend.ingest(&device).await.get(DIRECTIVE).await.status, 200);
    let rows = backend.rows().await;
    assert_eq!(backend.enrol(&token, &device.key.csr()).await.code(), Code::TokenUsed);
    assert_eq!(backend.rows().await, rows);
    assert!(backend.is_audited("enrol_refused", Code::TokenUsed).await);
    backend.end().await;
}

#[tokio::test]
async fn a_guessed_token_and_a_key_that_was_certified_are_refused_and_audited() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let token = backend.token().await;
    let rows = backend.rows().await;
    assert_eq!(backend.enrol("guessed", &Key::new().csr()).await.code(), Code::TokenUnknown);
    assert_eq!(backend.enrol(&token, &device.key.csr()).await.code(), Code::KeyUsed);
    assert_eq!(backend.rows().await, rows);
    let refused = |code: Code| backend.row("enrol_refused", code);
    assert_eq!(refused(Code::TokenUnknown).await.organisation_id, None);
    let row = refused(Code::KeyUsed).await;
    assert_eq!(row.organisation_id.as_ref(), Some(&backend.organisation.id));
    let now = backend.app.clock.now();
    let tokens = tokens::of_organisation(&backend.app.store, &backend.organisation.id, now).await.unwrap();
    assert!(tokens.iter().any(|token| token.used_at.is_none() && token.name() == row.subject));
    backend.end().await;
}

#[tokio::test]
async fn a_device_with_a_reusable_token_is_told_to_wait_and_then_enrols_by_itself() {
    let backend = Backend::start().await;
    let (token, csr) = (backend.reusable_token(2).await, Key::new().csr());
    let rows = backend.rows().await;
    for _ in 0..30 {
        let reply = backend.enrol(&token, &csr).await;
        assert_eq!((reply.code(), reply.retry_after), (Code::Pending, Some(30)), "waiting is no refusal");
    }
    assert_eq!(backend.rows().await, rows);
    let refused = Key::new().csr();
    assert_eq!(backend.enrol(&token, &refused).await.code(), Code::Pending);
    assert_eq!(backend.enrol(&token, &Key::new().csr()).await.code(), Code::TokenClosed);
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    let waiting = approvals::waiting(store, &backend.organisation.id, now).await.unwrap();
    assert_eq!(waiting.len(), 2);
    for one in &waiting {
        approvals::decide(store, None, &one.id, true, "ada", now).await.unwrap();
    }
    assert_eq!(backend.enrol(&token, &csr).await.status, 200);
    let denied = waiting.iter().map(|one| approvals::decide(store, None, &one.id, false, "ada", now));
    for decision in denied {
        let _ = decision.await;
    }
    assert_eq!(backend.enrol(&token, &refused).await.code(), Code::Denied);
    backend.end().await;
}

#[tokio::test]
async fn a_renewed_certificate_ends_the_old_one_when_it_is_first_used() {
    let backend = Backend::start().await;
    let old = backend.device().await;
    let mut open = backend.ingest(&old).await;
    assert_eq!(open.get(DIRECTIVE).await.status, 200);
    let key = Key::new();
    let lost = backend.renew(&old, &key.csr()).await;
    let reply = backend.renew(&old, &key.csr()).await;
    assert_eq!(lost.body.len(), reply.body.len(), "a lost answer is given again");
    let new = renewed(&old, key, &reply);
    assert_eq!(open.get(DIRECTIVE).await.status, 200, "nothing has ended yet");
    assert_eq!(backend.ingest(&new).await.get(DIRECTIVE).await.status, 200);
    assert_eq!(open.get(DIRECTIVE).await.code(), Code::CertificateSuperseded, "on the open connection too");
    let row = devices::find(&backend.app.store, old.id).await.unwrap().unwrap();
    assert_eq!((row.hostname.as_str(), row.flag), ("renamed", None));
    backend.end().await;
}

#[tokio::test]
async fn a_certificate_that_comes_back_long_after_it_was_superseded_flags_its_device() {
    let backend = Backend::start().await;
    let old = backend.device().await;
    let key = Key::new();
    let reply = backend.renew(&old, &key.csr()).await;
    let new = renewed(&old, key, &reply);
    assert_eq!(backend.ingest(&new).await.get(DIRECTIVE).await.status, 200);
    let mut transaction = backend.app.store.begin().await.unwrap();
    sqlx::query(
        "UPDATE certificates SET superseded_at = superseded_at - 600 WHERE superseded_at IS NOT NULL",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    transaction.commit().await.unwrap();
    let rows = backend.rows().await;
    for _ in 0..3 {
        let mut clone = backend.ingest(&old).await;
        assert_eq!(clone.get(DIRECTIVE).await.code(), Code::CertificateSuperseded);
        assert_eq!(clone.book([1]).await, Err(Code::CertificateSuperseded));
    }
    assert_eq!(backend.renew(&old, &Key::new().csr()).await.code(), Code::CertificateSuperseded);
    assert_eq!(backend.rows().await, rows);
    let row = devices::find(&backend.app.store, old.id).await.unwrap().unwrap();
    assert_eq!(row.flag.as_deref(), Some("superseded_certificate"));
    let actions = backend.actions().await;
    assert_eq!(actions.iter().filter(|(action, _)| action == "superseded_certificate").count(), 1);
    assert_eq!(actions.iter().filter(|(action, _)| action == "request_refused").count(), 1, "within limits");
    assert_eq!(backend.ingest(&new).await.get(DIRECTIVE).await.status, 200, "the device itself goes on");
    backend.end().await;
}

#[tokio::test]
async fn an_expired_certificate_does_nothing_but_recover_its_device() {
    let backend = Backend::start().await;
    let now = backend.app.clock.now();
    let ago = |days: u64| UnixSeconds(now.0 - days * DAY_S);
    let expired = backend.device_at(ago(90 + 179), true).await;
    assert_eq!(backend.ingest(&expired).await.book([1]).await, Err(Code::CertificateExpired));
    let key = Key::new();
    let reply = backend.renew(&expired, &key.csr()).await;
    let recovered = renewed(&expired, key, &reply);
    assert_eq!(backend.ingest(&recovered).await.book([1]).await, Ok(1));
    assert!(backend.actions().await.iter().any(|(action, _)| action == "recover"));

    let lost = backend.device_at(ago(90 + 181), true).await;
    let rows = backend.rows().await;
    assert_eq!(backend.renew(&lost, &Key::new().csr()).await.code(), Code::RecoveryClosed);
    assert_eq!(backend.rows().await, rows);
    assert!(backend.is_audited("renew_refused", Code::RecoveryClosed).await);
    assert!(backend.is_audited("request_refused", Code::CertificateExpired).await);
    backend.end().await;
}

#[tokio::test]
async fn a_certificate_whose_time_has_not_come_says_that_the_clocks_disagree() {
    let backend = Backend::start().await;
    let early = backend.device_at(backend.app.clock.now().plus(3000), true).await;
    assert_eq!(backend.ingest(&early).await.book([1]).await, Err(Code::ClockSkew));
    assert_eq!(backend.renew(&early, &Key::new().csr()).await.code(), Code::ClockSkew);
    assert!(backend.is_audited("request_refused", Code::ClockSkew).await);
    let reply = backend.anonymous().await.get("/v1/time").await;
    let time: ServerTime = serde_json::from_slice(&reply.body).unwrap();
    assert!(time.server_time.0.abs_diff(backend.app.clock.now().0) < 60);
    backend.end().await;
}

#[tokio::test]
async fn nobody_renews_with_a_key_again_or_with_what_is_no_request() {
    let backend = Backend::start().await;
    let (device, other) = (backend.device().await, backend.device().await);
    assert_eq!(backend.ingest(&device).await.get(DIRECTIVE).await.status, 200);
    let rows = backend.rows().await;
    for used in [&device, &other] {
        assert_eq!(backend.renew(&device, &used.key.csr()).await.code(), Code::KeyUsed);
    }
    assert_eq!(backend.renew(&device, b"\x30\x03abc").await.code(), Code::BadCsr);
    let mut client = backend.ingest(&device).await;
    assert_eq!(client.post_json("/v1/renew", "{}").await.code(), Code::BadRequest);
    assert_eq!(client.post_json("/v1/renew", vec![b' '; 16 * 1024 + 1]).await.code(), Code::TooLarge);
    assert_eq!(client.get("/v1/renew").await.code(), Code::Method);
    assert_eq!(backend.rows().await, rows);
    for code in [Code::KeyUsed, Code::BadCsr, Code::BadRequest, Code::TooLarge] {
        let row = backend.row("renew_refused", code).await;
        assert_eq!(row.organisation_id.as_ref(), Some(&backend.organisation.id), "{code:?}");
    }
    backend.end().await;
}

#[tokio::test]
async fn a_revoked_device_a_stranger_and_nobody_renew_nothing() {
    let backend = Backend::start().await;
    let elsewhere = Backend::start().await;
    let (revoked, foreign) = (backend.device().await, elsewhere.device().await);
    let unknown = backend.device_at(backend.app.clock.now(), false).await;
    devices::revoke(&backend.app.store, revoked.id, "ada", backend.app.clock.now()).await.unwrap();
    let rows = backend.rows().await;
    for (device, code) in
        [(&revoked, Code::Revoked), (&foreign, Code::CertificateRequired), (&unknown, Code::UnknownDevice)]
    {
        assert_eq!(backend.renew(device, &Key::new().csr()).await.code(), code);
        assert!(backend.is_audited("request_refused", code).await, "{code:?}");
    }
    let anonymous = backend.trusting().with_no_client_auth();
    let mut nobody = Client::connect(backend.address, INGEST, anonymous).await;
    assert_eq!(nobody.post_json("/v1/renew", "{}").await.code(), Code::CertificateRequired);
    assert_eq!(nobody.get("/v1/time").await.code(), Code::NotFound, "which is the API host's");
    assert_eq!(backend.rows().await, rows);
    elsewhere.end().await;
    backend.end().await;
}

#[tokio::test]
async fn a_request_for_another_name_and_to_be_a_ca_gets_the_devices_own_name_and_no_more() {
    let backend = Backend::start().await;
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut asked = CertificateParams::new(vec![API.to_owned()]).unwrap();
    asked.subject_alt_names.push(SanType::URI("spiffe://other/device/other".try_into().unwrap()));
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    asked.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let csr = asked.serialize_request(&key).unwrap().der().to_vec();
    let reply = backend.enrol(&backend.token().await, &csr).await;
    if reply.status != 200 {
        // To refuse such a request is as good.
        assert_eq!(reply.code(), Code::BadCsr);
        return backend.end().await;
    }
    let enrolled: EnrolResponse = serde_json::from_slice(&reply.body).unwrap();
    let leaf = CertificateDer::from_pem_slice(enrolled.certificate_chain.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let name = format!("spiffe://{}.toktra.internal/device/{}", backend.organisation.id, enrolled.device);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names, [GeneralName::URI(&name)]);
    assert!(!leaf.is_ca());
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    backend.end().await;
}

#[tokio::test]
async fn a_devices_certificate_makes_no_further_device() {
    let backend = Backend::start().await;
    let device = backend.device().await;
    let leaf = device.chain().remove(0);
    let PrivateKeyDer::Pkcs8(pkcs8) = device.key.private() else { return };
    let signing = KeyPair::try_from(pkcs8.secret_pkcs8_der()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&leaf, signing).unwrap();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    let name = format!("spiffe://{}.toktra.internal/device/{}", backend.organisation.id, device.id);
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let made = params.signed_by(&key, &issuer).unwrap();
    let chain = [vec![made.der().clone()], device.chain()].concat();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = backend.trusting().with_client_auth_cert(chain, private).unwrap();
    let rows = backend.rows().await;
    let mut client = Client::connect(backend.address, INGEST, config).await;
    assert_eq!(client.book([1]).await, Err(Code::CertificateRequired));
    assert_eq!(client.post_json("/v1/renew", "{}").await.code(), Code::CertificateRequired);
    assert_eq!(backend.rows().await, rows);
    assert!(backend.is_audited("request_refused", Code::CertificateRequired).await);
    backend.end().await;
}
