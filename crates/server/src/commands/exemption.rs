//! Commands on exemptions, flags and locks: what opens a cap, what makes it hard, and what blocks
//! without one.

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use toktra_protocol::DeviceId;
use toktra_store::directory::{self, Organisation};
use toktra_store::exemptions::{self, Decision, Exemption as Row};
use toktra_store::{Store, devices, flags, locks};

use super::arguments::{InOrganisation, duration_s};
use super::directory::{check_message, now, organisation_of, print, time};
use super::{ACTOR, say};

/// Exemptions from budgets.
#[derive(Debug, Subcommand)]
pub enum Exemption {
    /// List what waits and what is in force.
    List {
        /// Also what was denied or is over.
        #[arg(long)]
        all: bool,
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Grant one: the budget's cap does not block the user's devices for so long.
    Grant {
        /// Its identifier.
        id: String,
        /// For how long from now: `30m`, `2h`, `7d`.
        #[arg(long = "for", value_parser = duration_s)]
        seconds: u64,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Deny one that waits.
    Deny {
        /// Its identifier.
        id: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// End one that was granted, now.
    End {
        /// Its identifier.
        id: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Feature flags.
#[derive(Debug, Subcommand)]
pub enum Flag {
    /// List them.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Set one.
    Set {
        /// Its name, for example `FF_BUDGET_HARD_CAPS`.
        name: String,
        /// On or off.
        #[arg(value_enum)]
        value: Switch,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Whom a lock is for.
#[derive(Debug, Args)]
pub struct Whom {
    /// A user's address (all their devices, later ones too) or a device's identifier.
    pub whom: String,
    /// Their organisation.
    #[command(flatten)]
    pub within: InOrganisation,
}

/// Runs one on exemptions.
pub async fn exemption(store: &Store, command: Exemption) -> anyhow::Result<()> {
    let (id, decision, within) = match command {
        Exemption::List { all, within } => {
            return list(store, &organisation_of(store, &within).await?, all).await;
        }
        Exemption::Grant { id, seconds, within } => (id, Decision::GrantUntil(now().plus(seconds)), within),
        Exemption::Deny { id, within } => (id, Decision::Deny, within),
        Exemption::End { id, within } => (id, Decision::End, within),
    };
    let organisation = organisation_of(store, &within).await?;
    exemptions::decide(store, &organisation, &id, decision, ACTOR, now()).await?;
    match decision {
        Decision::GrantUntil(until) => say(format_args!("until {}", time(until.0))),
        Decision::Deny | Decision::End => Ok(()),
    }
}

async fn list(store: &Store, organisation: &Organisation, all: bool) -> anyhow::Result<()> {
    let rows = exemptions::of_organisation(store, organisation, all, now()).await?;
    let at = |seconds: i64| time(u64::try_from(seconds).unwrap_or_default());
    let rows = rows.into_iter().map(|row: Row| {
        [
            row.id,
            row.state,
            row.budget,
            row.user.unwrap_or(row.hostname),
            at(row.requested_at),
            row.until.map_or("-".into(), at),
            row.decided_by.unwrap_or_else(|| "-".into()),
            row.reason,
        ]
    });
    print(["id", "state", "budget", "for", "asked", "until", "by", "reason"], rows)
}

/// Runs one on flags.
pub async fn flag(store: &Store, command: Flag) -> anyhow::Result<()> {
    match command {
        Flag::List { within } => {
            let flags = flags::of_organisation(store, &organisation_of(store, &within).await?).await?;
            let on = |on| if on { "on" } else { "off" };
            print(["flag", "value"], flags.into_iter().map(|(name, value)| [name, on(value).to_owned()]))
        }
        Flag::Set { name, value, within } => {
            ensure!(
                flags::KNOWN.contains(&&*name),
                "there is no flag `{name}`; there is {}",
                flags::KNOWN.join(", ")
            );
            let organisation = organisation_of(store, &within).await?;
            Ok(flags::set(store, &organisation, &name, value == Switch::On, ACTOR, now()).await?)
        }
    }
}

/// Puts a lock in force, or lifts it with no message.
pub async fn lock(store: &Store, whom: &Whom, message: Option<&str>) -> anyhow::Result<()> {
    message.map_or(Ok(()), check_message)?;
    let organisation = organisation_of(store, &whom.within).await?;
    let Ok(id) = whom.whom.parse::<DeviceId>() else {
        let user = directory::user(store, &organisation.id, &whom.whom).await?;
        let count = locks::set(store, &user, message, ACTOR, now()).await?;
        return say(format_args!("{count} devices"));
    };
    let Some(device) = devices::find(store, id).await?.filter(|row| row.organisation_id == organisation.id)
    else {
        bail!("there is no device `{id}`; `toktra-server device list` has those that there are");
    };
    devices::set_lock(store, id, message, ACTOR, now()).await?;
    if message.is_none() {
        still_locked(store, &organisation, device.user_id.as_deref()).await?;
    }
    Ok(())
}

/// A device that was unlocked itself stays locked while its user is.
async fn still_locked(store: &Store, organisation: &Organisation, user: Option<&str>) -> anyhow::Result<()> {
    let Some(id) = user else { return Ok(()) };
    if locks::of_user(store, id).await?.is_none() {
        return Ok(());
    }
    let users = directory::users(store, &organisation.id).await?;
    let email = users.into_iter().find(|user| user.id == id).map_or_else(|| id.to_owned(), |user| user.email);
    bail!("the device stays locked because its user is: `toktra-server unlock {email}`")
}
