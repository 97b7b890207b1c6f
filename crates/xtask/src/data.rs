//! `cargo xtask data`: writes `docs/data.md` from the dictionaries of protocol and store, or with
//! `--check` says that it is stale. A test of this crate checks too, so that CI fails.

use std::fmt::{Display, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use toktra_protocol::dictionary::{Field, MESSAGES, Message, Structure, meaning};
use toktra_store::dictionary::TABLES;
use toktra_vault_store::dictionary as vault;

const HEAD: &str = include_str!("data_head.md");
const BETWEEN: &str = include_str!("data_between.md");
const VAULT: &str = include_str!("data_vault.md");

/// Options of `data`.
#[derive(Debug, Args)]
pub struct Options {
    /// Write nothing; fail if the page is stale.
    #[arg(long)]
    check: bool,
}

/// Runs the chore in this repository.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let (path, page) = (path(), page()?);
    if options.check {
        let written = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(written == page, "docs/data.md is stale; run `cargo xtask data`");
        return Ok(());
    }
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/data.md")
}

/// The whole page.
fn page() -> anyhow::Result<String> {
    let mut page = HEAD.to_owned();
    for message in MESSAGES {
        show_message(&mut page, message)?;
    }
    page.push_str(BETWEEN);
    for table in TABLES {
        show_table(&mut page, (table.name, table.row), (&table.kept, table.seen), table.columns)?;
    }
    page.push_str(VAULT);
    for table in vault::TABLES {
        show_table(&mut page, (table.name, table.row), (&table.kept, table.seen), table.columns)?;
    }
    Ok(page)
}

fn show_message(page: &mut String, message: &Message) -> anyhow::Result<()> {
    writeln!(page, "\n### {}\n\nLeaves by {}.", message.name, message.leaves)?;
    for structure in message.structures {
        writeln!(page, "\n| `{}` | type | what it is | what for | where it is kept |", structure.name)?;
        writeln!(page, "| --- | --- | --- | --- | --- |")?;
        for field in structure.fields {
            show_field(page, structure, field)?;
        }
    }
    Ok(())
}

fn show_field(page: &mut String, structure: &Structure, field: &Field) -> anyhow::Result<()> {
    let meaning = meaning(structure.name, field.name)
        .with_context(|| format!("{}.{} has no doc comment", structure.name, field.name))?;
    for place in field.kept {
        ensure!(
            is_a_column(place),
            "{}.{} is kept in `{place}`, which is no column",
            structure.name,
            field.name
        );
    }
    let kept: Vec<_> = field.kept.iter().map(|place| format!("`{place}`")).collect();
    let kept = if kept.is_empty() { "nowhere".to_owned() } else { kept.join(", ") };
    let words = meaning.words.replace('|', "\\|");
    writeln!(page, "| `{}` | `{}` | {words} | {} | {kept} |", field.name, meaning.kind, field.why)?;
    Ok(())
}

fn is_a_column(place: &str) -> bool {
    let ledger = TABLES.iter().map(|table| (table.name, table.columns));
    let mut tables = ledger.chain(vault::TABLES.iter().map(|table| (table.name, table.columns)));
    place.split_once('.').is_some_and(|(table, column)| {
        tables.any(|(name, columns)| name == table && columns.iter().any(|(known, _)| *known == column))
    })
}

fn show_table(
    page: &mut String,
    (name, row): (&str, &str),
    (kept, seen): (&dyn Display, &str),
    columns: &[(&str, &str)],
) -> anyhow::Result<()> {
    writeln!(page, "\n### `{name}`\n\n{row}\n")?;
    writeln!(page, "- How long: {kept}.\n- Who sees it: {seen}.\n")?;
    writeln!(page, "| column | what for |\n| --- | --- |")?;
    for (column, why) in columns {
        writeln!(page, "| `{column}` | {why} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_not_stale() {
        run(&Options { check: true }).unwrap();
    }
}
