//! A backend in this process on a port of its own, and clients that speak to it over real TLS.
#![allow(dead_code, reason = "each test binary uses a part")]

mod authority;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use toktra_pki::{Authority, PassphraseFile, VerifiedCsr};
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, EnrolResponse};
use toktra_protocol::{
    Batch, Code, DeviceId, Estimate, Event, EventBody, Minute, NameSource, Problem, ToktraDomain,
    UnixSeconds, Usage,
};
use toktra_server::serve::Server;
use toktra_server::{App, Clock, Config, SharedApp};
use toktra_store::directory::{Department, Organisation, User};
use toktra_store::enrolment::{self, Grant};
use toktra_store::tokens::{self, Use};
use toktra_store::{Store, directory};

pub use authority::create_authority;

pub const DOMAIN: &str = "toktra.localhost";
pub const API: &str = "api.toktra.localhost";
pub const INGEST: &str = "ingest.toktra.localhost";

pub struct Backend {
    pub app: SharedApp,
    pub address: SocketAddr,
    pub data: TempDir,
    pub organisation: Organisation,
    pub department: Department,
    pub running: JoinHandle<()>,
}

impl Backend {
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts with a state that was adjusted before anything ran.
    pub async fn start_with(adjust: impl FnOnce(&mut App)) -> Self {
        Self::start_at_with(Clock::System, adjust).await
    }

    /// Starts at another time, which is the clients' too.
    pub async fn start_at(clock: Clock) -> Self {
        Self::start_at_with(clock, |_| ()).await
    }

    async fn start_at_with(clock: Clock, adjust: impl FnOnce(&mut App)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let domain: ToktraDomain = DOMAIN.parse().unwrap();
        let now = clock.now();
        let passphrase = create_authority(data.path(), &domain, now);
        Config { domain }.write(data.path()).unwrap();
        let mut app = App::open(data.path(), &passphrase, clock).await.unwrap();
        adjust(Arc::get_mut(&mut app).unwrap());
        let organisation = directory::create_organisation(&app.store, "Acme", "test", now).await.unwrap();
        let department =
            directory::create_department(&app.store, &organisation, "Research", "test", now).await.unwrap();
        let server = Server::bind(Arc::clone(&app), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address().unwrap();
        let running = tokio::spawn(server.run());
        Self { app, address, data, organisation, department, running }
    }

    /// Stops and starts on the same data, with the same clock.
    pub async fn start_again(self) -> Self {
        let Self { app, data, organisation, department, running, .. } = self;
        let clock = app.clock;
        app.stop.send_replace(true);
        running.await.unwrap();
        drop(app);
        let passphrase = PassphraseFile::Own(data.path().join("test.passphrase"));
        let app = App::open(data.path(), &passphrase, clock).await.unwrap();
        let server = Server::bind(Arc::clone(&app), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address().unwrap();
        let running = tokio::spawn(server.run());
        Self { app, address, data, organisation, department, running }
    }

    /// A token that is good until then.
    pub async fn token_until(&self, until: UnixSeconds) -> String {
        let department = Some(&self.department);
        self.token_for(Grant { organisation: &self.organisation, department, user: None }, until).await
    }

    async fn token_for(&self, grant: Grant<'_>, until: UnixSeconds) -> String {
        let token = uuid::Uuid::new_v4().to_string();
        let now = self.app.clock.now();
        enrolment::create_token(&self.app.store, &token_hash(&token), grant, until, "test", now)
            .await
            .unwrap();
        token
    }

    /// A token by which so many devices may ask.
    pub async fn reusable_token(&self, devices: u32) -> String {
        let token = uuid::Uuid::new_v4().to_string();
        let now = self.app.clock.now();
        let grant = Grant { organisation: &self.organisation, department: None, user: None };
        let terms = (grant, Use::Reusable { devices }, "image");
        tokens::create(&self.app.store, &token_hash(&token), terms, now.plus(3600), "test", now)
            .await
            .unwrap();
        token
    }

    pub async fn token(&self) -> String {
        self.token_until(self.app.clock.now().plus(3600)).await
    }

    /// Enrols a new device.
    pub async fn device(&self) -> Device {
        self.device_by(&self.token().await).await
    }

    /// Enrols a new device of a user's.
    pub async fn device_of(&self, user: &User) -> Device {
        let grant = Grant { organisation: &self.organisation, department: None, user: Some(user) };
        self.device_by(&self.token_for(grant, self.app.clock.now().plus(3600)).await).await
    }

    /// A connection of a new device to the ingest host whose organisation is another one.
    pub async fn device_of_another_organisation(&self) -> Client {
        let now = self.app.clock.now();
        let other = directory::create_organisation(&self.app.store, "Other", "test", now).await.unwrap();
        let grant = Grant { organisation: &other, department: None, user: None };
        let device = self.device_by(&self.token_for(grant, now.plus(3600)).await).await;
        self.ingest(&device).await
    }

    async fn device_by(&self, token: &str) -> Device {
        let key = Key::new();
        let request = enrol_request(token, &key.csr());
        let reply =
            self.anonymous().await.post_json("/v1/enroll", serde_json::to_vec(&request).unwrap()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let enrolled: EnrolResponse = serde_json::from_slice(&reply.body).unwrap();
        Device { id: enrolled.device, key, enrolled }
    }

    /// A device whose certificate was issued then; `booked`: and is in the database.
    pub async fn device_at(&self, at: UnixSeconds, booked: bool) -> Device {
        let key = Key::new();
        let csr = VerifiedCsr::from_der(&key.csr()).unwrap();
        let id = DeviceId::new_v4();
        let organisation = self.organisation.id.parse().unwrap();
        let made = self.app.authority().issue_device(&csr, organisation, id, at).unwrap();
        let enrolled = EnrolResponse {
            device: id,
            organisation: String::new(),
            department: None,
            certificate_chain: made.chain_pem.clone(),
            directive_key: String::new(),
            roots: String::new(),
            server_time: at,
        };
        if booked {
            let token = self.token().await;
            let attempt = enrolment::Attempt {
                token_hash: &token_hash(&token),
                public_key: &csr.key_id(),
                description: &enrol_request("", &[]).device,
                address: "test",
                device: id,
            };
            let row = enrolment::NewCertificate {
                serial: made.serial,
                issuer: made.issuer,
                root: String::new(),
                not_before: made.not_before,
                not_after: made.not_after,
                der: STANDARD.encode(&made.der),
                chain_pem: made.chain_pem,
                public_key: csr.key_id(),
            };
            enrolment::enrol(&self.app.store, &attempt, at, |_, _| Ok(row)).await.unwrap();
        }
        Device { id, key, enrolled }
    }

    pub async fn anonymous(&self) -> Client {
        Client::connect(self.address, API, self.trusting().with_no_client_auth()).await
    }

    /// A connection to the ingest host with a device's certificate.
    pub async fn ingest(&self, device: &Device) -> Client {
        Client::connect(self.address, INGEST, self.config_of(device)).await
    }

    pub fn config_of(&self, device: &Device) -> ClientConfig {
        self.trusting().with_client_auth_cert(device.chain(), device.key.private()).unwrap()
    }

    pub fn trusting(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        trusting(&Authority::root_certificate_file(self.data.path()), self.app.clock)
    }

    /// How many rows each table has; the audit trail apart, which grows by design.
    pub async fn rows(&self) -> Vec<(&'static str, i64)> {
        rows(&self.app.store).await
    }

    pub async fn stop(self) {
        self.app.stop.send_replace(true);
        self.running.await.unwrap();
    }
}

/// Starts the real server on a data directory, and waits until it listens.
pub async fn serve(data: &Path, passphrase: &Path) -> (Child, SocketAddr) {
    serve_with(data, passphrase, |_| ()).await
}

/// The same with an environment and outputs of the test's own.
pub async fn serve_with(
    data: &Path,
    passphrase: &Path,
    adjust: impl FnOnce(&mut Command),
) -> (Child, SocketAddr) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_toktra-server"));
    server
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .arg("--passphrase-file")
        .arg(passphrase)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    adjust(&mut server);
    let mut server = server.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap().parse().unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (server, address)
}

/// By which clock clients judge the server's certificate.
#[derive(Debug)]
struct ClientsClock(Clock);

impl TimeProvider for ClientsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().0)))
    }
}

pub fn trusting(
    root: &Path,
    clock: Clock,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_details(provider, Arc::new(ClientsClock(clock)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

fn token_hash(token: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub async fn rows(store: &Store) -> Vec<(&'static str, i64)> {
    let mut counts = Vec::new();
    for (table, sql) in [
        ("devices", "SELECT COUNT(*) FROM devices"),
        ("certificates", "SELECT COUNT(*) FROM certificates"),
        ("tokens used", "SELECT COUNT(*) FROM enrolment_tokens WHERE used_at IS NOT NULL"),
        ("events", "SELECT COUNT(*) FROM events"),
        ("usage_hourly", "SELECT COUNT(*) FROM usage_hourly"),
        ("booked events", "SELECT COALESCE(SUM(events), 0) FROM usage_hourly"),
        ("acknowledged", "SELECT COALESCE(SUM(acknowledged_sequence), 0) FROM devices"),
    ] {
        counts.push((table, sqlx::query_scalar(sql).fetch_one(store.reader()).await.unwrap()));
    }
    counts
}

/// A device's key.
pub struct Key(rcgen::KeyPair);

impl Key {
    pub fn new() -> Self {
        Self(rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap())
    }

    pub fn csr(&self) -> Vec<u8> {
        rcgen::CertificateParams::default().serialize_request(&self.0).unwrap().der().to_vec()
    }

    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

pub struct Device {
    pub id: DeviceId,
    pub key: Key,
    pub enrolled: EnrolResponse,
}

impl Device {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let pem = self.enrolled.certificate_chain.as_bytes();
        CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect()
    }
}

pub fn enrol_request(token: &str, csr: &[u8]) -> EnrolRequest {
    EnrolRequest {
        token: token.to_owned(),
        csr: STANDARD.encode(csr),
        device: DeviceDescription {
            hostname: "laptop".into(),
            platform: "linux".into(),
            agent_version: "0.1.0".into(),
            hardware: None,
        },
    }
}

/// An HTTP/1.1 connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

pub struct Reply {
    pub status: StatusCode,
    pub media_type: String,
    pub retry_after: Option<u64>,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of a problem; checks that status, media type and text are as they must be.
    pub fn code(&self) -> Code {
        assert_eq!(self.media_type, "application/problem+json", "{} {}", self.status, self.text());
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.code.status(), problem.status);
        assert!(problem.detail.ends_with(['.', ')']) && problem.detail.len() > 20, "{}", problem.detail);
        problem.code
    }
}

pub async fn tls(address: SocketAddr, host: &str, config: ClientConfig) -> TlsStream<TcpStream> {
    try_tls(address, host, config).await.unwrap()
}

pub async fn try_tls(
    address: SocketAddr,
    host: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

impl Client {
    pub async fn connect(address: SocketAddr, host: &str, config: ClientConfig) -> Self {
        Self::try_connect(address, host, config).await.unwrap()
    }

    /// Connects to a server that may be killed meanwhile.
    pub async fn try_connect(
        address: SocketAddr,
        host: &str,
        config: ClientConfig,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(try_tls(address, host, config).await?);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: host.to_owned() })
    }

    pub async fn send(&mut self, request: hyper::http::request::Builder, body: impl Into<Bytes>) -> Reply {
        self.try_send(request, body).await.unwrap()
    }

    /// Sends a request to a server that may be killed meanwhile.
    pub async fn try_send(
        &mut self,
        request: hyper::http::request::Builder,
        body: impl Into<Bytes>,
    ) -> hyper::Result<Reply> {
        self.sender.ready().await?;
        let request = request.header("host", &self.host).body(Full::new(body.into())).unwrap();
        let response = self.sender.send_request(request).await?;
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (media_type, retry_after) = (header("content-type"), header("retry-after"));
        Ok(Reply {
            status: response.status(),
            media_type: media_type.unwrap_or_default(),
            retry_after: retry_after.map(|seconds| seconds.parse().unwrap()),
            body: response.into_body().collect().await?.to_bytes(),
        })
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(Request::get(path), "").await
    }

    pub async fn post_json(&mut self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Request::post(path).header("content-type", "application/json"), body).await
    }

    /// Sends a body as a compressed batch.
    pub async fn post_zstd(&mut self, body: impl Into<Bytes>) -> Reply {
        let request = Request::post("/v1/events")
            .header("content-type", "application/json")
            .header("content-encoding", "zstd");
        self.send(request, body).await
    }

    /// Sends events and returns what was acknowledged, or the code of the refusal.
    pub async fn book(&mut self, sequences: impl IntoIterator<Item = u64>) -> Result<u64, Code> {
        let batch = Batch { events: sequences.into_iter().map(usage).collect() };
        let reply = self.post_zstd(batch.encode().unwrap()).await;
        if reply.status != 200 {
            return Err(reply.code());
        }
        let ack: toktra_protocol::Ack = serde_json::from_slice(&reply.body).unwrap();
        Ok(ack.acknowledged)
    }
}

/// An event of ten tokens sent and a hundred received.
pub fn usage(sequence: u64) -> Event {
    Event {
        sequence,
        minute: Minute(29_000_000),
        body: EventBody::Usage(Usage {
            provider: "openai".into(),
            service: "openai-api".into(),
            host: "api.openai.com".into(),
            name_source: NameSource::Sni,
            user_account: Some("ada".into()),
            application: Some("python3".into()),
            exchanges: 1,
            bytes_out: 1000,
            bytes_in: 20_000,
            bytes_handshake: 5000,
            duration_s: 3,
            streaming: true,
            partial: false,
            tokens_in: Estimate { low: 9, point: 10, high: 11 },
            tokens_out: Estimate { low: 90, point: 100, high: 110 },
            calibration: "test".into(),
        }),
    }
}
