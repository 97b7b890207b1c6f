//! The daemon: one session for as long as the device stays enrolled as it is; a renewed certificate
//! is taken up within it. A device that is
//! not enrolled, or whose credential cannot be read, is told so by `status`; the daemon
//! begins as soon as that changes.

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use toktra_identity::{Credential, DeviceStore, Store as _};
use toktra_protocol::local::{CONTROL_SOCKET, EXTENSION_SOCKET};
use toktra_spool::Owner;

use crate::board::Board;
use crate::clock::Clock;
use crate::commands::enroll;
use crate::config::{Config, Source};
use crate::dial::Host;
use crate::directives::Follower;
use crate::life::Keeper;
use crate::spooler::Spooler;
use crate::tls::Tls;
use crate::uplink::Sender;
use crate::{control, exemption, extension, personal, selftest, settings};

/// How long a configured token is left alone before enrolment is tried again.
const ENROL_PAUSE: Duration = Duration::from_secs(2 * 60);
/// Between attempts to read a credential that cannot be used.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Between attempts to begin a session that failed.
const SESSION_PAUSE: Duration = Duration::from_secs(10);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The configuration.
    pub config: Source,
    /// Credential, directive and spool.
    pub state: PathBuf,
    /// Sockets.
    pub run: PathBuf,
    /// Where the login manager says who sits at the machine.
    pub seat: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(places: &Places, clock: Clock) -> anyhow::Result<()> {
    make_run_directory(&places.run)?;
    let _lock = lock(&places.run)?;
    let mut board = Board::new(clock, None);
    board.seat.clone_from(&places.seat);
    let board = Arc::new(board);
    let config = settings::take_up(&places.config, &board);
    board.open_privacy(&places.state);
    board.personal.open(&places.state);
    let listener = control::bind(&places.run.join(CONTROL_SOCKET), 0o666)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(control::serve(listener, Arc::clone(&board)));
    let config = watch::Sender::new(config);
    let configured = config.subscribe();
    tasks.spawn(settings::follow(places.config.clone(), Arc::clone(&board), config));
    tracing::info!(version = crate::VERSION, "The agent is running.");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // On macOS `newsyslog` sends this when it has put the log aside, and launchd starts the agent on a new one.
    let mut hangup = signal(SignalKind::hangup())?;
    note_process();
    tokio::select! {
        error = sessions(places, configured, &board) => return Err(error),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    tracing::info!("The agent stops; what waits stays on disk.");
    Ok(())
}

/// Where `newsyslog` finds the process. Without it the log grows until the agent is started anew.
fn note_process() {
    const FILE: &str = "/var/run/com.toktra.agent.pid";
    if cfg!(target_os = "macos")
        && let Err(error) = std::fs::write(FILE, format!("{}\n", std::process::id()))
    {
        tracing::warn!(%error, "{FILE} cannot be written; the log is not rotated.");
    }
}

/// Open to every user, whatever the process's mask: they may ask for the status.
fn make_run_directory(run: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot create {}", run.display());
    if !run.is_dir() {
        std::fs::create_dir_all(run).with_context(failed)?;
        std::fs::set_permissions(run, Permissions::from_mode(0o755)).with_context(failed)?;
    }
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
async fn sessions(
    places: &Places,
    mut configured: watch::Receiver<Config>,
    board: &Arc<Board>,
) -> anyhow::Error {
    let store = Arc::new(DeviceStore::new(&places.state));
    let mut keeper = Keeper::new(Arc::clone(&store), Arc::clone(board));
    let mut asked_with = None;
    loop {
        let config = configured.borrow_and_update().clone();
        if places.config == Source::Preferences && config.token.is_some() && config.token != asked_with {
            // Here the daemon itself may; a token that the backend refused is not tried again.
            asked_with.clone_from(&config.token);
            if let Err(error) = enroll_if_needed(&store, config.clone()) {
                tracing::error!("The configured token cannot be used: {error:#}");
            }
        }
        match keeper.look() {
            Ok(Some(credential)) => {
                if let Err(error) = session(places, &config, board, &store, credential, &mut keeper).await {
                    tracing::error!("The session ended: {error:#}");
                    board.end(Some(format!("{error:#}")));
                    sleep(SESSION_PAUSE).await;
                }
            }
            Ok(None) => {
                if !keeper.has_applied() {
                    tracing::warn!("{}", crate::board::NOT_ENROLLED);
                }
                board.end(None);
                let may_apply = places.config == Source::Preferences;
                if config.token.is_none() || keeper.has_applied() || may_apply {
                    tokio::select! {
                        () = keeper.keep(None) => {}
                        // It may name a token now.
                        _ = configured.changed() => {}
                    }
                } else if timeout(ENROL_PAUSE, keeper.keep(None)).await.is_err() {
                    // Only root may take the token; the unit does so before the daemon starts.
                    return anyhow::anyhow!(
                        "a token is configured but the device is not enrolled; starting anew tries again"
                    );
                }
            }
            Err(error) => {
                tracing::error!(%error, cause = ?error.cause(), "The credential cannot be used.");
                board.end(Some(error.to_string()));
                sleep(STORE_PAUSE).await;
            }
        }
    }
}

fn enroll_if_needed(store: &DeviceStore, config: Config) -> anyhow::Result<()> {
    if store.credential()?.is_none() {
        enroll::apply(store, config)?;
    }
    Ok(())
}

/// Sends, follows and listens for as long as the device stays enrolled as it is.
async fn session(
    places: &Places,
    config: &Config,
    board: &Arc<Board>,
    store: &Arc<DeviceStore>,
    credential: Credential,
    keeper: &mut Keeper<DeviceStore>,
) -> anyhow::Result<()> {
    let enrolled = credential.enrolled().clone();
    let owner = Owner { device: enrolled.device, tenant: enrolled.tenant() };
    let (spooler, closed) = Spooler::open(places.state.join("spool"), &owner, config.spool_limits())?;
    let tls = watch::Sender::new(Tls::of_device(&credential, Arc::clone(&board.time))?);
    let listener = extension::listen(&places.run.join(EXTENSION_SOCKET))?;
    let host = || Host::ingest(&enrolled.domain, tls.subscribe());
    let (flush, asks) = mpsc::channel(16);
    board.begin(credential.clone(), spooler.counts(), flush);
    board.set_spooler(spooler.clone());
    tracing::info!(device = %enrolled.device, organisation = enrolled.organisation, "The device is enrolled.");
    let mut tasks = JoinSet::new();
    tasks.spawn(Follower::new(host(), credential, Arc::clone(store), Arc::clone(board)).run());
    tasks.spawn(Sender::new(host(), spooler.clone(), Arc::clone(board), asks).run());
    board.set_vault(host());
    tasks.spawn(personal::uplink::Sender::new(host(), Arc::clone(board)).run());
    tasks.spawn(personal::watch::watch(Arc::clone(board)));
    tasks.spawn(exemption::pass_on(host(), Arc::clone(board)));
    tasks.spawn(Arc::clone(board).count_spent(spooler.clone()));
    tasks.spawn(Arc::clone(board).watch_time());
    tasks.spawn(selftest::run(
        enrolled.domain.clone(),
        tls.subscribe(),
        config.ports.clone(),
        Arc::clone(board),
    ));
    tasks.spawn(extension::serve(listener, spooler, Arc::clone(board), enrolled.enrolled_at.minute()));
    keeper.keep(Some(&tls)).await;
    tracing::info!("The credential has changed.");
    tasks.shutdown().await;
    board.end(None);
    // The next session opens the same directory.
    let _ = closed.await;
    Ok(())
}
