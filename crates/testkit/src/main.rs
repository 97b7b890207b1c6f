//! The testkit's command line.
#![allow(clippy::print_stdout, reason = "output is its purpose")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use toktra_testkit::authority::Authority;
use toktra_testkit::simulator::{Options, Simulator};
use toktra_testkit::tally::Ledger;

#[derive(Debug, Parser)]
#[command(name = "toktra-testkit", version, about = "Provider simulator, network lab and demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer as any provider, under whatever name a client asks for, until Ctrl-C; then
    /// print what each connection really carried, one JSON object a line.
    Simulate {
        /// Where to listen, TCP and UDP.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where to write the root certificate that clients must trust.
        #[arg(long)]
        root: PathBuf,
    },
    /// Walk the whole way once, with real clients, and leave it running until Ctrl-C.
    Demo {
        /// The Python interpreter that has the providers' SDKs.
        #[arg(long)]
        python: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Simulate { listen, root } => simulate(listen, root),
        Command::Demo { python } => {
            let installation = toktra_testkit::demo::run(&python)?;
            toktra_testkit::demo::wait()?;
            drop(installation);
            println!("demo: nothing is left behind");
            Ok(())
        }
    }
}

#[tokio::main]
async fn simulate(listen: SocketAddr, root: PathBuf) -> anyhow::Result<()> {
    let (authority, ledger) = (Arc::new(Authority::new()?), Arc::new(Ledger::default()));
    std::fs::write(root, authority.root_pem())?;
    let simulator = Simulator::bind(Options::on(listen), authority, ledger.clone()).await?;
    println!("{}", simulator.address()?);
    tokio::select! {
        () = simulator.serve() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    for connection in ledger.connections() {
        println!("{}", serde_json::to_string(&connection)?);
    }
    Ok(())
}
