//! Data, which goes to stdout: as a table for people, as JSON or as JSON lines for programs.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table as Grid};
use serde_json::Value;

use crate::failure::{Exit, Failure, Outcome};

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// One JSON value per line, for lists.
    Jsonl,
}

impl Format {
    /// Writes `data`: as it came from the server, or as `table` shows it.
    pub(crate) fn write(self, data: &Value, table: impl FnOnce() -> String) -> Outcome {
        match (self, data) {
            (Format::Table, _) => write(&table()),
            (Format::Json, _) => write(&format!("{data:#}")),
            (Format::Jsonl, Value::Array(items)) => {
                write(&items.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"))
            }
            (Format::Jsonl, _) => write(&data.to_string()),
        }
    }
}

/// Writes text to stdout, with a line break; nothing for an empty text.
pub(crate) fn write(text: &str) -> Outcome {
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // `dormouse … | head` has what it wants.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(
            Exit::Unavailable,
            format!("cannot write to stdout: {error}"),
        )),
    }
}

/// A table for people: headings in capitals, no lines, as wide as the terminal.
pub(crate) struct Table {
    grid: Grid,
    rows: usize,
    colour: bool,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Table {
        let mut grid = Grid::new();
        grid.load_style(comfy_table::presets::NOTHING);
        grid.set_header(headings.iter().map(|heading| Cell::new(heading.to_uppercase())));
        // A pipe gets whole lines, however long.
        let live = std::io::stdout().is_terminal();
        grid.set_content_arrangement(if live {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        if !live {
            grid.force_no_tty();
        }
        Table {
            grid,
            rows: 0,
            colour: console::colors_enabled(),
        }
    }

    /// Adds a row. Cells that are the words of a status get its colour.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let colour = self.colour;
        self.grid.add_row(cells.into_iter().map(|text| {
            let cell = Cell::new(text.as_ref());
            match colour_of(text.as_ref()) {
                Some(shade) if colour => cell.fg(shade),
                _ => cell,
            }
        }));
        self.rows += 1;
    }

    /// The text, without spaces at the ends of lines; `none` is said on stderr when there is no row.
    pub(crate) fn text(self, none: &str) -> String {
        if self.rows == 0 {
            crate::terminal::say(none);
            return String::new();
        }
        let text = self.grid.to_string();
        // Every cell is padded on both sides.
        let lines = text
            .lines()
            .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn colour_of(text: &str) -> Option<Color> {
    let word = text.split([' ', '·', ':']).next()?;
    match word {
        "Completed" | "ok" | "active" => Some(Color::Green),
        "Failed" | "failed" | "error" | "blocked" => Some(Color::Red),
        "Running" | "Scheduled" => Some(Color::Cyan),
        "Cancelled" | "Skipped" | "warning" => Some(Color::Yellow),
        _ => None,
    }
}

/// A member of a JSON object as text; empty when it is absent or null.
pub(crate) fn text(value: &Value, member: &str) -> String {
    match &value[member] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time of a JSON object as how long ago it was.
pub(crate) fn ago(value: &Value, member: &str) -> String {
    let time = value[member].as_str().and_then(|text| text.parse().ok());
    time.map(|time| crate::units::show_ago(time, jiff::Timestamp::now()))
        .unwrap_or_default()
}

/// A digest short enough for a table: `sha256:` and twelve digits, which every command takes.
pub(crate) fn short_digest(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}
