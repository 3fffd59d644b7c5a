//! What a step asks for: statements and their parameters, read from JSON and checked before a database sees them.
//!
//! `[{"sql": "INSERT INTO t VALUES (?, ?)", "params": [1, {"$base64": "AAEC"}]}]`. What a parameter becomes is the
//! database's to say. Absent on purpose: any look at what the SQL says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dormouse_core::{Failure, Json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// One statement, its parameters as the database's room reads them.
#[derive(Debug, PartialEq)]
pub(super) struct Statement<P> {
    pub(super) sql: String,
    pub(super) params: Vec<P>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    sql: String,
    #[serde(default)]
    params: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    #[serde(rename = "$base64")]
    base64: String,
}

impl<P> Statement<P> {
    /// Reads the statements of an operation. `parameter` reads one from its JSON text, or says why it cannot: through
    /// a value tree an integer of twenty digits would turn into a float.
    ///
    /// # Errors
    /// `invalid-sql-input`, naming the statement and the parameter.
    pub(super) fn read_all(
        json: &Json,
        parameter: fn(&str) -> Result<P, String>,
    ) -> Result<Vec<Statement<P>>, Failure> {
        let written: Vec<Written> = json.read().map_err(|error| {
            invalid(format!(
                "the statements must be an array of {{\"sql\", \"params\"}}: {error}"
            ))
        })?;
        if written.is_empty() {
            return Err(invalid("there is no statement".to_owned()));
        }
        written
            .into_iter()
            .enumerate()
            .map(|(index, written)| Statement::read(index + 1, written, parameter))
            .collect()
    }

    fn read(
        number: usize,
        written: Written,
        parameter: fn(&str) -> Result<P, String>,
    ) -> Result<Statement<P>, Failure> {
        // Databases stop reading at a NUL, so that what is behind it would be dropped without a word.
        if written.sql.contains('\0') {
            return Err(invalid(format!(
                "statement {number} has a NUL character in its text"
            )));
        }
        let params = written.params.iter().enumerate().map(|(index, raw)| {
            parameter(raw.get())
                .map_err(|reason| invalid(format!("statement {number}, parameter {}: {reason}", index + 1)))
        });
        let params = params.collect::<Result<_, _>>()?;
        Ok(Statement {
            sql: written.sql,
            params,
        })
    }
}

/// A failure of one of several statements, saying of which.
pub(super) fn at(index: usize, count: usize, failure: Failure) -> Failure {
    Failure {
        message: format!("statement {} of {count}: {}", index + 1, failure.message),
        ..failure
    }
}

/// The bytes of `{"$base64": "…"}`.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let bytes: Bytes = serde_json::from_str(text).map_err(|_| {
        "an object is no SQL value: pass JSON as a string, bytes as {\"$base64\": \"…\"}".to_owned()
    })?;
    STANDARD
        .decode(bytes.base64)
        .map_err(|error| format!("$base64: {error}"))
}

/// A value's text as a sentence can hold it.
pub(super) fn shortened(text: &str) -> String {
    const CHARS: usize = 40;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn invalid(reason: String) -> Failure {
    Failure::terminal("invalid-sql-input", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_has_another_shape_by_place() {
        let parameter = |text: &str| match text {
            "13" => Err("unlucky".to_owned()),
            text => Ok(text.to_owned()),
        };
        for (json, words) in [
            (r#"{}"#, "must be an array"),
            (r#"[]"#, "no statement"),
            (r#"["SELECT 1"]"#, "must be an array of"),
            (r#"[{"params":[]}]"#, "missing field `sql`"),
            (r#"[{"sql":1}]"#, "expected a string"),
            (r#"[{"sql":"x","parameters":[]}]"#, "parameters"),
            (r#"[{"sql":"x","params":{"a":1}}]"#, "expected a sequence"),
            (
                r#"[{"sql":"SELECT 1\u0000; DROP TABLE t"}]"#,
                "statement 1 has a NUL",
            ),
            (
                r#"[{"sql":"x"},{"sql":"x","params":[1,13]}]"#,
                "statement 2, parameter 2: unlucky",
            ),
        ] {
            let failure = Statement::read_all(&Json::parse(json).expect("JSON"), parameter).expect_err(json);
            assert!(failure.message.contains(words), "{json}: {failure}");
            assert_eq!(failure.code.as_deref(), Some("invalid-sql-input"));
        }
        let json = Json::trusted(r#"[{"sql":"x","params":[1e3, [1]]},{"sql":"y"}]"#);
        let read = Statement::read_all(&json, parameter).expect("valid");
        assert_eq!(read[0].params, ["1e3", "[1]"]);
        assert_eq!((read[1].sql.as_str(), read[1].params.len()), ("y", 0));
    }

    #[test]
    fn long_values_are_shortened_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ü".repeat(41)), format!("{}…", "ü".repeat(40)));
    }
}
