//! The live capture on macOS: the system starts this program without arguments as the content filter's
//! process, the framework's threads deliver flows, and one thread speaks to the agent. It never ends by
//! itself, whatever is wrong: a filter whose process ends takes the network with it while it comes back.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use toktra_capture_macos::log::UnifiedLog;
use toktra_capture_macos::{Filter, Flows, provider};
use toktra_protocol::local::{EXTENSION_SOCKET, RUN_DIRECTORY};
use tracing_subscriber::EnvFilter;

use crate::link::Peer;
use crate::session::{Clock, Session, Shared, agent, share};

/// How long the system waits, when it stops the filter, for the last records to leave.
const FAREWELL: Duration = Duration::from_secs(4);
/// Before a session that failed is followed by another.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of `run`, which the system never gives.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// The agent's socket.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// Filters until the system ends the process.
pub fn main(arguments: Arguments) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_ansi(false)
        .without_time()
        .with_writer(|| UnifiedLog)
        .init();
    let socket = arguments.socket.unwrap_or_else(|| Path::new(RUN_DIRECTORY).join(EXTENSION_SOCKET));
    let (joint, agent, clock) = (share(Flows::new(provider::act)), agent(socket, "root"), Clock::start());
    let filter = Filter::new(Arc::clone(&joint), move || clock.now());
    let ending = Arc::new(Ending::default());
    let ends = Arc::clone(&ending);
    thread::spawn(move || speak(&joint, &agent, clock, &ends));
    provider::begin(filter, move || ending.farewell());
    dispatch2::dispatch_main()
}

/// One session after another: the system may stop the filter and start it again in the same process.
fn speak(joint: &Shared<Flows>, agent: &Peer, clock: Clock, ending: &Ending) {
    loop {
        let session = || {
            let (stop, wake) = UnixStream::pair()?;
            ending.expect(wake);
            Session::new(Arc::clone(joint), None, agent.clone(), clock).run(&stop)
        };
        let ended = catch_unwind(AssertUnwindSafe(session));
        if let Err(error) = ended.unwrap_or_else(|_| Err(anyhow!("it panicked"))) {
            tracing::error!("The session with the agent ended: {error:#}");
            thread::sleep(PAUSE);
        }
    }
}

/// The end of a session that somebody waits for.
#[derive(Default)]
struct Ending(Mutex<Option<UnixStream>>);

impl Ending {
    fn expect(&self, wake: UnixStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }

    /// Asks the session to hand over what it has, and waits until it has ended.
    fn farewell(&self) {
        let wake = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut wake) = wake else { return };
        let waited = wake
            .set_read_timeout(Some(FAREWELL))
            .and_then(|()| wake.write_all(&[0]))
            // The session's end closes when it is over.
            .and_then(|()| wake.read(&mut [0]));
        if let Err(error) = waited {
            tracing::warn!(%error, "The last records may not have left.");
        }
    }
}
