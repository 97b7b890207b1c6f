//! The extension process: `run` captures on this machine, `replay` reads a capture file.
//! Each subcommand is a module; this file only reads the command line.

mod health;
mod link;
mod outbox;
mod personal;
mod replay;
mod run;
mod waiting;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Names the server of each TLS and QUIC connection, and counts its bytes.
#[derive(Debug, Parser)]
#[command(name = "toktra-extension", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
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
        Command::Run(arguments) => run::main(arguments),
        Command::Replay(arguments) => replay::main(arguments),
    }
}
