//! The connection to the agent's socket. Invariants: nothing here ever waits; a peer that is
//! neither root nor the agent's account is not spoken to; on every connection the agent first
//! seeds, then gets what its spool does not have; a link that fails is made anew with growing
//! pauses, and until then the rest of the process goes on.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::PollFlags;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use toktra_peer::Program;
use toktra_protocol::local::{self, Frames, FromExtension, Health, Seed, ToExtension};
use toktra_protocol::personal::local::PersonalMode;

use crate::outbox::Outbox;
use crate::personal::PersonalOutbox;

/// Bytes that may wait for the agent to read them, beside one frame.
const UNSENT_LIMIT: usize = 64 * 1024;
/// How long a new connection waits for the agent's seed.
const SEED_TIMEOUT_MS: u64 = 10_000;
const BACK_OFF_FIRST_MS: u64 = 50;
const BACK_OFF_LAST_MS: u64 = 2_000;

/// Where the agent listens, and who it may be.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its socket.
    pub socket: PathBuf,
    /// User identifiers that may be behind it.
    pub users: Vec<u32>,
}

/// What waits for the agent, the organisation's and the user's own apart.
#[derive(Debug, Default)]
pub struct Outboxes {
    /// The organisation's.
    pub corporate: Outbox,
    /// The user's own.
    pub personal: PersonalOutbox,
}

impl Outboxes {
    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.corporate.is_empty() && self.personal.is_empty()
    }
}

/// The connection, or the pause before the next attempt.
#[derive(Debug)]
pub struct Link {
    peer: Peer,
    run: uuid::Uuid,
    state: State,
    back_off_ms: u64,
    health_said: Option<Health>,
}

#[derive(Debug)]
enum State {
    Away { retry_at_ms: u64 },
    Open(Box<Connection>),
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    frames: Frames,
    unsent: Vec<u8>,
    opened_at_ms: u64,
    /// What was sent on this connection; `None` until the seed has come.
    sent: Option<Sent>,
    /// The personal mode that was last said to be in force.
    mode_said: Option<Option<PersonalMode>>,
}

/// Numbers of the last records sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    corporate: u64,
    personal: u64,
}

impl Link {
    /// A link that connects at the next [`Link::advance`].
    pub fn new(peer: Peer, run: uuid::Uuid) -> Self {
        let state = State::Away { retry_at_ms: 0 };
        Self { peer, run, state, back_off_ms: BACK_OFF_FIRST_MS, health_said: None }
    }

    /// Connects if it is time, reads what came, and sends what it can. The newest seed is returned.
    pub fn advance(&mut self, now_ms: u64, outboxes: &mut Outboxes, health: &Health) -> Option<Seed> {
        if let State::Away { retry_at_ms } = self.state {
            if now_ms < retry_at_ms {
                return None;
            }
            match self.open(now_ms) {
                Ok(connection) => {
                    self.health_said = None;
                    self.state = State::Open(Box::new(connection));
                }
                Err(error) => {
                    self.lose(now_ms, &error);
                    return None;
                }
            }
        }
        match self.exchange(now_ms, outboxes, health) {
            Ok(seed) => seed,
            Err(error) => {
                self.lose(now_ms, &error);
                None
            }
        }
    }

    /// What to wait for, if there is a connection.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let State::Open(connection) = &self.state else { return None };
        let writes = if connection.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        Some((connection.stream.as_fd(), PollFlags::IN | writes))
    }

    /// When the next attempt is due, if there is no connection.
    pub fn retry_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Away { retry_at_ms } => Some(retry_at_ms),
            State::Open(_) => None,
        }
    }

    /// Says that a seed's personal mode is in force, unless it was said on this connection already.
    pub fn confirm(&mut self, mode: Option<&PersonalMode>) {
        let State::Open(connection) = &mut self.state else { return };
        if connection.mode_said.as_ref().map(Option::as_ref) == Some(mode) {
            return;
        }
        let mode = mode.cloned();
        // What came in a frame fits into one.
        if let Ok(frame) = encode(&FromExtension::PersonalInForce { mode: mode.clone() }) {
            connection.unsent.extend(frame);
            connection.mode_said = Some(mode);
        }
    }

    /// Says how the capture is doing once more, changed or not.
    pub fn repeat_health(&mut self) {
        self.health_said = None;
    }

    fn open(&self, now_ms: u64) -> io::Result<Connection> {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        // Before it connects: where too many wait already, connecting would wait too.
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.peer.socket)?)?;
        let stream = UnixStream::from(socket);
        let user = toktra_peer::user(&stream)?;
        if !self.peer.users.contains(&user) {
            let text = format!("user {user} listens on the agent's socket; see --agent-user");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        toktra_peer::check(&stream, Program::Agent)?;
        let hello = FromExtension::Hello {
            version: local::VERSION,
            run: self.run,
            extension_version: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(Connection {
            stream,
            frames: Frames::default(),
            unsent: encode(&hello)?,
            opened_at_ms: now_ms,
            sent: None,
            mode_said: None,
        })
    }

    fn exchange(
        &mut self,
        now_ms: u64,
        outboxes: &mut Outboxes,
        health: &Health,
    ) -> io::Result<Option<Seed>> {
        let State::Open(connection) = &mut self.state else { return Ok(None) };
        let seed = connection.receive(outboxes)?;
        if connection.sent.is_none() && now_ms.saturating_sub(connection.opened_at_ms) > SEED_TIMEOUT_MS {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the agent did not send a seed"));
        }
        if connection.sent.is_some() {
            self.back_off_ms = BACK_OFF_FIRST_MS;
            if self.health_said.as_ref() != Some(health) && connection.unsent.len() < UNSENT_LIMIT {
                connection.unsent.extend(encode(&FromExtension::Health(health.clone()))?);
                self.health_said = Some(health.clone());
            }
        }
        connection.send(outboxes)?;
        Ok(seed)
    }

    fn lose(&mut self, now_ms: u64, error: &io::Error) {
        // Once the pauses no longer grow there is nothing new to say.
        if self.back_off_ms < BACK_OFF_LAST_MS {
            tracing::info!(%error, retry_in_ms = self.back_off_ms, "the agent is away");
        }
        self.state = State::Away { retry_at_ms: now_ms + self.back_off_ms };
        self.back_off_ms = (self.back_off_ms * 2).min(BACK_OFF_LAST_MS);
    }
}

impl Connection {
    fn receive(&mut self, outboxes: &mut Outboxes) -> io::Result<Option<Seed>> {
        let mut newest = None;
        let mut buffer = [0; 8192];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                Ok(length) => self.frames.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(newest),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(message) = self.frames.take::<ToExtension>().map_err(io::Error::other)? {
                match message {
                    ToExtension::Seed(seed) => {
                        self.welcome(&seed)?;
                        outboxes.corporate.acknowledge(seed.acknowledged);
                        outboxes.personal.acknowledge(seed.personal_acknowledged);
                        newest = Some(seed);
                    }
                    ToExtension::Acknowledged { number } => outboxes.corporate.acknowledge(number),
                    ToExtension::PersonalAcknowledged { number } => outboxes.personal.acknowledge(number),
                }
            }
        }
    }

    fn welcome(&mut self, seed: &Seed) -> io::Result<()> {
        if seed.version != local::VERSION {
            let (theirs, ours) = (seed.version, local::VERSION);
            let text =
                format!("the agent speaks version {theirs}, this is {ours}; install both from one release");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // What goes beyond is sent on this connection, also what went out on an earlier one.
        let sent = self.sent.unwrap_or_default();
        self.sent = Some(Sent {
            corporate: sent.corporate.max(seed.acknowledged),
            personal: sent.personal.max(seed.personal_acknowledged),
        });
        Ok(())
    }

    fn send(&mut self, outboxes: &Outboxes) -> io::Result<()> {
        loop {
            self.fill(outboxes)?;
            if self.unsent.is_empty() {
                return Ok(());
            }
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Connection {
    /// Puts the next records into what is unsent, as far as there is room.
    fn fill(&mut self, outboxes: &Outboxes) -> io::Result<()> {
        let Some(sent) = &mut self.sent else { return Ok(()) };
        while self.unsent.len() < UNSENT_LIMIT {
            let corporate = outboxes.corporate.after(sent.corporate);
            let personal = outboxes.personal.after(sent.personal);
            if let Some(record) = corporate {
                self.unsent.extend(encode(&FromExtension::Record(record.clone()))?);
                sent.corporate = record.number;
            }
            if let Some(record) = personal {
                self.unsent.extend(encode(&FromExtension::Personal(record.clone()))?);
                sent.personal = record.number;
            }
            if corporate.is_none() && personal.is_none() {
                break;
            }
        }
        Ok(())
    }
}

fn encode(message: &FromExtension) -> io::Result<Vec<u8>> {
    local::encode(message).map_err(io::Error::other)
}
