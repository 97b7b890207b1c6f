//! EST (RFC 7030): by hand, and with a public client, strongSwan's `pki`, which the second test
//! needs (Debian: strongswan-pki) and without which it says so and proves nothing.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Request;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use support::{Backend, Client, INGEST, Key, Reply};
use toktra_pki::Authority;
use toktra_protocol::Code;
use toktra_store::{approvals, audit};

const ENROL: &str = "/.well-known/est/simpleenroll";
const RENEW: &str = "/.well-known/est/simplereenroll";

async fn anonymous(backend: &Backend) -> Client {
    Client::connect(backend.address, INGEST, backend.trusting().with_no_client_auth()).await
}

async fn post(client: &mut Client, path: &str, token: Option<&str>, csr: &[u8]) -> Reply {
    let mut request = Request::post(path).header("content-type", "application/pkcs10");
    if let Some(token) = token {
        let credentials = STANDARD.encode(format!("anyone:{token}"));
        request = request.header("authorization", format!("Basic {credentials}"));
    }
    // As RFC 7030 had it, with lines.
    let lines: Vec<_> = STANDARD.encode(csr).as_bytes().chunks(64).map(<[u8]>::to_vec).collect();
    client.send(request, lines.join(&b"\r\n"[..])).await
}

/// The certificates inside an answer, which lie in it one after the other.
fn certificates(reply: &Reply) -> Vec<u8> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.media_type.starts_with("application/pkcs7-mime"), "{}", reply.media_type);
    STANDARD.decode(&reply.body).unwrap()
}

fn contains(outer: &[u8], inner: &[u8]) -> bool {
    outer.windows(inner.len()).any(|window| window == inner)
}

#[tokio::test]
async fn est_gives_what_enrolment_and_renewal_give_and_refuses_what_they_refuse() {
    let backend = Backend::start().await;
    let mut client = anonymous(&backend).await;
    let roots = certificates(&client.get("/.well-known/est/cacerts").await);
    let root = CertificateDer::from_pem_file(Authority::root_certificate_file(backend.data.path())).unwrap();
    assert!(contains(&roots, &root));

    let (token, key) = (backend.token().await, Key::new());
    let rows = backend.rows().await;
    assert_eq!(post(&mut client, ENROL, None, &key.csr()).await.code(), Code::SignIn);
    assert_eq!(post(&mut client, ENROL, Some("guessed"), &key.csr()).await.code(), Code::TokenUnknown);
    assert_eq!(post(&mut client, ENROL, Some(&token), b"\x30\x03abc").await.code(), Code::BadCsr);
    assert_eq!(client.post_json(ENROL, "{}").await.code(), Code::MediaType);
    assert_eq!(post(&mut client, RENEW, Some(&token), &key.csr()).await.code(), Code::CertificateRequired);
    assert_eq!(backend.rows().await, rows);
    let enrolled = certificates(&post(&mut client, ENROL, Some(&token), &key.csr()).await);
    let again = certificates(&post(&mut client, ENROL, Some(&token), &key.csr()).await);
    assert_eq!(enrolled, again, "a lost answer");
    assert_eq!(post(&mut client, ENROL, Some(&token), &Key::new().csr()).await.code(), Code::TokenUsed);

    let device = backend.device().await;
    let mut renewing = backend.ingest(&device).await;
    let renewed = certificates(&post(&mut renewing, RENEW, None, &Key::new().csr()).await);
    assert!(!contains(&renewed, &device.chain()[0]) && renewed.len() < roots.len(), "the new leaf alone");
    assert_eq!(post(&mut renewing, RENEW, None, &device.key.csr()).await.code(), Code::KeyUsed);

    let (token, csr) = (backend.reusable_token(1).await, Key::new().csr());
    let waiting = post(&mut client, ENROL, Some(&token), &csr).await;
    assert_eq!((waiting.status.as_u16(), waiting.retry_after), (202, Some(30)));
    let (store, now) = (&backend.app.store, backend.app.clock.now());
    let requests = approvals::waiting(store, &backend.organisation.id, now).await.unwrap();
    approvals::decide(store, None, &requests[0].id, true, "ada", now).await.unwrap();
    certificates(&post(&mut client, ENROL, Some(&token), &csr).await);
    assert_eq!(audit::verify(store, None).await.unwrap().fault, None);
    backend.stop().await;
}

/// Runs strongSwan's tool where the backend's name resolves, which needs a namespace of its own.
fn pki(directory: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    std::fs::write(directory.join("hosts"), format!("127.0.0.1 {INGEST} localhost\n"))?;
    let settings = "libtls {\n  version_min = 1.3\n  version_max = 1.3\n}\n";
    std::fs::write(directory.join("strongswan.conf"), settings)?;
    Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .args(["mount --bind hosts /etc/hosts && exec pki \"$@\"", "sh"])
        .args(arguments)
        .env("STRONGSWAN_CONF", directory.join("strongswan.conf"))
        .current_dir(directory)
        .output()
}

fn run(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = pki(directory, arguments).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pki {arguments:?}: {complaint}");
    output.stdout
}

fn new_key(directory: &Path, name: &str) {
    let key = run(directory, &["--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"]);
    std::fs::write(directory.join(format!("{name}.key")), key).unwrap();
    let path = format!("{name}.key");
    let csr = run(directory, &["--req", "--in", &path, "--type", "ecdsa", "--dn", "CN=somebody else"]);
    std::fs::write(directory.join(format!("{name}.csr")), csr).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strongswans_client_gets_the_roots_enrols_and_renews() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let usage = pki(path, &["--est", "--help"]);
    if !usage.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no `pki --est` of strongSwan (Debian: strongswan-pki), or no namespace for it.");
        return;
    }
    let backend = Backend::start().await;
    let url = format!("https://{INGEST}:{}", backend.address.port());
    std::fs::copy(Authority::root_certificate_file(backend.data.path()), path.join("root.pem")).unwrap();
    let cas = ["--url", &url, "--cacert", "root.pem", "--caout", "ca", "--outform", "pem"];
    run(path, &[&["--estca"][..], &cas].concat());
    assert!(path.join("ca.pem").exists() && path.join("ca-1.pem").exists());

    let token = format!("anyone:{}", backend.token().await);
    let pem = ["--outform", "pem", "--url", &url, "--cacert", "root.pem"];
    new_key(path, "old");
    let old = run(path, &[&["--est", "--in", "old.csr", "--userpass", &token][..], &pem].concat());
    std::fs::write(path.join("old.pem"), &old).unwrap();
    let identify = |pem: &[u8]| {
        let leaf = CertificateDer::from_pem_slice(pem).unwrap();
        backend.app.authority().trust().identify(&leaf).unwrap()
    };
    new_key(path, "new");
    let shown = ["--est", "--in", "new.csr", "--cert", "old.pem", "--key", "old.key"];
    let issuers = ["--cacert", "ca.pem", "--cacert", "ca-1.pem", "--cacert", "ca-2.pem"];
    let issuers: Vec<_> =
        issuers.chunks(2).filter(|pair| path.join(pair[1]).exists()).flatten().copied().collect();
    let new = run(path, &[&shown[..], &pem, &issuers].concat());
    let (old, new) = (identify(&old), identify(&new));
    assert_eq!(old.device, new.device);
    assert_ne!(old.serial, new.serial);
    backend.stop().await;
}
