//! `/v1/audit`: who asked for what, and what came of it.

use axum::extract::State;
use dormouse_core::Timestamp;
use dormouse_core::key::KeyId;
use dormouse_store::audit::{Filter, Record, RecordId};
use serde::Serialize;

use super::envelope::{Answer, page};
use super::query::Params;
use crate::app::App;

#[derive(Serialize)]
struct RecordView {
    id: RecordId,
    at: Timestamp,
    key_id: Option<KeyId>,
    who: String,
    from: String,
    action: String,
    target: String,
    result: String,
    detail: Option<String>,
}

impl From<Record> for RecordView {
    fn from(record: Record) -> RecordView {
        RecordView {
            id: record.id,
            at: record.at,
            key_id: record.key,
            who: record.who,
            from: record.from,
            action: record.action,
            target: record.target,
            result: record.result,
            detail: record.detail,
        }
    }
}

/// `GET`, newest first.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&["key", "action", "target", "after", "before", "limit", "cursor"])?;
    let limit = params.limit()?;
    let filter = Filter {
        key: params.read("key")?,
        action: params.get("action").map(str::to_owned),
        target: params.get("target").map(str::to_owned),
        after: params.time("after")?,
        until: params.time("before")?,
        before: params.read("cursor")?,
        // One more than asked for tells whether there is another page.
        limit: limit + 1,
    };
    let mut records = app.store().records(filter).await?;
    let more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let cursor = records
        .last()
        .filter(|_| more)
        .map(|record| record.id.to_string());
    let views: Vec<RecordView> = records.into_iter().map(RecordView::from).collect();
    Ok(page(app.now(), views, cursor))
}
