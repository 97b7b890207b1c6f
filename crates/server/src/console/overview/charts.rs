//! Cost and tokens by day, each with what the organisation's budget allows a day if it is spent evenly.

use toktra_protocol::budget::{Scope, Unit};
use toktra_store::book::Book;
use toktra_store::budgets::{self, period_name};
use toktra_store::usage::{Interval, Moment, Sums};

use super::super::Console;
use super::super::chart::{Axis, Chart, Pace, Point, Words};
use super::super::failure::Failure;
use super::super::figures::{self, Figure};
use super::super::sight::Sight;

/// A budget of the whole organisation, in its unit.
pub(super) struct Allowance {
    unit: Unit,
    pace: Pace,
}

/// What the organisation's own budgets allow a day: of each unit the tightest.
pub(super) async fn paces(console: &Console, sight: &Sight) -> Result<Vec<Allowance>, Failure> {
    if !sight.is_whole() {
        return Ok(Vec::new());
    }
    let now = console.clock.now();
    let book = Book::read(&console.store, now).await?;
    let budgets = budgets::of_organisation(&console.store, &sight.organisation).await?;
    let mut found: Vec<Allowance> = Vec::new();
    for budget in budgets.iter().filter(|budget| budget.scope.scope == Scope::Organisation) {
        let Some(standing) = book.standing(&budget.id) else { continue };
        let days = budget.days(&sight.zone, now);
        let per_day = i64::try_from(standing.limit).unwrap_or(i64::MAX) / (days.end.0 - days.start.0).max(1);
        let unit = standing.unit;
        let [limit, spent] = [standing.limit, standing.spent.point].map(|number| words(number, unit));
        let text = format!(
            "“{}” if it is spent evenly, {limit} {}. Spent of it so far: {spent}.",
            budget.name,
            period_name(budget.settings.period),
        );
        found.push(Allowance { unit, pace: Pace { value: per_day, text } });
    }
    found.sort_by_key(|allowance| allowance.pace.value);
    Ok(found)
}

fn words(number: u64, unit: Unit) -> String {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    match unit {
        Unit::Tokens => format!("{} tokens", figures::compact(number)),
        Unit::Micros => figures::dollars(number),
    }
}

/// The charts of these days.
pub(super) fn draw(moments: &[Moment], total: &Sums, allowances: &[Allowance], zone: &str) -> Vec<Chart> {
    let pace = |unit: Unit| {
        let found = allowances.iter().find(|allowance| allowance.unit == unit);
        found.map(|allowance| allowance.pace.clone())
    };
    let words = |id, title, what: &str, quantity| Words {
        id,
        title,
        description: format!(
            "{what} for each day. The line is the best estimate, the band behind it is where the truth is \
             expected. Today is not over yet. The table below has the same numbers."
        ),
        moment: format!("Day, {zone}"),
        quantity,
    };
    let mut charts = Vec::new();
    if !total.is_unpriced() {
        charts.push(Chart::draw(
            words("cost", "Cost by day", "Estimated cost in US dollars", "Cost"),
            points(moments, figures::cost, |sums| sums.cost_micros, figures::dollars),
            pace(Unit::Micros),
            Axis { least_step: 100, word: axis_dollars },
        ));
    }
    charts.push(Chart::draw(
        words("tokens", "Tokens by day", "Estimated tokens, sent and received,", "Tokens"),
        points(moments, |sums| figures::tokens(sums.tokens()), Sums::tokens, figures::grouped),
        pace(Unit::Tokens),
        Axis { least_step: 1, word: axis_tokens },
    ));
    charts
}

fn points(
    moments: &[Moment],
    value: fn(&Sums) -> Figure,
    of: fn(&Sums) -> Interval,
    full: fn(i64) -> String,
) -> Vec<Point> {
    let point = |moment: &Moment| {
        let (figure, estimate) = (value(&moment.sums), of(&moment.sums));
        let cells = match figure.value {
            Some(_) => [estimate.low, estimate.point, estimate.high].map(full),
            None => ["–".to_owned(), figure.text.clone(), "–".to_owned()],
        };
        let text = match figure.range.as_str() {
            "" => figure.text,
            range => format!("{} ({range})", figure.text),
        };
        let (label, name) = (figures::day(moment.day), figures::full_day(moment.day));
        Point { label, name, value: estimate, text, cells }
    };
    moments.iter().map(point).collect()
}

fn axis_tokens(value: i64) -> String {
    figures::compact(value).replace(".0", "")
}

fn axis_dollars(value: i64) -> String {
    let text = figures::dollars(value);
    text.strip_suffix(".00").map(str::to_owned).unwrap_or(text)
}
