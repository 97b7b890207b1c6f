//! The command about privacy hours: what they are, and setting one's own.

use anyhow::bail;
use clap::{Args, Subcommand};
use toktra_protocol::local::{Answer, Ask, START_AGENT, Status};

use super::{FAILED, NOT_RUNNING, ask, complain, known, say};
use crate::clock::Clock;
use crate::daemon::Places;
use crate::report;

/// Options of `privacy`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Privacy {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show them.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put these windows in place of those that were set before.
    Set {
        /// Such as `18:00-09:00`, `"mon-fri 18:00-09:00"` or `"sat,sun 00:00-24:00"`.
        #[arg(required = true, value_name = "WINDOW")]
        windows: Vec<String>,
    },
    /// Have none of your own; those of an administrator stay.
    Clear,
}

/// Shows privacy hours, or sets them.
pub fn privacy(places: &Places, options: Privacy) -> anyhow::Result<u8> {
    match options.command {
        None => show(places, options.json),
        Some(Command::Show { json }) => show(places, json),
        Some(Command::Set { windows }) => set(places, windows),
        Some(Command::Clear) => set(places, Vec::new()),
    }
}

fn show(places: &Places, json: bool) -> anyhow::Result<u8> {
    let (status, code) = known(places)?;
    if code == NOT_RUNNING {
        complain(format_args!("The agent is not running, and only it knows: {START_AGENT}"));
        return Ok(code);
    }
    if json {
        say(format_args!("{}", serde_json::to_string_pretty(&status.privacy)?))?;
    } else {
        tell(&status)?;
    }
    Ok(0)
}

fn set(places: &Places, windows: Vec<String>) -> anyhow::Result<u8> {
    match ask(places, &Ask::SetPrivacy { windows }) {
        Ok(Answer::Status(status)) => {
            tell(&status)?;
            Ok(0)
        }
        Ok(Answer::Refused { reason }) => {
            complain(format_args!("Not set: {reason}"));
            Ok(FAILED)
        }
        Ok(Answer::Done { .. } | Answer::Records(_) | Answer::Personal(_)) => {
            bail!("the agent answered something else; are both of one version?")
        }
        Err(error) => {
            complain(format_args!("The agent does not answer ({error:#}). Start it: {START_AGENT}"));
            Ok(NOT_RUNNING)
        }
    }
}

fn tell(status: &Status) -> anyhow::Result<()> {
    let zone = jiff::tz::TimeZone::system();
    let privacy = status.privacy.clone().unwrap_or_default();
    say(format_args!("{}", report::privacy(&privacy, Clock::System.now(), &zone).trim_end()))?;
    Ok(())
}
