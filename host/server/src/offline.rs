//! Keys, at the database itself, without a server: how the first one comes to a server that is to be reached from other
//! machines, and the way in for an admin who has lost his.
//!
//! Whoever may write the database may do anything anyway. On SQLite the server must not run meanwhile; on Postgres its nodes
//! know of it half a second later. Absent on purpose: everything else, which the API has.

use std::path::PathBuf;

use dormouse_core::EventId;
use dormouse_core::key::KeyId;
use dormouse_store::Store;
use dormouse_store::audit::Record;
use serde_json::Value;

use crate::api::{KeyView, RevokedView};
use crate::app::{WantedKey, keys};
use crate::clock::{Clock as _, SystemClock};
use crate::options::{Options, StartError};
use crate::problem::Problem;
use crate::router::random;
use crate::serve::open_store;

/// Who the audit log says it was.
const WHO: &str = "offline";

/// What is asked for.
pub enum Command {
    /// Make a key.
    Create(WantedKey),
    /// List them all.
    List,
    /// Revoke one.
    Revoke(KeyId),
}

/// Why it did not happen.
pub enum Failed {
    /// The database cannot be used.
    Start(StartError),
    /// It was refused.
    Refused(Problem),
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Failed {
        Failed::Refused(problem)
    }
}

/// Does it in the data directory, or at the database. The answer is as the API's.
///
/// # Errors
/// Why not.
pub async fn run(data_dir: PathBuf, database_url: Option<String>, command: Command) -> Result<Value, Failed> {
    let options = Options {
        database_url,
        ..Options::new(data_dir)
    };
    let store = open_store(&options).await.map_err(Failed::Start)?;
    let done = done(&*store, command).await;
    store.close().await;
    done
}

async fn done(store: &dyn Store, command: Command) -> Result<Value, Failed> {
    let now = SystemClock.now();
    let (action, outcome) = match command {
        Command::List => {
            let found = store.keys(None).await.map_err(Problem::from)?;
            let views = KeyView::all(found.unwrap_or_default().keys, now);
            return Ok(value(&views));
        }
        Command::Create(wanted) => {
            let made = keys::make(store, &wanted, WHO, now).await;
            let made = made.map(|made| (made.key.id, value(&KeyView::made(made, now))));
            ("key.create", made)
        }
        Command::Revoke(id) => {
            let revoked = keys::revoke(store, id, now).await;
            let revoked = revoked.map(|revoked| (id, value(&RevokedView::of(revoked, now))));
            ("key.revoke", revoked)
        }
    };
    let record = Record {
        id: EventId::from_parts(now, random()),
        at: now,
        key: None,
        who: WHO.to_owned(),
        from: String::new(),
        action: action.to_owned(),
        target: outcome
            .as_ref()
            .map_or_else(|_| String::new(), |(id, _)| id.to_string()),
        result: outcome
            .as_ref()
            .map_or_else(|problem| problem.code, |_| "done")
            .to_owned(),
        detail: None,
    };
    store.record(record).await.map_err(Problem::from)?;
    Ok(outcome?.1)
}

fn value(view: &impl serde::Serialize) -> Value {
    // Texts, numbers and lists of these.
    serde_json::to_value(view).unwrap_or_default()
}
