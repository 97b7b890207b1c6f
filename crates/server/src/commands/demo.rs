//! `demo-data`: a believable organisation in a data directory where nobody works yet.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use toktra_protocol::UnixSeconds;
use toktra_store::Store;
use toktra_store::directory;
use toktra_store::period::{Day, Zone};

use super::arguments::InOrganisation;
use super::directory::{now, organisation_of};
use super::{note, say};
use crate::demo::{self, Plan, Progress};

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Options of `demo-data`.
#[derive(Debug, Args)]
pub struct DemoData {
    /// The same number makes the same organisation.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The last day, `YYYY-MM-DD`, up to its end; without it, this moment.
    #[arg(long, value_name = "DATE")]
    pub end: Option<jiff::civil::Date>,
    /// Days up to the end.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3660))]
    pub days: u16,
    /// People.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub people: u32,
    /// Devices; the first have a person each.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub devices: u32,
    /// Which organisation.
    #[command(flatten)]
    pub within: InOrganisation,
}

pub async fn demo_data(store: &Store, options: DemoData) -> anyhow::Result<()> {
    let organisation = organisation_of(store, &options.within).await?;
    let zone = directory::time_zone(store, &organisation).await?;
    let zone = Zone::named(&zone).context("the organisation's time zone is not known")?;
    let plan = Plan {
        seed: options.seed,
        end: options.end.map_or_else(now, |date| end_of(&zone, date)),
        days: options.days,
        people: options.people,
        devices: options.devices,
    };
    let (begun, mut told) = (Instant::now(), Instant::now());
    let tell = |progress| {
        let over = matches!(progress, Progress::Booked(done, all, _) if done == all);
        if told.elapsed() >= TOLD_EVERY || over {
            told = Instant::now();
            // Whoever reads it may have gone.
            let _ = note(line(progress));
        }
    };
    let filled = demo::fill(store, &organisation, &plan, tell).await?;
    say(format_args!(
        "{} has {} people and {} devices now, and {} events of {} days, after {} seconds. None of the devices \
         can connect.",
        organisation.name,
        plan.people,
        plan.devices,
        filled.events,
        plan.days,
        begun.elapsed().as_secs(),
    ))
}

fn line(progress: Progress) -> String {
    match progress {
        Progress::Enrolled(done, all) => format!("{done} of {all} people and devices"),
        Progress::Booked(done, all, events) => format!("{done} of {all} days, {events} events"),
    }
}

/// The last minute of a civil day.
fn end_of(zone: &Zone, date: jiff::civil::Date) -> UnixSeconds {
    UnixSeconds(zone.start(Day(Day::of(date).0 + 1)).0.saturating_sub(60))
}
