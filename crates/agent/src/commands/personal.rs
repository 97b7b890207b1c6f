//! The command about personal mode: opting in and out, turning it on and off, the user's own ledger, and
//! the recovery phrase. The user's key is in this process alone, and only in the user's session.

mod ledger;
mod until;

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use toktra_menu::words::{NAME_LIMIT, clean};
use toktra_protocol::local::{Answer, Ask, Status};
use toktra_protocol::personal::control::{
    PersonalAsk, PersonalLedger, PersonalStatus, Recipient, WhenExhausted,
};
use toktra_vault::UserKey;
use zeroize::Zeroizing;

use super::{FAILED, NOT_RUNNING, UNAVAILABLE, ask, complain, known, say};
use crate::clock::Clock;
use crate::daemon::Places;
use crate::keyring::Session;
use crate::report;

/// Said where the organisation offers nothing.
const UNAVAILABLE_WORDS: &str = "Your organisation does not offer personal mode to the user of this device: all use is counted for the organisation.";

/// Options of `personal`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Personal {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show your own records, opened with your key on this device only.
    Show {
        /// Each as `{"minute":…,"usage":…}` on a line of its own.
        #[arg(long)]
        json: bool,
    },
    /// Opt in: says first what is kept, where, and who sees what.
    OptIn {
        /// What is to happen when the allowance is used up.
        #[arg(long, value_name = "CHOICE", default_value = "block")]
        when_exhausted: Choice,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Turn personal mode on.
    On {
        /// Until then, `HH:MM` by this machine's clock.
        #[arg(long, value_name = "HH:MM", conflicts_with = "duration")]
        until: Option<String>,
        /// For so long, such as `2h` or `90m`.
        #[arg(long = "for", value_name = "DURATION", id = "duration")]
        duration: Option<String>,
    },
    /// Turn personal mode off.
    Off,
    /// Choose what is to happen when the allowance is used up.
    WhenExhausted {
        /// The choice.
        choice: Choice,
    },
    /// Print the recovery phrase: whoever has it can read your records.
    Phrase {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Take up the key of another device by its recovery phrase, from a prompt or standard input.
    Import,
    /// Opt out: the backend and this device forget your records.
    OptOut {
        /// Leave what the backend has where it is.
        #[arg(long)]
        here_only: bool,
        /// Keep your key in your keyring.
        #[arg(long)]
        keep_key: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// Providers are blocked for you.
    Block,
    /// Use counts for the organisation again.
    Corporate,
}

impl From<Choice> for WhenExhausted {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Block => Self::Block,
            Choice::Corporate => Self::Corporate,
        }
    }
}

/// Does what was asked about personal mode.
pub fn personal(places: &Places, options: Personal) -> anyhow::Result<u8> {
    match options.command {
        None => show(places, options.json),
        Some(Command::Show { json }) => ledger::show(places, json),
        Some(Command::OptIn { when_exhausted, yes }) => opt_in(places, when_exhausted.into(), yes),
        Some(Command::On { until, duration }) => {
            let zone = jiff::tz::TimeZone::system();
            let until = until::parse(until.as_deref(), duration.as_deref(), Clock::System.now(), &zone)?;
            change(places, PersonalAsk::On { until })
        }
        Some(Command::Off) => change(places, PersonalAsk::Off),
        Some(Command::WhenExhausted { choice }) => {
            change(places, PersonalAsk::WhenExhausted { choice: choice.into() })
        }
        Some(Command::Phrase { yes }) => phrase(yes),
        Some(Command::Import) => import(places),
        Some(Command::OptOut { here_only, keep_key, yes }) => opt_out(places, here_only, keep_key, yes),
    }
}

fn show(places: &Places, json: bool) -> anyhow::Result<u8> {
    let (status, code) = known(places)?;
    if code == NOT_RUNNING {
        return not_running(&anyhow::anyhow!("only it knows"));
    }
    let personal = status.personal.unwrap_or_default();
    let available = personal.perks.is_some() || personal.ledger.is_some();
    if json {
        let mut value = json!({ "available": available, "personal": personal });
        if !available {
            value["reason"] = UNAVAILABLE_WORDS.into();
        }
        say(format_args!("{}", serde_json::to_string_pretty(&value)?))?;
    } else if available {
        tell(&personal)?;
    } else {
        complain(format_args!("{UNAVAILABLE_WORDS}"));
        if let Some(error) = &personal.unreadable {
            complain(format_args!("Who opted in cannot be read: {error}"));
        }
    }
    Ok(if available { 0 } else { UNAVAILABLE })
}

fn tell(personal: &PersonalStatus) -> anyhow::Result<()> {
    let zone = jiff::tz::TimeZone::system();
    say(format_args!("{}", report::personal(personal, Clock::System.now(), &zone).trim_end()))?;
    Ok(())
}

/// What is to be known before one opts in.
const EXPLANATION: &str = "\
Personal mode keeps what you use language models for privately out of your organisation's ledger.
  What is kept   of connections while it is on: the provider's host name, bytes, how long, which minute,
                 the program, and an estimate of tokens. Never what you write or what is answered.
  Where          sealed on this device to a key that only you have, then in your organisation's vault,
                 under a name that only your key makes. Neither the vault nor this device's agent can
                 open it.
  Who sees what  you: every record (toktra-agent personal show). Your administrators: that you are
                 enrolled, not whether you opted in; sums of finished months over at least five people.
                 The backend: how much of your month's allowance somebody used, not who.
                 Your network and the provider see your connections as before.
  The key        is yours to keep. Without it and its recovery phrase nobody can open your records,
                 neither can you.
  When           you turn it on, and until you turn it off or your allowance is used up.
";

fn opt_in(places: &Places, when_exhausted: WhenExhausted, yes: bool) -> anyhow::Result<u8> {
    let status = match offered(places)? {
        Ok(status) => status,
        Err(code) => return Ok(code),
    };
    let Some(organisation) = status.organisation else {
        bail!("the agent does not say whose device this is")
    };
    say(format_args!("{EXPLANATION}"))?;
    if let Some(PersonalLedger { elsewhere: Some(other), waiting: waiting @ 1.., .. }) = &status.ledger {
        say(format_args!(
            "{waiting} sealed records of yours wait for the vault of {}, with which this device is no longer enrolled. \
             Opting in here deletes them; toktra-agent personal show prints them before.\n",
            clean(other, NAME_LIMIT)
        ))?;
    }
    if !yes && !confirmed("Opt in?")? {
        complain(format_args!("Nothing was changed."));
        return Ok(FAILED);
    }
    let keyring = Session::open()?;
    let (key, place, is_new) = match keyring.load()? {
        Some((key, place)) => (key, place, false),
        None => {
            let mut entropy = Zeroizing::new([0; 32]);
            getrandom::fill(&mut entropy[..])
                .map_err(|_| anyhow::anyhow!("the system's random number generator failed"))?;
            let key = UserKey::new(entropy);
            let place = keyring.keep(&key)?;
            (key, place, true)
        }
    };
    let asked = PersonalAsk::OptIn {
        recipient: Recipient::new(key.recipient().bytes()),
        member: key.member(&organisation),
        when_exhausted,
    };
    let code = change(places, asked)?;
    match (code, is_new) {
        (0, true) => say(format_args!(
            "Your new key is in {place}. Write its recovery phrase down now: toktra-agent personal phrase"
        ))?,
        (0, false) => say(format_args!("Your key is the one in {place}."))?,
        // A key that nothing was sealed to is of no use.
        (_, true) => keyring.remove()?,
        (_, false) => {}
    }
    if code == 0 {
        say(format_args!("Turn personal mode on when you want it: toktra-agent personal on"))?;
    }
    Ok(code)
}

/// What the organisation offers, or the exit status that says why there is nothing.
fn offered(places: &Places) -> anyhow::Result<Result<PersonalStatus, u8>> {
    let (status, code) = known(places)?;
    if code == NOT_RUNNING {
        return not_running(&anyhow::anyhow!("it must run to opt in")).map(Err);
    }
    let personal = status.personal.unwrap_or_default();
    if personal.perks.is_none() {
        complain(format_args!("{UNAVAILABLE_WORDS}"));
        return Ok(Err(UNAVAILABLE));
    }
    Ok(Ok(personal))
}

fn change(places: &Places, asked: PersonalAsk) -> anyhow::Result<u8> {
    match ask(places, &Ask::Personal(asked)) {
        Ok(Answer::Status(status)) => {
            let Status { personal, .. } = *status;
            tell(&personal.unwrap_or_default())?;
            Ok(0)
        }
        Ok(Answer::Done { message }) => {
            say(format_args!("{message}"))?;
            Ok(0)
        }
        Ok(Answer::Refused { reason }) => {
            complain(format_args!("Not done: {reason}"));
            Ok(FAILED)
        }
        Ok(Answer::Records(_) | Answer::Personal(_)) => {
            bail!("the agent answered something else; are both of one version?")
        }
        Err(error) => not_running(&error),
    }
}

fn not_running(error: &anyhow::Error) -> anyhow::Result<u8> {
    complain(format_args!("The agent does not answer ({error:#}). Start it: systemctl start toktra-agent"));
    Ok(NOT_RUNNING)
}

fn phrase(yes: bool) -> anyhow::Result<u8> {
    let Some((key, place)) = Session::open()?.load()? else {
        complain(format_args!(
            "There is no key of yours on this device; `toktra-agent personal opt-in` makes one."
        ));
        return Ok(FAILED);
    };
    complain(format_args!(
        "The key in {place}. Whoever has these words can read all your personal records, and list and delete them.\n\
         Write them on paper; put them into no file and no message."
    ));
    if !yes && std::io::stdout().is_terminal() && !confirmed("Show them?")? {
        return Ok(FAILED);
    }
    say(format_args!("{}", *key.phrase()))?;
    Ok(0)
}

fn import(places: &Places) -> anyhow::Result<u8> {
    if std::io::stdin().is_terminal() {
        complain(format_args!(
            "Type the 24 words of the recovery phrase, then Enter; they are seen while you type."
        ));
    }
    let text = Zeroizing::new(read_line()?);
    let key = match UserKey::from_phrase(&text) {
        Ok(key) => key,
        Err(error) => {
            complain(format_args!("Nothing was imported: {error}."));
            return Ok(FAILED);
        }
    };
    let keyring = Session::open()?;
    // What is damaged is what an import is there to replace.
    match keyring.load() {
        Ok(Some((other, place))) if other.recipient() != key.recipient() => {
            complain(format_args!(
                "Nothing was imported: another key is in {place}, and what was sealed to it could not be read without it. Write its phrase down (toktra-agent personal phrase), then run `toktra-agent personal opt-out`."
            ));
            return Ok(FAILED);
        }
        Ok(_) | Err(crate::keyring::KeyringError::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let place = keyring.keep(&key)?;
    say(format_args!("The key is in {place}."))?;
    ledger::count(places, &key)?;
    Ok(0)
}

fn opt_out(places: &Places, here_only: bool, keep_key: bool, yes: bool) -> anyhow::Result<u8> {
    let what = if here_only {
        "Personal mode ends on this device, and what waits here to be sent is deleted. What the backend has stays there, sealed."
    } else {
        "Personal mode ends. The backend deletes your records, of all your devices, and so does this device; totals of months stay as nobody's."
    };
    complain(format_args!("{what}"));
    if !yes && !confirmed("Opt out?")? {
        complain(format_args!("Nothing was changed."));
        return Ok(FAILED);
    }
    let code = change(places, PersonalAsk::OptOut { here_only })?;
    // What the backend keeps could not be read again without the key.
    if code == 0 && !keep_key && !here_only {
        Session::open()?.remove()?;
        say(format_args!("Your key was removed from this device."))?;
    }
    Ok(code)
}

/// Asks the user; nobody to ask means no.
fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        complain(format_args!("{question} Nobody can be asked here; add --yes if so."));
        return Ok(false);
    }
    complain(format_args!("{question} Type yes if so."));
    Ok(read_line()?.trim() == "yes")
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::with_capacity(1024);
    std::io::stdin().lock().read_line(&mut line).context("standard input cannot be read")?;
    Ok(line)
}
