//! What is written about a command: who, from where, what, on what, and what came of it.
//!
//! The record is written directly after the command's own commit, before its answer is sent. A crash between the two loses
//! the record of that one command, whose effects are in the store; so does a store that fails between them, and then the
//! server's log has the record. What was refused for its role or module is recorded too; a key that is none is no command,
//! and is in the server's log.
//!
//! Invocations are what applications do all the time: they are recorded from the first API key on, and their record is not
//! waited for. While there is no key, all of them would be by `open`.

use std::net::IpAddr;

use axum::response::Response;
use dormouse_store::audit::Record;

use super::Access;
use super::table::INVOKE;
use crate::app::App;

/// What a handler adds to the record of what it has done. Never what anybody's data are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// On what, where the path does not say it.
    pub(crate) target: Option<String>,
    /// What else names it.
    pub(crate) detail: Option<String>,
}

impl Note {
    /// With what else names it.
    pub(crate) fn detail(detail: impl ToString) -> Note {
        Note {
            target: None,
            detail: Some(detail.to_string()),
        }
    }

    /// On what it was.
    pub(crate) fn on(target: impl ToString) -> Note {
        Note {
            target: Some(target.to_string()),
            detail: None,
        }
    }
}

/// The code of the error that an answer has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code(pub(crate) &'static str);

/// Whether a command is recorded.
pub(super) fn records(action: &str, access: &Access) -> bool {
    action != INVOKE || access.id().is_some()
}

/// Longer texts are cut: a path may be long.
const TEXT_BYTES_MAX: usize = 256;

/// A command that is being done.
pub(super) struct Command {
    action: &'static str,
    access: Access,
    from: Option<IpAddr>,
    target: String,
}

impl Command {
    pub(super) fn new(
        action: &'static str,
        access: &Access,
        from: Option<IpAddr>,
        target: &[(String, String)],
    ) -> Command {
        let parts: Vec<&str> = target.iter().map(|(_, value)| value.as_str()).collect();
        Command {
            action,
            access: access.clone(),
            from,
            target: parts.join("/"),
        }
    }

    /// Its record. Without an answer it has panicked.
    pub(super) fn came_to(self, app: &App, answer: Option<&Response>) -> Record {
        let said = answer.map(Response::extensions);
        let note = said
            .and_then(|said| said.get::<Note>().cloned())
            .unwrap_or_default();
        let code = said.and_then(|said| said.get::<Code>());
        let failed = || code.map_or("internal", |code| code.0);
        let status = answer.map(Response::status);
        let done = status.is_some_and(|status| status.is_success() || status.is_redirection());
        let now = app.now();
        Record {
            id: app.inner().router.new_event_id(now),
            at: now,
            key: self.access.id(),
            who: self.access.name().to_owned(),
            from: self.from.map(|from| from.to_string()).unwrap_or_default(),
            action: self.action.to_owned(),
            target: cut(note.target.unwrap_or(self.target)),
            result: if done { "done" } else { failed() }.to_owned(),
            detail: note.detail.map(cut),
        }
    }
}

/// Writes a record. That of an invocation is not waited for.
pub(super) async fn record(app: &App, record: Record) {
    if record.action != INVOKE {
        write(app, record).await;
    } else {
        let app = app.clone();
        tokio::spawn(async move { write(&app, record).await });
    }
}

async fn write(app: &App, record: Record) {
    let kept = record.clone();
    if let Err(error) = app.store().record(record).await {
        let Record {
            key,
            who,
            from,
            action,
            target,
            result,
            detail,
            ..
        } = kept;
        let key = key.map(|key| key.to_string());
        tracing::error!(%error, key, who, from, action, target, result, detail, "a command is not in the audit log");
    }
}

fn cut(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}…", &text[..end])
}
