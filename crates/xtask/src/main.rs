//! Chores of this repository, for those who work on it. Nothing here is shipped.

mod data;
mod list;
mod macos;
mod merge;
mod micros;
mod prices;
mod python;
mod render;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Write docs/data.md from the dictionaries of what is sent and stored.
    Data(data::Options),
    /// Build, sign, package and check the product for macOS.
    Macos(macos::Options),
    /// Bring the catalogue's prices up to a public list of prices.
    Prices(prices::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Data(options) => data::run(&options),
        Chore::Macos(options) => macos::run(&options),
        Chore::Prices(options) => prices::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
