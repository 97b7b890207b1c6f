//! `init`: everything that a server needs, made once and never overwritten.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use toktra_pki::{Authority, Founding, Passphrase, PassphraseFile};
use toktra_store::roles::Role;
use toktra_store::{Store, accounts, directory};

use super::accounts::{NewPassword, checked_name};
use super::arguments::Init;
use super::{ACTOR, say};
use crate::app::{Clock, DATABASE};
use crate::config::Config;

pub async fn init(data: &Path, passphrase: &PassphraseFile, options: Init) -> anyhow::Result<()> {
    if Config::exists(data) {
        bail!("`{}` has been initialised before; nothing was changed", data.display());
    }
    ensure!(!options.organisation.trim().is_empty(), "give the organisation a name");
    let administrator = match &options.admin {
        Some(name) => Some((checked_name(name)?, NewPassword::choose(options.password_file.as_deref())?)),
        None => None,
    };
    let root_directory = options.root_out.clone().unwrap_or_else(|| Authority::offline_directory(data));
    let root_passphrase = RootPassphrase::choose(options.root_passphrase_file.as_deref())?;
    make_directory(data)?;
    let now = Clock::System.now();
    let founding = Founding {
        domain: &options.domain,
        passphrase: &passphrase.read_or_make()?.0,
        root_passphrase: &root_passphrase.secret,
        root_directory: &root_directory,
    };
    Authority::create(data, &founding, now).context("the authority could not be made")?;
    let store = Store::open(&data.join(DATABASE)).await?;
    let organisation = directory::create_organisation(&store, &options.organisation, ACTOR, now).await?;
    if let Some((name, password)) = &administrator {
        let owner = (name.as_str(), Role::Owner, &[][..]);
        accounts::create_administrator(&store, &organisation, owner, password.hash(), ACTOR, now).await?;
    }
    store.close().await;
    // Written last: a directory with settings is complete.
    Config { domain: options.domain.clone() }.write(data)?;
    let generated = administrator.as_ref().and_then(|(_, password)| password.generated());
    print_next_steps(data, &options, &root_directory, &root_passphrase, passphrase, generated)
}

/// Makes a private directory, or takes one that is empty.
pub(super) fn make_directory(data: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(data);
    made.with_context(|| format!("`{}` cannot be made", data.display()))?;
    let mut entries = std::fs::read_dir(data)?;
    ensure!(
        entries.next().is_none(),
        "`{}` is not empty; give a new directory, or empty it if an earlier attempt failed",
        data.display()
    );
    Ok(())
}

/// The passphrase of a root's key, and whether the administrator has yet to be shown it.
pub(super) struct RootPassphrase {
    pub secret: Passphrase,
    is_new: bool,
}

impl RootPassphrase {
    pub fn choose(file: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match file {
            Some(path) => Self { secret: root_file(path).read()?, is_new: false },
            None => Self { secret: Passphrase::generate()?, is_new: true },
        })
    }

    /// Shows it if it was generated.
    pub fn show(&self) -> anyhow::Result<()> {
        if self.is_new {
            say(format_args!("Passphrase of the root's key (shown only now): {}", self.secret.reveal()))?;
        }
        Ok(())
    }
}

/// Where a root key's passphrase is.
pub(super) fn root_file(named: &Path) -> PassphraseFile {
    PassphraseFile::choose(Some(named), None, Path::new(""))
}

fn print_next_steps(
    data: &Path,
    options: &Init,
    root_directory: &Path,
    root_passphrase: &RootPassphrase,
    passphrase: &PassphraseFile,
    password: Option<&str>,
) -> anyhow::Result<()> {
    let root = Authority::root_certificate_file(data);
    say(format_args!("Made {} for {}.", data.display(), options.domain))?;
    root_passphrase.show()?;
    say("Next:")?;
    say(format_args!(
        "  1. Move {} offline; the running server does not need it.",
        root_directory.display()
    ))?;
    if let PassphraseFile::Own(path) = passphrase {
        say(format_args!("     Keep a copy of {} apart from backups of the data.", path.display()))?;
    }
    say(format_args!("  2. Give {} to agents and browsers.", root.display()))?;
    say(format_args!("  3. toktra-server serve --data {}", data.display()))?;
    say(format_args!("  4. toktra-server token create --data {}", data.display()))?;
    if let (Some(name), Some(password)) = (&options.admin, password) {
        say(format_args!("Console: {}", options.domain.api_url()))?;
        say(format_args!("Administrator: {name}"))?;
        say(format_args!("Password (shown only now): {password}"))?;
    }
    Ok(())
}
