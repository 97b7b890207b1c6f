//! Budgets of the organisation, each at another place: well within, nearly used, wholly used, and one of a
//! person.

use std::collections::BTreeMap;

use toktra_protocol::budget::{Period, Scope, Unit};
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_protocol::{EventBody, UnixSeconds};
use toktra_store::budgets::{self, Settings};
use toktra_store::directory::{Department, Organisation, User};
use toktra_store::period::Days;
use toktra_store::price_mix::{self, Mix, Share};
use toktra_store::spend::ScopeKey;
use toktra_store::{Store, exemptions, flags};

use super::people::{DEPARTMENTS, ENGINEERING, House, MARKETING, RESEARCH, SUPPORT};
use super::{ACTOR, Calendar, usage};

const RESEARCH_BUDGET: &str = "Research, monthly";

/// What the organisation allows a month for each device: somewhat more than they cost.
const DEVICE_MICROS: u64 = 55_000_000;
/// What the organisation says it uses of services with many models, in thousandths.
const MODELS: [(&str, &[(&str, u32)]); 3] = [
    ("anthropic-api", &[("claude-sonnet-5", 700), ("claude-opus-5", 200), ("claude-haiku-4-5", 100)]),
    ("openai-api", &[("gpt-5.5", 300), ("gpt-5.4-mini", 700)]),
    ("mistral-api", &[("mistral-medium-3", 1000)]),
];

/// Tokens of the month that the plan ends in.
pub(super) struct Sums {
    /// Best guess, of each department with those in it.
    points: BTreeMap<usize, u64>,
    /// Lower bound, the same, without the last day.
    lows_before: BTreeMap<usize, u64>,
    /// Best guess, of the first person.
    person: u64,
    /// How many there are.
    devices: u64,
}

impl Sums {
    pub(super) fn of(house: &House, calendar: &Calendar) -> Self {
        let month = Days::of(Period::Monthly, calendar.last);
        let mut sums = Self { points: BTreeMap::new(), lows_before: BTreeMap::new(), person: 0, devices: 0 };
        for machine in &house.machines {
            sums.devices += 1;
            for day in calendar.days().filter(|&day| month.contains(day)) {
                for (_, body) in usage::of_day(house, machine, calendar, day) {
                    let EventBody::Usage(usage) = body else { continue };
                    let tokens = usage.tokens_in.plus(usage.tokens_out);
                    if machine.person == Some(0) {
                        sums.person += tokens.point;
                    }
                    let mut next = Some(machine.department);
                    while let Some(department) = next {
                        *sums.points.entry(department).or_default() += tokens.point;
                        if day < calendar.last {
                            *sums.lows_before.entry(department).or_default() += tokens.low;
                        }
                        next = DEPARTMENTS[department].parent;
                    }
                }
            }
        }
        sums
    }

    fn point(&self, department: usize) -> u64 {
        self.points.get(&department).copied().unwrap_or_default()
    }

    fn low_before(&self, department: usize) -> u64 {
        self.lows_before.get(&department).copied().unwrap_or_default()
    }
}

pub(super) async fn create(
    store: &Store,
    organisation: &Organisation,
    (departments, users): (&[Department], &[User]),
    sums: &Sums,
    now: UnixSeconds,
) -> anyhow::Result<()> {
    let of =
        |index: usize| departments.get(index).map(|department| (Scope::Department, department.id.as_str()));
    let person = users.first().map(|user| (Scope::User, user.id.as_str()));
    let whole = Some((Scope::Organisation, organisation.id.as_str()));
    let percent = |spent: u64, percent: u64| spent * 100 / percent;
    for (name, of, unit, amount, hard, message) in [
        ("Everybody, monthly", whole, Unit::Micros, sums.devices * DEVICE_MICROS, false, ""),
        (
            "Engineering, monthly",
            of(ENGINEERING),
            Unit::Tokens,
            percent(sums.point(ENGINEERING), 62),
            false,
            "",
        ),
        (RESEARCH_BUDGET, of(RESEARCH), Unit::Tokens, percent(sums.point(RESEARCH), 94), true, ""),
        ("Marketing, monthly", of(MARKETING), Unit::Tokens, percent(sums.point(MARKETING), 41), false, ""),
        (
            "Customer Support, monthly",
            of(SUPPORT),
            Unit::Tokens,
            sums.low_before(SUPPORT),
            true,
            "Support's tokens of this month are used. Ask your lead, or for an exemption.",
        ),
        ("Ada's trial", person, Unit::Tokens, percent(sums.person, 78), false, ""),
    ] {
        let Some((scope, id)) = of else { continue };
        let scope = ScopeKey { organisation: organisation.id.as_str().into(), scope, id: id.into() };
        let settings = Settings {
            unit,
            amount: amount.max(1000),
            period: Period::Monthly,
            hard,
            thresholds: vec![50, 75, 90, 100],
            rollover_limit: 0,
            message: message.to_owned(),
        };
        budgets::create(store, name, &scope, &settings, ACTOR, now).await?;
    }
    flags::set(store, organisation, FF_BUDGET_HARD_CAPS, true, ACTOR, now).await?;
    Ok(())
}

/// Declares which models are used, so that costs are not of every model that there is.
pub(super) async fn declare(
    store: &Store,
    organisation: &Organisation,
    now: UnixSeconds,
) -> anyhow::Result<()> {
    for (service, models) in MODELS {
        let share = |&(model, permille): &(&str, u32)| Share { model: model.to_owned(), permille };
        let mix = Mix { service: service.to_owned(), shares: models.iter().map(share).collect() };
        price_mix::set(store, organisation, &mix, ACTOR, now).await?;
    }
    Ok(())
}

/// A device asks for an exemption, which waits for a decision.
pub(super) async fn ask(
    store: &Store,
    organisation: &Organisation,
    house: &House,
    now: UnixSeconds,
) -> anyhow::Result<()> {
    let Some(machine) = house.machines.iter().find(|machine| machine.department == RESEARCH) else {
        return Ok(());
    };
    let budget = budgets::find(store, organisation, RESEARCH_BUDGET).await?;
    let reason = "The reviewers' deadline is on Friday, and the ablations still have to run.";
    exemptions::request(store, machine.id, &budget.id, reason, now).await?;
    Ok(())
}
