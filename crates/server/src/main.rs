//! The server process: parses the command line and runs it.

use std::process::ExitCode;

use clap::Parser as _;
use toktra_server::commands::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "toktra-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
