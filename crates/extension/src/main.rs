//! The extension process: `run` captures on this machine, `replay` reads a capture file.
//! Each subcommand is a module; this file only reads the command line.

mod link;
mod outbox;
mod personal;
mod replay;
#[cfg_attr(target_os = "linux", path = "run/linux.rs")]
#[cfg_attr(target_os = "macos", path = "run/macos.rs")]
mod run;
mod session;
mod waiting;

use std::process::ExitCode;

#[cfg(not(target_os = "macos"))]
use clap::CommandFactory as _;
use clap::{Parser, Subcommand};

/// Names the server of each TLS and QUIC connection, and counts its bytes.
#[derive(Debug, Parser)]
#[command(name = "toktra-extension", version, about)]
struct Cli {
    /// On macOS the system starts this program without one, which means `run`.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Capture on this machine and speak to the agent.
    Run(run::Arguments),
    /// Print one line for each flow of a capture file (pcap or pcapng) that held a ClientHello.
    Replay(replay::Arguments),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Some(Command::Run(arguments)) => run::main(arguments),
        Some(Command::Replay(arguments)) => replay::main(arguments),
        None => without_command(),
    }
}

#[cfg(target_os = "macos")]
fn without_command() -> ExitCode {
    run::main(run::Arguments::default())
}

#[cfg(not(target_os = "macos"))]
fn without_command() -> ExitCode {
    Cli::command().error(clap::error::ErrorKind::MissingSubcommand, "name a command").exit()
}
