//! Lists, tables and prices made for the tests.

use super::*;
use crate::list;

const TODAY: &str = "2026-11-04";

fn table(taken: &[&str]) -> Table {
    let mapping = Mapping {
        list: "acme-list".into(),
        ours: "acme".into(),
        source: "https://acme.example/prices".into(),
        usual: taken.iter().map(|&id| id.to_owned()).collect(),
        rare: Vec::new(),
        ignored: vec!["embed-*".into()],
        renamed: BTreeMap::from([("small-latest".to_owned(), "small".to_owned())]),
    };
    Table { providers: vec![mapping] }
}

/// From when, and dollars in and out as text.
type Listed<'a> = (&'a str, &'a str, &'a str);

/// A list of models by identifier.
fn listed(models: &[(&str, &[Listed<'_>])]) -> List {
    let model = |(id, steps): &(&str, &[Listed<'_>])| {
        let steps: Vec<_> = steps
            .iter()
            .map(|(from, input, output)| {
                let constraint = match from.split('-').collect::<Vec<_>>()[..] {
                    [year, month, day] => format!(
                        "constraint=StartDateConstraint(start_date=datetime.date({year}, {}, {})), ",
                        month.trim_start_matches('0'),
                        day.trim_start_matches('0')
                    ),
                    _ => String::new(),
                };
                format!("ConditionalPrice({constraint}prices=ModelPrice(input_mtok=Decimal('{input}'), output_mtok=Decimal('{output}')))")
            })
            .collect();
        format!("ModelInfo(id='{id}', prices=[{}])", steps.join(", "))
    };
    let models: Vec<_> = models.iter().map(model).collect();
    list::read(&format!("providers = [Provider(id='acme-list', models=[{}])]", models.join(", "))).unwrap()
}

fn ours(name: &str, dates: (&str, Option<&str>), input: u64, output: u64) -> Model {
    Model {
        name: name.into(),
        typical: true,
        rare: false,
        input_micros_per_mtok: input,
        cached_input_micros_per_mtok: None,
        output_micros_per_mtok: output,
        valid_from: dates.0.into(),
        valid_until: dates.1.map(str::to_owned),
        source: "https://acme.example/old".into(),
        checked_on: "2026-01-01".into(),
        read_from: None,
        note: Some("by hand".into()),
    }
}

fn merged(taken: &[&str], list: &List, have: Vec<Model>) -> Outcome {
    let import = Import { read_from: "list 1".into(), checked_on: TODAY.into(), accepted: Vec::new() };
    let outcome = merge(&table(taken), list, &[Prices { of: "acme".into(), models: have }], &import);
    let again = merge(&table(taken), list, &outcome.prices, &import);
    assert_eq!((again.prices, again.changes), (outcome.prices.clone(), Vec::new()), "a second time");
    outcome
}

/// From, until, input.
fn entries(outcome: &Outcome) -> Vec<(&str, Option<&str>, u64)> {
    outcome.prices[0]
        .models
        .iter()
        .map(|model| (model.valid_from.as_str(), model.valid_until.as_deref(), model.input_micros_per_mtok))
        .collect()
}

#[test]
fn a_price_that_agrees_is_confirmed_and_keeps_what_was_entered_by_hand() {
    let list = listed(&[("small-latest", &[("", "1", "4")])]);
    let have = vec![ours("small", ("2025-01-01", None), 1_000_000, 4_000_000)];
    let outcome = merged(&["small-latest"], &list, have);
    assert_eq!((outcome.confirmed, outcome.changes.len(), outcome.doubts.len()), (1, 0, 0));
    let model = &outcome.prices[0].models[0];
    assert_eq!((model.checked_on.as_str(), model.read_from.as_deref()), (TODAY, Some("list 1")));
    assert_eq!((model.typical, model.note.as_deref()), (true, Some("by hand")));
    assert_eq!(model.source, "https://acme.example/old");
}

#[test]
fn a_new_price_without_a_date_begins_on_the_day_of_the_list_and_history_stays() {
    let list = listed(&[("big", &[("", "2", "4")])]);
    let have = vec![ours("big", ("2025-01-01", None), 1_000_000, 4_000_000)];
    let outcome = merged(&["big"], &list, have);
    let expected = [("2025-01-01", Some(TODAY), 1_000_000), (TODAY, None, 2_000_000)];
    assert_eq!(entries(&outcome), expected);
    assert_eq!(outcome.changes.len(), 3);
}

#[test]
fn the_lists_dated_history_replaces_ours_from_the_models_first_day_on() {
    let steps: &[_] =
        &[("", "9", "9"), ("2025-03-01", "3", "9"), ("2026-01-01", "2", "9"), ("2027-01-01", "4", "9")];
    let list = listed(&[("big", steps)]);
    let have = vec![ours("big", ("2025-06-01", None), 5_000_000, 9_000_000)];
    let outcome = merged(&["big"], &list, have);
    let expected = [
        ("2025-06-01", Some("2026-01-01"), 3_000_000),
        ("2026-01-01", Some("2027-01-01"), 2_000_000),
        ("2027-01-01", None, 4_000_000),
    ];
    assert_eq!(entries(&outcome), expected);
}

#[test]
fn nothing_is_dropped_and_what_is_unknown_is_reported() {
    let list = listed(&[
        ("big", &[("", "1", "4")]),
        ("brand-new", &[("", "1", "4")]),
        ("embed-1", &[("", "1", "4")]),
    ]);
    let have = vec![
        ours("by hand", ("2025-01-01", None), 1_000_000, 4_000_000),
        ours("small", ("2025-02-01", Some("2025-03-01")), 1_000_000, 4_000_000),
    ];
    let outcome = merged(&["big", "small-latest"], &list, have);
    assert_eq!(outcome.doubts, Vec::<String>::new());
    let names: Vec<_> = outcome.prices[0].models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["by hand", "small", "big"]);
    assert_eq!(outcome.kept.len(), 2);
    assert_eq!(outcome.unknown, ["acme-list/brand-new"]);
}

#[test]
fn a_price_entered_per_token_where_per_million_is_meant_is_doubted_and_the_reverse() {
    // $2.50 a million is $0.0000025 a token; taken for a price per token it is $2,500,000 a million.
    for (input, output) in [("0.000003", "0.00001"), ("2500000", "10000000"), ("0", "0")] {
        let list = listed(&[("big", &[("", input, output)])]);
        let outcome = merged(&["big"], &list, vec![ours("big", ("2025-01-01", None), 2_500_000, 10_000_000)]);
        assert_eq!((outcome.doubts.len(), outcome.changes.len()), (1, 0), "{input}");
    }
    let list = listed(&[("big", &[("", "0.0000025", "0.00001")])]);
    assert_eq!(
        merged(&["big"], &list, Vec::new()).doubts,
        ["acme-list/big has a price that is finer than a micro-dollar per million tokens"]
    );
    let list = listed(&[("big", &[("", "-1", "4")])]);
    assert_eq!(merged(&["big"], &list, Vec::new()).doubts, ["acme-list/big has a price that is negative"]);
}

#[test]
fn a_jump_by_more_than_ten_times_is_doubted_until_a_person_accepts_it() {
    let list = listed(&[("big", &[("", "11", "4")])]);
    let have =
        [Prices { of: "acme".into(), models: vec![ours("big", ("2025-01-01", None), 1_000_000, 4_000_000)] }];
    let mut import = Import { read_from: "list 1".into(), checked_on: TODAY.into(), accepted: Vec::new() };
    assert_eq!(merge(&table(&["big"]), &list, &have, &import).doubts.len(), 1);
    import.accepted = vec!["acme/big".into()];
    assert_eq!(merge(&table(&["big"]), &list, &have, &import).doubts.len(), 0);
    let list = listed(&[("big", &[("", "10", "4")])]);
    import.accepted.clear();
    assert_eq!(merge(&table(&["big"]), &list, &have, &import).doubts.len(), 0);
}

#[test]
fn a_list_that_shrank_by_half_is_doubted_and_changes_nothing() {
    let list = listed(&[("a", &[("", "2", "4")])]);
    let have = vec![ours("a", ("2025-01-01", None), 1_000_000, 4_000_000)];
    let outcome = merged(&["a", "b", "c"], &list, have);
    assert_eq!((outcome.doubts.len(), outcome.changes.len()), (1, 0));
    let gone = merge(
        &table(&["a"]),
        &List::new(),
        &[],
        &Import { read_from: "list 1".into(), checked_on: TODAY.into(), accepted: Vec::new() },
    );
    assert_eq!(gone.doubts.len(), 1);
}
