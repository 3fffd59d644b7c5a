//! Reading journals: all entries of a run from one on.
//!
//! Resuming a run waits for this, and what sqlx does for each row (a copy of each cell, a hand-over between threads)
//! costs several times what SQLite does for it. So SQLite puts a thousand entries into one text, each as six numbers and
//! the three texts whose lengths the last three are, and the text is taken apart here. Absent on purpose: what entries
//! mean, and writing them.

use dormouse_core::journal::Record;
use dormouse_core::{Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::sql::{Cells, fetch};
use crate::batch::execute::record_kind;
use crate::error::{Error, Result};

/// A row for each 1,024 places from the first asked for to the last there is. A payload that is null has length -1.
/// One statement, so that what it answers is the journal as it was at one moment.
pub(super) const PACKED: &str = "\
    WITH RECURSIVE chunk(start) AS (\
        VALUES (?2) UNION ALL \
        SELECT start + 1024 FROM chunk WHERE start + 1024 <= (SELECT max(seq) FROM journal WHERE run_id = ?1)\
    ) \
    SELECT (\
        SELECT group_concat(concat(seq, ' ', kind, ' ', at_ms, ' ', octet_length(name), ' ', octet_length(meta), ' ', \
            ifnull(octet_length(text), -1), ' ', name, meta, text), '') \
        FROM (\
            SELECT j.seq, j.kind, j.at_ms, j.name, j.meta, \
                CASE WHEN j.large \
                    THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = j.run_id AND b.seq = j.seq) \
                    ELSE j.payload END AS text \
            FROM journal j WHERE j.run_id = ?1 AND j.seq >= chunk.start AND j.seq < chunk.start + 1024 ORDER BY j.seq\
        )\
    ) FROM chunk";

/// A run's journal from an entry on.
pub(super) async fn journal(conn: &mut SqliteConnection, run: RunId, from: Seq) -> Result<Vec<Record>> {
    let rows = fetch(conn, PACKED, |args| {
        args.run(run).int(from.into());
    })
    .await?;
    let mut records = Vec::new();
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
    Ok(records)
}

/// Takes a text apart into the entries it holds.
fn unpack(text: &str, records: &mut Vec<Record>) -> std::result::Result<(), String> {
    let mut rest = text;
    while !rest.is_empty() {
        let seq = u32::try_from(number(&mut rest)?).map_err(|error| error.to_string())?;
        if records.last().is_some_and(|before| before.seq >= seq) {
            return Err(format!("entry {seq} is out of order"));
        }
        let kind = number(&mut rest)?;
        let at = number(&mut rest)?;
        let lengths = [number(&mut rest)?, number(&mut rest)?, number(&mut rest)?];
        let name = piece(&mut rest, lengths[0])?.to_owned();
        let meta = piece(&mut rest, lengths[1])?.to_owned();
        let payload = match lengths[2] {
            -1 => None,
            length => Some(Json::trusted(piece(&mut rest, length)?)),
        };
        records.push(Record {
            seq,
            kind: record_kind(seq, kind).map_err(|error| error.to_string())?,
            name,
            at: Timestamp::from_millis(at),
            meta,
            payload,
        });
    }
    Ok(())
}

/// The number that the text begins with, and the space after it.
fn number(rest: &mut &str) -> std::result::Result<i64, String> {
    let (digits, after) = rest.split_once(' ').ok_or("a number is missing")?;
    *rest = after;
    digits.parse().map_err(|_| format!("\"{digits}\" is no number"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(text: &str) -> std::result::Result<Vec<Record>, String> {
        let mut records = Vec::new();
        unpack(text, &mut records).map(|()| records)
    }

    #[test]
    fn texts_of_any_content_come_apart_where_they_were_joined() {
        let text = "0 1 5 4 2 -1 a 1\0{}7 3 1790000000000 0 7 11 {\"v\":1}\"비디오\"";
        let records = unpacked(text).expect("reads");
        assert_eq!(records.len(), 2);
        assert_eq!(
            (
                records[0].name.as_str(),
                records[0].meta.as_str(),
                &records[0].payload
            ),
            ("a 1\0", "{}", &None)
        );
        assert_eq!(records[1].seq, 7);
        assert_eq!(records[1].payload, Some(Json::trusted("\"비디오\"")));
    }

    #[test]
    fn what_does_not_come_apart_is_refused_and_says_where() {
        for (text, what) in [
            ("0 1 5", "a number is missing"),
            ("x 1 5 0 0 -1 ", "\"x\" is no number"),
            ("-1 1 5 0 0 -1 ", "out of range"),
            ("0 9 5 0 0 -1 ", "unknown kind 9"),
            ("0 1 5 3 0 -1 ab", "3 bytes of a text are missing"),
            ("0 1 5 0 0 -2 ", "-2 bytes of a text are missing"),
            ("0 1 5 1 0 -1 é", "1 bytes of a text are missing"),
            ("1 1 5 0 0 -1 1 1 5 0 0 -1 ", "entry 1 is out of order"),
        ] {
            let error = unpacked(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
