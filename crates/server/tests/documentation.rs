//! The documentation of errors is complete and agrees with the code.
#![allow(clippy::panic, reason = "a helper that fails fails its test")]

use toktra_protocol::Code;

#[test]
fn every_code_is_documented_with_its_status_and_no_other_is() {
    let text = include_str!("../../../docs/errors.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    for code in Code::ALL {
        let name = format!("`{}`", code.name());
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(row[1], code.status().to_string(), "{name}");
        assert_eq!(row.len(), 4, "{name} lacks its meaning or what to do");
    }
    assert_eq!(rows.len(), Code::ALL.len());
}
