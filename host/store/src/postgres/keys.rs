//! Keys, and the audit log.

use dormouse_core::Timestamp;
use dormouse_core::key::{self, Key, KeyId};
use sqlx::postgres::PgRow;

use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::audit::{Filter, Record};
use crate::batch::keys::{self, Row};
use crate::error::Result;
use crate::key::{Created, Keys, Revoked};

/// Held by whoever makes or revokes a key until the commit: two nodes at once must not both take the other's key for the
/// one that is left. Reading goes on.
const ALONE: &str = "LOCK TABLE access_keys IN SHARE ROW EXCLUSIVE MODE";

pub(super) async fn create(conn: &mut Conn, new: &Key) -> Attempt<Created> {
    conn.simple(ALONE).await?;
    if let Err(refused) = key::may_create(&all(conn).await?, new) {
        return Ok(Created::Refused(refused));
    }
    conn.execute(
        "INSERT INTO access_keys (id, kind, name, role, modules, payloads, verifier, created_ms, created_by, expires_ms) \
         VALUES ($1, $2, $3, $4, $5, $6 = 1, $7, $8, $9, NULLIF($10::int8, $11::int8))",
        |args| {
            args.text(&new.id.to_string())
                .int(keys::kind_number(new.kind))
                .text(&new.name)
                .int(keys::role_number(new.role))
                .text_or_null(keys::modules_text(new.modules.as_deref()).as_deref())
                .int(new.payloads.into())
                .bytes(new.verifier.as_bytes())
                .time(new.created_at)
                .text(&new.created_by)
                .int(new.expires_at.map_or(i64::MIN, Timestamp::as_millis))
                .int(i64::MIN);
        },
    )
    .await?;
    Ok(Created::Done)
}

pub(super) async fn revoke(conn: &mut Conn, id: KeyId, now: Timestamp) -> Attempt<Revoked> {
    conn.simple(ALONE).await?;
    let revoked = keys::revoke(&all(conn).await?, id, now);
    if matches!(revoked, Revoked::Done(_)) {
        conn.execute("UPDATE access_keys SET revoked_ms = $2 WHERE id = $1", |args| {
            args.text(&id.to_string()).time(now);
        })
        .await?;
    }
    Ok(revoked)
}

/// All keys, unless they are those of a generation: which is asked for first, since it rarely moves.
pub(super) async fn keys(conn: &mut Conn, known: Option<i64>) -> Attempt<Option<Keys>> {
    if known.is_some() {
        let rows = conn
            .fetch("SELECT count(*) + count(revoked_ms) FROM access_keys", |_| {})
            .await?;
        let generation = rows.first().map(|row| Cells::of(row).int()).transpose()?;
        if generation == known {
            return Ok(None);
        }
    }
    let keys = all(conn).await?;
    let generation = keys::generation(&keys);
    Ok(Some(Keys { generation, keys }))
}

async fn all(conn: &mut Conn) -> Attempt<Vec<Key>> {
    let rows = conn
        .fetch(
            "SELECT id, kind, name, role, modules, payloads, verifier, created_ms, created_by, expires_ms, revoked_ms \
             FROM access_keys ORDER BY created_ms, id COLLATE \"C\"",
            |_| {},
        )
        .await?;
    let keys: Result<Vec<Key>> = rows.iter().map(read_key).collect();
    Ok(keys?)
}

fn read_key(row: &PgRow) -> Result<Key> {
    let mut cells = Cells::of(row);
    let (id, kind, name, role) = (cells.text()?, cells.int()?, cells.text()?, cells.int()?);
    let modules = cells.text_or_null()?;
    let (payloads, verifier, created_at) = (cells.flag()?, cells.bytes()?, cells.time()?);
    let created_by = cells.text()?;
    let row = Row {
        id: &id,
        kind,
        name: &name,
        role,
        modules: modules.as_deref(),
        payloads,
        verifier,
        created_at,
        created_by: &created_by,
        expires_at: cells.time_or_null()?,
        revoked_at: cells.time_or_null()?,
    };
    row.read()
}

pub(super) async fn record(conn: &mut Conn, record: &Record) -> Attempt<()> {
    conn.execute(
        "INSERT INTO audit (id, at_ms, key_id, who, address, action, target, result, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        |args| {
            args.key(record.id)
                .time(record.at)
                .text_or_null(record.key.map(|key| key.to_string()).as_deref())
                .text(&record.who)
                .text(&record.from)
                .text(&record.action)
                .text(&record.target)
                .text(&record.result)
                .text_or_null(record.detail.as_deref());
        },
    )
    .await?;
    Ok(())
}

pub(super) async fn records(conn: &mut Conn, filter: &Filter) -> Attempt<Vec<Record>> {
    let mut args = super::sql::Args::default();
    let mut conditions = Vec::new();
    let mut narrow =
        |args: &super::sql::Args, column: &str| conditions.push(format!("{column} ${}", args.len()));
    if let Some(key) = filter.key {
        narrow(args.text(&key.to_string()), "key_id =");
    }
    if let Some(action) = &filter.action {
        narrow(args.text(action), "action =");
    }
    if let Some(target) = &filter.target {
        narrow(args.text(target), "target =");
    }
    if let Some(after) = filter.after {
        narrow(args.time(after), "at_ms >=");
    }
    if let Some(until) = filter.until {
        narrow(args.time(until), "at_ms <");
    }
    if let Some(before) = filter.before {
        narrow(args.key(before), "id <");
    }
    args.int(filter.limit.into());
    let conditions = match conditions.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.join(" AND ")),
    };
    let text = format!(
        "SELECT id, at_ms, key_id, who, address, action, target, result, detail FROM audit {conditions} \
         ORDER BY id DESC LIMIT ${}",
        args.len()
    );
    let rows = conn.fetch_dynamic_with(text, args).await?;
    let records: Result<Vec<Record>> = rows.iter().map(read_record).collect();
    Ok(records?)
}

fn read_record(row: &PgRow) -> Result<Record> {
    let mut cells = Cells::of(row);
    Ok(Record {
        id: cells.event()?,
        at: cells.time()?,
        key: keys::key_id(cells.text_or_null()?.as_deref())?,
        who: cells.text()?,
        from: cells.text()?,
        action: cells.text()?,
        target: cells.text()?,
        result: cells.text()?,
        detail: cells.text_or_null()?,
    })
}
