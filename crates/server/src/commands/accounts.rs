//! Commands on the console's accounts, and where their passwords come from. A password
//! is read from a file or made here, hashed at once, and shown only if it was made here.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use toktra_store::directory::{self, Department, Organisation};
use toktra_store::roles::{self, Role};
use toktra_store::{Store, accounts};
use zeroize::Zeroizing;

use super::arguments::InOrganisation;
use super::directory::{now, organisation_of, print, time};
use super::{ACTOR, note, say};
use crate::console::NAME_LIMIT;
use crate::password;

/// Accounts of the console.
#[derive(Debug, Subcommand)]
pub enum Account {
    /// List them.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Make one.
    Make {
        /// What they type to sign in; unique over all organisations.
        name: String,
        /// What they may do: owner, admin, budget-owner or auditor.
        #[arg(long, value_parser = role)]
        role: Role,
        /// A department whose budgets, exemptions and people a budget owner keeps, with those below it;
        /// may be given more than once.
        #[arg(long = "department", value_name = "DEPARTMENT")]
        departments: Vec<String>,
        /// Where their password is.
        #[command(flatten)]
        password: PasswordSource,
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Give one another role, at once in its sessions, too.
    Role {
        /// Their name.
        name: String,
        /// What they may do: owner, admin, budget-owner or auditor.
        #[arg(value_parser = role)]
        role: Role,
        /// As in `make`.
        #[arg(long = "department", value_name = "DEPARTMENT")]
        departments: Vec<String>,
    },
    /// Give a budget owner these departments in place of those before.
    Departments {
        /// Their name.
        name: String,
        /// Names of departments; those below them are theirs, too.
        #[arg(required = true)]
        departments: Vec<String>,
    },
    /// End its sessions and let nobody sign in with it.
    Disable {
        /// Their name.
        name: String,
    },
    /// Let a disabled one sign in again.
    Enable {
        /// Their name.
        name: String,
    },
    /// Set a new password: ends its sessions and lifts a lock-out.
    Reset {
        /// Their name.
        name: String,
        /// Where the password is.
        #[command(flatten)]
        password: PasswordSource,
    },
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub struct PasswordSource {
    /// File with the password (`-` for standard input); without it one is generated and printed once.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
}

pub async fn account(store: &Store, command: Account) -> anyhow::Result<()> {
    match command {
        Account::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let all = accounts::administrators(store, &organisation.id).await?;
            print(["name", "role", "since", "state"], all.into_iter().map(row))
        }
        Account::Make { name, role, departments, password, within } => {
            let (name, organisation) = (checked_name(&name)?, organisation_of(store, &within).await?);
            let departments = departments_for(store, &organisation, role, &departments).await?;
            let password = NewPassword::choose(password.password_file.as_deref())?;
            let hash = password.hash();
            let new = (name.as_str(), role, departments.as_slice());
            accounts::create_administrator(store, &organisation, new, hash, ACTOR, now()).await?;
            password.show(&name)
        }
        Account::Role { name, role, departments } => {
            let organisation = accounts::organisation_of(store, &name).await?;
            let departments = departments_for(store, &organisation, role, &departments).await?;
            Ok(roles::set_role(store, &name, role, &departments, ACTOR, now()).await?)
        }
        Account::Departments { name, departments } => {
            let organisation = accounts::organisation_of(store, &name).await?;
            let all = accounts::administrators(store, &organisation.id).await?;
            let keeps = all.iter().any(|row| row.name == name && row.role == Role::BudgetOwner);
            ensure!(
                keeps,
                "only a budget owner has departments; \
                 make {name} one with `account role {name} budget-owner --department D`"
            );
            let departments = departments_for(store, &organisation, Role::BudgetOwner, &departments).await?;
            Ok(roles::set_role(store, &name, Role::BudgetOwner, &departments, ACTOR, now()).await?)
        }
        Account::Disable { name } => Ok(roles::disable(store, &name, ACTOR, now()).await?),
        Account::Enable { name } => Ok(roles::enable(store, &name, ACTOR, now()).await?),
        Account::Reset { name, password } => {
            let password = NewPassword::choose(password.password_file.as_deref())?;
            accounts::set_password(store, &name, password.hash(), ACTOR, now()).await?;
            password.show(&name)
        }
    }
}

fn row(row: accounts::Administrator) -> [String; 4] {
    let at = |column: i64| u64::try_from(column).unwrap_or_default();
    let locked = row.locked_until.map(at).filter(|&until| until > now().0);
    let state = match (row.disabled_at, locked) {
        (Some(since), _) => format!("disabled since {}", time(at(since))),
        (None, Some(until)) => format!("locked until {}", time(until)),
        (None, None) => "-".into(),
    };
    let role = match row.departments {
        Some(departments) => format!("{} of {departments}", row.role.name()),
        None => row.role.name().to_owned(),
    };
    [row.name, role, time(at(row.created_at)), state]
}

fn role(name: &str) -> Result<Role, String> {
    Role::named(name).ok_or_else(|| "a role is owner, admin, budget-owner or auditor".to_owned())
}

/// The departments of these names, which a budget owner must have and nobody else may.
async fn departments_for(
    store: &Store,
    organisation: &Organisation,
    role: Role,
    names: &[String],
) -> anyhow::Result<Vec<Department>> {
    ensure!(
        (role == Role::BudgetOwner) != names.is_empty(),
        "a budget owner has departments, and nobody else has; name them with --department"
    );
    let mut departments = Vec::new();
    for name in names {
        departments.push(directory::department(store, &organisation.id, name).await?);
    }
    Ok(departments)
}

/// A name as the sign-in will look it up.
pub(super) fn checked_name(name: &str) -> anyhow::Result<String> {
    let name = name.trim();
    let fits = (1..=NAME_LIMIT).contains(&name.len()) && !name.chars().any(char::is_control);
    ensure!(fits, "an account's name has 1 to {NAME_LIMIT} bytes and no control characters; give another");
    Ok(name.to_owned())
}

/// A password that is about to be set.
pub(super) struct NewPassword {
    hash: String,
    generated: Option<Zeroizing<String>>,
}

impl NewPassword {
    /// Reads it from the file, or generates one.
    pub(super) fn choose(file: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(file) = file {
            return Ok(Self { hash: password::hash(&read(file)?)?, generated: None });
        }
        let made = password::generate()?;
        Ok(Self { hash: password::hash(&made)?, generated: Some(made) })
    }

    /// What is stored.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// What has to be shown, once.
    pub(super) fn generated(&self) -> Option<&str> {
        self.generated.as_ref().map(|password| password.as_str())
    }

    /// Prints a generated password, alone, on standard output.
    fn show(&self, name: &str) -> anyhow::Result<()> {
        let Some(password) = self.generated() else { return Ok(()) };
        note(format_args!("The password of {name} is below; it is not shown again."))?;
        say(password)
    }
}

fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let limit = password::LONGEST as u64 + 3;
    if file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text)?;
    } else {
        let opened = std::fs::File::open(file);
        let file = opened.with_context(|| format!("`{}` cannot be read", file.display()))?;
        file.take(limit).read_to_string(&mut text)?;
    }
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    let (shortest, longest) = (password::SHORTEST, password::LONGEST);
    ensure!(
        (shortest..=longest).contains(&password.len()),
        "the password must have {shortest} to {longest} bytes"
    );
    Ok(password)
}
