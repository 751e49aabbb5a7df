//! What the verbs print: tables that fit the terminal, JSON, lines.
//!
//! Devices name themselves, so no text from outside reaches a terminal with its control
//! characters. A reader that leaves early (`| head`) is no failure.

use std::io::{self, ErrorKind, Write as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

/// Output for programs.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Format {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Prints a line.
pub(super) fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Prints JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(say(&serde_json::to_string_pretty(value)?)?)
}

/// Prints a table, or that it is empty. The first column never wraps.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> io::Result<()> {
    if rows.is_empty() {
        eprintln!("{empty}");
        return Ok(());
    }
    say(&draw(header, rows, None))
}

/// Prints names and values, one pair a line. Empty values are left out.
pub(super) fn facts(pairs: Vec<(&str, String)>) -> io::Result<()> {
    let rows = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    say(&draw(&[], rows.collect(), None))
}

/// A value of a JSON object as a person reads it; empty when it is absent or null.
pub(super) fn text(of: &Value, pointer: &str) -> String {
    of.pointer(pointer).map_or_else(String::new, shown)
}

/// A time of the API, in a form that breaks well in a narrow column.
pub(super) fn when(of: &Value, pointer: &str) -> String {
    text(of, pointer).replacen('T', " ", 1)
}

/// A JSON value as a person reads it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            items.join(", ")
        }
        other => other.to_string(),
    }
}

/// Text without what could steer a terminal.
pub(super) fn plain(text: &str) -> String {
    let steers =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Whether the reader of stdout went away.
pub(super) fn reader_left(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn draw(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    table.add_rows(
        rows.iter()
            .map(|row| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>()),
    );
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn a_table_lines_up_and_fits_the_width_without_breaking_the_id() {
        let rows = vec![
            row(&["00008110-000A", "a long name of a device that wraps"]),
            row(&["B", "c"]),
        ];
        let wide = draw(&["ID", "NAME"], rows.clone(), Some(80));
        assert_eq!(
            wide,
            "ID             NAME\n\
             00008110-000A  a long name of a device that wraps\n\
             B              c"
        );
        let narrow = draw(&["ID", "NAME"], rows, Some(30));
        assert!(narrow.lines().all(|line| line.chars().count() <= 30));
        assert!(narrow.contains("00008110-000A"), "{narrow}");
    }

    #[test]
    fn what_a_device_calls_itself_cannot_steer_the_terminal() {
        let drawn = draw(&["NAME"], vec![row(&["a\u{1b}[2Jb\nc\u{9b}d"])], Some(80));
        assert_eq!(drawn, "NAME\na\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn json_values_read_as_a_person_writes_them() {
        let value = json!({"a": null, "b": true, "c": ["x", 1], "d": {"e": 7}});
        assert_eq!(text(&value, "/a"), "");
        assert_eq!(text(&value, "/b"), "yes");
        assert_eq!(text(&value, "/c"), "x, 1");
        assert_eq!(text(&value, "/d/e"), "7");
        assert_eq!(text(&value, "/none"), "");
        let value = json!({"at": "2027-01-15T08:00:00Z"});
        assert_eq!(when(&value, "/at"), "2027-01-15 08:00:00Z");
    }
}
