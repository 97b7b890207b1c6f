//! What the list changes in our prices. A pure function of the list, the table and what we have.
//!
//! Invariants: no entry is dropped; one that the list does not have is kept and reported. Where
//! the list has dates, its history replaces ours; where it has one price without a date that is
//! not ours, our price ends and the list's begins on the day of the list, since nothing says when
//! it changed. Whatever is implausible is a doubt, and with a doubt nothing is written.

use std::collections::BTreeMap;

use toktra_catalog::{Model, Prices, check_plausible};

use crate::list::{List, Price, Step};
use crate::render;
use crate::table::{Mapping, Table};

/// A price that changed by more than this factor is doubted.
const JUMP: u64 = 10;

/// The circumstances of an import.
#[derive(Clone, Debug)]
pub struct Import {
    /// The list and its version, for example `genai-prices 0.2.3`.
    pub read_from: String,
    /// The day of the newest evidence in the list.
    pub checked_on: String,
    /// Jumps that a person looked at: `provider/model`, in our names.
    pub accepted: Vec<String>,
}

/// What comes of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Our prices afterwards.
    pub prices: Vec<Prices>,
    /// Lines of a difference, `-` before `+`.
    pub changes: Vec<String>,
    /// Models whose price in force the list confirms.
    pub confirmed: usize,
    /// What is implausible.
    pub doubts: Vec<String>,
    /// Entries that the list says nothing of.
    pub kept: Vec<String>,
    /// The list's models that the table does not know.
    pub unknown: Vec<String>,
}

/// Brings our prices up to the list.
pub fn merge(table: &Table, list: &List, have: &[Prices], import: &Import) -> Outcome {
    let mut outcome = Outcome { prices: have.to_vec(), ..Outcome::default() };
    for mapping in &table.providers {
        let index = outcome.prices.iter().position(|prices| prices.of == mapping.ours);
        let mut prices = match index {
            Some(index) => outcome.prices.remove(index),
            None => Prices { of: mapping.ours.clone(), models: Vec::new() },
        };
        merge_provider(mapping, list, &mut prices, import, &mut outcome);
        outcome.prices.push(prices);
    }
    outcome.prices.sort_by(|one, other| one.of.cmp(&other.of));
    changes(have, &mut outcome);
    outcome
}

fn merge_provider(
    mapping: &Mapping,
    list: &List,
    prices: &mut Prices,
    import: &Import,
    outcome: &mut Outcome,
) {
    let none = BTreeMap::new();
    let listed = list.get(&mapping.list).unwrap_or(&none);
    let taken = mapping.taken().count();
    let there = mapping.taken().filter(|(id, _)| listed.contains_key(*id)).count();
    if there * 2 < taken {
        let doubt =
            format!("{}: the list has {there} of the {taken} models that the table takes", mapping.list);
        outcome.doubts.push(doubt);
        return;
    }
    for (id, rare) in mapping.taken() {
        let name = mapping.name(id);
        match listed.get(id) {
            None => {}
            Some(Err(unread)) => outcome.doubts.push(format!("{}/{id} {unread}", mapping.list)),
            Some(Ok(steps)) => {
                let ours = take(&mut prices.models, name);
                let merged = merge_model(mapping, (name, rare), steps, ours, import, outcome);
                prices.models.extend(merged);
            }
        }
    }
    prices.models.sort_by(|one, other| (&one.valid_from, &one.name).cmp(&(&other.valid_from, &other.name)));
    let confirmed =
        |name: &str| mapping.taken().any(|(id, _)| mapping.name(id) == name && listed.contains_key(id));
    let kept = prices.models.iter().filter(|model| !confirmed(&model.name));
    outcome.kept.extend(kept.map(|model| render::line(&prices.of, model)));
    let unknown = listed.keys().filter(|id| !mapping.knows(id));
    outcome.unknown.extend(unknown.map(|id| format!("{}/{id}", mapping.list)));
}

/// Takes the entries of a name out, from the oldest on.
fn take(models: &mut Vec<Model>, name: &str) -> Vec<Model> {
    let mut ours: Vec<_> = models.extract_if(.., |model| model.name == name).collect();
    ours.sort_by(|one, other| one.valid_from.cmp(&other.valid_from));
    ours
}

fn merge_model(
    mapping: &Mapping,
    (name, rare): (&str, bool),
    steps: &[Step],
    ours: Vec<Model>,
    import: &Import,
    outcome: &mut Outcome,
) -> Vec<Model> {
    let id = format!("{}/{name}", mapping.ours);
    for Step { price, .. } in steps {
        if let Err(reason) = check_plausible(price.input, price.cached_input, price.output) {
            outcome.doubts.push(format!("{id} {reason}"));
            return ours;
        }
    }
    let merged = match (ours.last(), steps) {
        (None, _) => {
            let model = new_model(mapping, (name, rare), import);
            history(&model, &import.checked_on, None, steps, import)
        }
        (Some(last), [_, _, ..]) => {
            let from = ours.first().map_or(&import.checked_on, |first| &first.valid_from);
            history(last, from, last.valid_until.as_deref(), steps, import)
        }
        (Some(_), [only]) => with_price(&ours, only.price, import),
        (Some(_), []) => ours.clone(),
    };
    let accepted = import.accepted.contains(&id);
    if let (false, Some(jump)) = (accepted, jump(&ours, &merged, import)) {
        outcome.doubts.push(format!("{id} {jump}; look at it, then --accept {id}"));
    }
    outcome.confirmed += 1;
    merged
}

fn new_model(mapping: &Mapping, (name, rare): (&str, bool), import: &Import) -> Model {
    Model {
        name: name.into(),
        typical: false,
        rare,
        input_micros_per_mtok: 0,
        cached_input_micros_per_mtok: None,
        output_micros_per_mtok: 0,
        valid_from: import.checked_on.clone(),
        valid_until: None,
        source: mapping.source.clone(),
        checked_on: import.checked_on.clone(),
        read_from: None,
        note: None,
    }
}

/// The list's steps as entries, none before the model's first day or after its end.
fn history(like: &Model, from: &str, until: Option<&str>, steps: &[Step], import: &Import) -> Vec<Model> {
    let mut entries: Vec<Model> = Vec::new();
    for step in steps {
        let begins = step.from.as_deref().map_or(from, |step| step.max(from));
        if until.is_some_and(|until| until <= begins) {
            continue;
        }
        match entries.last_mut() {
            // A step that was over before the first day.
            Some(before) if before.valid_from == begins => drop(entries.pop()),
            Some(before) => before.valid_until = Some(begins.to_owned()),
            None => {}
        }
        let mut entry = like.clone();
        entry.valid_from = begins.to_owned();
        entry.valid_until = until.map(str::to_owned);
        set_price(&mut entry, step.price, import);
        entries.push(entry);
    }
    entries
}

/// Ours, with this price on the day of the list.
fn with_price(ours: &[Model], price: Price, import: &Import) -> Vec<Model> {
    let mut entries = ours.to_vec();
    let today = &import.checked_on;
    let holds = |model: &&mut Model| {
        model.valid_from <= *today && model.valid_until.as_ref().is_none_or(|until| today < until)
    };
    let Some(current) = entries.iter_mut().find(holds) else { return entries };
    let same = current.input_micros_per_mtok == price.input
        && current.output_micros_per_mtok == price.output
        && (current.cached_input_micros_per_mtok.is_none()
            || current.cached_input_micros_per_mtok == price.cached_input);
    if same || current.valid_from == *today {
        set_price(current, price, import);
        return entries;
    }
    let mut next = current.clone();
    next.valid_from.clone_from(today);
    current.valid_until = Some(today.clone());
    set_price(&mut next, price, import);
    entries.push(next);
    entries
}

fn set_price(model: &mut Model, price: Price, import: &Import) {
    model.input_micros_per_mtok = price.input;
    model.cached_input_micros_per_mtok = price.cached_input;
    model.output_micros_per_mtok = price.output;
    if model.checked_on <= import.checked_on {
        model.checked_on.clone_from(&import.checked_on);
    }
    model.read_from = Some(import.read_from.clone());
}

/// A price that is more than [`JUMP`] times another of the same model, in whatever order.
fn jump(ours: &[Model], merged: &[Model], import: &Import) -> Option<String> {
    let new = merged.iter().filter(|model| !ours.iter().any(|known| same_price(known, model)));
    for model in new {
        for known in ours.iter().chain(merged) {
            let pairs = [
                (known.input_micros_per_mtok, model.input_micros_per_mtok),
                (known.output_micros_per_mtok, model.output_micros_per_mtok),
            ];
            let far = |(a, b): (u64, u64)| a.max(b) > a.min(b).saturating_mul(JUMP);
            if pairs.into_iter().any(far) {
                let lines = [render::line("", known), render::line("", model)];
                return Some(format!(
                    "changes by more than {JUMP} times in {}:{} ->{}",
                    import.read_from, lines[0], lines[1]
                ));
            }
        }
    }
    None
}

fn same_price(one: &Model, other: &Model) -> bool {
    one.input_micros_per_mtok == other.input_micros_per_mtok
        && one.output_micros_per_mtok == other.output_micros_per_mtok
}

/// Compares what a person compares; a newer day of evidence alone is no change.
fn changes(have: &[Prices], outcome: &mut Outcome) {
    let lines = |prices: &[Prices]| -> Vec<String> {
        let line = |prices: &Prices| -> Vec<_> {
            prices.models.iter().map(|model| render::line(&prices.of, model)).collect()
        };
        prices.iter().flat_map(line).collect()
    };
    let (before, after) = (lines(have), lines(&outcome.prices));
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| ('-', line));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| ('+', line));
    let mut changes: Vec<_> = gone.chain(come).collect();
    changes.sort_by_key(|&(sign, line)| (line.split("..").next().map(str::to_owned), sign == '+'));
    outcome.changes = changes.into_iter().map(|(sign, line)| format!("{sign} {line}")).collect();
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
