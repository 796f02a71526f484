//! Results on standard output: tables for people, one JSON document for programs.

use std::io::Write;

use serde_json::Value;

pub struct Output {
    pub json: bool,
}

impl Output {
    /// Prints the document, or what `text` makes of the result for people.
    pub fn print(&self, document: &Value, text: impl FnOnce() -> String) {
        let text = if self.json { format!("{document:#}") } else { text() };
        // A reader that has gone away, as `| head` does, is no error.
        let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    }
}

/// Columns as wide as their widest cell; the last one is not padded.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    std::iter::once(&head).chain(rows).map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes, as people read them.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "long name".into()], vec!["bcd".into(), "x".into()]];
        assert_eq!(table(&["ID", "NAME"], &rows), "ID   NAME\na    long name\nbcd  x");
    }

    #[test]
    fn sizes_have_two_digits_at_least() {
        for (bytes, text) in
            [(0, "0 B"), (9_999, "9999 B"), (10_000, "10 kB"), (10_000_000, "10 MB"), (12_345_678_901, "12 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
