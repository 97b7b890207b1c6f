//! `ca`: the authority's keys at rest, what is in force, and rotations in steps.
//!
//! A step is audited before it is taken: the trail never misses one, and shows beside it a step
//! that failed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use toktra_pki::rotation::{Ceremony, Dependants, Line, Status, Step, dependants};
use toktra_pki::{Authority, PassphraseFile};
use toktra_protocol::UnixSeconds;
use toktra_store::audit::{self, Deed};
use toktra_store::{Store, issuers};

use super::directory::{now, print, time};
use super::initialise::{RootPassphrase, root_file};
use super::{ACTOR, note, say};
use crate::config::Config;

/// The authority.
#[derive(Debug, Subcommand)]
pub enum Ca {
    /// Show what is in force: roots, CAs, the rotation under way and the step that can follow.
    Status,
    /// Encrypt the keys of an older data directory, which lie there in the clear.
    Encrypt {
        /// File of the root key's passphrase, if that key is still here; without it one is
        /// generated and printed once.
        #[arg(long, value_name = "FILE")]
        root_passphrase_file: Option<PathBuf>,
    },
    /// Change the passphrase of the keys that the server needs, all of them or none.
    Passphrase {
        /// File of the new passphrase, which is then to take the old one's place.
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
    },
    /// Rotate a CA in steps that can be undone until the last.
    #[command(subcommand)]
    Rotate(Rotate),
}

/// What is rotated.
#[derive(Debug, Subcommand)]
pub enum Rotate {
    /// The intermediate that issues devices: prepare, trust, issue, retire.
    Devices {
        /// The step.
        #[command(subcommand)]
        step: DevicesStep,
    },
    /// The CA that issues the hosts' certificates: prepare, issue, retire.
    Server {
        /// The step.
        #[command(subcommand)]
        step: ServerStep,
    },
    /// The root: prepare, distribute, switch, retire.
    Root {
        /// The step.
        #[command(subcommand)]
        step: RootStep,
    },
}

/// Steps for the intermediate that issues devices.
#[derive(Debug, Subcommand)]
pub enum DevicesStep {
    /// Make the next intermediate; nothing uses it yet. Needs the root's key.
    Prepare(Signing),
    /// Take devices of the next intermediate too.
    Trust(Plain),
    /// Issue with the next intermediate; devices renew as soon as they hear of it.
    Issue(Plain),
    /// Drop the old intermediate. Cannot be undone.
    Retire(Final),
    /// Undo the newest step.
    Rollback(Final),
}

/// Steps for the CA that issues the hosts' certificates.
#[derive(Debug, Subcommand)]
pub enum ServerStep {
    /// Make the next server CA; nothing uses it yet. Needs the root's key.
    Prepare(Signing),
    /// Show hosts' certificates of the next server CA.
    Issue(Plain),
    /// Drop the old server CA. Cannot be undone.
    Retire(Final),
    /// Undo the newest step.
    Rollback(Final),
}

/// Steps for the root.
#[derive(Debug, Subcommand)]
pub enum RootStep {
    /// Make the next root, certified by the old one. Needs the old root's key.
    Prepare(NewRoot),
    /// Give devices the next root beside the old one.
    Distribute(Plain),
    /// Put the CAs under the next root. Needs the next root's key.
    Switch(Signing),
    /// Drop the old root. Cannot be undone.
    Retire(Final),
    /// Undo the newest step.
    Rollback(Final),
}

/// Options of a step.
#[derive(Debug, Args)]
pub struct Plain {
    /// Say what the step would do, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Options of a step that a root's key signs.
#[derive(Debug, Args)]
pub struct Signing {
    /// Directory that holds the root's key; `root` in the data directory if left out.
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// File of the root key's passphrase (`-`: standard input).
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
    /// Say what the step would do, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Options of the making of a root.
#[derive(Debug, Args)]
pub struct NewRoot {
    /// The old root's key.
    #[command(flatten)]
    signing: Signing,
    /// Directory for the next root's key; the old one's if left out.
    #[arg(long, value_name = "DIRECTORY")]
    root_out: Option<PathBuf>,
    /// File of the next root key's passphrase; without it one is generated and printed once.
    #[arg(long, value_name = "FILE")]
    new_root_passphrase_file: Option<PathBuf>,
}

/// Options of a step that takes something from devices.
#[derive(Debug, Args)]
pub struct Final {
    /// Take the step although devices would have to be enrolled anew.
    #[arg(long)]
    force: bool,
    /// Say what the step would do, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A step of a line with all that was given with it.
#[derive(Debug)]
struct Order {
    line: Line,
    step: Step,
    root: Option<PathBuf>,
    root_passphrase_file: Option<PathBuf>,
    root_out: Option<PathBuf>,
    new_root_passphrase_file: Option<PathBuf>,
    force: bool,
    dry_run: bool,
}

/// Runs a command.
pub async fn run(data: &Path, passphrase: &PassphraseFile, command: Ca) -> anyhow::Result<()> {
    match command {
        Ca::Status => status(data),
        Ca::Encrypt { root_passphrase_file } => {
            encrypt(data, passphrase, root_passphrase_file.as_deref()).await
        }
        Ca::Passphrase { new } => change_passphrase(data, passphrase, &new).await,
        Ca::Rotate(rotate) => take(data, passphrase, rotate.into()).await,
    }
}

fn status(data: &Path) -> anyhow::Result<()> {
    Config::read(data)?;
    let status = Status::read(data)?;
    let rows = status.certificates.iter().map(|one| {
        let until = time(one.not_after.0);
        [one.line.name().to_owned(), one.role.to_owned(), one.name.clone(), until, one.id.clone()]
    });
    print(["line", "state", "name", "valid until", "key"], rows)?;
    if let Some(at) = status.renew_before {
        say(format_args!("Devices renew certificates that began before {}.", time(at.0)))?;
    }
    match status.rotation {
        Some((line, phase, since, next)) => {
            let line = line.name();
            say(format_args!("The rotation of `{line}` is {} since {}.", phase.name(), time(since.0)))?;
            say(format_args!("Next: `ca rotate {line} {}`, or `ca rotate {line} rollback`.", next.name()))?;
        }
        None => say("No rotation is under way.")?,
    }
    for key in &status.plain_keys {
        note(format_args!("{} lies in the clear; run `toktra-server ca encrypt`.", key.display()))?;
    }
    Ok(())
}

async fn encrypt(data: &Path, file: &PassphraseFile, root_file: Option<&Path>) -> anyhow::Result<()> {
    let store = super::open(data).await?;
    // Another passphrase than the one that is missing would open nothing.
    let (passphrase, is_new) =
        if Authority::is_encrypted(data)? { (file.read()?, false) } else { file.read_or_make()? };
    let root = RootPassphrase::choose(root_file)?;
    record(&store, "ca_encrypt", "authority", "", now()).await?;
    let encrypted = Authority::encrypt(data, &passphrase, &root.secret)?;
    for path in &encrypted {
        say(format_args!("Encrypted {}.", path.display()))?;
    }
    if encrypted.is_empty() {
        return say("Every key was encrypted already; nothing was changed.");
    }
    if let (true, PassphraseFile::Own(path)) = (is_new, file) {
        say(format_args!("Made {}; keep a copy of it apart from backups of the data.", path.display()))?;
    }
    if encrypted.iter().any(|path| path.starts_with(Authority::offline_directory(data))) {
        root.show()?;
    }
    say("Older backups and deleted blocks of the disk still hold the keys in the clear.")
}

async fn change_passphrase(data: &Path, file: &PassphraseFile, new: &Path) -> anyhow::Result<()> {
    let store = super::open(data).await?;
    let (old, secret) = (file.read()?, root_file(new).read()?);
    record(&store, "ca_passphrase", "authority", "", now()).await?;
    let changed = Authority::change_passphrase(data, &old, &secret)?;
    say(format_args!("{changed} keys have the passphrase in {} now.", new.display()))?;
    say(
        "Put it in the place of the old one before the next restart or rotation, and keep a copy apart from backups.",
    )?;
    say(
        "Older backups still open with the old passphrase. Who had both has the keys: rotate `devices` and `server`.",
    )
}

async fn take(data: &Path, passphrase: &PassphraseFile, order: Order) -> anyhow::Result<()> {
    let domain = Config::read(data)?.domain;
    let store = super::open(data).await?;
    let (line, step) = (order.line, order.step);
    let hanging = hanging_devices(&store, data, &order).await?;
    let root_directory = order.root.clone().unwrap_or_else(|| Authority::offline_directory(data));
    let next_root = RootPassphrase::choose(order.new_root_passphrase_file.as_deref())?;
    let root_passphrase = order.root_passphrase_file.as_deref().map(root_file);
    let ceremony = Ceremony {
        data,
        domain: &domain,
        passphrase,
        root_directory: &root_directory,
        root_passphrase: root_passphrase.as_ref(),
        next_root_directory: order.root_out.as_deref().unwrap_or(&root_directory),
        next_root_passphrase: &next_root.secret,
    };
    if order.dry_run {
        say("This is what the step would do; nothing is changed:")?;
        return ceremony.rehearse(line, step, now())?.into_iter().try_for_each(say);
    }
    let action = format!("ca_rotate_{}", step.name());
    let detail = if hanging > 0 { format!("forced; {hanging} devices lost") } else { String::new() };
    record(&store, &action, line.name(), &detail, now()).await?;
    match ceremony.take(line, step, now()) {
        Ok(said) => said.into_iter().try_for_each(say)?,
        Err(error) => {
            record(&store, "ca_rotate_failed", line.name(), &error.to_string(), now()).await?;
            return Err(error.into());
        }
    }
    if (line, step) == (Line::Root, Step::Prepare) {
        next_root.show()?;
    }
    Ok(())
}

/// How many devices would have to be enrolled anew. An error where there are some and the step
/// is not forced.
async fn hanging_devices(store: &Store, data: &Path, order: &Order) -> anyhow::Result<i64> {
    let (line, step) = (order.line.name(), order.step.name());
    let hanging = match dependants(data, order.line, order.step)? {
        Dependants::None => return Ok(0),
        Dependants::OfIssuer(issuer) => issuers::devices_of(store, &issuer, now()).await?,
        Dependants::NotToldOf(root) => issuers::devices_not_told_of(store, &root, now()).await?,
    };
    let (current, expired) = (hanging.current, hanging.recoverable);
    match current + expired {
        0 => Ok(0),
        all if order.force => {
            note(format_args!("{all} devices will have to be enrolled anew."))?;
            Ok(all)
        }
        all if order.dry_run => {
            note(format_args!("{all} devices hang on it: the step would be refused without --force."))?;
            Ok(all)
        }
        all => bail!(
            "{all} devices hang on what `{line} {step}` drops: {current} with a valid certificate, {expired} \
             with an expired one that they can still renew. Wait until they have renewed, revoke those that \
             will not come back, or take the step with --force and enrol them anew"
        ),
    }
}

async fn record(
    store: &Store,
    action: &str,
    subject: &str,
    detail: &str,
    now: UnixSeconds,
) -> anyhow::Result<()> {
    let deed = Deed { organisation: None, actor: ACTOR, action, subject, detail };
    audit::record_alone(store, now, deed).await.context("the step could not be audited, so it was not taken")
}

impl From<Rotate> for Order {
    fn from(rotate: Rotate) -> Self {
        match rotate {
            Rotate::Devices { step } => match step {
                DevicesStep::Prepare(options) => Self::signed(Line::Devices, Step::Prepare, options),
                DevicesStep::Trust(options) => Self::plain(Line::Devices, Step::Trust, &options),
                DevicesStep::Issue(options) => Self::plain(Line::Devices, Step::Issue, &options),
                DevicesStep::Retire(options) => Self::last(Line::Devices, Step::Retire, &options),
                DevicesStep::Rollback(options) => Self::last(Line::Devices, Step::Rollback, &options),
            },
            Rotate::Server { step } => match step {
                ServerStep::Prepare(options) => Self::signed(Line::Server, Step::Prepare, options),
                ServerStep::Issue(options) => Self::plain(Line::Server, Step::Issue, &options),
                ServerStep::Retire(options) => Self::last(Line::Server, Step::Retire, &options),
                ServerStep::Rollback(options) => Self::last(Line::Server, Step::Rollback, &options),
            },
            Rotate::Root { step } => match step {
                RootStep::Prepare(options) => Self {
                    root_out: options.root_out,
                    new_root_passphrase_file: options.new_root_passphrase_file,
                    ..Self::signed(Line::Root, Step::Prepare, options.signing)
                },
                RootStep::Distribute(options) => Self::plain(Line::Root, Step::Distribute, &options),
                RootStep::Switch(options) => Self::signed(Line::Root, Step::Switch, options),
                RootStep::Retire(options) => Self::last(Line::Root, Step::Retire, &options),
                RootStep::Rollback(options) => Self::last(Line::Root, Step::Rollback, &options),
            },
        }
    }
}

impl Order {
    fn plain(line: Line, step: Step, options: &Plain) -> Self {
        Self {
            line,
            step,
            root: None,
            root_passphrase_file: None,
            root_out: None,
            new_root_passphrase_file: None,
            force: false,
            dry_run: options.dry_run,
        }
    }

    fn last(line: Line, step: Step, options: &Final) -> Self {
        Self { force: options.force, ..Self::plain(line, step, &Plain { dry_run: options.dry_run }) }
    }

    fn signed(line: Line, step: Step, options: Signing) -> Self {
        Self {
            root: options.root,
            root_passphrase_file: options.root_passphrase_file,
            ..Self::plain(line, step, &Plain { dry_run: options.dry_run })
        }
    }
}
