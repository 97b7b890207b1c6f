//! The live capture on Linux: `capture-linux`, and signals that end it.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use toktra_capture_linux::{Capture, Options, default_cgroup};
use toktra_protocol::local::{EXTENSION_SOCKET, RUN_DIRECTORY};
use tracing_subscriber::EnvFilter;

use crate::session::{Clock, Session, agent, share};

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
    let socket = arguments.socket.unwrap_or_else(|| Path::new(RUN_DIRECTORY).join(EXTENSION_SOCKET));
    let peer = agent(socket, &arguments.agent_user);
    let seed = uuid::Uuid::new_v4().as_u64_pair().1;
    let capture = Capture::attach(&Options { cgroup: cgroup.clone(), ports: arguments.ports, seed })?;
    for loss in capture.degraded() {
        tracing::warn!("degraded: {loss}");
    }
    tracing::info!(cgroup = %cgroup.display(), "capturing");
    let readable = capture.as_fd().try_clone_to_owned().context("the capture cannot be awaited")?;
    Session::new(share(capture), Some(readable), peer, Clock::start()).run(&stop)?;
    tracing::info!("detached");
    Ok(())
}

/// Readable once SIGTERM or SIGINT has come.
fn stop_signal() -> std::io::Result<UnixStream> {
    let (stop, write) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(stop)
}
