//! The joint of capture, engine and agent, the same on every system: one thread that waits for the capture,
//! the agent and the end at once. Invariants: it opens no network connection, holds no key and writes no
//! file; whatever the agent does or fails to do, packets pass as the last seed said, and a block lapses by
//! its own date; at the end the last counts go to the agent within [`FAREWELL_MS`]. Until the first seed of
//! a run, nobody has told when privacy hours are, and nothing is recorded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec};
use toktra_engine::{Capture, Engine, Hours, Joint, Now, PersonalRecord, Policy, Record};
use toktra_protocol::UnixSeconds;
use toktra_protocol::local::{Health, Seed};

use crate::link::{Link, Outboxes, Peer};

/// Counters of metered flows are read this often.
const TICK_MS: u64 = 500;
/// Health is said at least this often.
const HEALTH_MS: u64 = 30_000;
/// How long the last records may take to reach the agent.
const FAREWELL_MS: u64 = 3_000;

/// A capture that other threads may deliver to.
pub type Shared<C> = Arc<Mutex<Joint<C>>>;

/// What waits, decides and tells.
pub struct Session<C> {
    joint: Shared<C>,
    /// Readable when there is something to drain; none where flows come by themselves.
    readable: Option<OwnedFd>,
    link: Link,
    outboxes: Outboxes,
    clock: Clock,
    /// As of the last tick: each connection changes it, and reading it may cost system calls.
    health: Health,
    next_tick_ms: u64,
    next_health_ms: u64,
    /// What the agent said last.
    seed: Option<Seed>,
    /// The zone in which its hours were understood.
    zone: TimeZone,
}

impl<C: Capture> Session<C> {
    /// A session with nothing recorded until the agent seeds it.
    pub fn new(joint: Shared<C>, readable: Option<OwnedFd>, peer: Peer, clock: Clock) -> Self {
        let mut session = Self {
            joint,
            readable,
            link: Link::new(peer, uuid::Uuid::new_v4()),
            outboxes: Outboxes::default(),
            clock,
            health: Health::default(),
            next_tick_ms: 0,
            next_health_ms: HEALTH_MS,
            seed: None,
            zone: TimeZone::system(),
        };
        session.put_in_force(clock.now());
        session
    }

    /// Goes on until `stop` is readable; then the last counts go to the agent.
    pub fn run(mut self, stop: &UnixStream) -> anyhow::Result<()> {
        while !self.wait(stop)? {
            let clock = self.clock;
            if self.readable.is_some() {
                self.joint().drain(|| clock.now());
            }
            let now = clock.now();
            if now.monotonic_ms >= self.next_tick_ms {
                self.next_tick_ms = now.monotonic_ms + TICK_MS;
                self.tick(now);
            }
            self.collect();
            self.talk(now);
        }
        self.farewell();
        Ok(())
    }

    /// A callback that panicked while it held the lock has lost its own flow; the others go on.
    fn joint(&self) -> MutexGuard<'_, Joint<C>> {
        self.joint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the capture, the agent, the next tick or the end; `true` for the end.
    fn wait(&self, stop: &UnixStream) -> anyhow::Result<bool> {
        let now_ms = self.clock.now().monotonic_ms;
        let until_ms = self.link.retry_at_ms().unwrap_or(u64::MAX).min(self.next_tick_ms);
        let timeout = Timespec::try_from(Duration::from_millis(until_ms.saturating_sub(now_ms)))?;
        let mut waiting = vec![PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        let readable = self.readable.as_ref().map(|readable| (readable.as_fd(), PollFlags::IN));
        waiting.extend(readable.into_iter().chain(self.link.interest()).map(poll_fd));
        match rustix::event::poll(&mut waiting, Some(&timeout)) {
            Ok(_) => Ok(!waiting[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("waiting failed"),
        }
    }

    fn tick(&mut self, now: Now) {
        let clock = self.clock;
        let health = {
            let mut joint = self.joint();
            joint.tick(|| clock.now());
            joint.health()
        };
        self.health = Health { records_dropped: self.outboxes.corporate.dropped(), ..health };
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
        let records = self.joint().take_records();
        sort(records, &mut self.outboxes);
    }

    fn talk(&mut self, now: Now) {
        if let Some(seed) = self.link.advance(now.monotonic_ms, &mut self.outboxes, &self.health) {
            let mode = seed.personal.clone();
            self.seed = Some(seed);
            self.put_in_force(now);
            self.link.confirm(mode.as_ref());
        }
    }

    fn put_in_force(&mut self, now: Now) {
        let policy = self.seed.as_ref().map_or_else(unseeded, |seed| policy(seed, &self.zone));
        {
            let mut joint = self.joint();
            joint.capture.set_ports(self.seed.as_ref().map_or(&[], |seed| &seed.ports));
            joint.apply(now, policy);
        }
        self.collect();
    }

    /// Reads the last counts, lets the capture go, and gives the agent a moment to take the last records.
    fn farewell(self) {
        let Self { joint, mut link, mut outboxes, clock, mut health, .. } = self;
        {
            let mut joint = joint.lock().unwrap_or_else(PoisonError::into_inner);
            joint.finish(|| clock.now());
            health = Health { records_dropped: health.records_dropped, ..joint.health() };
            sort(joint.take_records(), &mut outboxes);
        }
        drop(joint);
        let deadline_ms = clock.now().monotonic_ms + FAREWELL_MS;
        loop {
            let now_ms = clock.now().monotonic_ms;
            link.advance(now_ms, &mut outboxes, &health);
            if outboxes.is_empty() || now_ms >= deadline_ms {
                break;
            }
            let until_ms = link.retry_at_ms().unwrap_or(deadline_ms).min(deadline_ms);
            let Ok(timeout) = Timespec::try_from(Duration::from_millis(until_ms.saturating_sub(now_ms)))
            else {
                break;
            };
            let mut waiting: Vec<_> = link.interest().map(poll_fd).into_iter().collect();
            // A time-out or a signal only means to look again.
            let _ = rustix::event::poll(&mut waiting, Some(&timeout));
        }
    }
}

fn poll_fd<'a>((fd, flags): (BorrowedFd<'a>, PollFlags)) -> PollFd<'a> {
    PollFd::from_borrowed_fd(fd, flags)
}

/// Each record into the outbox of its own.
fn sort((corporate, personal): (Vec<Record>, Vec<PersonalRecord>), outboxes: &mut Outboxes) {
    for record in corporate {
        outboxes.corporate.push(record.minute, record.body);
    }
    for record in personal {
        outboxes.personal.push(record.minute, record.lost, record.usage);
    }
}

/// An engine and a capture that threads may share.
pub fn share<C: Capture>(capture: C) -> Shared<C> {
    Arc::new(Mutex::new(Joint::new(capture, Engine::new())))
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

/// The process's two clocks. The monotonic one counts from the start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Both start now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    pub fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { monotonic_ms: self.0.elapsed().as_millis() as u64, wall: UnixSeconds(wall) }
    }
}

/// Where the agent listens, and whom the extension believes to be it.
pub fn agent(socket: PathBuf, account: &str) -> Peer {
    // An account that does not exist only leaves root.
    let users = [Some(0), toktra_peer::user_named(account)].into_iter().flatten().collect();
    Peer { socket, users }
}
