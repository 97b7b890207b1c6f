//! Commands on enrolment tokens. A token is printed once and stored as its hash; afterwards it is
//! named by the first characters of that.

use anyhow::ensure;
use clap::Subcommand;
use toktra_store::Store;
use toktra_store::directory;
use toktra_store::tokens::{self, Grant, Use};

use super::arguments::{InOrganisation, duration_s};
use super::directory::{now, organisation_of, print, time};
use super::{ACTOR, note, say};
use crate::enrol::token_hash;
use crate::password::random_text;

/// Random characters of a token, five bits each.
const TOKEN_CHARACTERS: usize = 32;
/// Most devices of a reusable token.
const DEVICES_LIMIT: u32 = 100_000;
/// Longest label, in bytes.
const LABEL_LIMIT: usize = 64;

/// Enrolment tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it, once.
    Create {
        /// The organisation that the device will belong to.
        #[command(flatten)]
        within: InOrganisation,
        /// Name of the department that the device will belong to.
        #[arg(long)]
        department: Option<String>,
        /// Address of the user whose device it will be.
        #[arg(long)]
        user: Option<String>,
        /// How long it may be used: `30m`, `24h`, `7d`.
        #[arg(long, default_value = "24h", value_parser = duration_s)]
        valid_for: u64,
        /// For many devices, of which each waits until it is approved (`device approve`).
        #[arg(long, requires = "devices", conflicts_with = "user")]
        reusable: bool,
        /// How many devices may be enrolled or wait by a reusable token.
        #[arg(long, requires = "reusable", value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_LIMIT)))]
        devices: Option<u32>,
        /// What to call it in lists.
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List them, newest first.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// End a token. Devices that wait by it still wait for a decision.
    Withdraw {
        /// Its name in the list, or as much of it as names no other.
        token: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

pub async fn token(store: &Store, command: Token) -> anyhow::Result<()> {
    match command {
        Token::Create { within, department, user, valid_for, devices, label, reusable: _ } => {
            let uses = devices.map_or(Use::Once, |devices| Use::Reusable { devices });
            create(store, &within, (department, user), (uses, &label), valid_for).await
        }
        Token::List { within } => list(store, &within).await,
        Token::Withdraw { token, within } => {
            let organisation = organisation_of(store, &within).await?;
            Ok(tokens::withdraw(store, &organisation.id, &token, ACTOR, now()).await?)
        }
    }
}

async fn create(
    store: &Store,
    within: &InOrganisation,
    (department, user): (Option<String>, Option<String>),
    (uses, label): (Use, &str),
    valid_for: u64,
) -> anyhow::Result<()> {
    ensure!(label.len() <= LABEL_LIMIT, "a label has at most {LABEL_LIMIT} bytes; give a shorter one");
    let organisation = organisation_of(store, within).await?;
    let department = match &department {
        Some(name) => Some(directory::department(store, &organisation.id, name).await?),
        None => None,
    };
    let user = match &user {
        Some(email) => Some(directory::user(store, &organisation.id, email).await?),
        None => None,
    };
    let token = random_text(TOKEN_CHARACTERS)?;
    let grant = Grant { organisation: &organisation, department: department.as_ref(), user: user.as_ref() };
    let until = now().plus(valid_for);
    tokens::create(store, &token_hash(&token), (grant, uses, label), until, ACTOR, now()).await?;
    let until = time(until.0);
    match uses {
        Use::Once => {
            note(format_args!("The token below enrols one device until {until}; it is not shown again."))?;
        }
        Use::Reusable { devices } => note(format_args!(
            "With the token below {devices} devices may ask to enrol until {until}; approve each with \
             `device approve`. It is not shown again."
        ))?,
    }
    say(token.as_str())
}

async fn list(store: &Store, within: &InOrganisation) -> anyhow::Result<()> {
    let organisation = organisation_of(store, within).await?;
    let rows = tokens::of_organisation(store, &organisation.id, now()).await?.into_iter().map(|token| {
        let kind = if token.reusable == 0 { "one-time" } else { "reusable" };
        let until = u64::try_from(token.expires_at).map_or("-".into(), time);
        let devices = format!("{}/{}", token.devices, token.device_limit);
        let state = token.state(now());
        let holder = token.user.clone().or_else(|| token.department.clone()).unwrap_or_else(|| "-".into());
        [token.name().to_owned(), token.label.clone(), kind.into(), holder, devices, until, state.into()]
    });
    print(["token", "label", "kind", "for", "devices", "until", "state"], rows)
}
