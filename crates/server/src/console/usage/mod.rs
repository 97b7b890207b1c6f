//! Usage of any days, told apart by provider, service, department, person, device or application, narrowed
//! by the same, in any order; on the page in parts, and as CSV or JSON whole.
//!
//! Invariants: page and files answer one [`Choice`] by one question, so that a file holds the rows of the
//! page in its order. A file that tells of persons or devices leaves a row in the audit trail before it is
//! sent.

mod choice;
mod export;

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use toktra_catalog::Catalog;
use toktra_store::usage::{self, Dimension, Share, Sums};

use super::failure::{Failure, render};
use super::figures::{self, Figure};
use super::session::Administrator;
use super::sight::Sight;
use super::{Console, assets, shares};
use choice::{Asked, Choice};
pub(super) use export::{csv, json};

/// Rows on a page.
const ROWS: u32 = 100;

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage<'a> {
    style: &'a str,
    administrator: &'a Administrator,
    form_token: String,
    section: &'static str,
    period: String,
    asked: &'a Asked,
    /// What to choose from: value and name, and whether it is chosen.
    kinds: Vec<Choosable>,
    providers: Vec<Choosable>,
    services: Vec<Choosable>,
    departments: Vec<Choosable>,
    headings: Vec<Heading>,
    kind: &'static str,
    rows: Vec<Row>,
    total: Row,
    page: u32,
    previous: Option<String>,
    next: Option<String>,
    csv: String,
    json: String,
}

/// An option of a list to choose from.
struct Choosable {
    value: String,
    text: String,
    chosen: bool,
}

/// A column that rows can be ordered by.
struct Heading {
    text: &'static str,
    href: String,
    /// `ascending`, `descending` or empty, as `aria-sort` says it.
    sorted: &'static str,
}

/// A row of the table.
struct Row {
    id: String,
    name: String,
    /// Usage of this alone; empty: there is nothing to narrow to.
    href: String,
    requests: Figure,
    sent: Figure,
    received: Figure,
    tokens: Figure,
    cost: Figure,
    blocked: Figure,
}

/// `GET /usage`
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let choice = choice.map(|Query(choice)| choice).unwrap_or_default();
    let sight = Sight::of(&console, &administrator).await?;
    let asked = choice.read(&console.store, &sight).await?;
    let (store, by) = (&console.store, asked.by);
    let total = usage::total(store, &asked.question).await?;
    let offset = (asked.page - 1).saturating_mul(ROWS);
    // One more than is shown says whether there is another page.
    let mut found = usage::by(store, &asked.question, by, asked.order, (offset, ROWS + 1)).await?;
    let has_next = found.len() > ROWS as usize;
    found.truncate(ROWS as usize);
    let page = UsagePage {
        style: assets::style_href(),
        form_token: administrator.form_token(),
        administrator: &administrator,
        section: "usage",
        period: format!(
            "{} – {}, {}",
            figures::full_day(asked.question.days.start.0),
            figures::full_day(asked.question.days.end.0 - 1),
            sight.zone.name()
        ),
        kinds: options(Dimension::ALL.map(|one| (shares::key(one), shares::kind(one))), shares::key(by)),
        providers: options(
            Catalog::builtin().providers().iter().map(|one| (one.id.as_str(), one.name.as_str())),
            &asked.choice.provider,
        ),
        services: options(
            Catalog::builtin().services().iter().map(|one| (one.id.as_str(), one.name.as_str())),
            &asked.choice.service,
        ),
        departments: options(
            sight.departments.iter().map(|one| (one.id.as_str(), one.name.as_str())),
            &asked.choice.department,
        ),
        headings: asked.headings(),
        kind: shares::kind(by),
        rows: found.iter().map(|share| row(&asked, share)).collect(),
        total: row_of(String::new(), "All of it".to_owned(), String::new(), &total),
        page: asked.page,
        previous: (asked.page > 1).then(|| asked.href("/usage", |choice| choice.page(asked.page - 1))),
        next: has_next.then(|| asked.href("/usage", |choice| choice.page(asked.page + 1))),
        csv: asked.href("/usage.csv", |choice| choice.page(1)),
        json: asked.href("/usage.json", |choice| choice.page(1)),
        asked: &asked,
    };
    Ok(render(StatusCode::OK, &page))
}

fn options<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>, chosen: &str) -> Vec<Choosable> {
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(value, text)| Choosable {
            value: value.to_owned(),
            text: text.to_owned(),
            chosen: value == chosen,
        })
        .collect();
    // What nothing lists any more, or a newer catalogue does, stays chosen.
    if !chosen.is_empty() && !all.iter().any(|option| option.chosen) {
        all.push(Choosable { value: chosen.to_owned(), text: chosen.to_owned(), chosen: true });
    }
    all
}

fn row(asked: &Asked, share: &Share) -> Row {
    let href = if share.id.is_empty() { String::new() } else { asked.narrowed(share) };
    row_of(share.id.clone(), shares::name(asked.by, share), href, &share.sums)
}

fn row_of(id: String, name: String, href: String, sums: &Sums) -> Row {
    Row {
        id,
        name,
        href,
        requests: figures::count(sums.exchanges),
        sent: figures::tokens(sums.tokens_in),
        received: figures::tokens(sums.tokens_out),
        tokens: figures::tokens(sums.tokens()),
        cost: figures::cost(sums),
        blocked: figures::count(sums.blocked),
    }
}
