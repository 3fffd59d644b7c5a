//! Parameters: from JSON to what the server says that it wants, in Postgres' binary format.
//!
//! The server infers a parameter's type from where it stands, and a value that does not fit is refused here by its
//! number. Absent on purpose: guessing; `$1::int8` says what `$1` is.

use serde_json::value::RawValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, Postgres};
use sqlx::{Arguments as _, TypeInfo as _};

use super::kind::Kind;
use super::{numeric, time};
use crate::sql::statement::{bytes, shortened};

/// The values of a statement's parameters, as `types` want them.
///
/// # Errors
/// A sentence that names the parameter.
pub(super) fn bind(types: &[PgTypeInfo], values: &[String]) -> Result<PgArguments, String> {
    if types.len() != values.len() {
        return Err(format!(
            "it has {} parameters, and {} values are given",
            types.len(),
            values.len()
        ));
    }
    let mut arguments = PgArguments::default();
    for (number, (info, value)) in (1..).zip(types.iter().zip(values)) {
        let name = info.name().to_ascii_lowercase();
        let bytes = match value.as_str() {
            "null" => None,
            value => {
                let Some(kind) = Kind::of(info) else {
                    return Err(format!(
                        "parameter {number} is of type {name}, which has no JSON form here: write \
                         ${number}::text::{name} and pass a string"
                    ));
                };
                let mut bytes = Vec::new();
                encode(&kind, value, &mut bytes).map_err(|reason| {
                    format!(
                        "parameter {number} is of type {name}, and {} does not fit: {reason}",
                        shortened(value)
                    )
                })?;
                Some(bytes)
            }
        };
        let info = info.clone();
        arguments
            .add(Bound { info, bytes })
            .map_err(|error| format!("parameter {number}: {error}"))?;
    }
    Ok(arguments)
}

/// A value of a type that is known only now.
struct Bound {
    info: PgTypeInfo,
    bytes: Option<Vec<u8>>,
}

impl sqlx::Type<Postgres> for Bound {
    fn type_info() -> PgTypeInfo {
        // Never asked: `produces` says more.
        PgTypeInfo::with_name("text")
    }
}

impl sqlx::Encode<'_, Postgres> for Bound {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let Some(bytes) = &self.bytes else {
            return Ok(IsNull::Yes);
        };
        buf.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.info.clone())
    }
}

/// Appends a value that is not null. Says why it is none of its kind.
fn encode(kind: &Kind, value: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Kind::Bool => match value {
            "true" => out.push(1),
            "false" => out.push(0),
            _ => return Err("pass true or false".to_owned()),
        },
        Kind::Int2 => out.extend(integer::<i16>(value)?.to_be_bytes()),
        Kind::Int4 => out.extend(integer::<i32>(value)?.to_be_bytes()),
        Kind::Int8 => out.extend(integer::<i64>(value)?.to_be_bytes()),
        Kind::Oid => out.extend(integer::<u32>(value)?.to_be_bytes()),
        Kind::Float4 => {
            let number: f32 = float(value)?;
            if number.is_infinite() && !value.contains('I') {
                return Err("it is beyond what the type holds".to_owned());
            }
            out.extend(number.to_be_bytes());
        }
        Kind::Float8 => {
            let number: f64 = float(value)?;
            if number.is_infinite() && !value.contains('I') {
                return Err("it is beyond what the type holds".to_owned());
            }
            out.extend(number.to_be_bytes());
        }
        Kind::Numeric => numeric::encode(&number(value)?, out)?,
        Kind::Text => {
            let text = string(value)?;
            if text.contains('\0') {
                return Err("a text of Postgres cannot hold a NUL character".to_owned());
            }
            out.extend(text.as_bytes());
        }
        Kind::Json => out.extend(value.as_bytes()),
        Kind::Jsonb => {
            out.push(1);
            out.extend(value.as_bytes());
        }
        Kind::Bytea => match value.starts_with('{') {
            true => out.extend(bytes(value)?),
            false => return Err("pass bytes as {\"$base64\": \"…\"}".to_owned()),
        },
        Kind::Uuid => out.extend(uuid(&string(value)?).ok_or("it is not a UUID")?),
        Kind::Timestamptz => out.extend(time::read_timestamptz(&string(value)?)?.to_be_bytes()),
        Kind::Timestamp => out.extend(time::read_timestamp(&string(value)?)?.to_be_bytes()),
        Kind::Date => out.extend(time::read_date(&string(value)?)?.to_be_bytes()),
        Kind::Time => out.extend(time::read_time(&string(value)?)?.to_be_bytes()),
        Kind::Void => return Err("nothing but null is of this type".to_owned()),
        Kind::Array(element, oid) => array(element, *oid, value, out)?,
    }
    Ok(())
}

fn array(kind: &Kind, oid: u32, value: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut lengths = Vec::new();
    let mut elements = Vec::new();
    // An array within an array of JSON is an element.
    let nests = !matches!(kind, Kind::Json | Kind::Jsonb);
    flatten(value, nests, 0, &mut lengths, &mut elements)?;
    let count = |number: usize| i32::try_from(number).map_err(|_| "it is too long".to_owned());
    if elements.is_empty() {
        lengths.clear();
    }
    let nulls = elements.iter().any(|element| element == "null");
    out.extend(count(lengths.len())?.to_be_bytes());
    out.extend(i32::from(nulls).to_be_bytes());
    out.extend(oid.to_be_bytes());
    for length in &lengths {
        out.extend(count(*length)?.to_be_bytes());
        out.extend(1_i32.to_be_bytes());
    }
    for (number, element) in (1..).zip(&elements) {
        if element == "null" {
            out.extend((-1_i32).to_be_bytes());
            continue;
        }
        let mut bytes = Vec::new();
        encode(kind, element, &mut bytes)
            .map_err(|reason| format!("element {number}, {}: {reason}", shortened(element)))?;
        out.extend(count(bytes.len())?.to_be_bytes());
        out.extend(bytes);
    }
    Ok(())
}

/// The elements of nested arrays, and how long the arrays of each depth are, which Postgres wants to be the same.
fn flatten(
    value: &str,
    nests: bool,
    depth: usize,
    lengths: &mut Vec<usize>,
    elements: &mut Vec<String>,
) -> Result<(), String> {
    /// Postgres' own bound.
    const DEPTH_MAX: usize = 6;
    if depth == DEPTH_MAX {
        return Err(format!("it has more than {DEPTH_MAX} dimensions"));
    }
    let items: Vec<Box<RawValue>> = match value.starts_with('[') {
        true => serde_json::from_str(value).map_err(|error| error.to_string())?,
        false => return Err("pass an array".to_owned()),
    };
    let uneven = || "its inner arrays are not of one length".to_owned();
    match lengths.get(depth) {
        None => lengths.push(items.len()),
        Some(length) if *length == items.len() => {}
        Some(_) => return Err(uneven()),
    }
    for item in &items {
        let is_array = nests && item.get().starts_with('[');
        // Elements are all at the same depth: the first that was found says at which.
        let is_deepest = lengths.len() == depth + 1;
        match is_array {
            true if is_deepest && !elements.is_empty() => return Err(uneven()),
            true => flatten(item.get(), nests, depth + 1, lengths, elements)?,
            false if !is_deepest => return Err(uneven()),
            false => elements.push(item.get().to_owned()),
        }
    }
    Ok(())
}

fn string(value: &str) -> Result<String, String> {
    match value.starts_with('"') {
        true => serde_json::from_str(value).map_err(|error| error.to_string()),
        false => Err("pass a string".to_owned()),
    }
}

/// A number as it is written, also in a string: JSON's own may have gone through a float elsewhere.
fn number(value: &str) -> Result<String, String> {
    match value.as_bytes().first() {
        Some(b'"') => string(value),
        Some(b'-' | b'0'..=b'9') => Ok(value.to_owned()),
        _ => Err("pass a number, or a string that is one".to_owned()),
    }
}

fn integer<I: std::str::FromStr<Err = std::num::ParseIntError>>(value: &str) -> Result<I, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    number(value)?
        .parse()
        .map_err(|error: std::num::ParseIntError| match error.kind() {
            PosOverflow | NegOverflow => "it is beyond what the type holds".to_owned(),
            _ => "it is not an integer".to_owned(),
        })
}

fn float<F: std::str::FromStr>(value: &str) -> Result<F, String> {
    number(value)?
        .parse()
        .map_err(|_| "it is not a number".to_owned())
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let plain = match text.len() {
        36 => {
            let hyphens = [8, 13, 18, 23];
            if !hyphens.iter().all(|at| text.as_bytes().get(*at) == Some(&b'-')) {
                return None;
            }
            text.replace('-', "")
        }
        _ => text.to_owned(),
    };
    let is_hex = plain.len() == 32 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex
        .then(|| u128::from_str_radix(&plain, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: &Kind, value: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        encode(kind, value, &mut out).map(|()| out)
    }

    #[test]
    fn what_fits_is_what_the_type_wants() {
        for (kind, value, bytes) in [
            (Kind::Bool, "true", vec![1]),
            (Kind::Int2, "-2", vec![0xff, 0xfe]),
            (Kind::Int2, "\"-2\"", vec![0xff, 0xfe]),
            (Kind::Int8, "9223372036854775807", i64::MAX.to_be_bytes().to_vec()),
            (Kind::Oid, "4294967295", vec![0xff; 4]),
            (Kind::Float4, "0.1", 0.1_f32.to_be_bytes().to_vec()),
            (Kind::Float8, "7", 7_f64.to_be_bytes().to_vec()),
            (
                Kind::Float8,
                "\"-Infinity\"",
                f64::NEG_INFINITY.to_be_bytes().to_vec(),
            ),
            (Kind::Text, r#""\u00fc""#, "ü".into()),
            (Kind::Json, r#"{"a":[1]}"#, r#"{"a":[1]}"#.into()),
            (Kind::Jsonb, r#""text""#, b"\x01\"text\"".to_vec()),
            (Kind::Bytea, r#"{"$base64":"AP8="}"#, vec![0, 255]),
            (
                Kind::Uuid,
                r#""00010203-0405-0607-0809-0A0b0c0d0e0f""#,
                (0..16).collect(),
            ),
            (
                Kind::Timestamptz,
                r#""2000-01-01T00:00:00.000001Z""#,
                1_i64.to_be_bytes().to_vec(),
            ),
            (Kind::Date, r#""2000-01-02""#, 1_i32.to_be_bytes().to_vec()),
        ] {
            assert_eq!(encoded(&kind, value), Ok(bytes), "{value}");
        }
    }

    #[test]
    fn what_does_not_is_told_why() {
        for (kind, value, words) in [
            (Kind::Bool, "1", "true or false"),
            (Kind::Int2, "32768", "beyond"),
            (Kind::Int4, "2.5", "not an integer"),
            (Kind::Int4, "true", "pass a number"),
            (Kind::Int8, "\"seven\"", "not an integer"),
            (Kind::Float4, "1e39", "beyond"),
            (Kind::Float8, "1e999", "beyond"),
            (Kind::Float8, "\"x\"", "not a number"),
            (Kind::Numeric, "\"x\"", "not a decimal"),
            (Kind::Text, "7", "pass a string"),
            (Kind::Text, r#""a\u0000b""#, "NUL"),
            (Kind::Bytea, "\"AP8=\"", "$base64"),
            (Kind::Bytea, r#"{"a":1}"#, "$base64"),
            (Kind::Uuid, "\"0001\"", "UUID"),
            (Kind::Uuid, "\"-00102030405060708090a0b0c0d0e0f--ü\"", "UUID"),
            (Kind::Timestamptz, "1700000000", "pass a string"),
            (Kind::Date, "\"31.1.2026\"", "2026-01-31"),
        ] {
            let reason = encoded(&kind, value).expect_err(value);
            assert!(reason.contains(words), "{value}: {reason}");
        }
    }

    #[test]
    fn arrays_are_even() {
        let array = Kind::Array(Box::new(Kind::Int2), 21);
        let words = |words: &[i32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        assert_eq!(encoded(&array, "[]"), Ok(words(&[0, 0, 21])));
        assert_eq!(encoded(&array, "[[],[]]"), Ok(words(&[0, 0, 21])));
        let mut one = words(&[1, 1, 21, 2, 1, -1, 2]);
        one.extend([0, 7]);
        assert_eq!(encoded(&array, "[null, 7]"), Ok(one));
        let mut two = words(&[2, 0, 21, 1, 1, 1, 1, 2]);
        two.extend([0, 7]);
        assert_eq!(encoded(&array, "[[7]]"), Ok(two));
        for (value, why) in [
            ("7", "pass an array"),
            ("[[1],[2,3]]", "one length"),
            ("[1,[2]]", "one length"),
            ("[[1],2]", "one length"),
            ("[1,\"x\"]", "element 2, \"x\": it is not an integer"),
            ("[[[[[[[1]]]]]]]", "6 dimensions"),
        ] {
            let reason = encoded(&array, value).expect_err(value);
            assert!(reason.contains(why), "{value}: {reason}");
        }
        let json = Kind::Array(Box::new(Kind::Json), 114);
        let mut bytes = words(&[1, 0, 114, 1, 1, 3]);
        bytes.extend(b"[1]");
        assert_eq!(encoded(&json, "[[1]]"), Ok(bytes));
    }
}
