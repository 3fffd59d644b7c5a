//! `/v1/keys`: making, listing and revoking keys.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use dormouse_core::Timestamp;
use dormouse_core::key::{Key, KeyId, Kind, Role};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::body;
use super::envelope::{Answer, data};
use super::query::Params;
use crate::access::Access;
use crate::access::audit::Note;
use crate::app::{App, Made, WantedKey};
use crate::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default = "api")]
    kind: Kind,
    name: String,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    modules: Option<Vec<String>>,
    #[serde(default)]
    payloads: bool,
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

fn api() -> Kind {
    Kind::Api
}

/// A key as lists show it: never its secret.
#[derive(Serialize)]
pub(crate) struct KeyView {
    id: KeyId,
    /// What the whole key begins with.
    prefix: String,
    kind: Kind,
    name: String,
    role: Option<Role>,
    modules: Option<Vec<String>>,
    payloads: bool,
    created_at: Timestamp,
    created_by: String,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    /// `active`, `expired` or `revoked`.
    status: &'static str,
    /// The whole key: only in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl KeyView {
    fn of(key: Key, now: Timestamp) -> KeyView {
        KeyView {
            prefix: key.prefix(),
            status: match (key.revoked_at.is_some(), key.lives(now)) {
                (true, _) => "revoked",
                (false, true) => "active",
                (false, false) => "expired",
            },
            id: key.id,
            kind: key.kind,
            name: key.name,
            role: (key.kind == Kind::Api).then_some(key.role),
            modules: key.modules,
            payloads: key.payloads,
            created_at: key.created_at,
            created_by: key.created_by,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            key: None,
        }
    }

    /// A key that was made, with all of it.
    pub(crate) fn made(made: Made, now: Timestamp) -> KeyView {
        KeyView {
            key: Some(made.text),
            ..KeyView::of(made.key, now)
        }
    }

    /// All keys, those that are revoked too, the oldest first.
    pub(crate) fn all(keys: Vec<Key>, now: Timestamp) -> Vec<KeyView> {
        keys.into_iter().map(|key| KeyView::of(key, now)).collect()
    }
}

/// What came of revoking a key.
#[derive(Serialize)]
pub(crate) struct RevokedView {
    #[serde(flatten)]
    key: KeyView,
    /// It was good until this request.
    changed: bool,
}

impl RevokedView {
    /// A key that was revoked.
    pub(crate) fn of((key, changed): (Key, bool), now: Timestamp) -> RevokedView {
        RevokedView {
            key: KeyView::of(key, now),
            changed,
        }
    }
}

/// `POST`: 201 with the whole key, which is shown this once.
pub(super) async fn create(
    State(app): State<App>,
    access: Access,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&[])?;
    let wanted: Wanted = body::json(&headers, body, None).await?;
    let wanted = WantedKey {
        kind: wanted.kind,
        name: wanted.name,
        role: wanted.role,
        modules: wanted.modules,
        payloads: wanted.payloads,
        expires_at: wanted.expires_at,
    };
    let made = app.create_key(wanted, &access.signature()).await?;
    let note = Note {
        target: Some(made.key.id.to_string()),
        detail: Some(match made.key.kind {
            Kind::Event => "event".to_owned(),
            Kind::Api => made.key.role.as_str().to_owned(),
        }),
    };
    let view = KeyView::made(made, app.now());
    Ok((StatusCode::CREATED, Extension(note), data(app.now(), view)).into_response())
}

/// `GET`: all of them, the oldest first.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&[])?;
    let found = app.store().keys(None).await?.unwrap_or_default();
    Ok(data(app.now(), KeyView::all(found.keys, app.now())))
}

/// `DELETE /{id}`: good for nothing from now on.
pub(super) async fn revoke(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let id = id
        .parse()
        .map_err(|error| Problem::new(400, "invalid-id", format!("key id: {error}")))?;
    let revoked = app.revoke_key(id).await?;
    Ok(data(app.now(), RevokedView::of(revoked, app.now())))
}
