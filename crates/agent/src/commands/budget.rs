//! The command about budgets: what is left, and asking for more.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;
use toktra_protocol::local::{Answer, Ask, START_AGENT};

use super::{FAILED, NOT_ENROLLED, NOT_RUNNING, ask, complain, known, say};
use crate::clock::Clock;
use crate::daemon::Places;
use crate::report;

/// Options of `budget`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Budget {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask an administrator for more.
    Request {
        /// Why, for the administrator.
        #[arg(long)]
        reason: String,
        /// Identifier of the budget; the one with least left if it is left out.
        #[arg(long, value_name = "ID")]
        budget: Option<String>,
    },
}

/// Shows the budgets, or asks for more.
pub fn budget(places: &Places, options: Budget) -> anyhow::Result<u8> {
    match options.command {
        None => show(places, options.json),
        Some(Command::Request { reason, budget }) => request(places, budget, reason),
    }
}

fn show(places: &Places, json: bool) -> anyhow::Result<u8> {
    let (status, code) = known(places)?;
    if json {
        let budgets = json!({
            "budgets": status.budgets,
            "as_of": status.directive_issued_at,
            "lock": status.lock,
            "block": status.block,
            "block_until": status.block_until,
            "cap_opened": status.cap_opened,
        });
        say(format_args!("{}", serde_json::to_string_pretty(&budgets)?))?;
    } else {
        let zone = jiff::tz::TimeZone::system();
        say(format_args!("{}", report::budgets(&status, Clock::System.now(), &zone).trim_end()))?;
        if code == NOT_RUNNING {
            complain(format_args!("The agent is not running; this is what it knew last."));
        }
    }
    Ok(code)
}

fn request(places: &Places, budget: Option<String>, reason: String) -> anyhow::Result<u8> {
    match ask(places, &Ask::RequestMore { budget, reason }) {
        Ok(Answer::Done { message }) => {
            say(format_args!("{message}"))?;
            Ok(0)
        }
        Ok(Answer::Refused { reason }) => {
            complain(format_args!("Not asked: {reason}"));
            Ok(if reason == crate::board::NOT_ENROLLED { NOT_ENROLLED } else { FAILED })
        }
        Ok(Answer::Status(_) | Answer::Records(_) | Answer::Personal(_)) => {
            bail!("the agent answered something else; are both of one version?")
        }
        Err(error) => {
            complain(format_args!("The agent does not answer ({error:#}). Start it: {START_AGENT}"));
            Ok(NOT_RUNNING)
        }
    }
}
