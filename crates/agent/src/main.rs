//! The agent process and its command line. Logs go to standard output; on macOS, where a LaunchDaemon's two
//! outputs are two files, errors go to standard error.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use toktra_agent::commands::CommandLine;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("TOKTRA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(writer())
        .init();
    CommandLine::parse().run()
}

#[cfg(not(target_os = "macos"))]
fn writer() -> impl for<'a> MakeWriter<'a> + Send + Sync + 'static {
    std::io::stdout
}

#[cfg(target_os = "macos")]
fn writer() -> impl for<'a> MakeWriter<'a> + Send + Sync + 'static {
    use tracing_subscriber::fmt::writer::MakeWriterExt as _;
    std::io::stderr.with_max_level(tracing::Level::ERROR).or_else(std::io::stdout)
}
