//! From the moment when a cap is passed at the backend to the moment when the last device has the
//! directive that blocks: a batch that passes the cap is sent, and every simulated device of the
//! department waits in its long poll, on a connection of its own, over TLS with a certificate of its
//! own. The backend is the given `toktra-server` on a fresh data directory; all of them share the machine.
//!
//! Counted is when all of the directive has arrived, and then what the device took to verify it with the
//! key that it pinned. That is done, and measured, once every device has heard: ten thousand devices
//! have processors of their own for it, and do not take turns on the server's.
//!
//! `cap SERVER-BINARY [DEVICES [REPETITIONS]]`
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ring::digest::{SHA256, digest};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use toktra_benches::device::{DOMAIN, Device, Heard, Judge, percentile as at, post, roots, usage};
use toktra_protocol::{Batch, UnixSeconds, codec};
use toktra_store::enrolment::{self, Grant};
use toktra_store::{Store, directory};

const ORGANISATION: &str = "Bench";
const DEPARTMENT: &str = "Research";
const BUDGET: &str = "Research, annual";
/// What a batch spends, and what the budget is raised by between repetitions.
const TOKENS: u64 = 1_000_000;
/// Devices that enrol or connect at once.
const AT_ONCE: usize = 64;
/// Longest wait for all devices.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: cap SERVER-BINARY [DEVICES [REPETITIONS]]";
    let binary = PathBuf::from(arguments.next().context(usage)?);
    let devices: usize = arguments.next().map_or(Ok(10), |text| text.parse()).context(usage)?;
    let repetitions: usize = arguments.next().map_or(Ok(20), |text| text.parse()).context(usage)?;
    raise_descriptors(devices as u64 + 1024)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&Backend::start(&binary)?, devices, repetitions))
}

async fn measure(backend: &Backend, devices: usize, repetitions: usize) -> Result<()> {
    backend.command(&["department", "add", DEPARTMENT])?;
    backend.command(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"])?;
    let what = ["budget", "add", BUDGET, "--department", DEPARTMENT, "--period", "annual", "--hard"];
    backend.command(&[&what[..], &["--tokens", &TOKENS.to_string()]].concat())?;

    let (said, mut heard) = mpsc::unbounded_channel();
    let mut spender = None;
    let mut judges: Vec<Option<Judge>> = (0..devices).map(|_| None).collect();
    let mut waiting = tokio::task::JoinSet::new();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let tokens = backend.tokens(devices).await?;
    for (number, token) in tokens.into_iter().enumerate() {
        let (api, trust) = (backend.address, roots(&backend.directory().join("root.pem"))?);
        let at_once = Arc::clone(&at_once);
        waiting.spawn(async move {
            let _place = at_once.acquire_owned().await?;
            Ok::<_, anyhow::Error>((number, Device::enrol(api, &trust, number, token).await?))
        });
    }
    while let Some(device) = waiting.join_next().await {
        let (number, device) = device??;
        judges[number] = Some(device.judge());
        if spender.is_none() {
            spender = Some(device.connect().await?);
        }
        tokio::spawn(device.follow(said.clone()));
    }
    let mut spender = spender.context("no device")?;

    until_all(&mut heard, &mut judges, false).await?;
    let (mut each, mut last, mut booked) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 1..=repetitions as u64 {
        let batch = Batch { events: vec![usage(repetition, TOKENS)] };
        let start = Instant::now();
        post(&mut spender, "ingest", codec::EVENTS_PATH, Some("zstd"), batch.encode()?).await?;
        booked.push(start.elapsed());
        let times: Vec<Duration> =
            until_all(&mut heard, &mut judges, true).await?.into_iter().map(|at| at - start).collect();
        last.push(times.iter().copied().max().unwrap_or_default());
        each.extend(times);
        let raised = (repetition + 1) * TOKENS;
        backend.command(&["budget", "set", BUDGET, "--tokens", &raised.to_string()])?;
        until_all(&mut heard, &mut judges, false).await?;
    }
    println!(
        "| devices | repetitions | batch booked p50 | any device p50 | any device p99 | last device p50 | last device p99 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let figures =
        [at(&mut booked, 50), at(&mut each, 50), at(&mut each, 99), at(&mut last, 50), at(&mut last, 99)];
    let figures = figures.map(|time| format!("{:.1} ms", time.as_secs_f64() * 1000.0));
    println!("| {devices} | {repetitions} | {} |", figures.join(" | "));
    Ok(())
}

/// Waits until every device was told that it is blocked, or that it is not, and has accepted it; gives
/// when each had.
async fn until_all(
    heard: &mut mpsc::UnboundedReceiver<Heard>,
    judges: &mut [Option<Judge>],
    blocked: bool,
) -> Result<Vec<Instant>> {
    let devices = judges.len();
    let mut told: Vec<Vec<Heard>> = (0..devices).map(|_| Vec::new()).collect();
    let mut missing = devices;
    while missing > 0 {
        let word = timeout(PATIENCE, heard.recv()).await;
        let word = word.with_context(|| format!("{missing} of {devices} devices heard nothing"))?;
        let word = word.context("the devices have gone")?;
        let words = &mut told[word.number];
        if word.is_blocked == blocked && words.iter().all(|earlier| earlier.is_blocked != blocked) {
            missing -= 1;
        }
        words.push(word);
    }
    let mut times = Vec::with_capacity(devices);
    for (words, judge) in told.iter().zip(judges) {
        let judge = judge.as_mut().context("no such device")?;
        let mut first = None;
        for word in words {
            let took = judge.accept(word)?;
            if word.is_blocked == blocked {
                first.get_or_insert(word.at + took);
            }
        }
        times.extend(first);
    }
    Ok(times)
}

/// A connection costs a descriptor here and one in the server, which takes over our limit.
fn raise_descriptors(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .with_context(|| format!("{wanted} descriptors are needed: raise RLIMIT_NOFILE or run this as root"))
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
        init.args(["init", "--domain", DOMAIN, "--organisation", ORGANISATION, "--data"]).arg(&directory);
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
        Ok(Self { binary: binary.to_owned(), data, child, address })
    }

    fn directory(&self) -> PathBuf {
        self.data.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Result<()> {
        let output =
            Command::new(&self.binary).args(arguments).arg("--data").arg(self.directory()).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// One-time tokens for the department, made as the command line makes them, but in one process.
    async fn tokens(&self, count: usize) -> Result<Vec<String>> {
        let store = Store::open(&self.directory().join("toktra.db")).await?;
        let organisation = directory::organisation(&store, ORGANISATION).await?;
        let department = directory::department(&store, &organisation.id, DEPARTMENT).await?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let mut tokens = Vec::with_capacity(count);
        for number in 0..count {
            let token = format!("bench-token-{number}");
            let hash = digest(&SHA256, token.as_bytes());
            let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            let grant = Grant { organisation: &organisation, department: Some(&department), user: None };
            let (until, now) = (UnixSeconds(now + 24 * 60 * 60), UnixSeconds(now));
            enrolment::create_token(&store, &hash, grant, until, "bench", now).await?;
            tokens.push(token);
        }
        store.close().await;
        Ok(tokens)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
