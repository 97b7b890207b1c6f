//! The agent process and its command line. Logs go to standard output.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use toktra_agent::commands::CommandLine;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("TOKTRA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(std::io::stdout)
        .init();
    CommandLine::parse().run()
}
