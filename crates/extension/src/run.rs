//! The live capture.

use std::process::ExitCode;

/// Options of `toktra-extension run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Captures until it is told to stop.
pub fn main(arguments: Arguments) -> ExitCode {
    let Arguments {} = arguments;
    tracing::error!("this build cannot capture yet; use `toktra-extension replay FILE`");
    ExitCode::FAILURE
}
