//! Commands that read the ledger, as JSON for other programs.

use anyhow::ensure;
use toktra_protocol::DeviceId;
use toktra_store::{Store, events};

use super::say;

pub async fn events(store: &Store, device: DeviceId, after: i64) -> anyhow::Result<()> {
    let rows = events::of_device(store, &device.to_string(), after).await?;
    rows.iter().try_for_each(|row| say(serde_json::to_string(row)?))
}

pub async fn check(store: &Store) -> anyhow::Result<()> {
    let balances = events::balances(store).await?;
    balances.iter().try_for_each(|balance| say(serde_json::to_string(balance)?))?;
    let uneven = balances.iter().filter(|balance| !balance.is_even()).count();
    ensure!(uneven == 0, "the ledger is uneven for {uneven} devices");
    Ok(())
}
