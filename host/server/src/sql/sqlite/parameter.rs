//! What a parameter is to SQLite. Absent on purpose: types of columns, which SQLite does not insist on.

use rusqlite::types::Value;

use crate::sql::statement::{bytes, shortened};

/// Reads one parameter from its JSON text.
pub(crate) fn parameter(text: &str) -> Result<Value, String> {
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Integer(1)),
        Some(b'f') => Ok(Value::Integer(0)),
        Some(b'"') => serde_json::from_str(text)
            .map(Value::Text)
            .map_err(|error| error.to_string()),
        Some(b'{') => bytes(text).map(Value::Blob),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind() {
        for (text, value) in [
            ("null", Value::Null),
            ("true", Value::Integer(1)),
            ("false", Value::Integer(0)),
            ("-7", Value::Integer(-7)),
            ("9223372036854775807", Value::Integer(i64::MAX)),
            ("-9223372036854775808", Value::Integer(i64::MIN)),
            ("1.0", Value::Real(1.0)),
            ("1e3", Value::Real(1000.0)),
            ("-0.0", Value::Real(-0.0)),
            (r#""ü\u0000\ud83d\ude00""#, Value::Text("ü\0😀".to_owned())),
            (r#"{"$base64":"AP8="}"#, Value::Blob(vec![0, 255])),
            (r#"{"$base64":""}"#, Value::Blob(vec![])),
        ] {
            assert_eq!(parameter(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (text, words) in [
            ("9223372036854775808", "9223372036854775808 is"),
            ("-9223372036854775809", "64-bit signed integer"),
            (
                "123456789012345678901234567890123456789012345",
                "1234567890123456789012345678901234567890…",
            ),
            ("1e999", "beyond what a float holds"),
            ("[1]", "an array is no SQL value"),
            (r#"{"a":1}"#, "an object is no SQL value"),
            (r#"{"$base64":"AA==","b":1}"#, "an object is no SQL value"),
            (r#"{"$base64":"?"}"#, "$base64: "),
            (r#""\ud800""#, ""),
        ] {
            let reason = parameter(text).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
    }
}
