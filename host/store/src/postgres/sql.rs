//! How values go to Postgres and come back: columns as arrays for `UNNEST`, ids as uuid, texts without NUL.
//!
//! Absent on purpose: any statement. They stand next to what uses them.

use std::borrow::Cow;

use dormouse_core::{EventId, RunId, Timestamp};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnection, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef, Postgres,
};
use sqlx::{Arguments as _, Row as _};

use super::fault::Attempt;
use crate::error::{Error, Result};
use crate::schedule::Incarnation;

/// Sixteen bytes, stored as uuid.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) [u8; 16]);

// The type's numbers are the same in every Postgres.
const UUID: PgTypeInfo = PgTypeInfo::with_oid(Oid(2950));
const UUID_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(2951));

impl sqlx::Type<Postgres> for Key {
    fn type_info() -> PgTypeInfo {
        UUID
    }
}

impl PgHasArrayType for Key {
    fn array_type_info() -> PgTypeInfo {
        UUID_ARRAY
    }
}

impl sqlx::Encode<'_, Postgres> for Key {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }
}

impl<'r> sqlx::Decode<'r, Postgres> for Key {
    fn decode(value: PgValueRef<'r>) -> std::result::Result<Key, BoxDynError> {
        Ok(Key(value.as_bytes()?.try_into()?))
    }
}

impl From<RunId> for Key {
    fn from(id: RunId) -> Key {
        Key(id.to_bytes())
    }
}

impl From<EventId> for Key {
    fn from(id: EventId) -> Key {
        Key(id.to_bytes())
    }
}

impl From<Incarnation> for Key {
    fn from(id: Incarnation) -> Key {
        Key(id.0)
    }
}

/// Postgres' texts cannot hold NUL, ours can: it is written as this character, which is none, and `0`; the character
/// itself as itself and `1`.
const ESCAPE: char = '\u{ffff}';

/// A text as Postgres can hold it.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(ESCAPE, "\u{ffff}1").replace('\0', "\u{ffff}0"))
}

/// The text that [`escaped`] was given.
pub(super) fn unescaped(text: &str) -> String {
    if !text.contains(ESCAPE) {
        return text.to_owned();
    }
    text.replace("\u{ffff}0", "\0").replace("\u{ffff}1", "\u{ffff}")
}

/// Values to bind, in order.
#[derive(Default)]
pub(super) struct Args(PgArguments);

impl Args {
    fn add<'t, T: sqlx::Encode<'t, Postgres> + sqlx::Type<Postgres>>(&mut self, value: T) -> &mut Args {
        // Numbers, texts and bytes always encode, and a batch is bounded far below what an array can hold.
        let _ = self.0.add(value);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn int(&mut self, value: i64) -> &mut Args {
        self.add(value)
    }

    pub(super) fn int_or_null(&mut self, value: Option<i64>) -> &mut Args {
        self.add(value)
    }

    pub(super) fn time(&mut self, value: Timestamp) -> &mut Args {
        self.add(value.as_millis())
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Args {
        self.add(escaped(value))
    }

    pub(super) fn text_or_null(&mut self, value: Option<&str>) -> &mut Args {
        self.add(value.map(escaped))
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Args {
        self.add(value)
    }

    pub(super) fn bytes_or_null(&mut self, value: Option<&[u8]>) -> &mut Args {
        self.add(value)
    }

    pub(super) fn key(&mut self, value: impl Into<Key>) -> &mut Args {
        self.add(value.into())
    }

    // Columns: one array each.

    pub(super) fn ints(&mut self, values: impl Iterator<Item = i64>) -> &mut Args {
        self.add(values.collect::<Vec<i64>>())
    }

    pub(super) fn ints_or_null(&mut self, values: impl Iterator<Item = Option<i64>>) -> &mut Args {
        self.add(values.collect::<Vec<Option<i64>>>())
    }

    pub(super) fn flags(&mut self, values: impl Iterator<Item = bool>) -> &mut Args {
        self.add(values.collect::<Vec<bool>>())
    }

    pub(super) fn keys<K: Into<Key>>(&mut self, values: impl Iterator<Item = K>) -> &mut Args {
        self.add(values.map(Into::into).collect::<Vec<Key>>())
    }

    pub(super) fn keys_or_null<K: Into<Key>>(
        &mut self,
        values: impl Iterator<Item = Option<K>>,
    ) -> &mut Args {
        self.add(
            values
                .map(|key| key.map(Into::into))
                .collect::<Vec<Option<Key>>>(),
        )
    }

    pub(super) fn byteses<'t>(&mut self, values: impl Iterator<Item = &'t [u8]>) -> &mut Args {
        self.add(values.collect::<Vec<&[u8]>>())
    }

    pub(super) fn texts<'t>(&mut self, values: impl Iterator<Item = &'t str>) -> &mut Args {
        self.add(values.map(escaped).collect::<Vec<Cow<'t, str>>>())
    }

    pub(super) fn texts_or_null<'t>(&mut self, values: impl Iterator<Item = Option<&'t str>>) -> &mut Args {
        self.add(
            values
                .map(|text| text.map(escaped))
                .collect::<Vec<Option<Cow<'t, str>>>>(),
        )
    }
}

/// A row's cells, read from left to right.
pub(super) struct Cells<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'r> Cells<'r> {
    pub(super) fn of(row: &'r PgRow) -> Cells<'r> {
        Cells::at(row, 0)
    }

    /// From a cell on.
    pub(super) fn at(row: &'r PgRow, next: usize) -> Cells<'r> {
        Cells { row, next }
    }

    fn cell<T: sqlx::Decode<'r, Postgres>>(&mut self) -> Result<T> {
        let index = self.next;
        self.next += 1;
        self.row
            .try_get_unchecked(index)
            .map_err(|error| Error::Corrupt(format!("a cell cannot be read: {error}")))
    }

    pub(super) fn int(&mut self) -> Result<i64> {
        self.cell()
    }

    pub(super) fn int_or_null(&mut self) -> Result<Option<i64>> {
        self.cell()
    }

    pub(super) fn number(&mut self) -> Result<u32> {
        let value = self.int()?;
        u32::try_from(value).map_err(|_| Error::Corrupt(format!("{value} is not a 32-bit number")))
    }

    pub(super) fn flag(&mut self) -> Result<bool> {
        self.cell()
    }

    pub(super) fn time(&mut self) -> Result<Timestamp> {
        self.int().map(Timestamp::from_millis)
    }

    pub(super) fn time_or_null(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.int_or_null()?.map(Timestamp::from_millis))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        self.cell::<&str>().map(unescaped)
    }

    pub(super) fn text_or_null(&mut self) -> Result<Option<String>> {
        Ok(self.cell::<Option<&str>>()?.map(unescaped))
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.cell::<&[u8]>()?;
        bytes
            .try_into()
            .map_err(|_| Error::Corrupt(format!("{} bytes stand where {N} belong", bytes.len())))
    }

    pub(super) fn all_bytes(&mut self) -> Result<Vec<u8>> {
        self.cell::<&[u8]>().map(<[u8]>::to_vec)
    }

    fn key(&mut self) -> Result<[u8; 16]> {
        self.cell::<Key>().map(|key| key.0)
    }

    pub(super) fn run(&mut self) -> Result<RunId> {
        self.key().map(RunId::from_bytes)
    }

    pub(super) fn run_or_null(&mut self) -> Result<Option<RunId>> {
        Ok(self.cell::<Option<Key>>()?.map(|key| RunId::from_bytes(key.0)))
    }

    pub(super) fn event(&mut self) -> Result<EventId> {
        self.key().map(EventId::from_bytes)
    }

    pub(super) fn node(&mut self) -> Result<Incarnation> {
        self.key().map(Incarnation)
    }

    pub(super) fn node_or_null(&mut self) -> Result<Option<Incarnation>> {
        Ok(self.cell::<Option<Key>>()?.map(|key| Incarnation(key.0)))
    }
}

/// A connection and how statements are executed on it.
pub(super) struct Conn {
    pub(super) pg: PgConnection,
    /// Statements stay prepared under a name. Not behind a pooler that hands a connection to somebody else after each
    /// transaction.
    pub(super) prepare: bool,
    /// Whether the transaction has written something.
    pub(super) wrote: bool,
}

impl Conn {
    /// Executes a statement and answers with how many rows it touched.
    pub(super) async fn execute(&mut self, text: &'static str, bind: impl FnOnce(&mut Args)) -> Attempt<u64> {
        let mut args = Args::default();
        bind(&mut args);
        let query = sqlx::query_with(text, args.0).persistent(self.prepare);
        let rows = query.execute(&mut self.pg).await?.rows_affected();
        self.wrote |= rows > 0;
        Ok(rows)
    }

    /// Executes a statement and answers with its rows.
    pub(super) async fn fetch(
        &mut self,
        text: &'static str,
        bind: impl FnOnce(&mut Args),
    ) -> Attempt<Vec<PgRow>> {
        let mut args = Args::default();
        bind(&mut args);
        let query = sqlx::query_with(text, args.0).persistent(self.prepare);
        Ok(query.fetch_all(&mut self.pg).await?)
    }

    /// As [`Conn::fetch`], for a text that is put together from constants.
    pub(super) async fn fetch_dynamic(
        &mut self,
        text: String,
        bind: impl FnOnce(&mut Args),
    ) -> Attempt<Vec<PgRow>> {
        let mut args = Args::default();
        bind(&mut args);
        self.fetch_dynamic_with(text, args).await
    }

    /// As [`Conn::fetch_dynamic`], for values that are bound already.
    pub(super) async fn fetch_dynamic_with(&mut self, text: String, args: Args) -> Attempt<Vec<PgRow>> {
        let query = sqlx::query_with(sqlx::AssertSqlSafe(text), args.0).persistent(self.prepare);
        Ok(query.fetch_all(&mut self.pg).await?)
    }

    /// Executes statements without values in one trip.
    pub(super) async fn simple(&mut self, text: impl Into<String>) -> Attempt<()> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(text.into()))
            .execute(&mut self.pg)
            .await?;
        Ok(())
    }
}

/// Statements that change different rows, executed as one: one trip instead of many.
#[derive(Default)]
pub(super) struct Together {
    parts: Vec<String>,
    args: Args,
}

impl Together {
    /// Adds a statement, unless it has no rows. Its values are numbered from $1 on, as if it were alone.
    pub(super) fn add<T>(&mut self, rows: &[T], text: &str, bind: impl FnOnce(&mut Args, &[T])) {
        if rows.is_empty() {
            return;
        }
        let before = self.args.len();
        let mut pieces = text.split('$');
        let mut shifted = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let number: usize = piece[..digits].parse().unwrap_or(0);
            shifted += &format!("${}{}", number + before, &piece[digits..]);
        }
        self.parts.push(shifted);
        bind(&mut self.args, rows);
    }

    /// Executes them.
    pub(super) async fn run(mut self, conn: &mut Conn) -> Attempt<()> {
        let text = match self.parts.len() {
            0 => return Ok(()),
            1 => self.parts.remove(0),
            _ => {
                let parts = self.parts.iter().enumerate();
                let parts: Vec<String> = parts
                    .map(|(number, part)| format!("p{number} AS ({part})"))
                    .collect();
                format!("WITH {} SELECT 1", parts.join(", "))
            }
        };
        conn.wrote = true;
        sqlx::query_with(sqlx::AssertSqlSafe(text), self.args.0)
            .persistent(conn.prepare)
            .execute(&mut conn.pg)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_as_it_was() {
        for text in [
            "",
            "plain",
            "a\0b",
            "\0",
            "\u{ffff}",
            "\u{ffff}0\0\u{ffff}1",
            "ü\u{ffff}\0",
        ] {
            let held = escaped(text);
            assert!(!held.contains('\0'), "{text:?}");
            assert_eq!(unescaped(&held), text, "{text:?}");
        }
    }
}
