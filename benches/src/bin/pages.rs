//! Time and size of each page of the console: a release build of `toktra-server` with demo data, and one
//! client that signs in and asks for each page in turn over one TLS connection, so that what it waits for is
//! the server's time, TLS and HTTP included. What comes after the binary is passed on to `demo-data`.
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOST: &str = "api.toktra.localhost";
const PASSWORD: &str = "correct horse battery staple";
/// How often each page is asked for.
const ROUNDS: usize = 25;
const PAGES: [&str; 13] = [
    "/login",
    "/?days=1",
    "/?days=7",
    "/?days=30",
    "/?days=90",
    "/usage?by=service",
    "/usage?by=department",
    "/usage?by=user",
    "/usage?by=device",
    "/usage?by=service&user=ada.almeida%40acme.example",
    "/usage.csv?by=device",
    "/devices",
    "/budgets",
];

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let binary =
        PathBuf::from(arguments.next().context("usage: pages SERVER-BINARY [OPTION OF demo-data]…")?);
    let data = tempfile::tempdir()?;
    let (directory, password) = (data.path().join("data"), data.path().join("password"));
    std::fs::write(&password, PASSWORD)?;
    let run = |arguments: Vec<std::ffi::OsString>| -> Result<()> {
        let done = Command::new(&binary).args(arguments).arg("--data").arg(&directory).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        print!("{}", String::from_utf8_lossy(&done.stdout));
        Ok(())
    };
    let init = ["init", "--domain", "toktra.localhost", "--organisation", "Acme", "--admin", "ada"];
    let mut init: Vec<std::ffi::OsString> = init.map(Into::into).into();
    init.extend(["--password-file".into(), password.into_os_string()]);
    run(init)?;
    run(std::iter::once("demo-data".into()).chain(arguments).collect())?;
    let size = std::fs::metadata(directory.join("toktra.db"))?.len();
    println!("database: {} MiB", size / 1024 / 1024);
    let served = Served::start(&binary, &directory)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(directory.join("root.pem"))? {
        roots.add(certificate?)?;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure(served.address, roots))
}

async fn measure(address: SocketAddr, roots: RootCertStore) -> Result<()> {
    let mut sender = connect(address, roots).await?;
    let form = format!("name=ada&password={}", PASSWORD.replace(' ', "+"));
    let request = Request::post("/login")
        .header("host", HOST)
        .header("origin", format!("https://{HOST}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))?;
    let reply = sender.send_request(request).await?;
    let cookie = reply.headers().get("set-cookie").context("the sign-in was refused")?.to_str()?.to_owned();
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    reply.into_body().collect().await?;
    println!("{:<52} {:>9} {:>9} {:>9} {:>9}", "page", "first", "p50", "most", "bytes");
    for page in PAGES {
        let mut times = Vec::with_capacity(ROUNDS);
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let request = Request::get(page).header("host", HOST);
            // Who has signed in is led on from the sign-in.
            let request = if page == "/login" { request } else { request.header("cookie", &cookie) };
            sender.ready().await?;
            let begun = Instant::now();
            let reply = sender.send_request(request.body(Full::default())?).await?;
            ensure!(reply.status().is_success(), "{page}: {}", reply.status());
            bytes = reply.into_body().collect().await?.to_bytes().len();
            times.push(begun.elapsed());
        }
        let first = times.first().copied().unwrap_or_default();
        times.sort();
        let [p50, most] = [ROUNDS / 2, ROUNDS - 1].map(|at| milliseconds(times[at]));
        println!("{page:<52} {:>9} {p50:>9} {most:>9} {bytes:>9}", milliseconds(first));
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

async fn connect(address: SocketAddr, roots: RootCertStore) -> Result<SendRequest<Full<Bytes>>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST)?, tcp).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A server that ends with the measurement.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    fn start(binary: &Path, directory: &Path) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let line = BufReader::new(stdout).lines().next().context("the server said nothing")??;
        let address = line.strip_prefix("listening on ").context("the server does not listen")?.parse()?;
        Ok(Self { child, address })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
