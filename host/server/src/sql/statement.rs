//! What a step asks for: statements and their parameters, read from JSON and checked before a database sees them.
//!
//! `[{"sql": "INSERT INTO t VALUES (?, ?)", "params": [1, {"$base64": "AAEC"}]}]`. Absent on purpose: any look at what
//! the SQL says. The database's own parser and authorizer do that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dormouse_core::{Failure, Json};
use rusqlite::types::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

/// One statement, ready to be bound.
#[derive(Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<Value>,
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

impl Statement {
    /// Reads the statements of an operation.
    ///
    /// # Errors
    /// `invalid-sql-input`, naming the statement and the parameter.
    pub(super) fn read_all(json: &Json) -> Result<Vec<Statement>, Failure> {
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
            .map(|(index, written)| Statement::read(index + 1, written))
            .collect()
    }

    fn read(number: usize, written: Written) -> Result<Statement, Failure> {
        // SQLite stops reading at a NUL, so that what is behind it would be dropped without a word.
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

/// Reads one parameter from its text: through a value tree an integer of twenty digits would turn into a float.
fn parameter(text: &str) -> Result<Value, String> {
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Integer(1)),
        Some(b'f') => Ok(Value::Integer(0)),
        Some(b'"') => serde_json::from_str(text)
            .map(Value::Text)
            .map_err(|error| error.to_string()),
        Some(b'{') => {
            let bytes: Bytes = serde_json::from_str(text).map_err(|_| {
                "an object is no SQL value: pass JSON as a string, bytes as {\"$base64\": \"…\"}".to_owned()
            })?;
            STANDARD
                .decode(bytes.base64)
                .map(Value::Blob)
                .map_err(|error| format!("$base64: {error}"))
        }
        Some(b'[') => Err("an array is no SQL value: pass JSON as a string".to_owned()),
        _ if text.contains(['.', 'e', 'E']) => match serde_json::from_str::<f64>(text) {
            Ok(number) if number.is_finite() => Ok(Value::Real(number)),
            _ => Err(format!("{} is beyond what a float holds", shortened(text))),
        },
        _ => text.parse().map(Value::Integer).map_err(|_| {
            format!(
                "{} is beyond what a 64-bit signed integer holds: pass it as a string",
                shortened(text)
            )
        }),
    }
}

/// A number as a sentence can hold it. Digits are ASCII, so that any cut is between characters.
fn shortened(number: &str) -> String {
    const CHARS: usize = 40;
    match number.get(..CHARS) {
        Some(start) => format!("{start}…"),
        None => number.to_owned(),
    }
}

fn invalid(reason: String) -> Failure {
    Failure::terminal("invalid-sql-input", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_parameter() {
        let json = r#"[{"sql":"x","params":[null,true,false,-7,9223372036854775807,-9223372036854775808,1.0,1e3,-0.0,
            "ü\u0000\ud83d\ude00",{"$base64":"AP8="},{"$base64":""}]},{"sql":"y"}]"#;
        let read = Statement::read_all(&Json::parse(json).expect("JSON")).expect("valid");
        assert_eq!(
            read[0].params,
            [
                Value::Null,
                Value::Integer(1),
                Value::Integer(0),
                Value::Integer(-7),
                Value::Integer(i64::MAX),
                Value::Integer(i64::MIN),
                Value::Real(1.0),
                Value::Real(1000.0),
                Value::Real(-0.0),
                Value::Text("ü\0😀".to_owned()),
                Value::Blob(vec![0, 255]),
                Value::Blob(vec![]),
            ]
        );
        assert_eq!(
            read[1],
            Statement {
                sql: "y".to_owned(),
                params: vec![]
            }
        );
    }

    #[test]
    fn refuses_the_rest_by_place() {
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
                r#"[{"sql":"x"},{"sql":"x","params":[1,9223372036854775808]}]"#,
                "statement 2, parameter 2: 9223372036854775808 is",
            ),
            (
                r#"[{"sql":"x","params":[-9223372036854775809]}]"#,
                "64-bit signed integer",
            ),
            (
                r#"[{"sql":"x","params":[123456789012345678901234567890123456789012345]}]"#,
                "1234567890123456789012345678901234567890…",
            ),
            (r#"[{"sql":"x","params":[1e999]}]"#, "beyond what a float holds"),
            (r#"[{"sql":"x","params":[[1]]}]"#, "an array is no SQL value"),
            (r#"[{"sql":"x","params":[{"a":1}]}]"#, "an object is no SQL value"),
            (
                r#"[{"sql":"x","params":[{"$base64":"AA==","b":1}]}]"#,
                "an object is no SQL value",
            ),
            (r#"[{"sql":"x","params":[{"$base64":"?"}]}]"#, "$base64: "),
            (r#"[{"sql":"x","params":["\ud800"]}]"#, "parameter 1: "),
        ] {
            let failure = Statement::read_all(&Json::parse(json).expect("JSON")).expect_err(json);
            assert!(failure.message.contains(words), "{json}: {failure}");
            assert_eq!(failure.code.as_deref(), Some("invalid-sql-input"));
        }
    }
}
