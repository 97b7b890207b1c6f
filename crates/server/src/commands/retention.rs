//! Commands on how long data is kept.

use anyhow::ensure;
use clap::Subcommand;
use toktra_store::Store;
use toktra_store::retention::{
    self, BUDGET_DAYS, ENROLMENT_DAYS, EVENTS_RANGE, SPEND_DAYS, Settings, USAGE_RANGE, WAITING_DAYS,
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
        #[arg(long, value_name = "DAYS", value_parser = days, required_unless_present = "usage")]
        events: Option<u32>,
        /// Hourly sums by account, application and service, for example `761d`.
        #[arg(long, value_name = "DAYS", value_parser = days)]
        usage: Option<u32>,
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
        Retention::Set { events, usage, within } => {
            let organisation = organisation_of(store, &within).await?;
            let known = retention::settings(store, &organisation).await?;
            let settings = Settings {
                events_days: events.unwrap_or(known.events_days),
                usage_days: usage.unwrap_or(known.usage_days),
            };
            ensure!(
                settings.are_possible(),
                "events are kept {} to {} days, their hourly sums {} to {} and no shorter than events",
                EVENTS_RANGE.start(),
                EVENTS_RANGE.end(),
                USAGE_RANGE.start(),
                USAGE_RANGE.end(),
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
        ("audit trail", "-".to_owned(), "for good: it is a chain"),
    ];
    print(["what", "kept", "counted"], rows.map(|(what, kept, counted)| [what.into(), kept, counted.into()]))
}

/// Whole days as people write them: `30d`.
fn days(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('d').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("`{text}` is not a number of days such as 30d"))
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
