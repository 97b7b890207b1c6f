//! What the extension costs a machine's other traffic: time added to a new connection that
//! is no provider's, and the part of a bulk transfer that the kernel spends in its programs.
//!
//! New connections are compared within one run: this process moves between two cgroups, one with
//! the extension attached and one without, and alternates between them, so that whatever else the
//! machine does falls on both sides alike. Bulk transfers over loopback differ more from one to the
//! next than the programs cost, so there the kernel's own count of their run time is taken. Needs root and the release build of
//! `toktra-extension`; traffic stays on loopback.
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const ROUNDS: usize = 40;
const CONNECTIONS_PER_ROUND: usize = 200;
const BULK_BYTES_PER_ROUND: usize = 1 << 28;
const BULK_ROUNDS: usize = 60;
const CHUNK: usize = 256 * 1024;

fn main() -> Result<()> {
    let extension =
        std::env::args_os().nth(1).map(PathBuf::from).context("usage: overhead EXTENSION-BINARY")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || serve(&listener));
    pin(0)?;

    let with = Cgroup::new("toktra-bench-on")?;
    let without = Cgroup::new("toktra-bench-off")?;
    let _running = Extension::start(&extension, &with.path, address.port())?;
    let hello = client_hello("intranet.example")?;

    let connect = |cgroup: &Cgroup| -> Result<Duration> {
        cgroup.enter()?;
        let start = Instant::now();
        for _ in 0..CONNECTIONS_PER_ROUND {
            exchange(TcpStream::connect(address)?, &hello, 0)?;
        }
        Ok(start.elapsed() / CONNECTIONS_PER_ROUND as u32)
    };
    let (on, off) = alternate(ROUNDS, &with, &without, connect)?;
    println!(
        "a new connection (connect, hello, first reply byte), {} on each side",
        ROUNDS * CONNECTIONS_PER_ROUND
    );
    println!("  without the extension: median {:.1} us", micros(off));
    println!("  with it:               median {:.1} us", micros(on));
    println!("  added:                 {:.1} us", micros(on) - micros(off));

    let _counting = RunTimes::start()?;
    with.enter()?;
    let before_ns = RunTimes::of_programs_ns()?;
    let start = Instant::now();
    for _ in 0..BULK_ROUNDS {
        exchange(TcpStream::connect(address)?, &hello, BULK_BYTES_PER_ROUND)?;
    }
    let elapsed = start.elapsed();
    let programs = Duration::from_nanos(RunTimes::of_programs_ns()? - before_ns);
    let gigabytes = (BULK_ROUNDS * BULK_BYTES_PER_ROUND) as f64 / 1e9;
    println!("bulk transfers, {gigabytes:.1} GB at {:.2} GB/s", gigabytes / elapsed.as_secs_f64());
    println!(
        "  in the kernel's programs: {:.2} % of the time",
        programs.as_secs_f64() / elapsed.as_secs_f64() * 100.0
    );
    Ok(())
}

/// Medians of (with, without), the sides taking turns and changing who goes first.
fn alternate(
    rounds: usize,
    with: &Cgroup,
    without: &Cgroup,
    mut measure: impl FnMut(&Cgroup) -> Result<Duration>,
) -> Result<(Duration, Duration)> {
    measure(with)?;
    measure(without)?;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for side in [round % 2, (round + 1) % 2] {
            if side == 0 { on.push(measure(with)?) } else { off.push(measure(without)?) }
        }
    }
    Ok((median(on), median(off)))
}

/// Client and server keep a processor each; where the scheduler puts them makes more difference than
/// what is measured.
fn pin(processor: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Sends the hello, waits for one byte, then sends `bulk` bytes and waits for one more.
fn exchange(mut stream: TcpStream, hello: &[u8], bulk: usize) -> Result<()> {
    stream.set_nodelay(true)?;
    let length = u64::try_from(hello.len() + bulk)?;
    stream.write_all(hello)?;
    stream.read_exact(&mut [0])?;
    if bulk > 0 {
        let chunk = vec![0x17; CHUNK];
        for _ in 0..bulk / CHUNK {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        ensure!(u64::from_be_bytes(answer) == length, "the server got {answer:?}, not {length} bytes");
    }
    Ok(())
}

/// One byte after the first read, the number of bytes at the end.
fn serve(listener: &TcpListener) {
    let _ = pin(1);
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; CHUNK];
    let mut total = stream.read(&mut buffer)? as u64;
    stream.write_all(&[1])?;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            read => total += read as u64,
        }
    }
    stream.write_all(&total.to_be_bytes())?;
    Ok(())
}

/// A real ClientHello, as rustls writes it.
fn client_hello(name: &str) -> Result<Vec<u8>> {
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name.to_owned().try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}

/// The kernel's own count of the time that eBPF programs run, on while this lives.
struct RunTimes(Vec<u8>);

impl RunTimes {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn start() -> Result<Self> {
        let before = fs::read(Self::SWITCH)?;
        fs::write(Self::SWITCH, "1")?;
        Ok(Self(before))
    }

    fn of_programs_ns() -> Result<u64> {
        let listing = Command::new("bpftool").args(["--json", "prog", "show"]).output()?;
        let listing: serde_json::Value = serde_json::from_slice(&listing.stdout)?;
        let ours = |program: &&serde_json::Value| {
            program["name"].as_str().unwrap_or_default().starts_with("toktra_")
        };
        let programs = listing.as_array().into_iter().flatten();
        Ok(programs.filter(ours).filter_map(|program| program["run_time_ns"].as_u64()).sum())
    }
}

impl Drop for RunTimes {
    fn drop(&mut self) {
        let _ = fs::write(Self::SWITCH, &self.0);
    }
}

/// A cgroup of our own; this process leaves it and removes it at the end.
struct Cgroup {
    path: PathBuf,
    root: PathBuf,
}

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root: PathBuf = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .context("no cgroup v2 is mounted")?[1]
            .into();
        let path = root.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {} (are you root?)", path.display()))?;
        Ok(Self { path, root })
    }

    fn enter(&self) -> Result<()> {
        Ok(fs::write(self.path.join("cgroup.procs"), std::process::id().to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.root.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.path);
    }
}

/// The extension, attached to one cgroup, with no agent to talk to.
struct Extension(Child);

impl Extension {
    fn start(binary: &Path, cgroup: &Path, port: u16) -> Result<Self> {
        let child = Command::new(binary)
            .arg("run")
            .arg("--cgroup")
            .arg(cgroup)
            .arg("--ports")
            .arg(port.to_string())
            .args(["--socket", "/nonexistent/toktra-bench.sock"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let running = Self(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_attached(cgroup)? {
            ensure!(Instant::now() < deadline, "the extension did not attach within ten seconds");
            std::thread::yield_now();
        }
        Ok(running)
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn is_attached(cgroup: &Path) -> Result<bool> {
    let shown =
        Command::new("bpftool").args(["cgroup", "show"]).arg(cgroup).output().context("bpftool is needed")?;
    Ok(String::from_utf8_lossy(&shown.stdout).contains("toktra_egress"))
}
