//! What identities cost the backend, by the size of the fleet: enrolments and renewals a second,
//! each durable when it is answered; full handshakes a second (TLS 1.3, Ed25519 client key, one
//! request that touches no database); and memory for each connection that a device keeps open.
//!
//! The backend is a release build of `toktra-server` in a process of its own, on a fresh directory.
//! The peer of the handshakes is a bare rustls server that checks client certificates in the usual
//! way and answers one line, in a process of its own too: what is above it is ours. Both have the
//! same client, which shares the machine with them and pays about as much as they do.
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use toktra_protocol::UnixSeconds;
use toktra_protocol::enrol::{self, DeviceDescription, EnrolRequest, EnrolResponse, RenewRequest};
use toktra_store::tokens::{self, Grant, Use};
use toktra_store::{Store, directory};

const DOMAIN: &str = "toktra.localhost";
const API: &str = "api.toktra.localhost";
const INGEST: &str = "ingest.toktra.localhost";
/// Requests under way at once.
const AT_ONCE: usize = 32;
/// Handshakes and renewals that are timed, at most.
const TIMED: usize = 4000;
/// Connections that are held open, at most: the server takes 16,384, and keeps some for itself.
const HELD: usize = 16_000;
/// Answers nothing that a database knows.
const PING: &str = "GET /healthz HTTP/1.1\r\nhost: toktra\r\n\r\n";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().context("usage: identity SERVER-BINARY [DEVICES...]")?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if first == "peer" {
        let directory = arguments.next().context("usage: identity peer DIRECTORY")?;
        return runtime.block_on(peer(Path::new(&directory)));
    }
    let mut sizes: Vec<usize> = arguments.map(|size| Ok(size.parse()?)).collect::<Result<_>>()?;
    if sizes.is_empty() {
        sizes = vec![1000, 5000, 20_000];
    }
    println!(
        "| devices | enrolments/s | renewals/s | handshakes/s | bare rustls | ratio | RSS without | \
         a connection | with its poll |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for size in sizes {
        println!("{}", runtime.block_on(measure(Path::new(&first), size))?);
    }
    Ok(())
}

async fn measure(binary: &Path, size: usize) -> Result<String> {
    let backend = Arc::new(Backend::start(binary)?);
    let tokens = backend.tokens(size).await?;
    let (devices, enrolments) = enrol_all(&backend, tokens).await?;
    let renewals = renew_some(&backend, &devices[..size.min(TIMED)]).await?;
    let trust = backend.trust()?;
    let configs: Vec<_> = devices.iter().map(|device| device.config(&trust)).collect::<Result<_>>()?;
    let few = &configs[..size.min(TIMED)];
    let handshakes = rate_of_handshakes(backend.address, INGEST, few).await?;
    let bare = bare_handshakes(few.len()).await?;
    let held = size.min(HELD);
    let [alone, connected, polling] = memory(&backend, &configs[..held]).await?;
    let each = |more: u64| format!("{:.1} KiB", more.saturating_sub(alone) as f64 / held as f64);
    Ok(format!(
        "| {size} | {enrolments:.0} | {renewals:.0} | {handshakes:.0} | {bare:.0} | {:.2} | {:.1} MiB | {} | {} |",
        handshakes / bare,
        alone as f64 / 1024.0,
        each(connected),
        each(polling)
    ))
}

/// An enrolled device.
struct Device {
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
}

impl Device {
    fn config(&self, trust: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let builder = client_builder(trust)?;
        let mut config = builder.with_client_auth_cert(self.chain.clone(), key)?;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Enrols a device for each token; also how many a second.
async fn enrol_all(backend: &Arc<Backend>, tokens: Vec<String>) -> Result<(Vec<Device>, f64)> {
    let requests = tokens.into_iter().map(|token| {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let request = EnrolRequest { token, csr: csr(&key)?, device: description() };
        Ok((key, serde_json::to_vec(&request)?))
    });
    let requests: Vec<_> = requests.collect::<Result<_>>()?;
    let mut lanes: Vec<Vec<_>> = (0..AT_ONCE).map(|_| Vec::new()).collect();
    let all = requests.len();
    for (number, request) in requests.into_iter().enumerate() {
        lanes[number % AT_ONCE].push(request);
    }
    let trust = backend.trust()?;
    let config = Arc::new(client_builder(&trust)?.with_no_client_auth());
    let start = Instant::now();
    let tasks = lanes.into_iter().map(|lane| {
        let (backend, config) = (Arc::clone(backend), Arc::clone(&config));
        tokio::spawn(async move {
            let mut sender = http(connect(backend.address, API, config).await?).await?;
            let mut devices = Vec::new();
            for (key, request) in lane {
                let answer = post(&mut sender, enrol::PATH, request.into()).await?;
                let enrolled: EnrolResponse = serde_json::from_slice(&answer)?;
                let chain = CertificateDer::pem_slice_iter(enrolled.certificate_chain.as_bytes());
                devices.push(Device { key, chain: chain.collect::<Result<_, _>>().context("no PEM")? });
            }
            Ok::<_, anyhow::Error>(devices)
        })
    });
    let mut devices = Vec::with_capacity(all);
    for task in tasks.collect::<Vec<_>>() {
        devices.extend(task.await??);
    }
    Ok((devices, all as f64 / start.elapsed().as_secs_f64()))
}

/// Renewals a second on connections that are open; the new certificates are not used.
async fn renew_some(backend: &Backend, devices: &[Device]) -> Result<f64> {
    let trust = backend.trust()?;
    let mut done = 0;
    let mut taken = Duration::ZERO;
    for group in devices.chunks(AT_ONCE) {
        let mut senders = Vec::new();
        for device in group {
            let stream = connect(backend.address, INGEST, device.config(&trust)?).await?;
            let body =
                RenewRequest { csr: csr(&KeyPair::generate_for(&PKCS_ED25519)?)?, device: description() };
            senders.push((http(stream).await?, serde_json::to_vec(&body)?));
        }
        let start = Instant::now();
        let tasks: Vec<_> = senders
            .into_iter()
            .map(|(mut sender, body)| {
                tokio::spawn(async move { post(&mut sender, enrol::RENEW_PATH, body.into()).await })
            })
            .collect();
        for task in tasks {
            task.await??;
            done += 1;
        }
        taken += start.elapsed();
    }
    Ok(f64::from(done) / taken.as_secs_f64())
}

/// Connections with a handshake and a request each, a second.
async fn rate_of_handshakes(
    address: SocketAddr,
    host: &'static str,
    configs: &[Arc<ClientConfig>],
) -> Result<f64> {
    let start = Instant::now();
    let lanes: Vec<_> = configs
        .chunks(configs.len().div_ceil(AT_ONCE))
        .map(|lane| {
            let lane = lane.to_vec();
            tokio::spawn(async move {
                for config in lane {
                    drop(ping(connect(address, host, config).await?).await?);
                }
                Ok::<_, anyhow::Error>(())
            })
        })
        .collect();
    for lane in lanes {
        lane.await??;
    }
    Ok(configs.len() as f64 / start.elapsed().as_secs_f64())
}

/// The server's resident memory in KiB: alone, with a connection of each device, and with a long
/// poll waiting on each.
async fn memory(backend: &Backend, configs: &[Arc<ClientConfig>]) -> Result<[u64; 3]> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let alone = backend.resident_kib()?;
    let mut open = Vec::with_capacity(configs.len());
    for group in configs.chunks(AT_ONCE) {
        let tasks: Vec<_> = group
            .iter()
            .map(|config| {
                let config = Arc::clone(config);
                let address = backend.address;
                tokio::spawn(async move { ping(connect(address, INGEST, config).await?).await })
            })
            .collect();
        for task in tasks {
            open.push(task.await??);
        }
    }
    let connected = backend.resident_kib()?;
    for stream in &mut open {
        stream.write_all(b"GET /v1/directive?after=999999 HTTP/1.1\r\nhost: toktra\r\n\r\n").await?;
        stream.flush().await?;
    }
    // Half of what a poll waits for; every request has come by then, no answer has gone.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let polling = backend.resident_kib()?;
    Ok([alone, connected, polling])
}

async fn ping(mut stream: TlsStream<TcpStream>) -> Result<TlsStream<TcpStream>> {
    stream.write_all(PING.as_bytes()).await?;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await?;
    ensure!(read > 0, "the server hung up");
    Ok(stream)
}

async fn bare_handshakes(count: usize) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let root = ca.self_signed(&ca_key)?;
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let host_key = KeyPair::generate()?;
    let host = CertificateParams::new([INGEST.to_owned()])?.signed_by(&host_key, &issuer)?;
    for (name, content) in
        [("root.pem", root.pem()), ("host.pem", host.pem()), ("host.key", host_key.serialize_pem())]
    {
        std::fs::write(directory.path().join(name), content)?;
    }
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone())?;
    let trust = Arc::new(roots);
    let configs = (0..count).map(|_| {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut leaf = CertificateParams::default();
        leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let chain = vec![leaf.signed_by(&key, &issuer)?.der().clone()];
        Device { key, chain }.config(&trust)
    });
    let configs: Vec<_> = configs.collect::<Result<_>>()?;
    let mut command = Command::new(std::env::current_exe()?);
    let mut peer = Served::start(command.arg("peer").arg(directory.path()))?;
    let rate = rate_of_handshakes(peer.address, INGEST, &configs).await;
    peer.stop();
    rate
}

/// The bare server.
async fn peer(directory: &Path) -> Result<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("root.pem"))?)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(directory.join("host.pem"))?],
            PrivateKeyDer::from_pem_file(directory.join("host.key"))?,
        )?;
    config.send_tls13_tickets = 0;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let mut stream = acceptor.accept(stream).await?;
            let mut request = [0; 1024];
            while stream.read(&mut request).await? > 0 {
                stream.write_all(b"ok\n").await?;
            }
            Ok::<_, std::io::Error>(())
        });
    }
}

fn csr(key: &KeyPair) -> Result<String> {
    Ok(STANDARD.encode(CertificateParams::default().serialize_request(key)?.der()))
}

fn description() -> DeviceDescription {
    DeviceDescription {
        hostname: "bench".into(),
        platform: "linux".into(),
        agent_version: "0".into(),
        hardware: None,
    }
}

fn client_builder(
    trust: &Arc<RootCertStore>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(trust)))
}

async fn connect(
    address: SocketAddr,
    host: &'static str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(config).connect(ServerName::try_from(host)?, tcp).await?)
}

async fn http(stream: TlsStream<TcpStream>) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn post(sender: &mut SendRequest<Full<Bytes>>, path: &str, body: Bytes) -> Result<Bytes> {
    let request =
        hyper::Request::post(path).header("host", DOMAIN).header("content-type", "application/json");
    sender.ready().await?;
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// A server that says where it listens.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let address = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_whitespace().find_map(|word| word.parse::<SocketAddr>().ok()))
            .context("the server did not print its address")?;
        Ok(Self { child, address })
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A backend of our own on a fresh directory.
struct Backend {
    served: Served,
    address: SocketAddr,
    data: PathBuf,
    _place: tempfile::TempDir,
}

impl Backend {
    fn start(binary: &Path) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let data = place.path().join("data");
        let mut init = Command::new(binary);
        init.args(["init", "--domain", DOMAIN, "--organisation", "Bench", "--data"]).arg(&data);
        ensure!(init.stdout(Stdio::null()).status()?.success(), "init failed");
        let mut serve = Command::new(binary);
        let served = Served::start(serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data))?;
        Ok(Self { address: served.address, served, data, _place: place })
    }

    /// One-time tokens, written beside the running server as its command does, without a process for each.
    async fn tokens(&self, count: usize) -> Result<Vec<String>> {
        let store = Store::open(&self.data.join("toktra.db")).await?;
        let organisation = directory::organisations(&store).await?.pop().context("no organisation")?;
        let grant = Grant { organisation: &organisation, department: None, user: None };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let mut made = Vec::with_capacity(count);
        for number in 0..count {
            let token = format!("bench-token-{number}");
            let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
            let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let until = UnixSeconds(now + 24 * 60 * 60);
            tokens::create(&store, &hash, (grant, Use::Once, ""), until, "bench", UnixSeconds(now)).await?;
            made.push(token);
        }
        store.close().await;
        Ok(made)
    }

    fn trust(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.data.join("root.pem"))? {
            roots.add(certificate?)?;
        }
        Ok(Arc::new(roots))
    }

    fn resident_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.served.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }
}
