//! What ends in the vault: a month, a week after it; its members' totals, when nothing is carried over
//! from them any more; sealed records, when they have passed their time. At the start and then hourly.
//!
//! Invariants: sums go to the ledger only as the vault made them, once; a copy that failed is made with
//! the next sweep. May be broken off and be done by several servers at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use toktra_store::directory::{self, Organisation};
use toktra_store::period::Zone;
use toktra_store::{allowances, perks, retention};
use toktra_vault_store::{closing, retention as vault_retention};

use super::Vault;

const EVERY: Duration = Duration::from_secs(60 * 60);
/// After each transaction that deletes, so that nobody waits long.
const PAUSE: Duration = Duration::from_millis(50);

/// Sweeps until it is aborted, what there is.
pub(crate) async fn keep_sweeping(vault: Option<Arc<Vault>>) {
    let Some(vault) = vault else { return };
    loop {
        if let Err(error) = vault.sweep().await {
            tracing::error!("The vault could not be swept: {error:#}. It is tried again.");
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Vault {
    async fn sweep(&self) -> anyhow::Result<()> {
        for organisation in directory::organisations(&self.app.store).await? {
            self.sweep_organisation(&organisation).await?;
        }
        Ok(())
    }

    async fn sweep_organisation(&self, organisation: &Organisation) -> anyhow::Result<()> {
        let (store, now) = (&self.app.store, self.app.clock.now());
        let zone = Zone::named(&directory::time_zone(store, organisation).await?).context("no such zone")?;
        let month = zone.month(now);
        closing::close(&self.store, &organisation.id, allowances::open_since(&zone, now)).await?;
        let sums: Vec<_> = closing::told(&self.store, &organisation.id)
            .await?
            .into_iter()
            .map(|(month, sum)| perks::Sum {
                month,
                tier_id: sum.tier,
                others: sum.others,
                tokens: sum.tokens,
            })
            .collect();
        perks::keep_sums(store, &organisation.id, &sums).await?;
        if let Some(before) = month.plus(-1) {
            closing::forget(&self.store, &organisation.id, before).await?;
        }
        let months = retention::settings(store, organisation).await?.personal_months;
        if let Some(before) = i32::try_from(months).ok().and_then(|months| month.plus(-months)) {
            let pause = async || tokio::time::sleep(PAUSE).await;
            let deleted = vault_retention::sweep(&self.store, &organisation.id, before, pause).await?;
            if deleted > 0 {
                tracing::info!(records = deleted, "Sealed records have passed their time.");
            }
        }
        Ok(())
    }
}
