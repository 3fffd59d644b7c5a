//! What the statements answered, written as JSON while the rows come: `[{"rows": [{"id": 1}], "rows_affected": 0}]`.
//!
//! Written at once and measured on the way, so that a result of any size costs no more memory than the limit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dormouse_core::{Failure, Json, limit};
use rusqlite::Row;
use rusqlite::types::ValueRef;

/// The answers so far.
pub(super) struct Answers {
    text: String,
}

impl Answers {
    pub(super) fn new() -> Answers {
        Answers { text: "[".to_owned() }
    }

    /// Begins a statement's answer. `columns` are the names of what it returns; none for one that returns no rows.
    ///
    /// # Errors
    /// `invalid-sql-result`: two columns of one name.
    pub(super) fn begin(&mut self, columns: &[String]) -> Result<(), Failure> {
        let mut sorted: Vec<&String> = columns.iter().collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!(
                "two columns of the result are named \"{}\": rename one with AS",
                pair[0]
            );
            return Err(Failure::terminal("invalid-sql-result", message));
        }
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str("{\"rows\":[");
        Ok(())
    }

    /// Adds a row of the statement that has begun.
    ///
    /// # Errors
    /// `invalid-sql-result` for a value that has no JSON form, `output-too-large`.
    pub(super) fn row(&mut self, columns: &[String], row: &Row<'_>) -> Result<(), Failure> {
        if !self.text.ends_with('[') {
            self.text.push(',');
        }
        for (index, column) in columns.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.value(column)?;
            self.text.push(':');
            let value = row
                .get_ref(index)
                .map_err(|error| unfit(column, &error.to_string()))?;
            match value {
                ValueRef::Null => self.text.push_str("null"),
                ValueRef::Integer(number) => self.value(&number)?,
                ValueRef::Real(number) if number.is_finite() => self.value(&number)?,
                ValueRef::Real(_) => return Err(unfit(column, "infinity has no JSON form")),
                ValueRef::Text(bytes) => {
                    self.reserve(bytes.len())?;
                    let text =
                        std::str::from_utf8(bytes).map_err(|_| unfit(column, "the text is not UTF-8"))?;
                    self.value(text)?;
                }
                ValueRef::Blob(bytes) => {
                    self.reserve(bytes.len())?;
                    self.text.push_str("{\"$base64\":\"");
                    STANDARD.encode_string(bytes, &mut self.text);
                    self.text.push_str("\"}");
                }
            }
            self.reserve(0)?;
        }
        self.text.push('}');
        Ok(())
    }

    /// Ends the answer of the statement that has begun.
    ///
    /// # Errors
    /// `output-too-large`.
    pub(super) fn end(&mut self, rows_affected: u64) -> Result<(), Failure> {
        self.text.push_str("],\"rows_affected\":");
        self.value(&rows_affected)?;
        self.text.push('}');
        // The bracket that closes the whole is still to come.
        self.reserve(1)
    }

    pub(super) fn finish(mut self) -> Json {
        self.text.push(']');
        Json::trusted(self.text)
    }

    fn value<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        let json = Json::from_value(value)
            .map_err(|error| Failure::terminal("invalid-sql-result", error.to_string()))?;
        self.text.push_str(json.as_str());
        Ok(())
    }

    /// Refuses when `more` bytes would be more than an output may have.
    fn reserve(&self, more: usize) -> Result<(), Failure> {
        if self.text.len() + more <= limit::OUTPUT_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "the result is larger than {} bytes of JSON: select less, or in pages of several steps",
            limit::OUTPUT_BYTES_MAX
        );
        Err(Failure::terminal("output-too-large", message))
    }
}

fn unfit(column: &str, reason: &str) -> Failure {
    Failure::terminal("invalid-sql-result", format!("column \"{column}\": {reason}"))
}
