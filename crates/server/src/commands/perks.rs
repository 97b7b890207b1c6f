//! Commands on Token Perks: tiers, who is enrolled, bonuses, and the sums of finished months.

use anyhow::bail;
use clap::{Args, Subcommand};
use toktra_protocol::budget::Unit;
use toktra_protocol::directive::FF_TOKEN_PERKS;
use toktra_protocol::personal::Month;
use toktra_store::directory::{self, Organisation};
use toktra_store::perks::{self, Beneficiary, TierTerms};
use toktra_store::{Store, flags};

use super::arguments::InOrganisation;
use super::directory::{now, organisation_of, print};
use super::{ACTOR, note, say};
use crate::amount;

/// Token Perks: what people may use personally.
#[derive(Debug, Subcommand)]
pub enum Perks {
    /// Tiers, each with tokens of a month.
    #[command(subcommand)]
    Tier(Tier),
    /// Enrol a user in a tier, or move them to another; whether they opt in is theirs to decide.
    Enrol {
        /// Their address.
        email: String,
        /// Name of the tier.
        #[arg(long)]
        tier: String,
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// End a user's enrolment, at once; what they recorded stays theirs to list and to delete.
    Remove {
        /// Their address.
        email: String,
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Give tokens besides for a month, in place of what was given before; 0 takes them back.
    Bonus {
        /// How many.
        #[arg(value_parser = amount::tokens)]
        tokens: u64,
        /// To whom.
        #[command(flatten)]
        to: To,
        /// Which month, for example `2026-12`; this one if left out.
        #[arg(long)]
        month: Option<Month>,
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// List who is enrolled; nobody is told who uses it.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Print the sums of finished months, each over at least five people.
    Sums {
        /// Whose.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Tiers.
#[derive(Debug, Subcommand)]
pub enum Tier {
    /// List them.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Add one.
    Add {
        /// Its name; unique in the organisation.
        name: String,
        /// Tokens of every month, for example 2_000_000.
        #[arg(long, value_parser = amount::tokens)]
        monthly: u64,
        /// Most that a month may leave to the next; none if left out.
        #[arg(long, value_parser = amount::tokens, default_value = "0")]
        rollover: u64,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Change one, from this month on. What is left out stays as it is.
    Set {
        /// Its name.
        name: String,
        /// Tokens of every month.
        #[arg(long, value_parser = amount::tokens, required_unless_present = "rollover")]
        monthly: Option<u64>,
        /// Most that a month may leave to the next.
        #[arg(long, value_parser = amount::tokens)]
        rollover: Option<u64>,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Remove one in which nobody is enrolled.
    Remove {
        /// Its name.
        name: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// To whom a bonus goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct To {
    /// Address of a user.
    #[arg(long)]
    pub user: Option<String>,
    /// Name of a tier: to everyone in it.
    #[arg(long)]
    pub tier: Option<String>,
}

pub async fn perks(store: &Store, command: Perks) -> anyhow::Result<()> {
    match command {
        Perks::Tier(command) => tier(store, command).await,
        Perks::Enrol { email, tier, within } => {
            let organisation = organisation_of(store, &within).await?;
            let user = directory::user(store, &organisation.id, &email).await?;
            let tier = perks::tier(store, &organisation, &tier, now()).await?;
            perks::enrol(store, &organisation, &user, &tier, ACTOR, now()).await?;
            warn_without_flag(store, &organisation).await
        }
        Perks::Remove { email, within } => {
            let organisation = organisation_of(store, &within).await?;
            let user = directory::user(store, &organisation.id, &email).await?;
            Ok(perks::remove(store, &organisation, &user, ACTOR, now()).await?)
        }
        Perks::Bonus { tokens, to, month, within } => {
            let organisation = organisation_of(store, &within).await?;
            bonus(store, &organisation, &to, (month, tokens)).await
        }
        Perks::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let enrolled = perks::enrolled(store, &organisation, now()).await?;
            let rows = enrolled.into_iter().map(|row| [row.email, row.tier, tokens(row.bonus_tokens)]);
            print(["email", "tier", "own bonus this month"], rows)
        }
        Perks::Sums { within } => {
            let organisation = organisation_of(store, &within).await?;
            let sums = perks::sums(store, &organisation).await?;
            if sums.is_empty() {
                note(
                    "no finished month has a sum: each needs at least five people, and a week after its end",
                )?;
            }
            let rows = sums.into_iter().map(|sum| [sum.month.to_string(), sum.of, tokens(sum.tokens)]);
            print(["month", "tier", "used"], rows)
        }
    }
}

async fn tier(store: &Store, command: Tier) -> anyhow::Result<()> {
    match command {
        Tier::List { within } => {
            let organisation = organisation_of(store, &within).await?;
            let tiers = perks::tiers(store, &organisation, now()).await?;
            let rows = tiers.into_iter().map(|tier| {
                [
                    tier.name,
                    tokens(tier.terms.monthly_tokens),
                    tokens(tier.terms.rollover_tokens),
                    tokens(tier.bonus_tokens),
                    tier.enrolled.to_string(),
                ]
            });
            print(["tier", "a month", "may roll over", "bonus this month", "enrolled"], rows)
        }
        Tier::Add { name, monthly, rollover, within } => {
            let organisation = organisation_of(store, &within).await?;
            let terms = TierTerms { monthly_tokens: monthly, rollover_tokens: rollover };
            Ok(perks::add_tier(store, &organisation, &name, terms, ACTOR, now()).await?)
        }
        Tier::Set { name, monthly, rollover, within } => {
            let organisation = organisation_of(store, &within).await?;
            let known = perks::tier(store, &organisation, &name, now()).await?;
            let terms = TierTerms {
                monthly_tokens: monthly.unwrap_or(known.terms.monthly_tokens),
                rollover_tokens: rollover.unwrap_or(known.terms.rollover_tokens),
            };
            Ok(perks::set_tier(store, &organisation, &known, terms, ACTOR, now()).await?)
        }
        Tier::Remove { name, within } => {
            let organisation = organisation_of(store, &within).await?;
            let known = perks::tier(store, &organisation, &name, now()).await?;
            Ok(perks::remove_tier(store, &organisation, &known, ACTOR, now()).await?)
        }
    }
}

async fn bonus(
    store: &Store,
    organisation: &Organisation,
    to: &To,
    given: (Option<Month>, u64),
) -> anyhow::Result<()> {
    let (user, tier);
    let to = match (&to.user, &to.tier) {
        (Some(email), None) => {
            user = directory::user(store, &organisation.id, email).await?;
            Beneficiary::User(&user)
        }
        (None, Some(name)) => {
            tier = perks::tier(store, organisation, name, now()).await?;
            Beneficiary::Tier(&tier)
        }
        _ => bail!("name a --user or a --tier"),
    };
    say(perks::set_bonus(store, organisation, to, given, ACTOR, now()).await?)
}

async fn warn_without_flag(store: &Store, organisation: &Organisation) -> anyhow::Result<()> {
    if flags::of_organisation(store, organisation).await?.get(FF_TOKEN_PERKS) == Some(&true) {
        return Ok(());
    }
    note(format_args!("nobody has personal mode until `toktra-server flag set {FF_TOKEN_PERKS} on`"))
}

fn tokens(number: u64) -> String {
    amount::text(number, Unit::Tokens)
}
