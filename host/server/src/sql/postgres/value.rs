//! What Postgres answers, as JSON: values in its binary format, written as they come.

use dormouse_core::{Failure, Json};
use sqlx::postgres::{PgColumn, PgRow};
use sqlx::{Column as _, Row as _, TypeInfo as _, ValueRef as _};

use super::kind::Kind;
use super::{numeric, time};
use crate::sql::answer::{Answers, unfit};

/// A statement's columns: what they are named, and what their values are.
pub(super) struct Columns {
    pub(super) names: Vec<String>,
    kinds: Vec<Kind>,
}

impl Columns {
    /// # Errors
    /// `invalid-sql-result`: a column whose type has no JSON form here.
    pub(super) fn of(columns: &[PgColumn]) -> Result<Columns, Failure> {
        let names = columns.iter().map(|column| column.name().to_owned()).collect();
        let kinds = columns.iter().map(|column| {
            let info = column.type_info();
            Kind::of(info).ok_or_else(|| {
                let name = column.name();
                let reason = format!(
                    "its type {} has no JSON form here: cast it, for example {name}::text AS {name}",
                    info.name().to_ascii_lowercase()
                );
                unfit(name, &reason)
            })
        });
        Ok(Columns {
            kinds: kinds.collect::<Result<_, _>>()?,
            names,
        })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// `invalid-sql-result`, `output-too-large`.
    pub(super) fn write(&self, row: &PgRow, answers: &mut Answers) -> Result<(), Failure> {
        answers.open_row();
        for (index, (name, kind)) in self.names.iter().zip(&self.kinds).enumerate() {
            answers.column(name)?;
            let value = row
                .try_get_raw(index)
                .map_err(|error| unfit(name, &error.to_string()))?;
            match value.is_null() {
                true => answers.literal("null")?,
                false => {
                    let bytes = value
                        .as_bytes()
                        .map_err(|error| unfit(name, &error.to_string()))?;
                    write(kind, bytes, name, answers)?;
                }
            }
        }
        answers.close_row()
    }
}

fn write(kind: &Kind, bytes: &[u8], column: &str, answers: &mut Answers) -> Result<(), Failure> {
    let strange = || unfit(column, "the value is not what its type says");
    let unfit = |reason: &str| unfit(column, reason);
    match kind {
        Kind::Bool => answers.literal(if bytes == [0] { "false" } else { "true" }),
        Kind::Int2 => answers.value(&i16::from_be_bytes(exactly(bytes).ok_or_else(strange)?)),
        Kind::Int4 => answers.value(&i32::from_be_bytes(exactly(bytes).ok_or_else(strange)?)),
        Kind::Int8 => answers.value(&int8(bytes).ok_or_else(strange)?),
        Kind::Oid => answers.value(&u32::from_be_bytes(exactly(bytes).ok_or_else(strange)?)),
        Kind::Float4 => {
            let number = f32::from_be_bytes(exactly(bytes).ok_or_else(strange)?);
            answers.float(column, number)
        }
        Kind::Float8 => {
            let number = f64::from_be_bytes(exactly(bytes).ok_or_else(strange)?);
            answers.float(column, number)
        }
        Kind::Numeric => answers.text(&numeric::decode(bytes).ok_or_else(strange)?),
        Kind::Text => answers.text(std::str::from_utf8(bytes).map_err(|_| unfit("the text is not UTF-8"))?),
        Kind::Json => json(bytes, answers).map_err(|reason| reason.unwrap_or_else(strange)),
        Kind::Jsonb => {
            // One byte says which format follows; there is one.
            let text = bytes.strip_prefix(&[1]).ok_or_else(strange)?;
            json(text, answers).map_err(|reason| reason.unwrap_or_else(strange))
        }
        Kind::Bytea => answers.bytes(bytes),
        Kind::Uuid => {
            let bytes: [u8; 16] = exactly(bytes).ok_or_else(strange)?;
            answers.text(&uuid(bytes))
        }
        Kind::Timestamptz => {
            let micros = int8(bytes).ok_or_else(strange)?;
            answers.text(&time::timestamptz(micros).map_err(unfit)?)
        }
        Kind::Timestamp => {
            let micros = int8(bytes).ok_or_else(strange)?;
            answers.text(&time::timestamp(micros).map_err(unfit)?)
        }
        Kind::Date => {
            let days = i32::from_be_bytes(exactly(bytes).ok_or_else(strange)?);
            answers.text(&time::date(days).map_err(unfit)?)
        }
        Kind::Time => {
            let micros = int8(bytes).ok_or_else(strange)?;
            answers.text(&time::time(micros).map_err(unfit)?)
        }
        Kind::Void => answers.literal("null"),
        Kind::Array(element, _) => {
            let mut array = Reader(bytes);
            let dimensions = array.int4().ok_or_else(strange)?;
            // Whether there are NULLs, and the elements' type.
            array.take(8).ok_or_else(strange)?;
            let mut lengths = Vec::new();
            for _ in 0..dimensions {
                lengths.push(array.int4().ok_or_else(strange)?);
                // The number of the first element.
                array.int4().ok_or_else(strange)?;
            }
            match lengths.is_empty() {
                true => answers.literal("[]"),
                false => elements(element, &lengths, &mut array, column, answers),
            }
        }
    }
}

fn elements(
    kind: &Kind,
    lengths: &[i32],
    array: &mut Reader<'_>,
    column: &str,
    answers: &mut Answers,
) -> Result<(), Failure> {
    let strange = || unfit(column, "the value is not what its type says");
    let Some((length, inner)) = lengths.split_first() else {
        return Err(strange());
    };
    answers.literal("[")?;
    for index in 0..*length {
        if index > 0 {
            answers.literal(",")?;
        }
        if !inner.is_empty() {
            elements(kind, inner, array, column, answers)?;
            continue;
        }
        let length = array.int4().ok_or_else(strange)?;
        match usize::try_from(length) {
            Ok(length) => write(kind, array.take(length).ok_or_else(strange)?, column, answers)?,
            Err(_) => answers.literal("null")?,
        }
    }
    answers.literal("]")
}

/// JSON as it is, checked: what it says goes into an answer that has to be JSON. Without a failure: it is none.
fn json(bytes: &[u8], answers: &mut Answers) -> Result<(), Option<Failure>> {
    let text = std::str::from_utf8(bytes).map_err(|_| None)?;
    let json = Json::parse(text).map_err(|_| None)?;
    answers.literal(json.as_str()).map_err(Some)
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn exactly<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn int8(bytes: &[u8]) -> Option<i64> {
    exactly(bytes).map(i64::from_be_bytes)
}

/// Bytes, read from their beginning.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn int4(&mut self) -> Option<i32> {
        exactly(self.take(4)?).map(i32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: &Kind, bytes: &[u8]) -> Result<String, Failure> {
        let mut answers = Answers::new();
        answers.begin(&["c".to_owned()])?;
        answers.open_row();
        answers.column("c")?;
        write(kind, bytes, "c", &mut answers)?;
        answers.close_row()?;
        answers.end(0)?;
        let text = answers.finish().to_string();
        let value = text
            .strip_prefix(r#"[{"rows":[{"c":"#)
            .and_then(|rest| rest.strip_suffix(r#"}],"rows_affected":0}]"#));
        Ok(value.expect("the frame").to_owned())
    }

    #[test]
    fn every_kind_has_its_form() {
        for (kind, bytes, json) in [
            (Kind::Bool, vec![1], "true"),
            (Kind::Int2, vec![0xff, 0xfe], "-2"),
            (
                Kind::Int8,
                i64::MIN.to_be_bytes().to_vec(),
                "-9223372036854775808",
            ),
            (Kind::Oid, vec![0xff; 4], "4294967295"),
            (Kind::Float4, 0.1_f32.to_be_bytes().to_vec(), "0.1"),
            (Kind::Float8, 0.1_f64.to_be_bytes().to_vec(), "0.1"),
            (Kind::Text, "a\"ü".into(), r#""a\"ü""#),
            (Kind::Json, r#" {"b": 1e400} "#.into(), r#"{"b": 1e400}"#),
            (Kind::Jsonb, b"\x01[1]".to_vec(), "[1]"),
            (Kind::Bytea, vec![0, 255], r#"{"$base64":"AP8="}"#),
            (
                Kind::Uuid,
                (0..16).collect(),
                r#""00010203-0405-0607-0809-0a0b0c0d0e0f""#,
            ),
            (Kind::Void, vec![], "null"),
        ] {
            assert_eq!(written(&kind, &bytes).expect(json), json);
        }
    }

    #[test]
    fn arrays_of_any_depth_and_with_nulls() {
        let array = Kind::Array(Box::new(Kind::Int2), 21);
        let of = |words: &[i32], tail: &[u8]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            bytes.extend(tail);
            written(&array, &bytes)
        };
        assert_eq!(of(&[0, 0, 21], &[]).expect("empty"), "[]");
        assert_eq!(of(&[1, 1, 21, 2, 1, -1, 2], &[0, 7]).expect("one"), "[null,7]");
        assert_eq!(
            of(&[2, 1, 21, 1, 1, 2, 1, -1, 2], &[0, 7]).expect("two"),
            "[[null,7]]"
        );
        for (words, tail) in [(&[1, 0, 21][..], &[][..]), (&[1, 0, 21, 1, 1, 2], &[0])] {
            let failure = of(words, tail).expect_err("cut off");
            assert_eq!(failure.code.as_deref(), Some("invalid-sql-result"));
        }
    }

    #[test]
    fn what_has_no_form_is_named() {
        for (kind, bytes) in [
            (Kind::Float8, f64::NAN.to_be_bytes().to_vec()),
            (Kind::Float4, f32::INFINITY.to_be_bytes().to_vec()),
            (Kind::Timestamptz, i64::MAX.to_be_bytes().to_vec()),
            (Kind::Date, i32::MIN.to_be_bytes().to_vec()),
            (Kind::Int4, vec![1]),
            (Kind::Text, vec![0xff]),
            (Kind::Json, b"{".to_vec()),
        ] {
            let failure = written(&kind, &bytes).expect_err("no form");
            assert!(failure.message.starts_with("column \"c\": "), "{failure}");
            assert_eq!(failure.code.as_deref(), Some("invalid-sql-result"));
        }
    }
}
