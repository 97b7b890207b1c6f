//! What a package ships beside the program, made out of the command line's own definition.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::CommandLine;

/// Writes a shell's completions to standard output.
pub fn completions(shell: Shell) -> u8 {
    clap_complete::generate(shell, &mut CommandLine::command(), "toktra-agent", &mut io::stdout());
    0
}

/// Writes a manual page for every command into a directory.
pub fn manual(directory: &Path) -> anyhow::Result<u8> {
    let failed = || format!("cannot write manual pages into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(CommandLine::command(), directory).with_context(failed)?;
    Ok(0)
}
