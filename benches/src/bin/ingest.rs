//! Events per second that a backend books: real devices' certificates, mutual TLS, batches
//! encoded beforehand, and a clock that stops when the last batch is acknowledged, that is,
//! durable. The backend is a release build of `toktra-server` on a fresh data directory;
//! client and server share the machine. With `--budgets` each size is measured without a budget and
//! with three on every device, in turn, and the ratio is printed; `--events N` takes fewer events of each device.
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use toktra_protocol::enrol::{DeviceDescription, EnrolRequest, EnrolResponse};
use toktra_protocol::{Ack, Batch, Estimate, Event, EventBody, Minute, NameSource, Usage, codec, enrol};

const DOMAIN: &str = "toktra.localhost";
const DEVICES: usize = 64;
const EVENTS_PER_DEVICE: usize = 10_000;
const USAGE: &str = "usage: ingest SERVER-BINARY [--budgets] [--events N]";
/// A department's and an organisation's, in both units, far from being passed.
const BUDGETS: [&[&str]; 3] = [
    &["budget", "add", "A", "--tokens", "1000000000000", "--period", "monthly", "--hard"],
    &["budget", "add", "B", "--dollars", "1000000", "--period", "annual", "--hard"],
    &[
        "budget",
        "add",
        "C",
        "--department",
        "Research",
        "--tokens",
        "1000000000000",
        "--period",
        "daily",
        "--hard",
    ],
];

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let binary = arguments.next().map(PathBuf::from).context(USAGE)?;
    let (mut budgets, mut events) = (false, EVENTS_PER_DEVICE);
    while let Some(option) = arguments.next() {
        match option.to_str() {
            Some("--budgets") => budgets = true,
            Some("--events") => {
                let number = arguments.next().and_then(|number| number.into_string().ok()).context(USAGE)?;
                events = number.parse().context(USAGE)?;
            }
            _ => bail!(USAGE),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for batch_size in [50, 500] {
        let without = runtime.block_on(measure(&Backend::start(&binary)?, batch_size, events))?;
        if budgets {
            let backend = Backend::start(&binary)?;
            BUDGETS.iter().try_for_each(|budget| backend.run(budget).map(drop))?;
            backend.run(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"])?;
            let with = runtime.block_on(measure(&backend, batch_size, events))?;
            println!("  with three budgets on each device: {:.2} of the rate without", with / without);
        }
    }
    Ok(())
}

/// Events per second.
async fn measure(backend: &Backend, batch_size: usize, events: usize) -> Result<f64> {
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(Device::enrol(backend, number, batch_size, events).await?);
    }
    let start = Instant::now();
    let sending: Vec<_> = devices.into_iter().map(|device| tokio::spawn(device.send_all())).collect();
    for device in sending {
        device.await??;
    }
    let elapsed = start.elapsed();
    let events = DEVICES * (events / batch_size * batch_size);
    let rate = events as f64 / elapsed.as_secs_f64();
    println!(
        "{events} events of {DEVICES} devices in batches of {batch_size}: {elapsed:.2?}, {rate:.0} events/s"
    );
    Ok(rate)
}

/// A device with its connection and everything it will say.
struct Device {
    sender: SendRequest<Full<Bytes>>,
    batches: Vec<(u64, Bytes)>,
}

impl Device {
    async fn enrol(backend: &Backend, number: usize, batch_size: usize, events: usize) -> Result<Self> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
        let request = EnrolRequest {
            token: backend.token()?,
            csr: STANDARD.encode(csr.der()),
            device: DeviceDescription {
                hostname: format!("bench-{number}"),
                platform: "linux".into(),
                agent_version: "0".into(),
                hardware: None,
            },
        };
        let anonymous = backend.client_config()?.with_no_client_auth();
        let mut sender = connect(backend.address, &format!("api.{DOMAIN}"), anonymous).await?;
        let answer =
            post(&mut sender, "api", enrol::PATH, None, serde_json::to_vec(&request)?.into()).await?;
        let enrolled: EnrolResponse = serde_json::from_slice(&answer)?;

        let chain = CertificateDer::pem_slice_iter(enrolled.certificate_chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the chain is not PEM")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let known = backend.client_config()?.with_client_auth_cert(chain, key)?;
        let sender = connect(backend.address, &format!("ingest.{DOMAIN}"), known).await?;
        // Of the periods under way, so that budgets have something to add up.
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let since = now_s / 60 - events as u64 / 600;
        let batches = (0..events / batch_size)
            .map(|index| {
                let first = (index * batch_size + 1) as u64;
                let last = first + batch_size as u64 - 1;
                let batch = Batch { events: (first..=last).map(|number| event(number, since)).collect() };
                Ok((last, Bytes::from(batch.encode()?)))
            })
            .collect::<Result<_>>()?;
        Ok(Self { sender, batches })
    }

    async fn send_all(mut self) -> Result<()> {
        for (last, batch) in self.batches {
            let answer = post(&mut self.sender, "ingest", codec::EVENTS_PATH, Some("zstd"), batch).await?;
            let ack: Ack = serde_json::from_slice(&answer)?;
            ensure!(ack.acknowledged == last, "acknowledged {} instead of {last}", ack.acknowledged);
        }
        Ok(())
    }
}

/// One connection's usage, varied as a department's would be.
fn event(sequence: u64, since: u64) -> Event {
    let services = [
        ("openai", "openai-api", "api.openai.com"),
        ("anthropic", "anthropic-api", "api.anthropic.com"),
        ("google", "gemini-api", "generativelanguage.googleapis.com"),
        ("mistral", "mistral-api", "api.mistral.ai"),
    ];
    let (provider, service, host) = services[sequence as usize % services.len()];
    let estimate = |point: u64| Estimate { low: point * 9 / 10, point, high: point * 11 / 10 };
    Event {
        sequence,
        minute: Minute(since + sequence / 600),
        body: EventBody::Usage(Usage {
            provider: provider.into(),
            service: service.into(),
            host: host.into(),
            name_source: NameSource::Sni,
            user_account: Some("ada".into()),
            application: Some(if sequence.is_multiple_of(3) { "node" } else { "python3" }.into()),
            exchanges: 1 + (sequence % 5) as u32,
            bytes_out: 2000 + sequence * 37 % 9000,
            bytes_in: 40_000 + sequence * 991 % 400_000,
            bytes_handshake: 5321,
            duration_s: (sequence % 50) as u32,
            streaming: true,
            partial: false,
            tokens_in: estimate(400 + sequence % 3000),
            tokens_out: estimate(100 + sequence % 1200),
            calibration: "bench".into(),
        }),
    }
}

async fn connect(address: SocketAddr, host: &str, config: ClientConfig) -> Result<SendRequest<Full<Bytes>>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned())?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    path: &str,
    encoding: Option<&str>,
    body: Bytes,
) -> Result<Bytes> {
    let mut request = hyper::Request::post(path)
        .header("host", format!("{host}.{DOMAIN}"))
        .header("content-type", "application/json");
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    sender.ready().await?;
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// A backend of our own on a fresh directory.
struct Backend {
    binary: PathBuf,
    data: tempfile::TempDir,
    child: Child,
    address: SocketAddr,
}

impl Backend {
    fn start(binary: &Path) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let directory = data.path().join("data");
        let mut init = Command::new(binary);
        init.args(["init", "--domain", DOMAIN, "--organisation", "Bench", "--data"]).arg(&directory);
        ensure!(init.stdout(Stdio::null()).status()?.success(), "init failed");
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let address = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_whitespace().find_map(|word| word.parse::<SocketAddr>().ok()))
            .context("the server did not print its address")?;
        let backend = Self { binary: binary.to_owned(), data, child, address };
        backend.run(&["department", "add", "Research"])?;
        Ok(backend)
    }

    fn directory(&self) -> PathBuf {
        self.data.path().join("data")
    }

    fn token(&self) -> Result<String> {
        let text = self.run(&["token", "create", "--department", "Research"])?;
        Ok(text.split_whitespace().next().context("no token was printed")?.to_owned())
    }

    /// Runs a command on its directory.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output =
            Command::new(&self.binary).args(arguments).arg("--data").arg(self.directory()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn client_config(&self) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.directory().join("root.pem"))? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
