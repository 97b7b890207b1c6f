//! Commands on how long data is kept.

use anyhow::ensure;
use clap::Subcommand;
use toktra_store::Store;
use toktra_store::retention::{
    self, BUDGET_DAYS, ENROLMENT_DAYS, EVENTS_RANGE, PERSONAL_RANGE, SPEND_DAYS, Settings, USAGE_RANGE,
    WAITING_DAYS,
};

use super::ACTOR;
use super::arguments::InOrganisation;
use super::directory::{now, organisation_of, print};

/// How long data is kept.
#[derive(Debug, Subcommand)]
pub enum Retention {
    /// Show what is kept for how long.
    Show {
        /// Whose.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Change it. What is left out stays as it is; the running server acts on it within an hour.
    Set {
        /// Raw events, counted from when they came, for example `30d`.
        #[arg(long, value_name = "DAYS", value_parser = days, required_unless_present_any = ["usage", "personal"])]
        events: Option<u32>,
        /// Hourly sums by account, application and service, for example `761d`.
        #[arg(long, value_name = "DAYS", value_parser = days)]
        usage: Option<u32>,
        /// Sealed personal records, in months after the one in which they came, for example `13m`.
        #[arg(long, value_name = "MONTHS", value_parser = months)]
        personal: Option<u32>,
        /// Whose.
        #[command(flatten)]
        within: InOrganisation,
    },
}

pub async fn retention(store: &Store, command: Retention) -> anyhow::Result<()> {
    match command {
        Retention::Show { within } => {
            let organisation = organisation_of(store, &within).await?;
            show(&retention::settings(store, &organisation).await?)
        }
        Retention::Set { events, usage, personal, within } => {
            let organisation = organisation_of(store, &within).await?;
            let known = retention::settings(store, &organisation).await?;
            let settings = Settings {
                events_days: events.unwrap_or(known.events_days),
                usage_days: usage.unwrap_or(known.usage_days),
                personal_months: personal.unwrap_or(known.personal_months),
            };
            ensure!(
                settings.are_possible(),
                "events are kept {} to {} days, their hourly sums {} to {} and no shorter than events, \
                 sealed personal records {} to {} months",
                EVENTS_RANGE.start(),
                EVENTS_RANGE.end(),
                USAGE_RANGE.start(),
                USAGE_RANGE.end(),
                PERSONAL_RANGE.start(),
                PERSONAL_RANGE.end(),
            );
            retention::set(store, &organisation, settings, ACTOR, now()).await?;
            show(&settings)
        }
    }
}

fn show(settings: &Settings) -> anyhow::Result<()> {
    let days = |days: u32| format!("{days} days");
    let rows = [
        ("raw events", days(settings.events_days), "after they came"),
        ("hourly sums", days(settings.usage_days), "after the hour; a total of each device stays"),
        ("daily sums", days(SPEND_DAYS), "after the day; a total of each scope stays"),
        ("sessions", "-".to_owned(), "until they expire"),
        ("enrolment tokens, requests", days(ENROLMENT_DAYS), "after the token's expiry and the decision"),
        ("budget alerts, exemptions", days(BUDGET_DAYS), "after they are over"),
        ("exemptions nobody decided", days(WAITING_DAYS), "after they were asked for"),
        (
            "sealed personal records",
            format!("{} months", settings.personal_months),
            "after the month in which they came, or until who sent them leaves",
        ),
        ("audit trail", "-".to_owned(), "for good: it is a chain"),
    ];
    print(["what", "kept", "counted"], rows.map(|(what, kept, counted)| [what.into(), kept, counted.into()]))
}

/// Whole days as people write them: `30d`.
fn days(text: &str) -> Result<u32, String> {
    whole(text, 'd').ok_or_else(|| format!("`{text}` is not a number of days such as 30d"))
}

/// Whole months: `13m`.
fn months(text: &str) -> Result<u32, String> {
    whole(text, 'm').ok_or_else(|| format!("`{text}` is not a number of months such as 13m"))
}

fn whole(text: &str, unit: char) -> Option<u32> {
    let digits = text.strip_suffix(unit)?;
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if only_digits { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_have_their_unit() {
        assert_eq!(days("30d"), Ok(30));
        for bad in ["", "d", "30", "1.5d", "-1d", "+1d", "30h", "99999999999d", "३d"] {
            assert!(days(bad).is_err(), "{bad}");
        }
    }
}
