//! The daemon: one session for as long as the credential stays the same. A device that is
//! not enrolled, or whose credential cannot be read, is told so by `status`; the daemon
//! begins as soon as that changes.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use toktra_identity::{Credential, FileStore, Store as _};
use toktra_protocol::local::{CONTROL_SOCKET, EXTENSION_SOCKET};
use toktra_spool::Owner;

use crate::board::Board;
use crate::clock::Clock;
use crate::config::Config;
use crate::dial::Host;
use crate::directives::Follower;
use crate::spooler::Spooler;
use crate::uplink::Sender;
use crate::{control, exemption, extension};

/// How often the credential's file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a configured token is left alone before enrolment is tried again.
const ENROL_PAUSE: Duration = Duration::from_secs(2 * 60);
/// Between attempts to begin a session that failed.
const SESSION_PAUSE: Duration = Duration::from_secs(10);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// Credential, directive and spool.
    pub state: PathBuf,
    /// Sockets.
    pub run: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(places: &Places, clock: Clock) -> anyhow::Result<()> {
    let config = Config::read(&places.config)?;
    std::fs::create_dir_all(&places.run)
        .with_context(|| format!("cannot create {}", places.run.display()))?;
    let _lock = lock(&places.run)?;
    let board = Arc::new(Board::new(clock, config.domain.clone()));
    let listener = control::bind(&places.run.join(CONTROL_SOCKET), 0o666)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(control::serve(listener, Arc::clone(&board)));
    tracing::info!(version = crate::VERSION, "The agent is running.");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        error = sessions(places, &config, &board) => return Err(error),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("The agent stops; what waits stays on disk.");
    Ok(())
}

/// Two daemons would take each other's sockets. Private, since whoever can open a file can lock it.
fn lock(run: &Path) -> anyhow::Result<File> {
    let path = run.join("agent.lock");
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another toktra-agent runs with {}; stop it first", run.display()))?;
    Ok(file)
}

/// Ends only where the service manager must begin anew.
async fn sessions(places: &Places, config: &Config, board: &Arc<Board>) -> anyhow::Error {
    let store = Arc::new(FileStore::new(&places.state));
    loop {
        let seen = fingerprint(&store.credential_path());
        let changed = until_changed(&store, seen);
        match store.credential() {
            Ok(Some(credential)) => {
                if let Err(error) = session(places, config, board, &store, credential, changed).await {
                    tracing::error!("The session ended: {error:#}");
                    board.end(Some(format!("{error:#}")));
                    sleep(SESSION_PAUSE).await;
                }
            }
            Ok(None) => {
                tracing::warn!("{}", crate::board::NOT_ENROLLED);
                board.end(None);
                if config.token.is_none() {
                    changed.await;
                } else if timeout(ENROL_PAUSE, changed).await.is_err() {
                    // Only root may take the token; the unit does so before the daemon starts.
                    return anyhow::anyhow!(
                        "a token is configured but the device is not enrolled; starting anew tries again"
                    );
                }
            }
            Err(error) => {
                tracing::error!(%error, "The credential cannot be used.");
                board.end(Some(error.to_string()));
                changed.await;
            }
        }
    }
}

/// Sends, follows and listens, until `changed`.
async fn session(
    places: &Places,
    config: &Config,
    board: &Arc<Board>,
    store: &Arc<FileStore>,
    credential: Credential,
    changed: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let enrolled = credential.enrolled().clone();
    let tenant = format!("{}/{}", enrolled.domain, enrolled.organisation);
    let owner = Owner { device: enrolled.device, tenant };
    let (spooler, closed) = Spooler::open(places.state.join("spool"), &owner, config.spool_limits())?;
    let tls = Host::device_tls(enrolled.ca.as_deref(), credential.certified_key()?)?;
    let listener = extension::listen(&places.run.join(EXTENSION_SOCKET))?;
    let host = || Host::ingest(&enrolled.domain, Arc::clone(&tls));
    let (flush, asks) = mpsc::channel(16);
    board.begin(credential.clone(), spooler.counts(), flush);
    tracing::info!(device = %enrolled.device, organisation = enrolled.organisation, "The device is enrolled.");
    let mut tasks = JoinSet::new();
    tasks.spawn(Follower::new(host(), credential, Arc::clone(store), Arc::clone(board)).run());
    tasks.spawn(Sender::new(host(), spooler.clone(), Arc::clone(board), asks).run());
    tasks.spawn(exemption::pass_on(host(), Arc::clone(board)));
    tasks.spawn(Arc::clone(board).count_spent(spooler.clone()));
    tasks.spawn(Arc::clone(board).watch_time());
    tasks.spawn(extension::serve(listener, spooler, Arc::clone(board), enrolled.enrolled_at.minute()));
    changed.await;
    tracing::info!("The credential has changed.");
    tasks.shutdown().await;
    board.end(None);
    // The next session opens the same directory.
    let _ = closed.await;
    Ok(())
}

type Fingerprint = Option<(u64, i64, i64, u32, u32)>;

fn fingerprint(path: &Path) -> Fingerprint {
    let metadata = path.metadata().ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.ctime_nsec(), metadata.mode(), metadata.uid()))
}

fn until_changed(store: &FileStore, seen: Fingerprint) -> impl Future<Output = ()> + use<> {
    let path = store.credential_path();
    async move {
        while fingerprint(&path) == seen {
            sleep(LOOK_EVERY).await;
        }
    }
}
