//! Commands on the console's administrators, and where their passwords come from. A password
//! is read from a file or made here, hashed at once, and shown only if it was made here.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use toktra_store::{Store, accounts};
use zeroize::Zeroizing;

use super::arguments::Admin;
use super::directory::{now, organisation_of, print, time};
use super::{ACTOR, note, say};
use crate::console::NAME_LIMIT;
use crate::password;

pub async fn admin(store: &Store, command: Admin) -> anyhow::Result<()> {
    match command {
        Admin::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let rows = accounts::administrators(store, &organisation.id).await?.into_iter().map(|row| {
                let at = |column: i64| u64::try_from(column).unwrap_or_default();
                let locked = row.locked_until.map(at).filter(|&until| until > now().0);
                [row.name, time(at(row.created_at)), locked.map_or("-".into(), time)]
            });
            print(["name", "since", "locked until"], rows)
        }
        Admin::Add { name, password, within } => {
            let (name, organisation) = (checked_name(&name)?, organisation_of(store, &within).await?);
            let password = NewPassword::choose(password.password_file.as_deref())?;
            accounts::create_administrator(store, &organisation, &name, password.hash(), ACTOR, now())
                .await?;
            password.show(&name)
        }
        Admin::Password { name, password } => {
            let password = NewPassword::choose(password.password_file.as_deref())?;
            accounts::set_password(store, &name, password.hash(), ACTOR, now()).await?;
            password.show(&name)
        }
    }
}

/// A name as the sign-in will look it up.
pub(super) fn checked_name(name: &str) -> anyhow::Result<String> {
    let name = name.trim();
    let fits = (1..=NAME_LIMIT).contains(&name.len()) && !name.chars().any(char::is_control);
    ensure!(
        fits,
        "an administrator's name has 1 to {NAME_LIMIT} bytes and no control characters; give another"
    );
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
