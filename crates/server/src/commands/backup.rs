//! `backup` and `restore`: a data directory as of one moment, taken while the server runs, and a new
//! data directory out of it.
//!
//! A backup is a directory: the database, the vault, the authority, the settings, and `backup.json`, which names
//! each file with its length and SHA-256. It is written last, so a directory without it is no backup.
//! Neither the keys' passphrase nor the root's key is ever in it. A restore writes `server.json` last,
//! so a data directory that is half restored does not pass for one.
//!
//! The database is copied before the authority: whoever a rotation under way has certified is then
//! known to the authority, if not yet to the database, which takes such certificates over.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use ring::digest;
use serde::{Deserialize, Serialize};
use toktra_pki::{Authority, PassphraseFile};
use toktra_protocol::UnixSeconds;
use toktra_store::{Store, StoreError};

use super::initialise::make_directory;
use super::{note, say};
use crate::app::{Clock, DATABASE};
use crate::authority::Edition;
use crate::config::{self, Config};
use crate::vault;

/// Describes a backup, and makes it one.
const DESCRIPTION: &str = "backup.json";
/// Largest description that is read, in bytes.
const DESCRIPTION_LIMIT: u64 = 1024 * 1024;
/// Whose format it is; a later one is refused.
const FORMAT: u32 = 1;
/// How often the authority is copied anew because a rotation took a step meanwhile.
const ATTEMPTS: usize = 5;

/// What is in a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: u32,
    server_version: String,
    made_at: UnixSeconds,
    files: Vec<Kept>,
}

/// A file of a backup.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Relative to the directory.
    name: PathBuf,
    bytes: u64,
    /// Hexadecimal.
    sha256: String,
}

/// Writes a backup into a directory that is new or empty.
pub async fn backup(data: &Path, to: &Path) -> anyhow::Result<()> {
    Config::read(data)?;
    make_directory(to)?;
    let store = Store::open(&data.join(DATABASE)).await?;
    note(format_args!("Copying the database…"))?;
    store.copy_to(&to.join(DATABASE)).await.context("the database could not be copied")?;
    store.close().await;
    let mut files = vec![Kept::read(to, Path::new(DATABASE))?];
    if let Some(name) = vault::back_up(data, to).await.context("the vault could not be copied")? {
        files.push(Kept::read(to, name)?);
    }
    files.extend(authority(data, to)?);
    for name in [PathBuf::from(config::FILE), own(data, &Authority::root_certificate_file(data))?] {
        files.push(copy(data, to, &name)?);
    }
    let description = Description {
        format: FORMAT,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: Clock::System.now(),
        files,
    };
    write(&to.join(DESCRIPTION), &mut serde_json::to_vec_pretty(&description)?.as_slice())?;
    File::open(to)?.sync_all()?;
    let bytes: u64 = description.files.iter().map(|file| file.bytes).sum();
    say(format_args!("Made {} of {} files, {bytes} bytes.", to.display(), description.files.len()))?;
    say("Not in it: the passphrase of the keys, without which it serves nobody, and the root's key. Keep \
         both, elsewhere.")
}

/// Makes a data directory that is new or empty out of a backup.
pub async fn restore(data: &Path, passphrase: &PassphraseFile, from: &Path) -> anyhow::Result<()> {
    let description = Description::read(from)?;
    note(format_args!("Checking {} files…", description.files.len()))?;
    for file in &description.files {
        let found = Kept::read(from, &file.name)?;
        ensure!(found == *file, "`{}` is not as it was backed up; use another backup", file.name.display());
    }
    make_directory(data)?;
    let settings = Path::new(config::FILE);
    for file in description.files.iter().filter(|file| file.name != settings) {
        copy(from, data, &file.name)?;
    }
    let store = Store::open(&data.join(DATABASE)).await?;
    let checked: Result<(), StoreError> = store.check_pages().await;
    store.close().await;
    checked?;
    vault::check_pages(data).await?;
    copy(from, data, settings)?;
    File::open(data)?.sync_all()?;
    say(format_args!("Restored {} as of Unix second {}.", data.display(), description.made_at.0))?;
    if let Err(error) = Authority::open(data, passphrase) {
        say(format_args!("The authority does not open yet: {error}."))?;
        say("Put the passphrase that was kept apart in its place, or name it with --passphrase-file.")?;
    }
    say("Devices go on from what the database holds; what it lost is counted as dropped.")
}

impl Description {
    fn read(from: &Path) -> anyhow::Result<Self> {
        let path = from.join(DESCRIPTION);
        let file = File::open(&path).with_context(|| {
            format!("`{}` cannot be read; give a directory that `backup` made to its end", path.display())
        })?;
        let mut text = String::new();
        file.take(DESCRIPTION_LIMIT).read_to_string(&mut text)?;
        let description: Self =
            serde_json::from_str(&text).with_context(|| format!("`{}` is damaged", path.display()))?;
        ensure!(
            description.format == FORMAT,
            "the backup has format {}, this version reads {FORMAT}; restore it with toktra-server {}",
            description.format,
            description.server_version
        );
        for name in [DATABASE, config::FILE] {
            ensure!(
                description.files.iter().any(|file| file.name == Path::new(name)),
                "`{}` names no `{name}`",
                path.display()
            );
        }
        let plain = |name: &Path| name.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(
            description.files.iter().all(|file| plain(&file.name)),
            "`{}` names a file outside of the backup",
            path.display()
        );
        Ok(description)
    }
}

impl Kept {
    /// What a file is now.
    fn read(directory: &Path, name: &Path) -> anyhow::Result<Self> {
        let path = directory.join(name);
        let unreadable = || format!("`{}` cannot be read", path.display());
        let mut file = File::open(&path).with_context(unreadable)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; 64 * 1024];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer).with_context(unreadable)? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
        let sha256 = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: name.to_owned(), bytes, sha256 })
    }
}

/// Copies the authority's files, all of one state.
fn authority(data: &Path, to: &Path) -> anyhow::Result<Vec<Kept>> {
    let state = Authority::state_file(data);
    let directory = state.parent().context("the authority has no directory")?;
    for _ in 0..ATTEMPTS {
        let before = Edition::of(&state);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push(copy(data, to, &own(data, &entry.path())?)?);
            }
        }
        if Edition::of(&state) == before {
            return Ok(files);
        }
        std::fs::remove_dir_all(to.join(own(data, directory)?))?;
    }
    bail!("a rotation goes on; run this again when `toktra-server ca status` stands still")
}

/// A path without its directory.
fn own(directory: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    Ok(path.strip_prefix(directory).context("a file is not in its directory")?.to_owned())
}

/// Copies a file, private and durable, and says what it is.
fn copy(from: &Path, to: &Path, name: &Path) -> anyhow::Result<Kept> {
    let source = from.join(name);
    let mut file = File::open(&source).with_context(|| format!("`{}` cannot be read", source.display()))?;
    let target = to.join(name);
    if let Some(parent) = target.parent() {
        DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
    }
    write(&target, &mut file)?;
    Kept::read(to, name)
}

/// Writes a file that does not exist yet, private and durable.
fn write(path: &Path, content: &mut impl io::Read) -> anyhow::Result<()> {
    let unwritable = || format!("`{}` cannot be written", path.display());
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(unwritable)?;
    io::copy(content, &mut file).with_context(unwritable)?;
    file.sync_all().with_context(unwritable)
}
