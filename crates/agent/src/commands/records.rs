//! The command that shows every record as it leaves the device, and says what each field is for.

use std::thread;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use toktra_protocol::dictionary::{MESSAGES, meaning};
use toktra_protocol::local::{Answer, Ask, RecordPlace, RecordState, RecordsPage, START_AGENT};

use super::{NOT_RUNNING, ask, complain, say};
use crate::daemon::Places;

/// How often `--follow` looks; a record waits a few seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Options of `records`.
#[derive(Debug, Args)]
pub struct Records {
    /// Go on and show each record when it comes, and again when it was sent.
    #[arg(long)]
    follow: bool,
    /// First say what each field is and what it is for.
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Each record as `{"state":"waiting","event":…}` on a line of its own.
    #[arg(long)]
    json: bool,
}

/// Shows the records that were sent of late and those that wait.
pub fn records(places: &Places, options: &Records) -> anyhow::Result<u8> {
    if options.explain {
        explain()?;
    }
    let mut after = RecordPlace::default();
    loop {
        let page = match ask(places, &Ask::Records { after }) {
            Ok(Answer::Records(page)) => page,
            Ok(Answer::Refused { reason }) => bail!(reason),
            Ok(_) => bail!("the agent answered something else; install agent and command from one package"),
            Err(error) => {
                complain(format_args!("The agent does not answer ({error:#}). Start it: {START_AGENT}"));
                return Ok(NOT_RUNNING);
            }
        };
        show(&page, options.json)?;
        after = page.next;
        if !page.more {
            if !options.follow {
                return Ok(0);
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "a listing that follows waits for nothing but time"
            )]
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn show(page: &RecordsPage, json: bool) -> anyhow::Result<()> {
    for listed in &page.records {
        if json {
            say(format_args!("{}", serde_json::to_string(listed)?))?;
            continue;
        }
        let state = match listed.state {
            RecordState::Sent => "sent   ",
            RecordState::Waiting => "waiting",
        };
        say(format_args!("{state}  {}", serde_json::to_string(&listed.event)?))?;
    }
    Ok(())
}

/// The dictionary of what a record holds.
fn explain() -> anyhow::Result<()> {
    let structures =
        MESSAGES.iter().find(|message| message.name == "Events").map(|message| message.structures);
    for structure in structures.unwrap_or_default().iter().filter(|structure| structure.name != "Batch") {
        say(format_args!("{}", structure.name))?;
        for field in structure.fields {
            let words = meaning(structure.name, field.name).map(|meaning| meaning.words).unwrap_or_default();
            say(format_args!("  {}: {words}\n    For {}.", field.name, field.why))?;
        }
    }
    say(format_args!("How long the backend keeps each, and who sees it: docs/data.md\n"))?;
    Ok(())
}
