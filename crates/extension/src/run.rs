//! The live capture: one thread that waits for the kernel, the agent and signals at once.
//! Invariants: it opens no network connection, holds no key and writes no file; whatever the
//! agent does or fails to do, packets pass as the last seed said, and a block lapses by its own
//! date; at the end the last counts go to the agent within [`FAREWELL_MS`]. Until the first seed of a run,
//! nobody has told when privacy hours are, and nothing is recorded.

use std::fs;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec};
use toktra_capture_linux::{Capture, Options, default_cgroup};
use toktra_engine::{Engine, FlowEvent, FlowId, Hours, Now, Policy, Verdict};
use toktra_protocol::UnixSeconds;
use toktra_protocol::local::{EXTENSION_SOCKET, Health, RUN_DIRECTORY, Seed};
use tracing_subscriber::EnvFilter;

use crate::health::health;
use crate::link::{Link, Outboxes, Peer};

/// Counters of metered flows are read this often.
const TICK_MS: u64 = 500;
/// Health is said at least this often.
const HEALTH_MS: u64 = 30_000;
/// How long the last records may take to reach the agent.
const FAREWELL_MS: u64 = 3_000;

/// Options of `toktra-extension run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the cgroup to capture, with all below it [default: the cgroup v2 mount].
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Remote TCP and UDP ports to look at.
    #[arg(long, value_delimiter = ',', default_value = "443")]
    ports: Vec<u16>,
    /// The agent's socket [default: /run/toktra/extension.sock].
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Account that the agent may run as beside root, by name or number.
    #[arg(long, default_value = "toktra")]
    agent_user: String,
    /// What to log on standard error, as `tracing` filters.
    #[arg(long, env = "TOKTRA_LOG", default_value = "info")]
    log: String,
}

/// Captures until SIGTERM or SIGINT.
pub fn main(arguments: Arguments) -> ExitCode {
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stop = stop_signal().context("signals cannot be awaited")?;
    let cgroup = arguments.cgroup.or_else(default_cgroup).context(
        "no cgroup v2 is mounted; mount one (`mount -t cgroup2 none DIRECTORY`) or name it with --cgroup",
    )?;
    let peer = Peer {
        socket: arguments.socket.unwrap_or_else(|| Path::new(RUN_DIRECTORY).join(EXTENSION_SOCKET)),
        users: agent_users(&arguments.agent_user),
    };
    let seed = uuid::Uuid::new_v4().as_u64_pair().1;
    let capture = Capture::attach(&Options { cgroup: cgroup.clone(), ports: arguments.ports, seed })?;
    for loss in capture.degraded() {
        tracing::warn!("degraded: {loss}");
    }
    tracing::info!(cgroup = %cgroup.display(), "capturing");
    let mut session = Session {
        capture,
        engine: Engine::new(),
        link: Link::new(peer, uuid::Uuid::new_v4()),
        outboxes: Outboxes::default(),
        clock: Clock(Instant::now()),
        health: Health::default(),
        next_tick_ms: 0,
        next_health_ms: HEALTH_MS,
        seed: None,
        zone: TimeZone::system(),
    };
    let now = session.clock.now();
    session.put_in_force(now);
    session.run_until(&stop)?;
    session.farewell();
    tracing::info!("detached");
    Ok(())
}

struct Session {
    capture: Capture,
    engine: Engine,
    link: Link,
    outboxes: Outboxes,
    clock: Clock,
    /// As of the last tick: each connection changes it, and reading it costs system calls.
    health: Health,
    next_tick_ms: u64,
    next_health_ms: u64,
    /// What the agent said last.
    seed: Option<Seed>,
    /// The zone in which its hours were understood.
    zone: TimeZone,
}

impl Session {
    fn run_until(&mut self, stop: &UnixStream) -> anyhow::Result<()> {
        loop {
            if self.wait(stop)? {
                return Ok(());
            }
            self.capture.drain(&mut decide(&mut self.engine, self.clock));
            let now = self.clock.now();
            if now.monotonic_ms >= self.next_tick_ms {
                self.next_tick_ms = now.monotonic_ms + TICK_MS;
                self.tick(now);
            }
            self.collect();
            self.talk(now);
        }
    }

    /// Waits for the kernel, the agent, the next tick or a signal; `true` for a signal.
    fn wait(&self, stop: &UnixStream) -> anyhow::Result<bool> {
        let now_ms = self.clock.now().monotonic_ms;
        let until_ms = self.link.retry_at_ms().unwrap_or(u64::MAX).min(self.next_tick_ms);
        let timeout = Timespec::try_from(Duration::from_millis(until_ms.saturating_sub(now_ms)))?;
        let mut waiting = vec![
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.capture.as_fd(), PollFlags::IN),
        ];
        waiting.extend(self.link.interest().map(|(link, flags)| PollFd::from_borrowed_fd(link, flags)));
        match rustix::event::poll(&mut waiting, Some(&timeout)) {
            Ok(_) => Ok(!waiting[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("waiting failed"),
        }
    }

    fn tick(&mut self, now: Now) {
        self.capture.refresh(&mut decide(&mut self.engine, self.clock));
        for flow in self.engine.tick(now) {
            self.capture.set_verdict(flow, Verdict::Block);
        }
        self.capture.set_strict(self.engine.is_strict(now));
        self.health = self.health();
        if now.monotonic_ms >= self.next_health_ms {
            self.next_health_ms = now.monotonic_ms + HEALTH_MS;
            self.link.repeat_health();
            self.follow_zone(now);
        }
    }

    /// Whoever travels takes privacy hours along.
    fn follow_zone(&mut self, now: Now) {
        let zone = TimeZone::system();
        if self.zone != zone {
            self.zone = zone;
            self.put_in_force(now);
        }
    }

    /// What the engine has to say after events.
    fn collect(&mut self) {
        for flow in self.engine.take_found() {
            self.capture.set_verdict(flow, Verdict::Meter);
        }
        for flow in self.engine.take_freed() {
            self.capture.set_verdict(flow, Verdict::Ignore);
        }
        collect_records(&mut self.engine, &mut self.outboxes);
    }

    fn talk(&mut self, now: Now) {
        if let Some(seed) = self.link.advance(now.monotonic_ms, &mut self.outboxes, &self.health) {
            self.apply(now, seed);
        }
    }

    fn apply(&mut self, now: Now, seed: Seed) {
        let mode = seed.personal.clone();
        self.seed = Some(seed);
        self.put_in_force(now);
        self.link.confirm(mode.as_ref());
    }

    fn put_in_force(&mut self, now: Now) {
        let policy = self.seed.as_ref().map_or_else(unseeded, |seed| policy(seed, &self.zone));
        for flow in self.engine.apply(now, policy) {
            self.capture.set_verdict(flow, Verdict::Block);
        }
        self.capture.set_strict(self.engine.is_strict(now));
        self.collect();
    }

    fn health(&self) -> Health {
        let (counts, hit) = (self.capture.counts(), self.engine.limits_hit());
        health(self.capture.degraded(), counts, hit, self.outboxes.corporate.dropped())
    }

    /// Detaches, and gives the agent a moment to take the last records.
    fn farewell(mut self) {
        let health = self.health();
        self.capture.detach(&mut decide(&mut self.engine, self.clock));
        collect_records(&mut self.engine, &mut self.outboxes);
        let deadline_ms = self.clock.now().monotonic_ms + FAREWELL_MS;
        loop {
            let now_ms = self.clock.now().monotonic_ms;
            self.link.advance(now_ms, &mut self.outboxes, &health);
            if self.outboxes.is_empty() || now_ms >= deadline_ms {
                break;
            }
            let until_ms = self.link.retry_at_ms().unwrap_or(deadline_ms).min(deadline_ms);
            let Ok(timeout) = Timespec::try_from(Duration::from_millis(until_ms.saturating_sub(now_ms)))
            else {
                break;
            };
            let mut waiting: Vec<_> = self
                .link
                .interest()
                .map(|(link, flags)| PollFd::from_borrowed_fd(link, flags))
                .into_iter()
                .collect();
            // A time-out or a signal only means to look again.
            let _ = rustix::event::poll(&mut waiting, Some(&timeout));
        }
    }
}

/// Each into the outbox of its own.
fn collect_records(engine: &mut Engine, outboxes: &mut Outboxes) {
    for record in engine.take_records() {
        outboxes.corporate.push(record.minute, record.body);
    }
    for record in engine.take_personal() {
        outboxes.personal.push(record.minute, record.lost, record.usage);
    }
}

/// What is in force before the agent has said anything.
fn unseeded() -> Policy {
    Policy { hours: Hours::Unknown, ..Policy::default() }
}

fn policy(seed: &Seed, zone: &TimeZone) -> Policy {
    let hours = || Hours::new(seed.privacy.clone(), zone.clone());
    Policy {
        lock: seed.lock.clone(),
        block: seed.block.clone(),
        block_until: seed.block_until,
        own_hosts: seed.own_hosts.clone(),
        hours: if seed.privacy_unreadable { Hours::Unknown } else { hours() },
        personal: seed.personal.clone(),
    }
}

fn decide(engine: &mut Engine, clock: Clock) -> impl FnMut(FlowId, FlowEvent<'_>) -> Verdict {
    move |flow, event| engine.handle(clock.now(), flow, event)
}

/// The process's two clocks. The monotonic one counts from the start.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { monotonic_ms: self.0.elapsed().as_millis() as u64, wall: UnixSeconds(wall) }
    }
}

/// Readable once SIGTERM or SIGINT has come.
fn stop_signal() -> std::io::Result<UnixStream> {
    let (stop, write) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(stop)
}

/// Root and the agent's account. An account that does not exist only leaves root.
fn agent_users(agent: &str) -> Vec<u32> {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    // Comments may be in any encoding.
    let passwd = String::from_utf8_lossy(&passwd);
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == agent).then(|| fields.nth(1)?.parse().ok())?
    });
    let users = [Some(0), agent.parse().ok(), named];
    users.into_iter().flatten().collect()
}
