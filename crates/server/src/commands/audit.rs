//! Commands on the audit trail: its newest rows, and whether its chain is whole.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use toktra_store::Store;
use toktra_store::audit::{self, Link};

use super::directory::{print, time};
use super::say;

/// The audit trail.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// How many of the newest rows to show.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(subcommand)]
    command: Option<Chain>,
}

#[derive(Debug, Subcommand)]
enum Chain {
    /// Walk the chain; print its head, to be noted elsewhere, or fail naming the first bad row.
    Verify {
        /// A head that was noted earlier, which the chain must still hold: `ROW:HASH`.
        #[arg(long, value_parser = link)]
        noted: Option<Link>,
    },
}

pub async fn audit(store: &Store, command: Audit) -> anyhow::Result<()> {
    match command.command {
        Some(Chain::Verify { noted }) => verify(store, noted.as_ref()).await,
        None => list(store, command.limit).await,
    }
}

async fn list(store: &Store, limit: u32) -> anyhow::Result<()> {
    let rows = audit::newest(store, limit).await?.into_iter().map(|row| {
        let at = u64::try_from(row.at).unwrap_or_default();
        [row.id.to_string(), time(at), row.actor, row.action, row.subject, row.detail]
    });
    print(["row", "at", "actor", "action", "subject", "detail"], rows)
}

async fn verify(store: &Store, noted: Option<&Link>) -> anyhow::Result<()> {
    let walk = audit::verify(store, noted).await.context("the audit trail could not be read")?;
    if let Some(fault) = walk.fault {
        bail!("the audit trail was tampered with: {fault}; {} rows before that are in order", walk.rows);
    }
    say(format_args!("{} rows in order", walk.rows))?;
    match walk.head {
        Some(head) => say(format_args!("head {}:{}", head.id, head.hash)),
        None => Ok(()),
    }
}

fn link(text: &str) -> Result<Link, String> {
    let parsed = text.split_once(':').and_then(|(id, hash)| Some((id.parse().ok()?, hash)));
    match parsed {
        Some((id, hash)) if hash.len() == 64 => Ok(Link { id, hash: hash.to_owned() }),
        _ => Err(format!("`{text}` is not ROW:HASH as `audit verify` prints it")),
    }
}
