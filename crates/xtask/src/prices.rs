//! `cargo xtask prices`: reads a public list, shows what it changes, writes the data files.
//! Nothing is written if anything is doubted, or if the catalogue would not load afterwards.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use toktra_catalog::{Catalog, Prices};

use crate::merge::{Import, Outcome, merge};
use crate::table::Table;
use crate::{list, render};

/// Largest list, in bytes.
const LIST_LIMIT: u64 = 16 * 1024 * 1024;
/// Where the data files are, from the root of the repository.
const DATA: &str = "crates/catalog/data";

/// Options of `prices`.
#[derive(Debug, Args)]
pub struct Options {
    /// The list: `genai_prices/data.py` from the Python package `genai-prices`.
    #[arg(long)]
    from: PathBuf,
    /// The list and its version, for example "genai-prices 0.2.3".
    #[arg(long)]
    release: String,
    /// Day of the newest evidence in the list, for example 2026-11-04.
    #[arg(long)]
    checked_on: String,
    /// Write nothing; fail if anything would change or is doubted.
    #[arg(long)]
    check: bool,
    /// A jump that you have looked at: `provider/model`, in our names. May be repeated.
    #[arg(long)]
    accept: Vec<String>,
}

/// Runs the chore in this repository.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = root.join(DATA);
    let table =
        fs::read_to_string(root.join("crates/xtask/prices.toml")).context("cannot read prices.toml")?;
    let table: Table = toml::from_str(&table).context("prices.toml is not a table of models")?;
    let list = list::read(&limited(&options.from)?).context("the list cannot be read")?;
    let have = prices_in(&data)?;
    let import = Import {
        read_from: options.release.clone(),
        checked_on: options.checked_on.clone(),
        accepted: options.accept.clone(),
    };
    let outcome = merge(&table, &list, &have, &import);
    show(&outcome)?;
    ensure!(outcome.doubts.is_empty(), "{} doubts; nothing was written", outcome.doubts.len());
    let files = files(&outcome.prices);
    check_loads(&data, &files)?;
    if options.check {
        ensure!(outcome.changes.is_empty(), "the prices are not those of the list; run it without --check");
        return Ok(());
    }
    for (path, text) in files {
        fs::write(data.join(&path), text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

fn limited(path: &Path) -> anyhow::Result<String> {
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    file.take(LIST_LIMIT + 1).read_to_string(&mut text).context("the list is no text")?;
    ensure!(text.len() as u64 <= LIST_LIMIT, "the list is larger than {LIST_LIMIT} bytes");
    Ok(text)
}

/// Files of the catalogue in a folder, as names and texts, by name.
fn texts_in(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            texts.push((name, fs::read_to_string(&path)?));
        }
    }
    texts.sort();
    Ok(texts)
}

fn prices_in(data: &Path) -> anyhow::Result<Vec<Prices>> {
    let mut prices = Vec::new();
    for (name, text) in texts_in(&data.join("prices"))? {
        let [of] = <[Prices; 1]>::try_from(Prices::parse(&name, &text)?)
            .ok()
            .with_context(|| format!("{name} is not the prices of one provider"))?;
        if format!("{}.toml", of.of) != name {
            bail!("{name} has the prices of `{}`; name it after that", of.of);
        }
        prices.push(of);
    }
    Ok(prices)
}

fn files(prices: &[Prices]) -> Vec<(String, String)> {
    prices.iter().map(|prices| (format!("prices/{}.toml", prices.of), render::file(prices))).collect()
}

/// The same checks as at load, before anything is written.
fn check_loads(data: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    let providers = texts_in(data)?;
    let all = providers.iter().chain(files).map(|(name, text)| (name.as_str(), text.as_str()));
    Catalog::from_files(all).context("the catalogue would not load; nothing was written")?;
    Ok(())
}

fn show(outcome: &Outcome) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (heading, lines) in [
        ("changes", &outcome.changes),
        ("kept, the list does not have them", &outcome.kept),
        ("in the list, unknown to crates/xtask/prices.toml", &outcome.unknown),
        ("doubts", &outcome.doubts),
    ] {
        writeln!(out, "{heading}: {}", lines.len())?;
        for line in lines {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(out, "models read: {}", outcome.confirmed)?;
    Ok(())
}
