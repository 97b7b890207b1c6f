//! The user's own ledger: sealed records from the vault and from this device's queue, opened here with the
//! user's key. One that comes twice is shown once; what cannot be opened is counted and left as it is.

use std::collections::BTreeSet;

use anyhow::bail;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use toktra_menu::words::{NAME_LIMIT, amount, clean};
use toktra_protocol::budget::Unit;
use toktra_protocol::local::{Answer, Ask};
use toktra_protocol::personal::Member;
use toktra_protocol::personal::control::{PersonalAnswer, PersonalAsk};
use toktra_vault::{OpenError, UserKey};

use super::super::{FAILED, NOT_RUNNING, UNREACHABLE, ask, complain, known, say};
use crate::daemon::Places;
use crate::keyring::Session;
use crate::personal::sealing::LedgerEntry;

/// What became of sealed records.
#[derive(Debug, Default)]
struct Opened {
    entries: Vec<LedgerEntry>,
    seen: BTreeSet<uuid::Uuid>,
    to_another_key: usize,
    damaged: usize,
}

impl Opened {
    fn take(&mut self, key: &UserKey, sealed: &[u8]) {
        let content = match toktra_vault::open(key, sealed) {
            Ok(content) => content,
            Err(OpenError::OtherKey) => return self.to_another_key += 1,
            Err(OpenError::Damaged | OpenError::Form) => return self.damaged += 1,
        };
        match serde_json::from_slice::<LedgerEntry>(&content) {
            Ok(entry) if self.seen.insert(entry.id) => self.entries.push(entry),
            Ok(_) => {}
            Err(_) => self.damaged += 1,
        }
    }

    /// Says what is missing; the exit status.
    fn complain(&self) -> u8 {
        if self.damaged > 0 {
            complain(format_args!("{} of your records are damaged and cannot be opened.", self.damaged));
        }
        if self.to_another_key > 0 {
            complain(format_args!(
                "{} records were sealed to another key than the one in your keyring; import the phrase of that key to read them.",
                self.to_another_key
            ));
        }
        if self.damaged + self.to_another_key > 0 { FAILED } else { 0 }
    }
}

/// Shows the user's own ledger.
pub fn show(places: &Places, json: bool) -> anyhow::Result<u8> {
    let Some((key, _)) = Session::open()?.load()? else {
        complain(format_args!(
            "There is no key of yours on this device; `toktra-agent personal import` takes one up by its recovery phrase."
        ));
        return Ok(FAILED);
    };
    let mut opened = Opened::default();
    let mut code = read(places, &key, &mut opened)?;
    opened.entries.sort_by_key(|entry| entry.minute);
    for entry in &opened.entries {
        if json {
            say(format_args!("{}", serde_json::to_string(entry)?))?;
        } else {
            say(format_args!("{}", line(entry, &TimeZone::system())))?;
        }
    }
    if !json && opened.entries.is_empty() && code == 0 {
        say(format_args!("There are no records of yours yet."))?;
    }
    if code == 0 {
        code = opened.complain();
    } else {
        opened.complain();
    }
    Ok(code)
}

/// Says how many records a key opens that was just imported. What cannot be asked is no fault of the key.
pub fn count(places: &Places, key: &UserKey) -> anyhow::Result<()> {
    let mut opened = Opened::default();
    if read(places, key, &mut opened)? == 0 {
        match opened.entries.len() {
            0 => say(format_args!(
                "The backend has no records for it yet; if there should be some, the phrase is another key's."
            ))?,
            count => say(format_args!("It opens {count} records: toktra-agent personal show"))?,
        }
    }
    Ok(())
}

/// Opens all that is there; the exit status that says what was not reached.
fn read(places: &Places, key: &UserKey, opened: &mut Opened) -> anyhow::Result<u8> {
    let (status, code) = known(places)?;
    if code == NOT_RUNNING {
        complain(format_args!(
            "The agent is not running, and only it has them: systemctl start toktra-agent"
        ));
        return Ok(NOT_RUNNING);
    }
    let personal = status.personal.unwrap_or_default();
    if personal.ledger.is_some() {
        waiting(places, key, opened)?;
    }
    let Some(organisation) = personal.organisation else {
        complain(format_args!("The device is not enrolled, so there is no vault to ask."));
        return Ok(UNREACHABLE);
    };
    stored(places, key, &key.member(&organisation), opened)
}

fn waiting(places: &Places, key: &UserKey, opened: &mut Opened) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        match ask(places, &Ask::Personal(PersonalAsk::Waiting { after }))? {
            Answer::Personal(PersonalAnswer::Waiting { records, next, more }) => {
                records.iter().for_each(|sealed| opened.take(key, sealed.bytes()));
                if !more || next <= after {
                    return Ok(());
                }
                after = next;
            }
            Answer::Refused { reason } => bail!(reason),
            _ => bail!("the agent answered something else; are both of one version?"),
        }
    }
}

fn stored(places: &Places, key: &UserKey, member: &Member, opened: &mut Opened) -> anyhow::Result<u8> {
    let mut after = 0;
    loop {
        match ask(places, &Ask::Personal(PersonalAsk::Stored { member: member.clone(), after }))? {
            Answer::Personal(PersonalAnswer::Stored(page)) => {
                page.records.iter().for_each(|record| opened.take(key, record.sealed.bytes()));
                if !page.more || page.next <= after {
                    return Ok(0);
                }
                after = page.next;
            }
            Answer::Refused { reason } => {
                complain(format_args!("What the vault has is missing here: {reason}"));
                return Ok(UNREACHABLE);
            }
            _ => bail!("the agent answered something else; are both of one version?"),
        }
    }
}

/// A record for people.
fn line(entry: &LedgerEntry, zone: &TimeZone) -> String {
    let usage = &entry.usage;
    let at =
        i64::try_from(entry.minute.start().0).ok().and_then(|second| Timestamp::from_second(second).ok());
    let at =
        at.map_or_else(String::new, |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string());
    let application = usage.application.as_deref().map(|name| format!("  {}", clean(name, NAME_LIMIT)));
    format!(
        "{at}  {}  about {} out, {} back{}",
        clean(&usage.host, NAME_LIMIT),
        amount(Unit::Tokens, usage.tokens_in.point),
        amount(Unit::Tokens, usage.tokens_out.point),
        application.unwrap_or_default()
    )
}
