//! The rows of the page as files: CSV (RFC 4180) for a spreadsheet, JSON for a program. Every row that the
//! page has in its parts, in its order, with every digit, up to [`ROWS_LIMIT`].
//!
//! Invariants: no cell of the CSV begins with what a spreadsheet takes for a formula: an apostrophe stands
//! before it (OWASP, CSV Injection). Money is in dollars with six digits, from integers.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use toktra_store::audit::{self, Deed};
use toktra_store::usage::{self, Interval, ROWS_LIMIT, Share, Sums};

use super::super::failure::Failure;
use super::super::session::Administrator;
use super::super::sight::Sight;
use super::super::{Console, shares};
use super::choice::{Asked, Choice};

/// What a row says, in a file.
#[derive(Serialize)]
struct Record {
    id: String,
    name: String,
    requests: i64,
    tokens_in: Bounds<i64>,
    tokens_out: Bounds<i64>,
    tokens: Bounds<i64>,
    /// `None`: nothing of it has a price.
    cost_usd: Option<Bounds<String>>,
    tokens_unpriced: i64,
    blocked: i64,
}

#[derive(Serialize)]
struct Bounds<T> {
    low: T,
    point: T,
    high: T,
}

#[derive(Serialize)]
struct File<'a> {
    organisation: &'a str,
    time_zone: &'a str,
    /// What was asked for; the first and the last day are both in.
    asked: &'a Choice,
    rows: Vec<Record>,
    total: Record,
}

/// `GET /usage.csv`
pub(in super::super) async fn csv(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let (asked, _, rows, _) = gather(&console, &administrator, choice, "CSV").await?;
    let kind = shares::kind(asked.by).to_lowercase();
    let mut text = line(
        [
            kind.as_str(),
            "id",
            "requests",
            "tokens_in_low",
            "tokens_in",
            "tokens_in_high",
            "tokens_out_low",
            "tokens_out",
            "tokens_out_high",
            "tokens_low",
            "tokens",
            "tokens_high",
            "cost_usd_low",
            "cost_usd",
            "cost_usd_high",
            "tokens_unpriced",
            "blocked",
        ]
        .map(str::to_owned),
    );
    for row in rows {
        let [cost_low, cost, cost_high] = match row.cost_usd {
            Some(Bounds { low, point, high }) => [low, point, high],
            None => Default::default(),
        };
        let bounds =
            |bounds: &Bounds<i64>| [bounds.low, bounds.point, bounds.high].map(|number| number.to_string());
        let [in_low, sent, in_high] = bounds(&row.tokens_in);
        let [out_low, received, out_high] = bounds(&row.tokens_out);
        let [low, tokens, high] = bounds(&row.tokens);
        text.push_str(&line([
            row.name,
            row.id,
            row.requests.to_string(),
            in_low,
            sent,
            in_high,
            out_low,
            received,
            out_high,
            low,
            tokens,
            high,
            cost_low,
            cost,
            cost_high,
            row.tokens_unpriced.to_string(),
            row.blocked.to_string(),
        ]));
    }
    Ok(file(&asked, "text/csv; charset=utf-8", "csv", text))
}

/// `GET /usage.json`
pub(in super::super) async fn json(
    State(console): State<Arc<Console>>,
    administrator: Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Response, Failure> {
    let (asked, sight, rows, total) = gather(&console, &administrator, choice, "JSON").await?;
    let whole = File {
        organisation: &sight.organisation.name,
        time_zone: sight.zone.name(),
        asked: &asked.choice,
        rows,
        total,
    };
    let text = serde_json::to_string_pretty(&whole).map_err(|error| {
        tracing::error!(%error, "Usage could not be written as JSON.");
        Failure::Internal
    })?;
    Ok(file(&asked, "application/json", "json", text))
}

async fn gather(
    console: &Console,
    administrator: &Administrator,
    choice: Result<Query<Choice>, QueryRejection>,
    format: &str,
) -> Result<(Asked, Sight, Vec<Record>, Record), Failure> {
    let choice = choice.map(|Query(choice)| choice).unwrap_or_default();
    let sight = Sight::of(console, administrator).await?;
    let asked = choice.read(&console.store, &sight).await?;
    if asked.is_personal() {
        let subject = asked.href("/usage", |choice| choice.page(1));
        let deed = Deed {
            organisation: Some(&sight.organisation.id),
            actor: &administrator.session.administrator,
            action: "usage_export",
            subject: &subject,
            detail: format,
        };
        audit::record_alone(&console.store, console.clock.now(), deed).await?;
    }
    let total = usage::total(&console.store, &asked.question).await?;
    let rows = usage::by(&console.store, &asked.question, asked.by, asked.order, (0, ROWS_LIMIT)).await?;
    let rows = rows.iter().map(|share| record(&asked, share)).collect();
    Ok((asked, sight, rows, record_of(String::new(), String::new(), &total)))
}

fn record(asked: &Asked, share: &Share) -> Record {
    record_of(share.id.clone(), shares::name(asked.by, share), &share.sums)
}

fn record_of(id: String, name: String, sums: &Sums) -> Record {
    let bounds = |Interval { low, point, high }: Interval| Bounds { low, point, high };
    let Interval { low, point, high } = sums.cost_micros;
    let [low, point, high] = [low, point, high].map(dollars);
    Record {
        id,
        name,
        requests: sums.exchanges,
        tokens_in: bounds(sums.tokens_in),
        tokens_out: bounds(sums.tokens_out),
        tokens: bounds(sums.tokens()),
        cost_usd: (!sums.is_unpriced()).then_some(Bounds { low, point, high }),
        tokens_unpriced: sums.tokens_unpriced,
        blocked: sums.blocked,
    }
}

fn dollars(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let size = micros.unsigned_abs();
    format!("{sign}{}.{:06}", size / 1_000_000, size % 1_000_000)
}

fn file(asked: &Asked, kind: &'static str, ending: &str, text: String) -> Response {
    let Choice { by, from, to, .. } = &asked.choice;
    // All three are of letters, digits and hyphens.
    let name = format!("attachment; filename=\"toktra-usage-by-{by}-{from}-{to}.{ending}\"");
    ([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, name)], text).into_response()
}

/// A line of CSV.
fn line<const CELLS: usize>(cells: [String; CELLS]) -> String {
    let mut line = cells.map(|text| cell(&text)).join(",");
    line.push_str("\r\n");
    line
}

/// A cell that no spreadsheet takes for a formula.
fn cell(text: &str) -> String {
    let harmless = match text.chars().next() {
        Some('=' | '+' | '@' | '\t' | '\r' | '\n') => false,
        // Of what begins with a minus, a number is none.
        Some('-') => text[1..].chars().all(|digit| digit.is_ascii_digit() || digit == '.'),
        _ => true,
    };
    let guarded = if harmless { text.to_owned() } else { format!("'{text}") };
    if guarded.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", guarded.replace('"', "\"\""));
    }
    guarded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_as_a_formula_does() {
        for (text, expected) in [
            ("plain", "plain"),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2+3", "'-2+3"),
            ("-2.5", "-2.5"),
            ("\t=1", "'\t=1"),
            ("a,b", "\"a,b\""),
            ("=\"x\"", "\"'=\"\"x\"\"\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), expected);
        }
    }

    #[test]
    fn money_has_every_digit() {
        assert_eq!(dollars(1_234_567), "1.234567");
        assert_eq!(dollars(-1), "-0.000001");
    }
}
