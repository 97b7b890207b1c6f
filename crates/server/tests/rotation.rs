//! Rotations beside a running server: the commands as an operator runs them, devices that are
//! connected meanwhile, and revocation lists as others fetch them.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::{Backend, Client, Device, Key, create_authority};
use toktra_pki::{Authority, PassphraseFile};
use toktra_protocol::enrol::{RENEW_PATH, RenewRequest, RenewResponse};
use toktra_protocol::{Code, SignedDirective, UnixSeconds};
use toktra_server::{Clock, SharedApp};
use toktra_store::{audit, devices};

/// Runs `toktra-server ca …` on the backend's data.
fn ca(data: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toktra-server"))
        .arg("ca")
        .args(arguments)
        .arg("--data")
        .arg(data)
        .arg("--passphrase-file")
        .arg(data.join("test.passphrase"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn take(data: &Path, line: &str, step: &str, more: &[&str]) -> String {
    let output = ca(data, &[&["rotate", line, step], more].concat());
    assert!(output.status.success(), "{line} {step}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Takes a step that a root's key signs.
fn sign(data: &Path, line: &str, step: &str) -> String {
    let passphrase = data.join("test.passphrase").display().to_string();
    let mut more = vec!["--root-passphrase-file", &passphrase];
    if (line, step) == ("root", "prepare") {
        more.extend(["--new-root-passphrase-file", &passphrase]);
    }
    take(data, line, step, &more)
}

/// Waits until the running server's authority is as a step made it.
async fn until(app: &SharedApp, what: &str, is_so: impl Fn(&Authority) -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !is_so(&app.authority()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "the server did not notice: {what}");
}

async fn renewed(backend: &Backend, device: &Device) -> (Device, RenewResponse) {
    let key = Key::new();
    let request = RenewRequest {
        csr: support::enrol_request("", &key.csr()).csr,
        device: support::enrol_request("", &[]).device,
    };
    let body = serde_json::to_vec(&request).unwrap();
    let reply = backend.ingest(device).await.post_json(RENEW_PATH, body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let response: RenewResponse = serde_json::from_slice(&reply.body).unwrap();
    let enrolled = toktra_protocol::enrol::EnrolResponse {
        certificate_chain: response.certificate_chain.clone(),
        ..device.enrolled.clone()
    };
    (Device { id: device.id, key, enrolled }, response)
}

async fn renew_before(client: &mut Client) -> Option<UnixSeconds> {
    let reply = client.get("/v1/directive").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_slice::<SignedDirective>(&reply.body).unwrap().document().unwrap().renew_before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intermediate_rotates_under_a_connected_device_and_back() {
    let backend = Backend::start().await;
    let (app, data) = (&backend.app, backend.data.path());
    let device = backend.device().await;
    let mut open = backend.ingest(&device).await;
    assert_eq!(open.book([1]).await, Ok(1));
    assert_eq!(renew_before(&mut open).await, None);
    let old = app.authority().issuer_id().to_owned();

    let rehearsed = {
        let passphrase = data.join("test.passphrase").display().to_string();
        take(data, "devices", "prepare", &["--dry-run", "--root-passphrase-file", &passphrase])
    };
    assert!(rehearsed.contains("nothing is changed") && rehearsed.contains("Toktra Intermediate CA"));
    sign(data, "devices", "prepare");
    take(data, "devices", "trust", &[]);
    until(app, "trust", |authority| authority.trusted_issuers().count() == 2).await;
    take(data, "devices", "issue", &[]);
    until(app, "issue", |authority| authority.issuer_id() != old).await;
    let new = app.authority().issuer_id().to_owned();

    // The connection that was open goes on, and brings word; the old certificate is still taken.
    assert_eq!(open.book([2]).await, Ok(2));
    assert!(renew_before(&mut open).await.is_some());
    assert_eq!(backend.ingest(&device).await.book([3]).await, Ok(3));
    let refused = ca(data, &["rotate", "devices", "retire"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("1 devices hang on"), "{said}");

    let (device, response) = renewed(&backend, &device).await;
    assert_eq!(response.roots, app.authority().roots_pem());
    assert_eq!(backend.ingest(&device).await.book([4]).await, Ok(4));
    // Back and forth again: now the device hangs on the next one.
    take(data, "devices", "rollback", &[]);
    until(app, "rollback", |authority| authority.issuer_id() == old).await;
    assert_eq!(backend.ingest(&device).await.book([5]).await, Ok(5));
    let refused = ca(data, &["rotate", "devices", "rollback"]);
    assert!(!refused.status.success());
    take(data, "devices", "issue", &[]);
    take(data, "devices", "retire", &[]);
    until(app, "retire", |authority| authority.trusted_issuers().eq([new.as_str()])).await;
    assert_eq!(backend.ingest(&device).await.book([6]).await, Ok(6));

    // Every step is in the trail, and the trail is whole.
    let rows = audit::newest(&app.store, 100).await.unwrap();
    let steps: Vec<_> = rows.iter().rev().filter_map(|row| row.action.strip_prefix("ca_rotate_")).collect();
    assert_eq!(steps, ["prepare", "trust", "issue", "rollback", "issue", "retire"]);
    assert!(audit::verify(&app.store, None).await.unwrap().fault.is_none());
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retirement_by_force_refuses_devices_on_their_open_connections() {
    let backend = Backend::start().await;
    let (app, data) = (&backend.app, backend.data.path());
    let device = backend.device().await;
    let mut open = backend.ingest(&device).await;
    assert_eq!(open.book([1]).await, Ok(1));
    let old = app.authority().issuer_id().to_owned();
    sign(data, "devices", "prepare");
    take(data, "devices", "trust", &[]);
    take(data, "devices", "issue", &[]);
    take(data, "devices", "retire", &["--force"]);
    until(app, "retire", |authority| !authority.trust().takes(&old)).await;
    assert_eq!(open.book([2]).await, Err(Code::CertificateRequired));
    assert_eq!(backend.ingest(&device).await.book([2]).await, Err(Code::CertificateRequired));
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_rotates_and_a_device_that_was_told_follows() {
    let backend = Backend::start().await;
    let (app, data) = (&backend.app, backend.data.path());
    // Who asks nothing meanwhile knows the old root only.
    let knows_old = backend.trusting().with_no_client_auth();
    let old_root = app.authority().roots_pem().to_owned();
    let (device, silent) = (backend.device().await, backend.device().await);
    let config = backend.config_of(&device);
    sign(data, "root", "prepare");
    take(data, "root", "distribute", &[]);
    until(app, "distribute", |authority| authority.roots_pem().len() > old_root.len()).await;
    let (device, response) = renewed(&backend, &device).await;
    assert!(response.roots.starts_with(&old_root) && response.roots.len() > old_root.len());
    assert_eq!(Client::connect(backend.address, support::INGEST, config).await.book([1]).await, Ok(1));

    let issued = app.authority().issue_server(support::API, Clock::System.now()).unwrap().chain.len();
    sign(data, "root", "switch");
    until(app, "switch", |authority| {
        authority.issue_server(support::API, Clock::System.now()).unwrap().chain.len() > issued
    })
    .await;
    let mut stranger = Client::connect(backend.address, support::API, knows_old).await;
    assert_eq!(stranger.get("/healthz").await.status, 200);
    let bundle = stranger.get("/v1/ca.pem").await;
    assert!(bundle.text().starts_with(&response.roots));
    // Still known by the chain to the old root, which `root.pem` has first.
    assert_eq!(backend.ingest(&device).await.book([2]).await, Ok(2));

    // Who enrolled meanwhile was told of both; who asked nothing since hangs on the old one.
    let late = backend.device().await;
    assert_eq!(late.enrolled.roots, response.roots);
    let refused = ca(data, &["rotate", "root", "retire"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("1 devices hang on"));
    let (silent, _) = renewed(&backend, &silent).await;
    assert_eq!(backend.ingest(&silent).await.book([1]).await, Ok(1));
    take(data, "root", "retire", &[]);
    until(app, "retire", |authority| !authority.roots_pem().contains(&old_root)).await;
    // `root.pem` has the new root alone by now.
    assert_eq!(backend.ingest(&device).await.book([3]).await, Ok(3));
    backend.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intermediates_list_names_who_was_revoked_and_is_made_anew_only_then() {
    let backend = Backend::start().await;
    let (lost, kept) = (backend.device().await, backend.device().await);
    let mut anyone = backend.anonymous().await;
    let path = format!("/v1/crl/{}.crl", backend.app.authority().issuer_id());
    let first = anyone.get(&path).await;
    assert_eq!(first.status, 200);
    assert_eq!(anyone.get(&path).await.body, first.body, "nothing has changed");

    devices::revoke(&backend.app.store, lost.id, "test", Clock::System.now()).await.unwrap();
    let second = anyone.get(&path).await;
    let serials = |reply: &support::Reply| {
        use x509_parser::prelude::FromDer as _;
        let (rest, list) =
            x509_parser::revocation_list::CertificateRevocationList::from_der(&reply.body).unwrap();
        assert!(rest.is_empty());
        list.iter_revoked_certificates().map(|one| one.raw_serial().to_vec()).collect::<Vec<_>>()
    };
    let serial_of =
        |device: &Device| backend.app.authority().trust().identify(&device.chain()[0]).unwrap().serial;
    let hexadecimal = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(serials(&first).is_empty());
    assert_eq!(serials(&second).iter().map(hexadecimal).collect::<Vec<_>>(), [serial_of(&lost)]);
    assert_ne!(serial_of(&kept), serial_of(&lost));
    for nothing in ["/v1/crl/00.crl", "/v1/crl/.crl", &path[..path.len() - 4]] {
        assert_eq!(anyone.get(nothing).await.code(), Code::NotFound, "{nothing}");
    }
    backend.stop().await;
}

#[test]
fn an_older_directory_is_encrypted_by_one_command_which_shows_the_roots_passphrase_once() {
    let data = tempfile::tempdir().unwrap();
    let passphrase = create_authority(data.path(), &support::DOMAIN.parse().unwrap(), Clock::System.now());
    let missing = PassphraseFile::Own(data.path().join("nowhere"));
    let refused = Authority::open(data.path(), &missing).unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(refused)).contains("--passphrase-file"));
    toktra_server::Config { domain: support::DOMAIN.parse().unwrap() }.write(data.path()).unwrap();
    let again = ca(data.path(), &["encrypt"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(String::from_utf8_lossy(&again.stdout).contains("nothing was changed"));
    assert!(Authority::open(data.path(), &passphrase).is_ok());

    // Where the passphrase is missing, no other is made, under which nothing would open.
    let kept = data.path().join("test.passphrase");
    std::fs::remove_file(&kept).unwrap();
    let refused = ca(data.path(), &["encrypt"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("is missing") && !kept.exists(), "{said}");
}
