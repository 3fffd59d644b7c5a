//! Reading journals: all entries of a run from one on.
//!
//! Resuming a run waits for this, and what sqlx does for each row (a copy of each cell, a hand-over between threads)
//! costs several times what SQLite does for it. So SQLite puts a thousand entries into one text, and the text is taken
//! apart here. What SQLite spends on that grows with the number of things put together, not with their bytes: an entry
//! is three numbers (its place and kind are one), then the name, whose length the third is, then the two JSON texts,
//! each closed by a character that stands in no JSON text. Absent on purpose: what entries mean, and writing them.

use dormouse_core::journal::Record;
use dormouse_core::{Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::sql::{Cells, fetch};
use crate::batch::execute::record_kind;
use crate::error::{Error, Result};

/// How many entries come in one row.
const CHUNK: usize = 1024;

/// What closes a JSON text: a control character, which JSON has only as an escape.
const CLOSING: char = '\u{1e}';

/// A row for each 1,024 places from the first asked for to the last there is. A payload that is null comes as the empty
/// text, which is no JSON. One statement, so that what it answers is the journal as it was at one moment. It names no
/// order, since sorting costs more than all else: the table lies in the order of its key, and entries that would come
/// otherwise are sorted here.
pub(super) const PACKED: &str = "\
    WITH RECURSIVE chunk(start) AS (\
        VALUES (?2) UNION ALL \
        SELECT start + 1024 FROM chunk WHERE start + 1024 <= (SELECT max(seq) FROM journal WHERE run_id = ?1)\
    ) \
    SELECT (\
        SELECT group_concat(concat(\
            j.seq * 256 + j.kind, ' ', j.at_ms, ' ', octet_length(j.name), ' ', j.name, j.meta, x'1e', \
            CASE WHEN j.large \
                THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = j.run_id AND b.seq = j.seq) \
                ELSE j.payload END, \
            x'1e'), '') \
        FROM journal j WHERE j.run_id = ?1 AND j.seq >= chunk.start AND j.seq < chunk.start + 1024\
    ) FROM chunk";

/// A run's journal from an entry on.
pub(super) async fn journal(conn: &mut SqliteConnection, run: RunId, from: Seq) -> Result<Vec<Record>> {
    let rows = fetch(conn, PACKED, |args| {
        args.run(run).int(from.into());
    })
    .await?;
    let mut records = Vec::with_capacity(rows.len() * CHUNK);
    for row in &rows {
        if let Some(text) = Cells::of(row).text_or_null()? {
            unpack(text, &mut records).map_err(|what| {
                let last = records
                    .last()
                    .map_or("none".to_owned(), |record| record.seq.to_string());
                Error::Corrupt(format!(
                    "run {run}: the journal after entry {last} cannot be read: {what}"
                ))
            })?;
        }
    }
    if !records.is_sorted_by_key(|record| record.seq) {
        records.sort_by_key(|record| record.seq);
    }
    Ok(records)
}

/// Takes a text apart into the entries it holds.
fn unpack(text: &str, records: &mut Vec<Record>) -> std::result::Result<(), String> {
    let mut rest = text;
    while !rest.is_empty() {
        let place = number(&mut rest)?;
        let seq = u32::try_from(place / 256).map_err(|error| error.to_string())?;
        let kind = record_kind(seq, place % 256).map_err(|error| error.to_string())?;
        let at = Timestamp::from_millis(number(&mut rest)?);
        let length = number(&mut rest)?;
        let name = piece(&mut rest, length)?.to_owned();
        let meta = closed(&mut rest)?.to_owned();
        let payload = closed(&mut rest)?;
        records.push(Record {
            seq,
            kind,
            name,
            at,
            meta,
            payload: (!payload.is_empty()).then(|| Json::trusted(payload)),
        });
    }
    Ok(())
}

/// The number that the text begins with, and the space after it.
fn number(rest: &mut &str) -> std::result::Result<i64, String> {
    let bytes = rest.as_bytes();
    let mut value = 0_i64;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                value = value
                    .checked_mul(10)
                    .and_then(|value| value.checked_add(i64::from(byte - b'0')))
                    .ok_or("a number is too large")?;
            }
            b' ' if index > 0 => {
                *rest = &rest[index + 1..];
                return Ok(value);
            }
            _ => break,
        }
    }
    let what: String = rest.chars().take(20).collect();
    Err(format!(
        "a number should stand before \"{}\"",
        what.escape_debug()
    ))
}

/// The bytes that the text begins with.
fn piece<'t>(rest: &mut &'t str, length: i64) -> std::result::Result<&'t str, String> {
    let (piece, after) = usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| format!("{length} bytes of a text are missing"))?;
    *rest = after;
    Ok(piece)
}

/// The JSON text that the text begins with, and what closes it.
fn closed<'t>(rest: &mut &'t str) -> std::result::Result<&'t str, String> {
    let (piece, after) = rest.split_once(CLOSING).ok_or("the end of a text is missing")?;
    *rest = after;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(text: &str) -> std::result::Result<Vec<Record>, String> {
        let mut records = Vec::new();
        unpack(text, &mut records).map(|()| records)
    }

    #[test]
    fn texts_of_any_content_come_apart_where_they_were_joined() {
        let text = "1 5 4 a 1\x1e{}\x1e\x1e1793 1790000000000 0 {\"v\":1}\x1e\"비디오\"\x1e";
        let records = unpacked(text).expect("reads");
        assert_eq!(records.len(), 2);
        assert_eq!(
            (
                records[0].name.as_str(),
                records[0].meta.as_str(),
                &records[0].payload
            ),
            ("a 1\x1e", "{}", &None)
        );
        assert_eq!(records[1].seq, 7);
        assert_eq!(records[1].payload, Some(Json::trusted("\"비디오\"")));
    }

    #[test]
    fn what_does_not_come_apart_is_refused_and_says_where() {
        for (text, what) in [
            ("1 1 5", "a number should stand before \"5\""),
            ("x 1 5 ", "a number should stand before \"x 1 5 \""),
            ("-1 1 5 ", "a number should stand before \"-1 1 5 \""),
            (" 1 5 ", "a number should stand before"),
            ("9999999999999999999 1 5 ", "too large"),
            ("1099511627777 1 5 ", "out of range"),
            ("9 5 0 ", "unknown kind 9"),
            ("1 5 3 ab", "3 bytes of a text are missing"),
            ("1 5 1 é\x1e\x1e", "1 bytes of a text are missing"),
            ("1 5 0 {}", "the end of a text is missing"),
            ("1 5 0 {}\x1e\"a\"", "the end of a text is missing"),
        ] {
            let error = unpacked(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
