//! Commands on organisations, departments and users, and what other commands share.

use anyhow::{bail, ensure};
use toktra_catalog::Catalog;
use toktra_protocol::{Block, BlockReason, UnixSeconds};
use toktra_store::directory::{self, Organisation};
use toktra_store::period::Zone;
use toktra_store::{Store, devices};

use super::arguments::{Department, InOrganisation, Org, User};
use super::{ACTOR, say, tables};
use crate::app::Clock;

/// Longest message to a user, in bytes.
const MESSAGE_LIMIT: usize = 1024;

pub async fn organisation(store: &Store, command: Org) -> anyhow::Result<()> {
    match command {
        Org::List => {
            let all = directory::organisations(store).await?;
            let mut rows = Vec::new();
            for organisation in all {
                let zone = directory::time_zone(store, &organisation).await?;
                rows.push([organisation.name, organisation.id, zone]);
            }
            print(["name", "id", "time zone"], rows)
        }
        Org::Add { name } => {
            let made = directory::create_organisation(store, &name, ACTOR, now()).await?;
            say(made.id)
        }
        Org::Set { time_zone, within } => {
            let organisation = organisation_of(store, &within).await?;
            let Some(zone) = Zone::named(&time_zone) else {
                bail!(
                    "there is no time zone `{time_zone}`; take a name of the IANA database such as Europe/Berlin"
                )
            };
            Ok(directory::set_time_zone(store, &organisation, &zone, ACTOR, now()).await?)
        }
    }
}

pub async fn department(store: &Store, command: Department) -> anyhow::Result<()> {
    match command {
        Department::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let all = directory::departments(store, &organisation.id).await?;
            let rows = all.iter().map(|department| {
                let parent = all.iter().find(|other| Some(&other.id) == department.parent_id.as_ref());
                let parent = parent.map_or("-", |parent| parent.name.as_str());
                [department.name.clone(), department.id.clone(), parent.to_owned()]
            });
            print(["name", "id", "part of"], rows)
        }
        Department::Add { name, parent, within } => {
            let organisation = organisation_of(store, &within).await?;
            let parent = department_of(store, &organisation, parent.as_deref()).await?;
            let parent = parent.as_ref();
            let made = directory::create_department_within(store, &organisation, parent, &name, ACTOR, now());
            say(made.await?.id)
        }
        Department::Move { name, parent, within } => {
            let organisation = organisation_of(store, &within).await?;
            let department = directory::department(store, &organisation.id, &name).await?;
            let parent = department_of(store, &organisation, parent.as_deref()).await?;
            Ok(directory::move_department(store, &department, parent.as_ref(), ACTOR, now()).await?)
        }
        Department::Block { name, message, providers, within } => {
            check_message(&message)?;
            check_providers(&providers)?;
            let block = Block { reason: BlockReason::Budget, message, providers, until: None, budget: None };
            set_block(store, &within, &name, Some(&block)).await
        }
        Department::Unblock { name, within } => set_block(store, &within, &name, None).await,
    }
}

async fn department_of(
    store: &Store,
    organisation: &Organisation,
    name: Option<&str>,
) -> anyhow::Result<Option<directory::Department>> {
    match name {
        Some(name) => Ok(Some(directory::department(store, &organisation.id, name).await?)),
        None => Ok(None),
    }
}

/// A directive that exceeds what a device reads would be no directive at all.
pub(super) fn check_message(message: &str) -> anyhow::Result<()> {
    let fits = (1..=MESSAGE_LIMIT).contains(&message.len());
    ensure!(fits, "a message has 1 to {MESSAGE_LIMIT} bytes; say it in other words");
    Ok(())
}

/// A mistyped provider would block nothing.
fn check_providers(providers: &[String]) -> anyhow::Result<()> {
    let known: Vec<_> = Catalog::builtin().providers().iter().map(|provider| &*provider.id).collect();
    match providers.iter().find(|id| !known.contains(&id.as_str())) {
        None => Ok(()),
        Some(id) => bail!("the catalogue has no provider `{id}`; it has {}", known.join(", ")),
    }
}

async fn set_block(
    store: &Store,
    within: &InOrganisation,
    name: &str,
    block: Option<&Block>,
) -> anyhow::Result<()> {
    let organisation = organisation_of(store, within).await?;
    let department = directory::department(store, &organisation.id, name).await?;
    let devices = devices::set_department_block(store, &department, block, ACTOR, now()).await?;
    say(format_args!("{devices} devices"))
}

pub async fn user(store: &Store, command: User) -> anyhow::Result<()> {
    match command {
        User::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let all = directory::users(store, &organisation.id).await?;
            print(["email", "id"], all.into_iter().map(|user| [user.email, user.id]))
        }
        User::Add { email, department, within } => {
            let organisation = organisation_of(store, &within).await?;
            let department = match &department {
                Some(name) => Some(directory::department(store, &organisation.id, name).await?),
                None => None,
            };
            let made =
                directory::create_user(store, &organisation, department.as_ref(), &email, ACTOR, now())
                    .await?;
            say(made.id)
        }
    }
}

pub(super) async fn organisation_of(store: &Store, within: &InOrganisation) -> anyhow::Result<Organisation> {
    if let Some(name) = &within.organisation {
        return Ok(directory::organisation(store, name).await?);
    }
    let mut all = directory::organisations(store).await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => bail!("there is not exactly one organisation; name it with --organisation"),
    }
}

pub(super) fn print<const COLUMNS: usize>(
    heading: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> anyhow::Result<()> {
    tables::lines(heading, rows).into_iter().try_for_each(say)
}

pub(super) fn time(unix_s: u64) -> String {
    let at = i64::try_from(unix_s).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| unix_s.to_string(), |at| at.to_string())
}

pub(super) fn now() -> UnixSeconds {
    Clock::System.now()
}
