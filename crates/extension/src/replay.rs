//! `toktra-extension replay FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `toktra-extension replay`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Also print flows without a ClientHello.
    #[arg(long)]
    all: bool,
    /// A capture file; `-` reads standard input.
    file: PathBuf,
}

/// Replays the file.
pub fn main(arguments: Arguments) -> ExitCode {
    let _ = (arguments.json, arguments.all, arguments.file);
    ExitCode::FAILURE
}
