//! Commands on budgets.

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use toktra_protocol::budget::{Budget as Standing, Period, Scope, Unit};
use toktra_protocol::directive::FF_BUDGET_HARD_CAPS;
use toktra_store::alerts::{self, Alert, CAP};
use toktra_store::book::Book;
use toktra_store::budgets::{self, BudgetRow, Settings, period_name};
use toktra_store::directory::{self, Organisation};
use toktra_store::period::Day;
use toktra_store::spend::ScopeKey;
use toktra_store::{Store, flags};

use super::arguments::InOrganisation;
use super::directory::{now, organisation_of, print, time};
use super::{ACTOR, note, say};
use crate::amount;

/// Budgets.
#[derive(Debug, Subcommand)]
pub enum Budget {
    /// List them, and where they stand.
    List {
        /// Their organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Add one: of the organisation, or of a department and those below it, or of a user.
    Add(Add),
    /// Show one: where it stands, and what was reached.
    Show {
        /// Its name.
        name: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
    /// Change one. What is left out stays as it is.
    Set(Set),
    /// Remove one, with its exemptions.
    Remove {
        /// Its name.
        name: String,
        /// Its organisation.
        #[command(flatten)]
        within: InOrganisation,
    },
}

/// Options of `budget add`.
#[derive(Debug, Args)]
pub struct Add {
    /// Its name, for example `Research, monthly`; unique in the organisation.
    pub name: String,
    /// Name of the department whose spend counts, with those below it.
    #[arg(long, conflicts_with = "user")]
    pub department: Option<String>,
    /// Address of the user whose spend counts.
    #[arg(long)]
    pub user: Option<String>,
    /// What may be spent.
    #[command(flatten)]
    pub amount: NewAmount,
    /// How long a period is, in the organisation's time zone.
    #[arg(long, value_enum)]
    pub period: PeriodName,
    /// Block providers when the limit is passed; needs the flag FF_BUDGET_HARD_CAPS.
    #[arg(long)]
    pub hard: bool,
    /// Shares of the limit at which to warn, in percent; none with an empty text.
    #[arg(long, value_name = "PERCENT,…", default_value = "75,90,100", value_parser = thresholds)]
    pub thresholds: Thresholds,
    /// What the period before may leave to the next.
    #[command(flatten)]
    pub rollover: Rollover,
    /// What to tell the user when it blocks.
    #[arg(long, default_value = "")]
    pub message: String,
    /// Its organisation.
    #[command(flatten)]
    pub within: InOrganisation,
}

/// Options of `budget set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What may be spent.
    #[command(flatten)]
    pub amount: Amount,
    /// How long a period is.
    #[arg(long, value_enum)]
    pub period: Option<PeriodName>,
    /// Whether providers are blocked when the limit is passed.
    #[arg(long, value_name = "true|false")]
    pub hard: Option<bool>,
    /// Shares of the limit at which to warn, in percent.
    #[arg(long, value_name = "PERCENT,…", value_parser = thresholds)]
    pub thresholds: Option<Thresholds>,
    /// What the period before may leave to the next.
    #[command(flatten)]
    pub rollover: Rollover,
    /// What to tell the user when it blocks.
    #[arg(long)]
    pub message: Option<String>,
    /// Its organisation.
    #[command(flatten)]
    pub within: InOrganisation,
}

/// A limit, with its unit.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct NewAmount {
    /// In tokens, sent and received, for example 20000000.
    #[arg(long, value_parser = amount::tokens)]
    pub tokens: Option<u64>,
    /// In dollars at list price, for example 500.00.
    #[arg(long, value_parser = amount::dollars)]
    pub dollars: Option<u64>,
}

/// A limit, with its unit, or none.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub struct Amount {
    /// In tokens, sent and received, for example 20000000.
    #[arg(long, value_parser = amount::tokens)]
    pub tokens: Option<u64>,
    /// In dollars at list price, for example 500.00.
    #[arg(long, value_parser = amount::dollars)]
    pub dollars: Option<u64>,
}

/// A ceiling of what is carried over, with its unit.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub struct Rollover {
    /// At most so many unused tokens of the period before add to the limit; 0: none.
    #[arg(long, value_parser = amount::tokens)]
    pub rollover_tokens: Option<u64>,
    /// At most so many unused dollars of the period before add to the limit; 0: none.
    #[arg(long, value_parser = amount::dollars)]
    pub rollover_dollars: Option<u64>,
}

/// How long a period is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PeriodName {
    /// From midnight to midnight.
    Daily,
    /// From Monday.
    Weekly,
    /// From the first of the month.
    Monthly,
    /// From the first of January, April, July and October.
    Quarterly,
    /// From the first of January.
    Annual,
}

impl From<PeriodName> for Period {
    fn from(name: PeriodName) -> Self {
        match name {
            PeriodName::Daily => Self::Daily,
            PeriodName::Weekly => Self::Weekly,
            PeriodName::Monthly => Self::Monthly,
            PeriodName::Quarterly => Self::Quarterly,
            PeriodName::Annual => Self::Annual,
        }
    }
}

/// Percent.
#[derive(Clone, Debug)]
pub struct Thresholds(Vec<u8>);

fn thresholds(text: &str) -> Result<Thresholds, String> {
    let parse = |text: &str| text.trim().parse().map_err(|_| format!("`{text}` is not a number of percent"));
    text.split(',').filter(|text| !text.is_empty()).map(parse).collect::<Result<_, _>>().map(Thresholds)
}

/// Runs one.
pub async fn budget(store: &Store, command: Budget) -> anyhow::Result<()> {
    match command {
        Budget::List { within } => list(store, &organisation_of(store, &within).await?).await,
        Budget::Add(options) => add(store, options).await,
        Budget::Show { name, within } => {
            let organisation = organisation_of(store, &within).await?;
            show(store, &budgets::find(store, &organisation, &name).await?, &organisation).await
        }
        Budget::Set(options) => set(store, options).await,
        Budget::Remove { name, within } => {
            let organisation = organisation_of(store, &within).await?;
            let budget = budgets::find(store, &organisation, &name).await?;
            Ok(budgets::remove(store, &budget, ACTOR, now()).await?)
        }
    }
}

async fn add(store: &Store, options: Add) -> anyhow::Result<()> {
    let organisation = organisation_of(store, &options.within).await?;
    let scope = scope(store, &organisation, options.department.as_deref(), options.user.as_deref()).await?;
    let NewAmount { tokens, dollars } = options.amount;
    let Some((unit, amount)) = limit(tokens, dollars) else { bail!("give --tokens or --dollars") };
    let settings = Settings {
        unit,
        amount,
        period: options.period.into(),
        hard: options.hard,
        thresholds: options.thresholds.0,
        rollover_limit: rollover(options.rollover, unit)?.unwrap_or_default(),
        message: options.message,
    };
    let made = budgets::create(store, &options.name, &scope, &settings, ACTOR, now()).await?;
    warn(store, &organisation, &made).await?;
    say(made.id)
}

async fn set(store: &Store, options: Set) -> anyhow::Result<()> {
    let organisation = organisation_of(store, &options.within).await?;
    let budget = budgets::find(store, &organisation, &options.name).await?;
    let before = &budget.settings;
    let (unit, amount) =
        limit(options.amount.tokens, options.amount.dollars).unwrap_or((before.unit, before.amount));
    let rollover_limit = match rollover(options.rollover, unit)? {
        Some(limit) => limit,
        None => {
            let same = unit == before.unit || before.rollover_limit == 0;
            ensure!(same, "the unit changes: give the rollover in it too, or 0");
            before.rollover_limit
        }
    };
    let settings = Settings {
        unit,
        amount,
        period: options.period.map_or(before.period, Into::into),
        hard: options.hard.unwrap_or(before.hard),
        thresholds: options.thresholds.map_or_else(|| before.thresholds.clone(), |thresholds| thresholds.0),
        rollover_limit,
        message: options.message.unwrap_or_else(|| before.message.clone()),
    };
    budgets::set(store, &budget, &settings, ACTOR, now()).await?;
    warn(store, &organisation, &BudgetRow { settings, ..budget }).await
}

fn limit(tokens: Option<u64>, micros: Option<u64>) -> Option<(Unit, u64)> {
    tokens.map(|tokens| (Unit::Tokens, tokens)).or(micros.map(|micros| (Unit::Micros, micros)))
}

fn rollover(rollover: Rollover, unit: Unit) -> anyhow::Result<Option<u64>> {
    match (limit(rollover.rollover_tokens, rollover.rollover_dollars), unit) {
        (None, _) => Ok(None),
        (Some((given, amount)), unit) if given == unit || amount == 0 => Ok(Some(amount)),
        (Some(_), Unit::Tokens) => bail!("the budget is in tokens: give --rollover-tokens"),
        (Some(_), Unit::Micros) => bail!("the budget is in dollars: give --rollover-dollars"),
    }
}

async fn scope(
    store: &Store,
    organisation: &Organisation,
    department: Option<&str>,
    user: Option<&str>,
) -> anyhow::Result<ScopeKey> {
    let (scope, id) = match (department, user) {
        (Some(name), _) => {
            (Scope::Department, directory::department(store, &organisation.id, name).await?.id)
        }
        (None, Some(email)) => (Scope::User, directory::user(store, &organisation.id, email).await?.id),
        (None, None) => (Scope::Organisation, organisation.id.clone()),
    };
    Ok(ScopeKey { organisation: organisation.id.as_str().into(), scope, id: id.into() })
}

/// Says what an administrator may not have meant. Nothing is refused for it.
async fn warn(store: &Store, organisation: &Organisation, budget: &BudgetRow) -> anyhow::Result<()> {
    let Settings { unit, amount, hard, .. } = budget.settings;
    if let Some(doubt) = amount::doubt(unit, amount) {
        note(format_args!("warning: {doubt}"))?;
    }
    let standing = budgets::standing_now(store, budget, now()).await?;
    if standing.spent.point >= standing.limit {
        let spent = amount::text(standing.spent.point, unit);
        note(format_args!(
            "warning: about {spent} were spent in this period already: it is passed from the start"
        ))?;
    }
    let flags = flags::of_organisation(store, organisation).await?;
    if hard && flags.get(FF_BUDGET_HARD_CAPS) != Some(&true) {
        note(format_args!(
            "warning: it blocks nothing before `toktra-server flag set {FF_BUDGET_HARD_CAPS} on`"
        ))?;
    }
    if unit == Unit::Micros && standing.tokens_unpriced > 0 {
        let unpriced = amount::text(standing.tokens_unpriced, Unit::Tokens);
        note(format_args!("warning: {unpriced} of this period have no price and do not count"))?;
    }
    Ok(())
}

async fn list(store: &Store, organisation: &Organisation) -> anyhow::Result<()> {
    let on = flags::of_organisation(store, organisation).await?.get(FF_BUDGET_HARD_CAPS) == Some(&true);
    // One snapshot and one look at the names, however many budgets there are.
    let book = Book::read(store, now()).await?;
    let names = directory::scope_names(store, organisation).await?;
    let budgets = budgets::of_organisation(store, organisation).await?.into_iter();
    let rows = budgets.filter_map(|budget| {
        let standing = book.standing(&budget.id)?;
        let unit = standing.unit;
        Some([
            budget.name.clone(),
            names.of(&budget.scope),
            period_name(standing.period).to_owned(),
            amount::text(standing.limit, unit),
            amount::text(standing.spent.point, unit),
            amount::text(standing.remaining(), unit),
            kind(standing, on).to_owned(),
            time(standing.period_end.0),
        ])
    });
    print(["name", "of", "period", "limit", "spent", "left", "kind", "until"], rows)
}

fn kind(standing: &Standing, on: bool) -> &'static str {
    match (standing.hard, standing.is_passed(), on) {
        (false, _, _) => "soft",
        (true, true, true) => "hard, blocks",
        (true, true, false) => "hard, passed, flag off",
        (true, false, true) => "hard",
        (true, false, false) => "hard, flag off",
    }
}

async fn show(store: &Store, budget: &BudgetRow, organisation: &Organisation) -> anyhow::Result<()> {
    let standing = budgets::standing_now(store, budget, now()).await?;
    let settings = &budget.settings;
    let unit = settings.unit;
    let percents: Vec<_> = settings.thresholds.iter().map(|percent| format!("{percent} %")).collect();
    let spent = standing.spent;
    let lines = [
        ("name", budget.name.clone()),
        ("id", budget.id.clone()),
        ("of", directory::scope_names(store, organisation).await?.of(&budget.scope)),
        ("amount", format!("{} {}", amount::text(settings.amount, unit), period_name(settings.period))),
        (
            "kind",
            kind(&standing, flags::of_organisation(store, organisation).await?[FF_BUDGET_HARD_CAPS]).into(),
        ),
        ("warns at", percents.join(", ")),
        ("rollover", amount::text(settings.rollover_limit, unit)),
        ("message", settings.message.clone()),
        ("period", format!("{} to {}", time(standing.period_start.0), time(standing.period_end.0))),
        ("limit", amount::text(standing.limit, unit)),
        (
            "spent",
            format!(
                "{} (between {} and {})",
                amount::text(spent.point, unit),
                amount::text(spent.low, unit),
                amount::text(spent.high, unit),
            ),
        ),
        ("left", amount::text(standing.remaining(), unit)),
        ("unpriced", amount::text(standing.tokens_unpriced, Unit::Tokens)),
    ];
    lines.into_iter().try_for_each(|(name, value)| say(format_args!("{name:<9} {value}")))?;
    let alerts = alerts::newest(store, budget, 20).await?;
    if alerts.is_empty() {
        return Ok(());
    }
    say("")?;
    print(["period", "reached", "at", "spent", "limit"], alerts.iter().map(|alert| alert_row(alert, unit)))
}

fn alert_row(alert: &Alert, unit: Unit) -> [String; 5] {
    let number = |number: i64| u64::try_from(number).unwrap_or_default();
    let reached = match alert.threshold {
        cap if cap == i64::from(CAP) => "cap".to_owned(),
        percent => format!("{percent} %"),
    };
    [
        Day(alert.period_start).to_string(),
        reached,
        time(number(alert.at)),
        amount::text(number(alert.spent), unit),
        amount::text(number(alert.budget_limit), unit),
    ]
}
