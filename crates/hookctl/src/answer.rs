//! What a command says: one JSON document for programs, or text for people, and an exit code.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::error::{Error, exit};

/// A command's answer in both forms.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub document: Value,
    pub text: String,
    /// Not always [`exit::OK`]: an event that was rejected is an answer as well.
    pub exit_code: u8,
}

impl Answer {
    #[must_use]
    pub fn new(document: Value, text: impl Into<String>) -> Self {
        Self {
            document,
            text: text.into(),
            exit_code: exit::OK,
        }
    }

    #[must_use]
    pub fn with_exit_code(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }
}

/// Writes a command's end to stdout and stderr, and returns the exit code.
pub fn write(json: bool, ended: Result<Answer, Error>) -> u8 {
    match ended {
        Ok(answer) if json => {
            stdout(&format!("{}\n", answer.document));
            answer.exit_code
        }
        Ok(answer) => {
            stdout(&answer.text);
            answer.exit_code
        }
        Err(error) => {
            if json {
                let message = error.to_string();
                let error = json!({"error": {"code": error.code(), "message": message}});
                stdout(&format!("{error}\n"));
            }
            stderr(&format!("hookctl: {error}\n"));
            error.exit_code()
        }
    }
}

/// A reader that has gone away, as in `hookctl … | head`, is no failure.
pub fn stdout(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub fn stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Columns for people: as wide as their widest cell, the last one as it is.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    #[must_use]
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_uppercase).to_vec()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table, or `none` where it has no rows.
    #[must_use]
    pub fn render_or(&self, none: &str) -> String {
        if self.rows.len() < 2 {
            return format!("{none}\n");
        }
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(column) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // A `String` takes everything.
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A value that may be missing, in a table.
#[must_use]
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["id", "name"]);
        table.row(["1".to_owned(), "Möbel AG".to_owned()]);
        table.row(["1000".to_owned(), String::new()]);
        assert_eq!(
            table.render_or("none"),
            "ID    NAME\n1     Möbel AG\n1000\n"
        );
        assert_eq!(Table::new(["id"]).render_or("none"), "none\n");
    }
}
