//! What the command line takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use toktra_protocol::{DeviceId, ToktraDomain};

/// The Toktra backend: authority, enrolment, ingest, directives and console.
#[derive(Debug, Parser)]
#[command(name = "toktra-server", version)]
pub struct Arguments {
    /// Data directory: database, authority, settings.
    #[arg(long, global = true, env = "TOKTRA_DATA", default_value = "/var/lib/toktra-server")]
    pub data: PathBuf,
    /// File of the CA keys' passphrase (`-`: standard input). Without it: systemd's credential
    /// `passphrase`, else `DIR.passphrase` beside the data directory.
    #[arg(long, global = true, env = "TOKTRA_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a data directory: authority, database, first organisation and administrator.
    Init(Init),
    /// Serve the three hosts until SIGTERM.
    Serve {
        /// Address and port; port 0 takes a free one and prints it.
        #[arg(long, default_value = "[::]:443")]
        listen: SocketAddr,
        /// Address and port of a listener for metrics and health, in plain HTTP: reachable for
        /// those alone who may read them. None if left out.
        #[arg(long, value_name = "ADDRESS:PORT")]
        metrics: Option<SocketAddr>,
    },
    /// Enrolment tokens.
    #[command(subcommand)]
    Token(super::tokens::Token),
    /// Organisations.
    #[command(subcommand)]
    Org(Org),
    /// Departments.
    #[command(subcommand)]
    Department(Department),
    /// Users.
    #[command(subcommand)]
    User(User),
    /// Accounts of the console.
    #[command(subcommand)]
    Account(super::accounts::Account),
    /// Devices.
    #[command(subcommand)]
    Device(super::devices::Device),
    /// The authority: its keys at rest, what is in force, rotations.
    #[command(subcommand)]
    Ca(super::authority::Ca),
    /// Prices of models, and which of them the organisation says it uses.
    #[command(subcommand)]
    Price(super::prices::Price),
    /// Budgets.
    #[command(subcommand)]
    Budget(super::budget::Budget),
    /// Exemptions from budgets.
    #[command(subcommand)]
    Exemption(super::exemption::Exemption),
    /// Token Perks: what people may use personally.
    #[command(subcommand)]
    Perks(super::perks::Perks),
    /// Feature flags.
    #[command(subcommand)]
    Flag(super::exemption::Flag),
    /// Block every provider on a user's devices or on one device, until unlocked.
    Lock {
        /// Whom.
        #[command(flatten)]
        whom: super::exemption::Whom,
        /// What to tell the user.
        #[arg(long)]
        message: String,
    },
    /// Lift a lock.
    Unlock {
        /// Whose.
        #[command(flatten)]
        whom: super::exemption::Whom,
    },
    /// Print a device's events, one JSON object a line, at most 10,000 at once.
    Events {
        /// The device's identifier.
        device: DeviceId,
        /// Only those beyond this sequence number.
        #[arg(long, default_value_t = 0)]
        after: i64,
    },
    /// Balance the ledger against the events, one JSON object for each device; fails if one is uneven.
    Check,
    /// How long data is kept.
    #[command(subcommand)]
    Retention(super::retention::Retention),
    /// Copy database, authority and settings into a new directory, also while the server runs.
    Backup {
        /// The directory; new or empty.
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
    },
    /// Make the data directory, which must be new or empty, out of a backup.
    Restore {
        /// The directory that `backup` made.
        #[arg(long, value_name = "DIRECTORY")]
        from: PathBuf,
    },
    /// Fill a new data directory with a believable organisation, for trials and pictures.
    DemoData(super::demo::DemoData),
    /// Show the newest rows of the audit trail, or verify its chain.
    Audit(super::audit::Audit),
    /// Print a shell's completions.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        directory: PathBuf,
    },
}

/// Options of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The domain under which `api.`, `ingest.` and `updates.` live, with a port if it is not 443.
    #[arg(long)]
    pub domain: ToktraDomain,
    /// Name of the first organisation.
    #[arg(long)]
    pub organisation: String,
    /// Name of its first console administrator.
    #[arg(long)]
    pub admin: Option<String>,
    /// File with the administrator's password (`-` for standard input); without it one is
    /// generated and printed once.
    #[arg(long, requires = "admin")]
    pub password_file: Option<PathBuf>,
    /// Directory for the root's key, for example on a medium that is taken offline; `root` in the
    /// data directory if left out.
    #[arg(long, value_name = "DIRECTORY")]
    pub root_out: Option<PathBuf>,
    /// File of the root key's passphrase; without it one is generated and printed once.
    #[arg(long, value_name = "FILE")]
    pub root_passphrase_file: Option<PathBuf>,
}

/// Which organisation, where there is more than one.
#[derive(Debug, Args)]
pub struct InOrganisation {
    /// Name of the organisation; may be left out where there is only one.
    #[arg(long)]
    pub organisation: Option<String>,
}

/// Organisations.
#[derive(Debug, Subcommand)]
pub enum Org {
    /// List them.
    List,
    /// Add one.
    Add {
        /// Its name.
        name: String,
    },
    /// Change one.
    Set {
        /// Name of the time zone that its days are in, for example `Europe/Berlin`.
        #[arg(long)]
        time_zone: String,
        /// Which.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Departments.
#[derive(Debug, Subcommand)]
pub enum Department {
    /// List them.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Add one.
    Add {
        /// Its name.
        name: String,
        /// Name of the department that it is part of.
        #[arg(long)]
        parent: Option<String>,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Make one part of another; what it has spent goes with it.
    Move {
        /// Its name.
        name: String,
        /// Name of the department that it is then part of; none if left out.
        #[arg(long)]
        parent: Option<String>,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Block providers on every device of the department.
    Block {
        /// Its name.
        name: String,
        /// What to tell the users.
        #[arg(long)]
        message: String,
        /// Identifiers of providers, separated by commas; all providers if left out.
        #[arg(long, value_delimiter = ',')]
        providers: Vec<String>,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Lift the block.
    Unblock {
        /// Its name.
        name: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Users.
#[derive(Debug, Subcommand)]
pub enum User {
    /// List them.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Add one.
    Add {
        /// Their address.
        email: String,
        /// Name of their department.
        #[arg(long)]
        department: Option<String>,
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Longest validity of a token.
const LONGEST_S: u64 = 90 * 24 * 60 * 60;

/// A length of time as people write it, in seconds.
pub fn duration_s(text: &str) -> Result<u64, String> {
    let hint = || format!("`{text}` is not a time such as 30m, 24h or 7d, of at most 90 days");
    let unit_s = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => return Err(hint()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| hint())?;
    match number.checked_mul(unit_s) {
        Some(seconds) if (1..=LONGEST_S).contains(&seconds) => Ok(seconds),
        _ => Err(hint()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_their_unit_and_a_limit() {
        assert_eq!(duration_s("24h"), Ok(86_400));
        assert_eq!(duration_s("1s"), Ok(1));
        for bad in ["", "h", "24", "0h", "-1h", "91d", "99999999999999999999h", "1é"] {
            assert!(duration_s(bad).is_err(), "{bad}");
        }
    }
}
