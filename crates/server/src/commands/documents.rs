//! What a package ships beside the program, made out of the command line's own definition.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Arguments;

/// Writes a shell's completions to standard output.
pub fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Arguments::command(), "toktra-server", &mut io::stdout());
}

/// Writes a manual page for every command into a directory.
pub fn manual(directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write manual pages into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(Arguments::command(), directory).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_gets_a_manual_page_and_every_shell_its_completions() {
        let directory = tempfile::tempdir().unwrap();
        manual(directory.path()).unwrap();
        for page in ["toktra-server", "toktra-server-serve", "toktra-server-device-revoke"] {
            assert!(directory.path().join(format!("{page}.1")).is_file(), "{page}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "toktra-server", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("department"), "{shell}");
        }
    }
}
