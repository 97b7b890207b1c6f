//! How long it takes until traffic flows again: from the administrator's command, or the turn of the
//! period, to the first connection that gets through to a provider and brings a byte back, on each of ten
//! devices of one person. And the other way round: from the batch that passes the cap to the first connection that
//! is refused. Each device is whole (agent, extension on the live kernel, a network namespace and a
//! cgroup of its own), and all of them and the backend share the machine.
//!
//! `reopen [DEVICES [REPETITIONS]]`, as root, with the three programs beside it or in
//! `TOKTRA_BINARIES`. `reopen turn [DEVICES]` waits for the next full hour, which is midnight somewhere.
#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::runtime::Runtime;
use toktra_benches::device::{self, Device, percentile};
use toktra_protocol::{Batch, codec};
use toktra_testkit::installation::{DEPARTMENT, Installation, Part};
use toktra_testkit::member::Member;
use toktra_testkit::process::pause;

const HOST: &str = "api.openai.com";
const BUDGET: &str = "Research";
const USER: &str = "ada@acme.example";
/// What each batch spends. The probes spend too, but never so much.
const TOKENS: u64 = 1_000_000_000;
/// Between two attempts of a device that is refused, which is as fine as the figures are, and of one
/// that is not.
const REFUSED_PACE: Duration = Duration::from_millis(20);
const OPEN_PACE: Duration = Duration::from_millis(100);
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_S: u64 = 60 * 60;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: reopen [turn] [DEVICES [REPETITIONS]]";
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["probe"] => probe(),
        ["turn"] => turn(10),
        ["turn", devices] => turn(devices.parse().context(usage)?),
        [] => measure(10, 20),
        [devices] => measure(devices.parse().context(usage)?, 20),
        [devices, repetitions] => {
            measure(devices.parse().context(usage)?, repetitions.parse().context(usage)?)
        }
        _ => bail!(usage),
    }
}

fn measure(devices: usize, repetitions: usize) -> Result<()> {
    let mut stage = Stage::set(devices, "annual")?;
    stage.pass_cap()?;
    let (mut granted, mut off, mut raised) = <(Figures, Figures, Figures)>::default();
    let (mut ended, mut on, mut passed) = <(Figures, Figures, Figures)>::default();
    for repetition in 0..repetitions {
        // A device may ask sixteen times a day.
        let asker = stage.members.get(repetition % devices).context("no device")?;
        asker.agent(&["budget", "request", "--reason", "A measurement."])?;
        let list = stage.installation.server(&["exemption", "list"])?;
        let id = list.split_whitespace().find(|word| word.len() == 36).context("no request")?.to_owned();
        granted.push(stage.after(&["exemption", "grant", &id, "--for", "1h"], true)?);
        ended.push(stage.after(&["exemption", "end", &id], false)?);
        off.push(stage.after(&["flag", "set", "FF_BUDGET_HARD_CAPS", "off"], true)?);
        on.push(stage.after(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"], false)?);
        let limit = stage.limit();
        raised.push(stage.after(&["budget", "set", BUDGET, "--tokens", &limit], true)?);
        passed.push(stage.pass_cap()?);
    }
    println!(
        "| {devices} devices, {repetitions} times | any device p50 | any device p99 | last device p50 | last device p99 |"
    );
    println!("| --- | --- | --- | --- | --- |");
    granted.print("exemption granted, to the first connection");
    off.print("flag off, to the first connection");
    raised.print("limit raised, to the first connection");
    passed.print("batch sent that passes the cap, to the first refusal");
    on.print("flag on, to the first refusal");
    ended.print("exemption ended, to the first refusal");
    Ok(())
}

/// One real turn of a day.
fn turn(devices: usize) -> Result<()> {
    let mut stage = Stage::set(devices, "daily")?;
    let turns_at = (seconds() / HOUR_S + 1) * HOUR_S;
    // Where it is midnight then. The sign of these zones is that of the direction to Greenwich.
    let hour = turns_at / HOUR_S % 24;
    let zone = if hour <= 12 { format!("Etc/GMT+{hour}") } else { format!("Etc/GMT-{}", 24 - hour) };
    stage.installation.server(&["org", "set", "--time-zone", &zone])?;
    stage.pass_cap()?;
    let ahead = Duration::from_secs(turns_at).saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH)?);
    let at = monotonic() + ahead;
    println!("every device is blocked; midnight in {zone} is in {} s", ahead.as_secs());
    let mut figures = Figures::default();
    figures.push(stage.all(at, ahead + PATIENCE, true)?);
    println!(
        "| {devices} devices, once | any device p50 | any device p99 | last device p50 | last device p99 |"
    );
    println!("| --- | --- | --- | --- | --- |");
    figures.print("period's end, to the first connection");
    Ok(())
}

/// Times of every device, and of the last of each repetition.
#[derive(Default)]
struct Figures {
    each: Vec<Duration>,
    last: Vec<Duration>,
}

impl Figures {
    fn push(&mut self, times: Vec<Duration>) {
        self.last.extend(times.iter().max());
        self.each.extend(times);
    }

    fn print(mut self, what: &str) {
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
        let each = [50, 99].map(|rank| ms(percentile(&mut self.each, rank)));
        let last = [50, 99].map(|rank| ms(percentile(&mut self.last, rank)));
        println!("| {what} | {} | {} |", each.join(" | "), last.join(" | "));
    }
}

/// A word of a device's probe: whose, whether it gets through, and since when.
struct Word {
    device: usize,
    open: bool,
    at: Duration,
}

struct Stage {
    // First, so that they end before the labs.
    probes: Vec<Child>,
    members: Vec<Member>,
    installation: Installation,
    runtime: Runtime,
    spender: Device,
    words: mpsc::Receiver<Word>,
    batches: u64,
}

impl Stage {
    fn set(devices: usize, period: &str) -> Result<Self> {
        let mut installation = Installation::start(|_| ())?;
        for part in [Part::Extension, Part::Agent] {
            installation.kill(part)?;
        }
        installation.server(&["flag", "set", "FF_BUDGET_HARD_CAPS", "on"])?;
        installation.server(&["user", "add", USER, "--department", DEPARTMENT])?;
        let what = ["budget", "add", BUDGET, "--department", DEPARTMENT, "--period", period, "--hard"];
        installation.server(&[&what[..], &["--tokens", &(TOKENS / 2).to_string()]].concat())?;

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let token = installation.server(&["token", "create", "--department", DEPARTMENT])?;
        let port = installation.domain().rsplit(':').next().unwrap_or_default().parse()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let trust = device::roots(&installation.root_certificate())?;
        let spender = runtime.block_on(Device::enrol(address, &trust, 0, token.trim().to_owned()))?;

        let members = (0..devices).map(|_| Member::join(&installation, DEPARTMENT, &["--user", USER]));
        let members = members.collect::<Result<Vec<_>>>()?;
        let (tell, words) = mpsc::channel();
        let probes = members.iter().enumerate().map(|(device, member)| start_probe(device, member, &tell));
        let probes = probes.collect::<Result<Vec<_>>>()?;
        let mut stage = Self { probes, members, installation, runtime, spender, words, batches: 0 };
        stage.all(Duration::ZERO, PATIENCE, true)?;
        Ok(stage)
    }

    /// A limit that is not passed yet, and is by the next batch.
    fn limit(&self) -> String {
        (self.batches * TOKENS + TOKENS / 2).to_string()
    }

    fn pass_cap(&mut self) -> Result<Vec<Duration>> {
        self.batches += 1;
        let batch = Batch { events: vec![device::usage(self.batches, TOKENS)] }.encode()?;
        let start = self.runtime.block_on(async {
            let mut link = self.spender.connect().await?;
            let start = monotonic();
            device::post(&mut link, "ingest", codec::EVENTS_PATH, Some("zstd"), batch).await?;
            anyhow::Ok(start)
        })?;
        self.all(start, PATIENCE, false)
    }

    /// Runs a command, and times all devices from its start.
    fn after(&mut self, command: &[&str], open: bool) -> Result<Vec<Duration>> {
        let start = monotonic();
        self.installation.server(command)?;
        self.all(start, PATIENCE, open)
    }

    /// Waits until all devices get through, or none does; gives how long that took each since `start`.
    fn all(&mut self, start: Duration, patience: Duration, open: bool) -> Result<Vec<Duration>> {
        let mut times = vec![None; self.members.len()];
        while times.iter().any(Option::is_none) {
            let word = self.words.recv_timeout(patience).context("a device does not change")?;
            if word.open == open {
                times[word.device].get_or_insert(word.at.saturating_sub(start));
            }
        }
        Ok(times.into_iter().flatten().collect())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for probe in &mut self.probes {
            // It may have ended by itself.
            let _ = probe.kill();
            let _ = probe.wait();
        }
    }
}

/// This program in the device's lab, as its only client.
fn start_probe(device: usize, member: &Member, tell: &mpsc::Sender<Word>) -> Result<Child> {
    let own = std::env::current_exe()?;
    let mut command = member.lab.client(&own.display().to_string());
    let mut probe = command.arg("probe").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(probe.stdout.take().context("no output")?).lines();
    let tell = tell.clone();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let Some((open, at)) = line.split_once(' ') else { continue };
            let Ok(at) = at.parse().map(Duration::from_nanos) else { continue };
            let _ = tell.send(Word { device, open: open == "open", at });
        }
    });
    Ok(probe)
}

/// Says when it gets through and when it is refused, whenever that changes, until it is ended.
fn probe() -> Result<()> {
    let roots = std::env::var_os("SSL_CERT_FILE").context("SSL_CERT_FILE")?;
    let tls = Arc::new(device::config(&device::roots(Path::new(&roots))?)?.with_no_client_auth());
    let remote = (HOST, 443).to_socket_addrs()?.find(SocketAddr::is_ipv4).context("no address")?;
    let mut was_open = None;
    loop {
        let open = one_request(&tls, remote).is_ok();
        if was_open.replace(open) != Some(open) {
            println!("{} {}", if open { "open" } else { "refused" }, monotonic().as_nanos());
        }
        pause(if open { OPEN_PACE } else { REFUSED_PACE });
    }
}

/// From nothing to the first byte of a reply.
fn one_request(tls: &Arc<ClientConfig>, remote: SocketAddr) -> Result<()> {
    let socket = TcpStream::connect_timeout(&remote, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(tls), HOST.try_into()?)?, socket);
    stream.write_all(
        format!("GET /v1/models HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// The same in every process.
fn monotonic() -> Duration {
    let at = clock_gettime(ClockId::Monotonic);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or_default())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
