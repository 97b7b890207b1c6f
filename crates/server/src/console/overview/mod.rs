//! The first page: what the organisation used and what that cost, by day against its budget, by department,
//! provider, service and device, and what changed since last week.

mod changes;
mod charts;

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use toktra_store::fleet::{self, Fleet};
use toktra_store::period::{Day, Days};
use toktra_store::usage::{self, DEAREST, Dimension, Sums};

use super::chart::Chart;
use super::failure::{Failure, render};
use super::figures::{self, Figure};
use super::session::Administrator;
use super::shares::{self, Table};
use super::sight::Sight;
use super::{Console, assets};
use changes::Change;

/// The ranges on offer, in days.
const RANGES: [i64; 4] = [1, 7, 30, 90];
/// The range of those who did not choose.
const USUAL_RANGE: i64 = 30;
/// Rows of a table before the others are summed up.
const ROWS: usize = 8;

/// What the address may ask for.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    days: Option<String>,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage<'a> {
    style: &'a str,
    administrator: &'a Administrator,
    form_token: String,
    section: &'static str,
    period: String,
    ranges: Vec<Range>,
    tiles: Vec<Tile>,
    charts: Vec<Chart>,
    tables: Vec<Table>,
    changes: Vec<Change>,
    fleet: Fleet,
    has_usage: bool,
}

struct Range {
    days: i64,
    text: &'static str,
    chosen: bool,
}

struct Tile {
    id: &'static str,
    label: &'static str,
    figure: Figure,
    change: String,
}

/// `GET /`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let days = choice.map(|Query(choice)| choice.range()).unwrap_or(USUAL_RANGE);
    let sight = Sight::of(&console, &administrator).await?;
    let (store, range) = (&console.store, sight.last_days(days));
    let question = sight.question(range);
    let before = Days { start: Day(range.start.0 - days), end: range.start };
    let total = usage::total(store, &question).await?;
    let previous = usage::total(store, &sight.question(before)).await?;
    let since = i64::try_from(sight.zone.start(range.start).0).unwrap_or(i64::MAX);
    let fleet = fleet::fleet(store, &sight.organisation.id, since, console.clock.now()).await?;
    let mut tables = Vec::new();
    for (dimension, title) in [
        (Dimension::Department, "By department"),
        (Dimension::Provider, "By provider"),
        (Dimension::Service, "By service"),
        (Dimension::Device, "By device"),
    ] {
        let rows = usage::by(store, &question, dimension, DEAREST, (0, ROWS as u32 + 1)).await?;
        let (from, to) = (figures::machine_day(range.start.0), figures::machine_day(range.end.0 - 1));
        let all = format!("/usage?by={}&from={from}&to={to}", shares::key(dimension));
        tables.push(shares::table((dimension, title), &rows, ROWS, &total, all));
    }
    let charts = match days {
        1 => Vec::new(),
        _ => {
            let moments = usage::by_day(store, &question).await?;
            charts::draw(&moments, &total, &charts::paces(&console, &sight).await?, sight.zone.name())
        }
    };
    let page = OverviewPage {
        style: assets::style_href(),
        form_token: administrator.form_token(),
        administrator: &administrator,
        section: "overview",
        period: period(range, sight.zone.name()),
        ranges: ranges(days),
        tiles: tiles(&total, &previous, sight.is_whole().then_some(&fleet), days),
        charts,
        tables,
        changes: changes::since_last_week(store, &sight).await?,
        fleet,
        has_usage: total != Sums::default(),
    };
    Ok(render(StatusCode::OK, &page))
}

impl Choice {
    fn range(&self) -> i64 {
        let asked = self.days.as_deref().and_then(|days| days.parse().ok());
        asked.filter(|days| RANGES.contains(days)).unwrap_or(USUAL_RANGE)
    }
}

fn period(days: Days, zone: &str) -> String {
    let (first, last) = (days.start.0, days.end.0 - 1);
    if first == last {
        format!("{}, {zone}", figures::full_day(last))
    } else {
        format!("{} – {}, {zone}", figures::day(first), figures::full_day(last))
    }
}

fn ranges(chosen: i64) -> Vec<Range> {
    let text = |days| match days {
        1 => "Today",
        7 => "7 days",
        30 => "30 days",
        _ => "90 days",
    };
    RANGES.map(|days| Range { days, text: text(days), chosen: days == chosen }).into()
}

/// The fleet is left out for whoever sees a part of the organisation: it is not counted by department.
fn tiles(total: &Sums, previous: &Sums, fleet: Option<&Fleet>, days: i64) -> Vec<Tile> {
    let before = if days == 1 { "all of yesterday".to_owned() } else { format!("the {days} days before") };
    let change = |was: i64, is: i64| match figures::change(was, is) {
        Some(change) => format!("{change} on {before}"),
        None if is == 0 => String::new(),
        None => format!("nothing in {before}"),
    };
    let count = |number: i64, what: &str| match number {
        ..1 => String::new(),
        _ => format!("{} {what}", figures::count(number).text),
    };
    let (tokens, tokens_before) = (total.tokens(), previous.tokens());
    let [sent, received] = [total.tokens_in, total.tokens_out].map(|tokens| figures::compact(tokens.point));
    let mut tiles = vec![
        Tile {
            id: "cost",
            label: "Estimated cost",
            figure: figures::cost(total),
            change: if total.is_unpriced() {
                String::new()
            } else {
                change(previous.cost_micros.point, total.cost_micros.point)
            },
        },
        Tile {
            id: "tokens",
            label: "Estimated tokens",
            figure: Figure { note: format!("{sent} in, {received} out"), ..figures::tokens(tokens) },
            change: change(tokens_before.point, tokens.point),
        },
        Tile {
            id: "exchanges",
            label: "Requests",
            figure: Figure { note: count(total.blocked, "blocked"), ..figures::count(total.exchanges) },
            change: change(previous.exchanges, total.exchanges),
        },
    ];
    tiles.extend(fleet.map(|fleet| Tile {
        id: "devices",
        label: "Devices seen",
        figure: Figure { note: count(fleet.held, "locked or blocked"), ..figures::count(fleet.seen) },
        change: format!("of {}", figures::count(fleet.devices).text),
    }));
    tiles
}
