//! Lists as text, a column as wide as its widest cell.

/// Lines of a table, the heading first.
pub fn lines<const COLUMNS: usize>(
    heading: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Vec<String> {
    let mut table = vec![heading.map(str::to_owned)];
    table.extend(rows.into_iter().map(|row| row.map(printable)));
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

/// What devices say of themselves must not steer a terminal.
fn printable(cell: String) -> String {
    cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let rows = [["a\u{1b}[31m".to_owned(), "1".to_owned()], ["long name".to_owned(), "2".to_owned()]];
        let text = lines(["name", "n"], rows);
        assert_eq!(text, ["name       n", "a\u{fffd}[31m     1", "long name  2"]);
    }
}
