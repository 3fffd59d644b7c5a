//! What the statements answered, written as JSON while the rows come: `[{"rows": [{"id": 1}], "rows_affected": 0}]`.
//!
//! Written at once and measured on the way, so that a result of any size costs no more memory than the limit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dormouse_core::{Failure, Json, limit};

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

    /// Begins a row of the statement that has begun.
    pub(super) fn open_row(&mut self) {
        if !self.text.ends_with('[') {
            self.text.push(',');
        }
        self.text.push('{');
    }

    /// Begins a column of the row; its value is to follow.
    ///
    /// # Errors
    /// `output-too-large`.
    pub(super) fn column(&mut self, name: &str) -> Result<(), Failure> {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.value(name)?;
        self.text.push(':');
        self.reserve(0)
    }

    pub(super) fn close_row(&mut self) -> Result<(), Failure> {
        self.text.push('}');
        self.reserve(0)
    }

    /// A value of a column, or a part of one, as it stands in JSON.
    pub(super) fn literal(&mut self, json: &str) -> Result<(), Failure> {
        self.reserve(json.len())?;
        self.text.push_str(json);
        Ok(())
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.reserve(text.len())?;
        self.value(text)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.reserve(bytes.len())?;
        self.text.push_str("{\"$base64\":\"");
        STANDARD.encode_string(bytes, &mut self.text);
        self.text.push_str("\"}");
        Ok(())
    }

    /// A float, which must be a number.
    pub(super) fn float<F: serde::Serialize + Into<f64> + Copy>(
        &mut self,
        column: &str,
        number: F,
    ) -> Result<(), Failure> {
        let wide: f64 = number.into();
        if wide.is_nan() {
            return Err(unfit(column, "NaN has no JSON form"));
        }
        if wide.is_infinite() {
            return Err(unfit(column, "infinity has no JSON form"));
        }
        self.value(&number)
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

    /// Anything small that serde can write.
    pub(super) fn value<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        let json = serde_json::to_string(value)
            .map_err(|error| Failure::terminal("invalid-sql-result", error.to_string()))?;
        self.text.push_str(&json);
        Ok(())
    }

    /// Refuses when `more` bytes would be more than an output may have.
    fn reserve(&self, more: usize) -> Result<(), Failure> {
        if self.text.len() + more <= limit::OUTPUT_BYTES_MAX {
            return Ok(());
        }
        Err(too_large())
    }
}

/// The result is larger than an output may be.
pub(super) fn too_large() -> Failure {
    let message = format!(
        "the result is larger than {} bytes of JSON: select less, or in pages of several steps",
        limit::OUTPUT_BYTES_MAX
    );
    Failure::terminal("output-too-large", message)
}

/// A column's value, or the column itself, has no JSON form.
pub(super) fn unfit(column: &str, reason: &str) -> Failure {
    Failure::terminal("invalid-sql-result", format!("column \"{column}\": {reason}"))
}
