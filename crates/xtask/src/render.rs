//! Prices as text: the data file in its one canonical form, and a line of a difference.

use std::fmt::Write as _;

use toktra_catalog::{Model, Prices};

/// A provider's data file. Reading it gives the same prices in the same order.
pub fn file(prices: &Prices) -> String {
    let mut text = String::from(
        "# Written by `cargo xtask prices`, which keeps the entries made by hand; docs/catalog.md says more.\n\n",
    );
    let _ = writeln!(text, "[[prices]]\nof = {}", quoted(&prices.of));
    for model in &prices.models {
        text.push_str("\n[[prices.model]]\n");
        entry(&mut text, model);
    }
    text
}

fn entry(text: &mut String, model: &Model) {
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("name", quoted(&model.name));
    if model.typical {
        line("typical", "true".into());
    }
    if model.rare {
        line("rare", "true".into());
    }
    line("input_micros_per_mtok", grouped(model.input_micros_per_mtok));
    if let Some(cached) = model.cached_input_micros_per_mtok {
        line("cached_input_micros_per_mtok", grouped(cached));
    }
    line("output_micros_per_mtok", grouped(model.output_micros_per_mtok));
    line("valid_from", quoted(&model.valid_from));
    if let Some(until) = &model.valid_until {
        line("valid_until", quoted(until));
    }
    line("source", quoted(&model.source));
    line("checked_on", quoted(&model.checked_on));
    for (key, value) in [("read_from", &model.read_from), ("note", &model.note)] {
        value.iter().for_each(|value| line(key, quoted(value)));
    }
}

/// What a person compares.
pub fn line(provider: &str, model: &Model) -> String {
    let cached = model.cached_input_micros_per_mtok.map_or("-".to_owned(), dollars);
    format!(
        "{provider} {} {}..{} in {} cached {cached} out {}{}",
        model.name,
        model.valid_from,
        model.valid_until.as_deref().unwrap_or_default(),
        dollars(model.input_micros_per_mtok),
        dollars(model.output_micros_per_mtok),
        if model.rare { " rare" } else { "" },
    )
}

/// `1_250_000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// `$1.25`, in full.
fn dollars(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("${whole}.{part:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let model = Model {
            name: "odd \"name\" \\ \u{1}".into(),
            typical: true,
            rare: false,
            input_micros_per_mtok: 1_234_567,
            cached_input_micros_per_mtok: Some(100),
            output_micros_per_mtok: 1_000_000_000,
            valid_from: "2026-01-01".into(),
            valid_until: Some("2027-01-01".into()),
            source: "https://a.example/prices".into(),
            checked_on: "2026-01-02".into(),
            read_from: Some("list 1".into()),
            note: None,
        };
        let bare =
            Model { valid_until: None, read_from: None, cached_input_micros_per_mtok: None, ..model.clone() };
        let prices = Prices { of: "p".into(), models: vec![model, bare] };
        let text = file(&prices);
        assert!(text.contains("= 1_234_567\n") && text.contains("= 1_000_000_000\n"));
        assert_eq!(Prices::parse("test", &text).unwrap(), [prices]);
    }

    #[test]
    fn money_is_shown_in_full() {
        assert_eq!(
            (dollars(1_250_000), dollars(5), dollars(30_000_000)),
            ("$1.25".into(), "$0.000005".into(), "$30".into())
        );
    }
}
