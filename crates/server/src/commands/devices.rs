//! Commands on devices: those that are enrolled, and those that wait for approval.

use clap::Subcommand;
use toktra_protocol::DeviceId;
use toktra_store::{Store, approvals, devices};
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
    /// Withdraw a device's certificates, from its next request on.
    Revoke {
        /// Its identifier.
        id: DeviceId,
    },
}

pub async fn device(store: &Store, command: Device) -> anyhow::Result<()> {
    match command {
        Device::List { within } => list(store, &within).await,
        Device::Pending { within } => pending(store, &within).await,
        Device::Approve { id } => decide(store, id, true).await,
        Device::Deny { id } => decide(store, id, false).await,
        Device::Unflag { id } => Ok(devices::clear_flag(store, id, ACTOR, now()).await?),
        Device::Revoke { id } => Ok(devices::revoke(store, id, ACTOR, now()).await?),
    }
}

async fn decide(store: &Store, id: Uuid, approve: bool) -> anyhow::Result<()> {
    Ok(approvals::decide(store, &id.to_string(), approve, ACTOR, now()).await?)
}

async fn list(store: &Store, within: &InOrganisation) -> anyhow::Result<()> {
    let organisation = organisation_of(store, within).await?;
    let rows = devices::of_organisation(store, &organisation.id).await?.into_iter().map(|device| {
        let directive = match device.directive_applied {
            Some(applied) => format!("{applied}/{}", device.directive_version),
            None => format!("-/{}", device.directive_version),
        };
        let seen = device.last_seen_at.and_then(|at| u64::try_from(at).ok());
        let state = match (device.is_revoked(), &device.lock_message, &device.block_reason) {
            (true, _, _) => "revoked",
            (false, Some(_), _) => "locked",
            (false, None, Some(_)) => "blocked",
            (false, None, None) => "enrolled",
        };
        let events = device.acknowledged_sequence.to_string();
        let flag = device.flag.unwrap_or_else(|| "-".into());
        [device.id, device.hostname, state.into(), seen.map_or("-".into(), time), events, directive, flag]
    });
    print(["id", "host", "state", "last seen", "events", "directive", "flag"], rows)
}

async fn pending(store: &Store, within: &InOrganisation) -> anyhow::Result<()> {
    let organisation = organisation_of(store, within).await?;
    let rows = approvals::waiting(store, &organisation.id).await?.into_iter().map(|waiting| {
        let since = u64::try_from(waiting.requested_at).map_or("-".into(), time);
        let clones = match waiting.clones {
            0 => "-".to_owned(),
            clones => format!("same hardware as {clones} enrolled"),
        };
        [waiting.id, waiting.hostname, waiting.platform, waiting.address, since, waiting.label, clones]
    });
    print(["id", "host", "platform", "from", "since", "token", "note"], rows)
}
