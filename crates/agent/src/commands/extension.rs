//! `extension`, on macOS alone: what the system has of our extension, and activating or deactivating it. For
//! an administrator and the installer; the menu sees to it otherwise.

use std::path::Path;

use clap::{Args, Subcommand};
use toktra_mac::activation::{Installed, Outcome, Task};
use toktra_mac::{extension as system, serve_main_queue};
use toktra_protocol::local::{Answer, Ask, CONTROL_SOCKET};

use super::{FAILED, ask_at, complain, say};
use crate::config::Source;
use crate::daemon::Places;

/// It takes a restart of the machine.
const AFTER_RESTART: u8 = 10;
/// A person has to allow it.
const NEEDS_APPROVAL: u8 = 11;

/// Options of `extension`.
#[derive(Debug, Args)]
pub struct Extension {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Say which version the system has active.
    Status,
    /// Put this app's extension in force now. Drops the connections of this Mac.
    Activate,
    /// Turn the filter off and take the extension away.
    Deactivate,
}

/// Does what was asked; never returns, since the main thread serves the system's answers.
pub fn extension(places: &Places, options: Extension) -> anyhow::Result<u8> {
    let socket = places.run.join(CONTROL_SOCKET);
    serve_main_queue(move || match carry_out(options.command, &socket) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("{error:#}"));
            FAILED
        }
    })
}

fn carry_out(command: Command, socket: &Path) -> anyhow::Result<u8> {
    let installed = system::look().map_err(anyhow::Error::msg)?;
    let mut tell = |outcome: &Outcome| complain(format_args!("{}", outcome.words(Task::Activate)));
    let (task, outcome) = match command {
        Command::Status => {
            say(format_args!("{}", words(&installed)))?;
            return Ok(0);
        }
        Command::Activate => (Task::Activate, activate(&installed, socket, &mut tell)),
        Command::Deactivate => (Task::Deactivate, deactivate(&installed, socket, &mut tell)),
    };
    let words = outcome.words(task);
    Ok(match outcome {
        Outcome::Completed => {
            say(format_args!("{words}"))?;
            0
        }
        Outcome::AfterRestart => {
            say(format_args!("{words}"))?;
            AFTER_RESTART
        }
        Outcome::NeedsApproval => {
            complain(format_args!("{words}"));
            NEEDS_APPROVAL
        }
        Outcome::Failed(_) => {
            complain(format_args!("{words}"));
            FAILED
        }
    })
}

/// Puts this app's extension in force, in place of whatever is there.
pub fn activate(installed: &Installed, socket: &Path, told: &mut dyn FnMut(&Outcome)) -> Outcome {
    let replaces = matches!(installed, Installed::Active(_));
    system::carry_out(Task::Activate, replaces, is_managed(), &|| is_stopped(socket), told)
}

fn deactivate(installed: &Installed, socket: &Path, told: &mut dyn FnMut(&Outcome)) -> Outcome {
    if *installed == Installed::Nothing {
        return Outcome::Completed;
    }
    system::carry_out(Task::Deactivate, true, is_managed(), &|| is_stopped(socket), told)
}

/// Preferences that a profile forces come with its content filter.
fn is_managed() -> bool {
    Source::Preferences.read().is_ok_and(|config| config.managed)
}

/// Whether the extension has left the agent; true where nobody can say.
fn is_stopped(socket: &Path) -> bool {
    match ask_at(socket, &Ask::Status) {
        Ok(Answer::Status(status)) => !status.extension_connected,
        _ => true,
    }
}

fn words(installed: &Installed) -> String {
    match installed {
        Installed::Nothing => "This Mac has no extension of Toktra's.".to_owned(),
        Installed::Active(version) if version == crate::VERSION => {
            format!("Active: version {version}, as this app.")
        }
        Installed::Active(version) => {
            format!("Active: version {version}; this app is {}.", crate::VERSION)
        }
        Installed::AwaitsApproval => Outcome::NeedsApproval.words(Task::Activate),
        Installed::Leaves => Outcome::AfterRestart.words(Task::Deactivate),
    }
}
