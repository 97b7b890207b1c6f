//! Commands that read the ledger, as JSON for other programs.

use anyhow::ensure;
use toktra_protocol::DeviceId;
use toktra_store::{Store, events, spend};

use super::say;

pub async fn events(store: &Store, device: DeviceId, after: i64) -> anyhow::Result<()> {
    let rows = events::of_device(store, &device.to_string(), after).await?;
    rows.iter().try_for_each(|row| say(serde_json::to_string(row)?))
}

pub async fn check(store: &Store) -> anyhow::Result<()> {
    let balances = events::balances(store).await?;
    balances.iter().try_for_each(|balance| say(serde_json::to_string(balance)?))?;
    let uneven = balances.iter().filter(|balance| !balance.is_even()).count();
    let spend = spend::balances(store).await?;
    spend.iter().try_for_each(|balance| say(serde_json::to_string(balance)?))?;
    let off = spend.iter().filter(|balance| !balance.is_even()).count();
    ensure!(off == 0, "spend by day is uneven for {off} organisations or departments");
    ensure!(uneven == 0, "the ledger is uneven for {uneven} devices");
    Ok(())
}
