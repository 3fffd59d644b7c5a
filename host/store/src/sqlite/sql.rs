//! How statements are put together: multi-row statements in a few fixed sizes, so that each text is prepared once
//! per connection and a batch costs few trips to the connection's thread.
//!
//! Absent on purpose: any statement. They stand next to what uses them.

use std::sync::OnceLock;

use dormouse_core::{EventId, RunId, Timestamp};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Row, SqliteConnection};

use crate::error::{Error, Result};
use crate::schedule::Incarnation;

/// Rows per statement: powers of two up to this one, so that any number of rows takes few statements and there are
/// few texts.
const SIZES: usize = 9;
const ROWS_MAX: usize = 1 << (SIZES - 1);

/// A statement about any number of rows: `head`, then `(?,?),(?,?)`, then `tail`.
///
/// A size that is not a power of two is filled up with rows of nulls, which is cheaper than another trip to the
/// connection's thread. So the statement must do nothing for a row whose first cell is null: a key that is compared
/// matches none, and an insert has [`Rows::insert`]'s condition.
pub(super) struct Rows {
    head: &'static str,
    columns: usize,
    tail: &'static str,
    texts: [OnceLock<&'static str>; SIZES],
}

impl Rows {
    pub(super) const fn new(head: &'static str, columns: usize, tail: &'static str) -> Rows {
        Rows {
            head,
            columns,
            tail,
            texts: [const { OnceLock::new() }; SIZES],
        }
    }

    /// An insert; `head` ends before the rows: `INSERT INTO t (a, b) SELECT *`.
    pub(super) const fn insert(head: &'static str, columns: usize) -> Rows {
        Rows::new(head, columns, ") WHERE column1 IS NOT NULL")
    }

    /// The text for `1 << power` rows. Each is built once and kept for the life of the process.
    pub(super) fn text(&self, power: usize) -> &'static str {
        self.texts[power].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            let rows = vec![row.as_str(); 1 << power].join(",");
            Box::leak(format!("{}{rows}{}", self.head, self.tail).into_boxed_str())
        })
    }

    /// Executes the statement for these rows.
    pub(super) async fn apply<T>(
        &self,
        conn: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<()> {
        for chunk in items.chunks(ROWS_MAX) {
            let power = chunk.len().next_power_of_two().ilog2() as usize;
            let args = self.args(chunk, &bind);
            sqlx::query_with(self.text(power), args)
                .execute(&mut *conn)
                .await?;
        }
        Ok(())
    }

    /// As [`Rows::apply`], for statements that answer with rows.
    pub(super) async fn fetch<T>(
        &self,
        conn: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(&mut Args, &T),
    ) -> Result<Vec<SqliteRow>> {
        let mut rows = Vec::with_capacity(items.len());
        for chunk in items.chunks(ROWS_MAX) {
            let power = chunk.len().next_power_of_two().ilog2() as usize;
            let args = self.args(chunk, &bind);
            rows.extend(
                sqlx::query_with(self.text(power), args)
                    .fetch_all(&mut *conn)
                    .await?,
            );
        }
        Ok(rows)
    }

    fn args<T>(&self, chunk: &[T], bind: &impl Fn(&mut Args, &T)) -> SqliteArguments {
        let mut args = Args::default();
        args.0.reserve(chunk.len() * self.columns, 0);
        for item in chunk {
            bind(&mut args, item);
        }
        debug_assert_eq!(args.0.len(), chunk.len() * self.columns, "{}", self.head);
        args.0
    }
}

/// Values to bind, in order.
#[derive(Default)]
pub(super) struct Args(SqliteArguments);

impl Args {
    fn add<'t, T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        &mut self,
        value: T,
    ) -> &mut Args {
        // Numbers, texts and bytes always encode.
        let _ = self.0.add(value);
        self
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
        self.add(value.to_owned())
    }

    pub(super) fn text_or_null(&mut self, value: Option<&str>) -> &mut Args {
        self.add(value.map(str::to_owned))
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Args {
        self.add(value.to_vec())
    }

    pub(super) fn bytes_or_null(&mut self, value: Option<&[u8]>) -> &mut Args {
        self.add(value.map(<[u8]>::to_vec))
    }

    pub(super) fn run(&mut self, value: RunId) -> &mut Args {
        self.bytes(&value.to_bytes())
    }

    pub(super) fn run_or_null(&mut self, value: Option<RunId>) -> &mut Args {
        self.add(value.map(|id| id.to_bytes().to_vec()))
    }

    pub(super) fn event(&mut self, value: EventId) -> &mut Args {
        self.bytes(&value.to_bytes())
    }

    pub(super) fn node_or_null(&mut self, value: Option<Incarnation>) -> &mut Args {
        self.add(value.map(|id| id.0.to_vec()))
    }
}

/// A row's cells, read from left to right.
pub(super) struct Cells<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> Cells<'r> {
    pub(super) fn of(row: &'r SqliteRow) -> Cells<'r> {
        Cells::at(row, 0)
    }

    /// From a cell on.
    pub(super) fn at(row: &'r SqliteRow, next: usize) -> Cells<'r> {
        Cells { row, next }
    }

    fn cell<T: sqlx::Decode<'r, sqlx::Sqlite>>(&mut self) -> Result<T> {
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
        Ok(self.int()? != 0)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp> {
        self.int().map(Timestamp::from_millis)
    }

    pub(super) fn time_or_null(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.int_or_null()?.map(Timestamp::from_millis))
    }

    pub(super) fn text(&mut self) -> Result<&'r str> {
        self.cell()
    }

    pub(super) fn text_or_null(&mut self) -> Result<Option<&'r str>> {
        self.cell()
    }

    fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
        bytes
            .try_into()
            .map_err(|_| Error::Corrupt(format!("{} bytes stand where {N} belong", bytes.len())))
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        Self::fixed(self.cell::<&[u8]>()?)
    }

    pub(super) fn bytes_or_null<const N: usize>(&mut self) -> Result<Option<[u8; N]>> {
        self.cell::<Option<&[u8]>>()?.map(Self::fixed).transpose()
    }

    pub(super) fn run(&mut self) -> Result<RunId> {
        self.bytes().map(RunId::from_bytes)
    }

    pub(super) fn event(&mut self) -> Result<EventId> {
        self.bytes().map(EventId::from_bytes)
    }

    pub(super) fn node_or_null(&mut self) -> Result<Option<Incarnation>> {
        Ok(self.bytes_or_null()?.map(Incarnation))
    }
}

/// Texts as one value, for `json_each`.
pub(super) fn list_text(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

/// A single statement with its values, executed.
pub(super) async fn execute(
    conn: &mut SqliteConnection,
    text: &'static str,
    bind: impl FnOnce(&mut Args),
) -> Result<u64> {
    let mut args = Args::default();
    bind(&mut args);
    Ok(sqlx::query_with(text, args.0)
        .execute(conn)
        .await?
        .rows_affected())
}

/// A single statement with its values, and the rows it answers with.
pub(super) async fn fetch(
    conn: &mut SqliteConnection,
    text: &'static str,
    bind: impl FnOnce(&mut Args),
) -> Result<Vec<SqliteRow>> {
    let mut args = Args::default();
    bind(&mut args);
    Ok(sqlx::query_with(text, args.0).fetch_all(conn).await?)
}

/// As [`fetch`], for a text that is put together from constants.
pub(super) async fn fetch_dynamic(
    conn: &mut SqliteConnection,
    text: String,
    bind: impl FnOnce(&mut Args),
) -> Result<Vec<SqliteRow>> {
    let mut args = Args::default();
    bind(&mut args);
    Ok(sqlx::query_with(sqlx::AssertSqlSafe(text), args.0)
        .fetch_all(conn)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_made_once_and_have_the_rows_they_say() {
        static ROWS: Rows = Rows::new("a (", 2, ") b");
        assert_eq!(ROWS.text(0), "a ((?,?)) b");
        assert_eq!(ROWS.text(1), "a ((?,?),(?,?)) b");
        assert!(std::ptr::eq(ROWS.text(8), ROWS.text(8)));
        assert_eq!(ROWS.text(8).matches("(?,?)").count(), 256);
    }
}
