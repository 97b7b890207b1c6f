//! The extension's socket: hands out the seed at connect and at every change, takes records
//! in, and acknowledges them once they are on disk.
//!
//! Limits: [`CONNECTIONS`] at once; peers must be root or the agent's own account; a hello
//! has [`HELLO_TIMEOUT`]; records are stored in groups of at most [`GROUP`], and nothing
//! more is read meanwhile. A peer that misbehaves is dropped, and only it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use toktra_peer::Program;
use toktra_protocol::event::Dropped;
use toktra_protocol::local::{self, Frames, FromExtension, Record, ToExtension};
use toktra_protocol::personal::local::PersonalRecord;
use toktra_protocol::{Event, EventBody, Minute};
use uuid::Uuid;

use crate::board::Board;
use crate::control::{bind, is_trusted};
use crate::spooler::Spooler;

const CONNECTIONS: usize = 4;
const GROUP: usize = 256;
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// An extension whose records cannot be stored should not come back at once.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Binds the socket, for root and the agent's account.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    bind(path, 0o660)
}

/// Serves extensions until the agent stops. Records from before `enrolled` are nobody's: they are
/// acknowledged and kept nowhere.
pub async fn serve(listener: UnixListener, spooler: Spooler, board: Arc<Board>, enrolled: Minute) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => match may_speak(&stream) {
                Ok(()) => {
                    connections.spawn(talk(stream, spooler.clone(), Arc::clone(&board), enrolled));
                }
                Err(error) => {
                    tracing::warn!(%error, "A connection to the extension's socket was refused.");
                }
            },
            Ok(_) => tracing::warn!("Too many connections to the extension's socket at once."),
            Err(error) => {
                tracing::warn!(%error, "The extension's socket failed.");
                sleep(FULL_DISK_PAUSE).await;
            }
        }
    }
}

/// An account that may be the extension's, and on macOS its signature.
fn may_speak(stream: &UnixStream) -> std::io::Result<()> {
    if !is_trusted(stream) {
        return Err(std::io::Error::new(ErrorKind::PermissionDenied, "the peer is another account's"));
    }
    toktra_peer::check(stream, Program::Extension)
}

async fn talk(stream: UnixStream, spooler: Spooler, board: Arc<Board>, enrolled: Minute) {
    if let Err(error) = Peer::new(stream, spooler, board, enrolled).run().await {
        tracing::warn!("The extension's connection was closed: {error:#}");
    }
}

/// Counts a connection for as long as it lives.
struct Present(Arc<Board>);

impl Present {
    fn new(board: Arc<Board>) -> Self {
        board.count_extension(1);
        Self(board)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.count_extension(-1);
    }
}

struct Peer {
    stream: UnixStream,
    frames: Frames,
    spooler: Spooler,
    board: Arc<Board>,
    enrolled: Minute,
}

impl Peer {
    fn new(stream: UnixStream, spooler: Spooler, board: Arc<Board>, enrolled: Minute) -> Self {
        Self { stream, frames: Frames::default(), spooler, board, enrolled }
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let hello = timeout(HELLO_TIMEOUT, self.hello()).await.context("it said no hello in time")?;
        let Some((version, run, of)) = hello? else { return Ok(()) };
        self.board.set_extension_version(of);
        let mut restraint = self.board.restraint();
        restraint.borrow_and_update();
        self.seed(run).await?;
        if version != local::VERSION {
            bail!(
                "it speaks version {version}, this agent version {}; install both from one package",
                local::VERSION
            );
        }
        let _present = Present::new(Arc::clone(&self.board));
        tracing::info!(%run, "The extension is connected.");
        let mut buffer = vec![0; 16 * 1024];
        loop {
            // What came with the hello is there already.
            self.take_in(run).await?;
            tokio::select! {
                changed = restraint.changed() => {
                    changed?;
                    self.seed(run).await?;
                }
                read = self.stream.read(&mut buffer) => match read? {
                    0 => return Ok(()),
                    read => self.frames.push(&buffer[..read]),
                },
            }
        }
    }

    /// Version of its messages, its run, and its own version.
    async fn hello(&mut self) -> anyhow::Result<Option<(u32, Uuid, String)>> {
        let mut buffer = vec![0; 4096];
        loop {
            match self.frames.take()? {
                Some(FromExtension::Hello { version, run, extension_version }) => {
                    return Ok(Some((version, run, extension_version)));
                }
                Some(_) => bail!("its first message was no hello"),
                None => {}
            }
            match self.stream.read(&mut buffer).await? {
                0 => return Ok(None),
                read => self.frames.push(&buffer[..read]),
            }
        }
    }

    async fn seed(&mut self, run: Uuid) -> anyhow::Result<()> {
        let acknowledged = self.spooler.run(move |spool| spool.highest(run)).await?;
        let seed = self.board.seed(acknowledged, self.board.personal.highest(run));
        self.say(&ToExtension::Seed(seed)).await
    }

    async fn say(&mut self, message: &ToExtension) -> anyhow::Result<()> {
        let frame = local::encode(message)?;
        timeout(WRITE_TIMEOUT, self.stream.write_all(&frame)).await.context("it does not read")??;
        Ok(())
    }

    /// Stores and acknowledges every record that has arrived whole.
    async fn take_in(&mut self, run: Uuid) -> anyhow::Result<()> {
        loop {
            let (mut group, mut personal) = (Vec::new(), Vec::new());
            while group.len() + personal.len() < GROUP {
                match self.frames.take()? {
                    Some(FromExtension::Record(record)) => {
                        let minute = self.board.time.minute(record.minute);
                        group.push(acceptable(Record { minute, ..record }));
                    }
                    Some(FromExtension::Personal(record)) => {
                        let minute = self.board.time.minute(record.minute);
                        personal.push(PersonalRecord { minute, ..record });
                    }
                    Some(FromExtension::PersonalInForce { mode }) => {
                        self.board.personal.set_taken_up(Some(mode));
                    }
                    Some(FromExtension::Health(health)) => self.board.set_health(health),
                    Some(FromExtension::Hello { .. }) => bail!("it said hello twice"),
                    None => break,
                }
            }
            let took_personal = !personal.is_empty();
            if took_personal {
                self.take_in_personal(run, personal).await?;
            }
            let Some(last) = group.last().map(|record| record.number) else {
                if took_personal {
                    continue;
                }
                return Ok(());
            };
            group.retain(|record| record.minute >= self.enrolled);
            if group.is_empty() {
                self.say(&ToExtension::Acknowledged { number: last }).await?;
                continue;
            }
            let number = match self.spooler.run(move |spool| spool.append(run, &group)).await? {
                Ok(number) => number,
                Err(error) => {
                    self.board.set_spool_error(Some(error.to_string()));
                    sleep(FULL_DISK_PAUSE).await;
                    return Err(error.into());
                }
            };
            self.board.set_spool_error(None);
            self.say(&ToExtension::Acknowledged { number }).await?;
        }
    }
}

impl Peer {
    /// Seals and acknowledges personal records. Waits for the disk elsewhere.
    async fn take_in_personal(&mut self, run: Uuid, records: Vec<PersonalRecord>) -> anyhow::Result<()> {
        let board = Arc::clone(&self.board);
        let sealed = spawn_blocking(move || board.personal.take_in(run, &records, &board.offer())).await?;
        match sealed {
            Ok(number) => self.say(&ToExtension::PersonalAcknowledged { number }).await,
            Err(error) => {
                sleep(FULL_DISK_PAUSE).await;
                Err(error.into())
            }
        }
    }
}

/// A record that no backend would take is counted instead.
fn acceptable(record: Record) -> Record {
    let event = Event { sequence: 1, minute: record.minute, body: record.body };
    let body = match event.check() {
        Ok(()) => event.body,
        Err(error) => {
            tracing::warn!(%error, "A record of the extension is not acceptable; it is reported as dropped.");
            EventBody::Dropped(Dropped { events: 1, place: "agent".to_owned() })
        }
    };
    Record { number: record.number, minute: record.minute, body }
}
