//! The first page: what the organisation used and what that cost, over the last days, by day,
//! provider, department and device.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use toktra_catalog::Catalog;
use toktra_store::fleet::{self, Fleet};
use toktra_store::reports::{self, Grain, Hours, Moment, Share, Sums};

use super::chart::{Axis, Chart, Point, Words};
use super::failure::{Failure, render};
use super::figures::{self, Figure};
use super::session::Administrator;
use super::{Console, assets};

/// The ranges on offer, in days.
const RANGES: [i64; 4] = [1, 7, 30, 90];
/// The range of those who did not choose.
const USUAL_RANGE: i64 = 30;
/// Rows of a table before the others are summed up.
const ROWS: usize = 12;

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

struct Table {
    id: &'static str,
    title: &'static str,
    kind: &'static str,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    is_rest: bool,
    tokens: Figure,
    cost: Figure,
    /// Of the cost of all, or of all tokens where nothing has a price: `42.31%`.
    share: String,
    share_text: String,
}

/// `GET /`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let days = choice.map(|Query(choice)| choice.range()).unwrap_or(USUAL_RANGE);
    let now_hour = i64::try_from(console.clock.now().0 / 3_600).unwrap_or(0);
    let hours = Hours::last_days(days, now_hour);
    let (store, organisation) = (&console.store, administrator.session.organisation_id.as_str());
    let total = reports::total(store, organisation, hours).await?;
    let previous = reports::total(store, organisation, hours.previous(now_hour)).await?;
    let fleet = fleet::fleet(store, organisation, hours.start * 3_600, console.clock.now()).await?;
    let grain = if days == 1 { Grain::Hour } else { Grain::Day };
    let moments = reports::series(store, organisation, hours, grain).await?;
    let providers = reports::by_provider(store, organisation, hours).await?;
    let departments = reports::by_department(store, organisation, hours).await?;
    let devices = reports::by_device(store, organisation, hours).await?;
    let page = OverviewPage {
        style: assets::style_href(),
        form_token: administrator.form_token(),
        administrator: &administrator,
        section: "overview",
        period: period(hours),
        ranges: ranges(days),
        tiles: tiles(&total, &previous, &fleet, days),
        charts: charts(&moments, grain, now_hour, &total),
        tables: vec![
            table(("provider", "By provider", "Provider"), providers, &total, provider_name),
            table(("department", "By department", "Department"), departments, &total, department_name),
            table(("device", "By device", "Device"), devices, &total, device_name),
        ],
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

fn period(hours: Hours) -> String {
    let (first, last) = (hours.start.div_euclid(24), (hours.end - 1).div_euclid(24));
    if first == last {
        format!("{}, UTC", figures::full_day(last))
    } else {
        format!("{} – {}, UTC", figures::day(first), figures::full_day(last))
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

fn tiles(total: &Sums, previous: &Sums, fleet: &Fleet, days: i64) -> Vec<Tile> {
    let before =
        if days == 1 { "yesterday by this hour".to_owned() } else { format!("the {days} days before") };
    let change = |was: i64, is: i64| match figures::change(was, is) {
        Some(change) => format!("{change} on {before}"),
        None if is == 0 => String::new(),
        None => format!("nothing {}{before}", if days == 1 { "" } else { "in " }),
    };
    let (tokens, tokens_before) = (total.tokens(), previous.tokens());
    vec![
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
            figure: Figure {
                note: format!(
                    "{} in, {} out",
                    figures::compact(total.tokens_in.point),
                    figures::compact(total.tokens_out.point)
                ),
                ..figures::tokens(tokens)
            },
            change: change(tokens_before.point, tokens.point),
        },
        Tile {
            id: "exchanges",
            label: "Requests",
            figure: Figure {
                note: if total.blocked > 0 {
                    format!("{} blocked", figures::count(total.blocked).text)
                } else {
                    String::new()
                },
                ..figures::count(total.exchanges)
            },
            change: change(previous.exchanges, total.exchanges),
        },
        Tile {
            id: "devices",
            label: "Devices seen",
            figure: Figure {
                note: if fleet.held > 0 {
                    format!("{} locked or blocked", figures::count(fleet.held).text)
                } else {
                    String::new()
                },
                ..figures::count(fleet.seen)
            },
            change: format!("of {}", figures::count(fleet.devices).text),
        },
    ]
}

fn charts(moments: &[Moment], grain: Grain, now_hour: i64, total: &Sums) -> Vec<Chart> {
    let (name, each, unfinished) = match grain {
        Grain::Hour => ("Hour, UTC", "hour", "This hour is not over yet."),
        Grain::Day => ("Day, UTC", "day", "Today is not over yet."),
    };
    let known: Vec<&Moment> =
        moments.iter().filter(|moment| grain == Grain::Day || moment.at <= now_hour).collect();
    let points = |value: fn(&Sums) -> Figure, of: fn(&Sums) -> reports::Interval, full: fn(i64) -> String| {
        let point = |moment: &&Moment| {
            let (figure, estimate) = (value(&moment.sums), of(&moment.sums));
            let cells = match figure.value {
                Some(_) => [estimate.low, estimate.point, estimate.high].map(full),
                None => ["–".to_owned(), figure.text.clone(), "–".to_owned()],
            };
            let text = match figure.range.as_str() {
                "" => figure.text,
                range => format!("{} ({range})", figure.text),
            };
            let (label, name) = moment_names(moment.at, grain);
            Point { label, name, value: estimate, text, cells }
        };
        known.iter().map(point).collect::<Vec<_>>()
    };
    let words = |id, title, what: &str, quantity| Words {
        id,
        title,
        description: format!(
            "{what} for each {each}. The line is the best estimate, the band behind it is where the \
             truth is expected. {unfinished} The table below has the same numbers."
        ),
        moment: name,
        quantity,
    };
    let (tokens_title, cost_title) = match grain {
        Grain::Hour => ("Tokens by hour", "Cost by hour"),
        Grain::Day => ("Tokens by day", "Cost by day"),
    };
    let mut charts = Vec::new();
    if !total.is_unpriced() {
        charts.push(Chart::draw(
            words("cost", cost_title, "Estimated cost in US dollars", "Cost"),
            points(figures::cost, |sums| sums.cost_micros, figures::dollars),
            moments.len(),
            Axis { least_step: 100, word: axis_dollars },
        ));
    }
    charts.push(Chart::draw(
        words("tokens", tokens_title, "Estimated tokens, sent and received,", "Tokens"),
        points(|sums| figures::tokens(sums.tokens()), Sums::tokens, figures::grouped),
        moments.len(),
        Axis { least_step: 1, word: axis_tokens },
    ));
    charts
}

fn moment_names(at: i64, grain: Grain) -> (String, String) {
    match grain {
        Grain::Day => (figures::day(at), figures::full_day(at)),
        Grain::Hour => {
            let hour = at.rem_euclid(24);
            (format!("{hour}:00"), format!("{hour:02}:00–{:02}:00", hour + 1))
        }
    }
}

fn axis_tokens(value: i64) -> String {
    figures::compact(value).replace(".0", "")
}

fn axis_dollars(value: i64) -> String {
    let text = figures::dollars(value);
    text.strip_suffix(".00").map(str::to_owned).unwrap_or(text)
}

fn table(
    (id, title, kind): (&'static str, &'static str, &'static str),
    shares: Vec<Share>,
    total: &Sums,
    name: fn(&Share) -> String,
) -> Table {
    let (shown, hidden) = shares.split_at(shares.len().min(ROWS));
    let mut rows: Vec<Row> =
        shown.iter().map(|share| row(share.id.clone(), name(share), false, &share.sums, total)).collect();
    if !hidden.is_empty() {
        let rest = shown.iter().fold(*total, |rest, share| rest.minus(share.sums));
        rows.push(row(String::new(), "All others".to_owned(), true, &rest, total));
    }
    Table { id, title, kind, rows }
}

fn row(id: String, name: String, is_rest: bool, sums: &Sums, total: &Sums) -> Row {
    let (part, all, of) = if total.cost_micros.point > 0 {
        (sums.cost_micros.point, total.cost_micros.point, "cost")
    } else {
        (sums.tokens().point, total.tokens().point, "tokens")
    };
    let part = (i128::from(part.max(0)) * 10_000 / i128::from(all.max(1))).min(10_000);
    Row {
        id,
        name,
        is_rest,
        tokens: figures::tokens(sums.tokens()),
        cost: figures::cost(sums),
        share: format!("{}.{:02}%", part / 100, part % 100),
        share_text: match (part + 50) / 100 {
            _ if of == "cost" && sums.is_unpriced() => "no known price".to_owned(),
            0 if part > 0 => format!("<1\u{202f}% of {of}"),
            percent => format!("{percent}\u{202f}% of {of}"),
        },
    }
}

/// The catalogue's name; the identifier where a newer catalogue is on the devices.
fn provider_name(share: &Share) -> String {
    let providers = Catalog::builtin().providers();
    let known = providers.iter().find(|provider| provider.id == share.id);
    known.map_or_else(|| share.id.clone(), |provider| provider.name.clone())
}

fn department_name(share: &Share) -> String {
    match &share.name {
        Some(name) => name.clone(),
        None if share.id.is_empty() => "No department".to_owned(),
        None => "Unknown department".to_owned(),
    }
}

fn device_name(share: &Share) -> String {
    share.name.clone().unwrap_or_else(|| "Unknown device".to_owned())
}
