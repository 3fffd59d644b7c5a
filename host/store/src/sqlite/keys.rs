//! Keys, and the audit log.

use dormouse_core::key::{self, Key, KeyId};
use dormouse_core::{EventId, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::sql::{Cells, execute, fetch};
use crate::audit::{Filter, Record};
use crate::batch::keys::{self, Row};
use crate::error::Result;
use crate::key::{Created, Keys, Revoked};

pub(super) async fn create(conn: &mut SqliteConnection, new: &Key) -> Result<Created> {
    if let Err(refused) = key::may_create(&all(conn).await?, new) {
        return Ok(Created::Refused(refused));
    }
    execute(
        conn,
        "INSERT INTO access_keys (id, kind, name, role, modules, payloads, verifier, created_ms, created_by, expires_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                .int_or_null(new.expires_at.map(Timestamp::as_millis));
        },
    )
    .await?;
    Ok(Created::Done)
}

pub(super) async fn revoke(conn: &mut SqliteConnection, id: KeyId, now: Timestamp) -> Result<Revoked> {
    let revoked = keys::revoke(&all(conn).await?, id, now);
    if matches!(revoked, Revoked::Done(_)) {
        execute(
            conn,
            "UPDATE access_keys SET revoked_ms = ?2 WHERE id = ?1",
            |args| {
                args.text(&id.to_string()).time(now);
            },
        )
        .await?;
    }
    Ok(revoked)
}

/// All keys, unless they are those of a generation.
pub(super) async fn keys(conn: &mut SqliteConnection, known: Option<i64>) -> Result<Option<Keys>> {
    let keys = all(conn).await?;
    let generation = keys::generation(&keys);
    Ok((known != Some(generation)).then_some(Keys { generation, keys }))
}

async fn all(conn: &mut SqliteConnection) -> Result<Vec<Key>> {
    let rows = fetch(
        conn,
        "SELECT id, kind, name, role, modules, payloads, verifier, created_ms, created_by, expires_ms, revoked_ms \
         FROM access_keys ORDER BY created_ms, id",
        |_| {},
    )
    .await?;
    rows.iter().map(read_key).collect()
}

fn read_key(row: &SqliteRow) -> Result<Key> {
    let mut cells = Cells::of(row);
    let row = Row {
        id: cells.text()?,
        kind: cells.int()?,
        name: cells.text()?,
        role: cells.int()?,
        modules: cells.text_or_null()?,
        payloads: cells.flag()?,
        verifier: cells.bytes()?,
        created_at: cells.time()?,
        created_by: cells.text()?,
        expires_at: cells.time_or_null()?,
        revoked_at: cells.time_or_null()?,
    };
    row.read()
}

pub(super) async fn record(conn: &mut SqliteConnection, record: &Record) -> Result<()> {
    execute(
        conn,
        "INSERT INTO audit (id, at_ms, key_id, who, address, action, target, result, detail) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        |args| {
            args.event(record.id)
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

pub(super) async fn records(conn: &mut SqliteConnection, filter: &Filter) -> Result<Vec<Record>> {
    let rows = fetch(
        conn,
        "SELECT id, at_ms, key_id, who, address, action, target, result, detail FROM audit \
         WHERE (?1 IS NULL OR key_id = ?1) AND (?2 IS NULL OR action = ?2) AND (?3 IS NULL OR target = ?3) \
         AND (?4 IS NULL OR at_ms >= ?4) AND (?5 IS NULL OR at_ms < ?5) AND (?6 IS NULL OR id < ?6) \
         ORDER BY id DESC LIMIT ?7",
        |args| {
            args.text_or_null(filter.key.map(|key| key.to_string()).as_deref())
                .text_or_null(filter.action.as_deref())
                .text_or_null(filter.target.as_deref())
                .int_or_null(filter.after.map(Timestamp::as_millis))
                .int_or_null(filter.until.map(Timestamp::as_millis))
                .bytes_or_null(
                    filter
                        .before
                        .map(EventId::to_bytes)
                        .as_ref()
                        .map(<[u8; 16]>::as_slice),
                )
                .int(filter.limit.into());
        },
    )
    .await?;
    rows.iter().map(read_record).collect()
}

fn read_record(row: &SqliteRow) -> Result<Record> {
    let mut cells = Cells::of(row);
    Ok(Record {
        id: cells.event()?,
        at: cells.time()?,
        key: keys::key_id(cells.text_or_null()?)?,
        who: cells.text()?.to_owned(),
        from: cells.text()?.to_owned(),
        action: cells.text()?.to_owned(),
        target: cells.text()?.to_owned(),
        result: cells.text()?.to_owned(),
        detail: cells.text_or_null()?.map(str::to_owned),
    })
}
