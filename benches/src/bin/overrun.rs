//! What still leaves a device after its department's cap was passed, on the live kernel: bytes of an
//! upload that never ends, counted from the moment when the backend has booked the batch that passed the
//! cap, and from the moment when the extension has the block; and of new connections while it holds. All
//! counts are of the client's network interface, headers included. The device is whole (agent, extension,
//! a network namespace and a cgroup of its own); the batch comes from another, simulated device.
//!
//! `overrun [REPETITIONS]`, as root, with the three programs beside it or in `TOKTRA_BINARIES`
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{Transmit, UdpSocketState};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::runtime::Runtime;
use toktra_benches::device::{self, Device, percentile};
use toktra_protocol::local::{EXTENSION_SOCKET, Frames, ToExtension};
use toktra_protocol::{Batch, codec};
use toktra_testkit::installation::{DEPARTMENT, Installation, Part};
use toktra_testkit::lab::{Lab, PROXY_PORT};
use toktra_testkit::process::{Process, binary, pause, until};

const HOST: &str = "api.openai.com";
const BUDGET: &str = "Research, annual";
/// What each batch spends. The uploads spend too, but never so much.
const TOKENS: u64 = 1_000_000_000_000;
/// Body of one of the requests of which an upload consists.
const BODY: usize = 8 << 20;
const CHUNK: usize = 16 << 10;
/// What an upload has sent before the cap falls.
const UNDER_WAY: u64 = 2 << 20;
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Early data: as much as fits the first window of TCP (ten segments), and QUIC's.
const EARLY: &str = "14000";
const DATAGRAM: usize = 1_200;
/// A client that is refused without being told (QUIC) gives up after this.
const GIVES_UP: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upload", rate] => upload(rate.parse()?),
        ["tcp", early, at_once] => tcp(early.parse()?, at_once.parse()?),
        ["quic", early, at_once] => quic(early.parse()?, at_once.parse()?),
        [] => measure(20),
        [repetitions] => measure(repetitions.parse().context("usage: overrun [REPETITIONS]")?),
        _ => bail!("usage: overrun [REPETITIONS]"),
    }
}

fn measure(repetitions: usize) -> Result<()> {
    let mut stage = Stage::set()?;
    println!(
        "| an upload of | repetitions | from booked to cut, p50 | p99 | bytes after booked, p50 | p99 | bytes after the extension has it, p50 | p99 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, bytes_per_s) in [("10 Mbit/s", 1_250_000), ("100 Mbit/s", 12_500_000), ("what the lab can", 0)]
    {
        let (mut times, mut booked, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..repetitions {
            let one = stage.cut(bytes_per_s)?;
            times.push(one.time);
            booked.push(one.after_booked);
            told.push(one.after_told);
        }
        let time = |times: &mut [Duration], rank| percentile(times, rank).as_secs_f64() * 1000.0;
        println!(
            "| {name} | {repetitions} | {:.0} ms | {:.0} ms | {} | {} | {} | {} |",
            time(&mut times, 50),
            time(&mut times, 99),
            percentile(&mut booked, 50),
            percentile(&mut booked, 99),
            percentile(&mut told, 50),
            percentile(&mut told, 99),
        );
    }
    stage.pass_cap()?;
    stage.hear(true)?;
    // For the extension to put it in force.
    pause(Duration::from_secs(1));
    println!(
        "\n| a new connection while the block holds | bytes that left, p50 | most |\n| --- | --- | --- |"
    );
    for (name, client) in [
        ("TLS, hello alone", ["tcp", "0", "true"]),
        ("TLS, hello, then 14,000 bytes of early data", ["tcp", EARLY, "false"]),
        ("TLS, both in one write", ["tcp", EARLY, "true"]),
        ("QUIC, Initial alone", ["quic", "0", "true"]),
        ("QUIC, Initial, then nine datagrams of early data", ["quic", "9", "false"]),
        ("QUIC, all in one batch (`UDP_SEGMENT`)", ["quic", "9", "true"]),
    ] {
        let mut left = Vec::new();
        for _ in 0..repetitions {
            let before = stage.left.bytes()?;
            stage.client(&client)?.wait()?;
            left.push(stage.left.bytes()? - before);
        }
        println!("| {name} | {} | {} |", percentile(&mut left, 50), percentile(&mut left, 100));
    }
    Ok(())
}

/// One upload that was cut.
struct Cut {
    /// From the backend's acknowledgement to the moment when the client knows.
    time: Duration,
    after_booked: u64,
    after_told: u64,
}

/// An installation whose agent and extension speak through a relay, so that it is known when a block arrives.
struct Stage {
    // First, so that it ends before the installation.
    _extension: Process,
    installation: Installation,
    runtime: Runtime,
    spender: Device,
    left: Arc<Counter>,
    seeds: mpsc::Receiver<Told>,
    batches: u64,
}

/// The extension is about to be told.
struct Told {
    blocked: bool,
    left: u64,
}

impl Stage {
    fn set() -> Result<Self> {
        let mut installation = Installation::start(|_| ())?;
        installation.server(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"])?;
        let limit = (TOKENS / 2).to_string();
        let what = ["budget", "add", BUDGET, "--department", DEPARTMENT, "--tokens", &limit];
        installation.server(&[&what[..], &["--period", "annual", "--hard"]].concat())?;

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let token = installation.server(&["token", "create", "--department", DEPARTMENT])?;
        let port = installation.domain().rsplit(':').next().unwrap_or_default().parse()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let trust = device::roots(&installation.root_certificate())?;
        let spender = runtime.block_on(Device::enrol(address, &trust, 0, token.trim().to_owned()))?;

        let left = Arc::new(Counter::of_client(&installation.lab)?);
        installation.kill(Part::Extension)?;
        let directory = installation.lab.directory().to_owned();
        let seeds = relay(&directory, Arc::clone(&left))?;
        let mut command = installation.lab.service(&binary("toktra-extension")?);
        command.arg("run").arg("--cgroup").arg(installation.lab.client_cgroup());
        command.args(["--ports", &format!("443,{PROXY_PORT}")]);
        command.arg("--socket").arg(directory.join("relay.sock"));
        let extension = Process::start("relayed", &mut command, &directory.join("logs"))?;
        until("the extension to be up", PATIENCE, || {
            Ok(extension.log().contains("capturing").then_some(()))
        })?;
        let mut stage =
            Self { _extension: extension, installation, runtime, spender, left, seeds, batches: 0 };
        stage.hear(false)?;
        Ok(stage)
    }

    /// Waits until the extension is told so.
    fn hear(&mut self, blocked: bool) -> Result<Told> {
        loop {
            let told = self.seeds.recv_timeout(PATIENCE).context("the extension was told nothing")?;
            if told.blocked == blocked {
                return Ok(told);
            }
        }
    }

    /// Passes the cap; gives the moment when that is booked, and what had left by then.
    fn pass_cap(&mut self) -> Result<(Instant, u64)> {
        self.batches += 1;
        let batch = Batch { events: vec![device::usage(self.batches, TOKENS)] }.encode()?;
        self.runtime.block_on(async {
            let mut link = self.spender.connect().await?;
            device::post(&mut link, "ingest", codec::EVENTS_PATH, Some("zstd"), batch).await
        })?;
        Ok((Instant::now(), self.left.bytes()?))
    }

    fn cut(&mut self, bytes_per_s: u64) -> Result<Cut> {
        let before = self.left.bytes()?;
        let mut client = self.client(&["upload", &bytes_per_s.to_string()])?;
        until("the upload to be under way", PATIENCE, || {
            ensure!(client.try_wait()?.is_none(), "the upload failed");
            Ok((self.left.bytes()? > before + UNDER_WAY).then_some(()))
        })?;
        let (booked, left_booked) = self.pass_cap()?;
        let told = self.hear(true)?;
        client.wait()?;
        let time = booked.elapsed();
        let left = self.left.bytes()?;
        let limit = (self.batches * TOKENS + TOKENS / 2).to_string();
        self.installation.server(&["budget", "set", BUDGET, "--tokens", &limit])?;
        self.hear(false)?;
        Ok(Cut { time, after_booked: left - left_booked.min(left), after_told: left - told.left })
    }

    /// This program in the lab, as a client.
    fn client(&self, arguments: &[&str]) -> Result<Child> {
        let own = std::env::current_exe()?;
        let mut command = self.installation.lab.client(&own.display().to_string());
        Ok(command.args(arguments).stdin(Stdio::null()).spawn()?)
    }
}

/// Passes on what agent and extension say to each other, and tells of every seed just before it goes.
fn relay(directory: &Path, left: Arc<Counter>) -> Result<mpsc::Receiver<Told>> {
    let listener = UnixListener::bind(directory.join("relay.sock"))?;
    let agent = directory.join("run").join(EXTENSION_SOCKET);
    let (tell, seeds) = mpsc::channel();
    thread::spawn(move || {
        for extension in listener.incoming() {
            let (left, tell, agent) = (Arc::clone(&left), tell.clone(), agent.clone());
            // A side that hangs up ends both.
            thread::spawn(move || pass_on(&extension?, &agent, &left, &tell));
        }
    });
    Ok(seeds)
}

fn pass_on(extension: &UnixStream, agent: &PathBuf, left: &Counter, tell: &mpsc::Sender<Told>) -> Result<()> {
    let agent = UnixStream::connect(agent)?;
    let (mut from, mut to) = (extension.try_clone()?, agent.try_clone()?);
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut agent, mut extension) = (agent, extension);
    let (mut frames, mut buffer) = (Frames::default(), [0; 4096]);
    loop {
        let read = agent.read(&mut buffer)?;
        ensure!(read > 0, "the agent has gone");
        frames.push(&buffer[..read]);
        while let Some(message) = frames.take()? {
            if let ToExtension::Seed(seed) = message {
                tell.send(Told { blocked: seed.block.is_some(), left: left.bytes()? })?;
            }
        }
        extension.write_all(&buffer[..read])?;
    }
}

/// The kernel's count of what the lab's client has sent, headers included.
struct Counter(File);

impl Counter {
    fn of_client(lab: &Lab) -> Result<Self> {
        let id = lab.directory().file_name().context("the lab has no name")?.to_string_lossy().into_owned();
        let open = move || -> Result<File> {
            let namespace = File::open(Path::new("/run/netns").join(format!("{id}-c")))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            // Stays with the namespace in which it was opened.
            Ok(File::open("/proc/thread-self/net/dev")?)
        };
        Ok(Self(thread::spawn(open).join().map_err(|_| anyhow::anyhow!("the thread has gone"))??))
    }

    fn bytes(&self) -> Result<u64> {
        let mut text = [0; 4096];
        let read = self.0.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..read]).into_owned();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("lab0:"));
        let sent = line.and_then(|line| line.split_whitespace().nth(8));
        sent.context("no count of lab0")?.parse().context("the count of lab0")
    }
}

/// Clients, in the lab.
fn tls() -> Result<Arc<ClientConfig>> {
    let roots = std::env::var_os("SSL_CERT_FILE").context("SSL_CERT_FILE")?;
    Ok(Arc::new(device::config(&device::roots(Path::new(&roots))?)?.with_no_client_auth()))
}

fn remote() -> Result<SocketAddr> {
    (HOST, 443).to_socket_addrs()?.find(SocketAddr::is_ipv4).context("the host has no address")
}

/// One request after another, at this pace (0: at once), until it is cut.
fn upload(bytes_per_s: u64) -> Result<()> {
    let socket = TcpStream::connect(remote()?)?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ClientConnection::new(tls()?, HOST.try_into()?)?, socket);
    let head = format!("POST /upload HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {BODY}\r\n\r\n");
    let (chunk, mut answer, mut sent, start) = ([b'x'; CHUNK], [0; 4096], 0_u64, Instant::now());
    let mut one_request = || -> Result<()> {
        stream.write_all(head.as_bytes())?;
        for _ in 0..BODY / CHUNK {
            stream.write_all(&chunk)?;
            sent += CHUNK as u64;
            if let Some(due_us) = (sent * 1_000_000).checked_div(bytes_per_s) {
                pause(Duration::from_micros(due_us).saturating_sub(start.elapsed()));
            }
        }
        ensure!(stream.read(&mut answer)? > 0, "the end");
        Ok(())
    };
    while one_request().is_ok() {}
    Ok(())
}

/// A hello and early data, in one write or in two; then waits for the end.
fn tcp(early: usize, at_once: bool) -> Result<()> {
    let mut connection = ClientConnection::new(tls()?, HOST.try_into()?)?;
    let mut hello = Vec::new();
    connection.write_tls(&mut hello)?;
    // A record of application data, as early data is one.
    let mut data = vec![0x17; early];
    if let [_, version_0, version_1, length_0, length_1, ..] = &mut data[..] {
        (*version_0, *version_1) = (3, 3);
        [*length_0, *length_1] = u16::try_from(early - 5)?.to_be_bytes();
    }
    let mut socket = TcpStream::connect(remote()?)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(GIVES_UP))?;
    let mut write = || {
        if at_once {
            return socket.write_all(&[&hello[..], &data[..]].concat());
        }
        socket.write_all(&hello)?;
        socket.write_all(&data)
    };
    // Refused, as it should be.
    let _ = write().and_then(|()| socket.read(&mut [0; 4096]));
    Ok(())
}

/// An Initial and datagrams of early data, in one batch or one by one; then waits as long as QUIC would.
fn quic(early: usize, at_once: bool) -> Result<()> {
    let initial = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(initial())?;
    ensure!(initial.len() == DATAGRAM, "the Initial has {} bytes", initial.len());
    // A long header of 0-RTT (RFC 9000, 17.2.3) to the same connection identifier; the rest is as good as ciphertext.
    let identifier = initial.get(5..6 + usize::from(initial[5])).context("no identifier")?;
    let mut data = [&[0xd0, 0, 0, 0, 1][..], identifier].concat();
    data.resize(DATAGRAM, 0x5a);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let batches = UdpSocketState::new((&socket).into())?;
    let all = [&initial[..], &data.repeat(early)].concat();
    let send = |contents: &[u8]| {
        let segment_size = (contents.len() > DATAGRAM).then_some(DATAGRAM);
        let destination = remote().map_err(std::io::Error::other)?;
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        batches.try_send((&socket).into(), &transmit)
    };
    let sent = if at_once { send(&all) } else { all.chunks(DATAGRAM).try_for_each(send) };
    // A system that refuses says so, or drops.
    let _ = sent;
    socket.set_read_timeout(Some(GIVES_UP))?;
    let _ = socket.recv(&mut [0; 2048]);
    Ok(())
}

/// The first datagram of a real client.
async fn initial() -> Result<Vec<u8>> {
    let nobody = UdpSocket::bind("127.0.0.1:0")?;
    nobody.set_read_timeout(Some(PATIENCE))?;
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let tls = tls()?;
    let config = QuicClientConfig::try_from(tls).context("TLS 1.3 is missing")?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
    let _connecting = endpoint.connect(nobody.local_addr()?, HOST)?;
    let mut datagram = vec![0; 2048];
    let read = tokio::task::spawn_blocking(move || nobody.recv(&mut datagram).map(|read| (datagram, read)));
    let (mut datagram, read) = read.await??;
    datagram.truncate(read);
    Ok(datagram)
}
