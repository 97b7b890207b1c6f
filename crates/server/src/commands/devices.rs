//! Commands on devices: those that are enrolled, and those that wait for approval.

use anyhow::bail;
use clap::{Args, Subcommand};
use toktra_protocol::DeviceId;
use toktra_store::book::{Book, Hold};
use toktra_store::{Store, approvals, devices, directory};
use uuid::Uuid;

use super::ACTOR;
use super::arguments::InOrganisation;
use super::directory::{now, organisation_of, print, time};

/// Devices.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List them.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// List those that came with a reusable token and wait for approval, oldest first.
    Pending {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Let a waiting device enrol.
    Approve {
        /// Its identifier in the list of those that wait.
        id: Uuid,
    },
    /// Refuse a waiting device.
    Deny {
        /// Its identifier in the list of those that wait.
        id: Uuid,
    },
    /// Take away the flag of a device that was looked into.
    Unflag {
        /// Its identifier.
        id: DeviceId,
    },
    /// Give a device to another department or user. What it has spent stays where it was booked.
    Move(Move),
    /// Withdraw a device's certificates, from its next request on.
    Revoke {
        /// Its identifier.
        id: DeviceId,
    },
}

/// Options of `device move`. What is not named stays.
#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = ["department", "no_department", "user", "no_user"])]
pub struct Move {
    /// Its identifier.
    pub id: DeviceId,
    /// The department that it belongs to from now on.
    #[arg(long, conflicts_with = "no_department")]
    pub department: Option<String>,
    /// It belongs to none.
    #[arg(long)]
    pub no_department: bool,
    /// Address of the user whose device it is from now on.
    #[arg(long, conflicts_with = "no_user")]
    pub user: Option<String>,
    /// It is nobody's.
    #[arg(long)]
    pub no_user: bool,
    /// Its organisation.
    #[command(flatten)]
    pub within: InOrganisation,
}

pub async fn device(store: &Store, command: Device) -> anyhow::Result<()> {
    match command {
        Device::List { within } => list(store, &within).await,
        Device::Pending { within } => pending(store, &within).await,
        Device::Approve { id } => decide(store, id, true).await,
        Device::Deny { id } => decide(store, id, false).await,
        Device::Unflag { id } => Ok(devices::clear_flag(store, id, ACTOR, now()).await?),
        Device::Move(options) => move_to(store, &options).await,
        Device::Revoke { id } => Ok(devices::revoke(store, id, ACTOR, now()).await?),
    }
}

async fn move_to(store: &Store, options: &Move) -> anyhow::Result<()> {
    let organisation = organisation_of(store, &options.within).await?;
    let of = |device: &devices::Device| device.organisation_id == organisation.id;
    let Some(device) = devices::find(store, options.id).await?.filter(of) else {
        bail!("there is no device `{}`; `toktra-server device list` has those that there are", options.id)
    };
    let department = match &options.department {
        Some(name) => Some(directory::department(store, &organisation.id, name).await?),
        None if options.no_department => None,
        None => {
            let all = directory::departments(store, &organisation.id).await?;
            all.into_iter().find(|department| Some(&department.id) == device.department_id.as_ref())
        }
    };
    let user = match &options.user {
        Some(email) => Some(directory::user(store, &organisation.id, email).await?),
        None if options.no_user => None,
        None => {
            let all = directory::users(store, &organisation.id).await?;
            all.into_iter().find(|user| Some(&user.id) == device.user_id.as_ref())
        }
    };
    let place = (department.as_ref(), user.as_ref());
    Ok(devices::move_to(store, &organisation, options.id, place, ACTOR, now()).await?)
}

async fn decide(store: &Store, id: Uuid, approve: bool) -> anyhow::Result<()> {
    Ok(approvals::decide(store, None, &id.to_string(), approve, ACTOR, now()).await?)
}

async fn list(store: &Store, within: &InOrganisation) -> anyhow::Result<()> {
    let organisation = organisation_of(store, within).await?;
    let (book, mut devices) = Book::read_with_devices(store, now()).await?;
    devices.retain(|device| device.organisation_id == organisation.id);
    let rows = devices.into_iter().map(|device| {
        let directive = match device.directive_applied {
            Some(applied) => format!("{applied}/{}", device.directive_version),
            None => format!("-/{}", device.directive_version),
        };
        let seen = device.last_seen_at.and_then(|at| u64::try_from(at).ok());
        let state = state(&device, &book.hold(&device, now()));
        let events = device.acknowledged_sequence.to_string();
        let flag = device.flag.unwrap_or_else(|| "-".into());
        [device.id, device.hostname, state.into(), seen.map_or("-".into(), time), events, directive, flag]
    });
    print(["id", "host", "state", "last seen", "events", "directive", "flag"], rows)
}

fn state(device: &devices::Device, hold: &Hold) -> &'static str {
    match (&hold.lock, &hold.block) {
        _ if device.is_revoked() => "revoked",
        (Some(_), _) if device.lock_message.is_none() => "user locked",
        (Some(_), _) => "locked",
        (None, Some(block)) if block.budget.is_some() => "over budget",
        (None, Some(_)) => "blocked",
        (None, None) => "enrolled",
    }
}

async fn pending(store: &Store, within: &InOrganisation) -> anyhow::Result<()> {
    let organisation = organisation_of(store, within).await?;
    let rows = approvals::waiting(store, &organisation.id, now()).await?.into_iter().map(|waiting| {
        let since = u64::try_from(waiting.requested_at).map_or("-".into(), time);
        let clones = match waiting.clones {
            0 => "-".to_owned(),
            clones => format!("same hardware as {clones} enrolled"),
        };
        [waiting.id, waiting.hostname, waiting.platform, waiting.address, since, waiting.label, clones]
    });
    print(["id", "host", "platform", "from", "since", "token", "note"], rows)
}
