//! The same at the database itself: how the first key comes to a server that is to be reached from other machines, and the
//! way in for an admin who has lost his. Beside `start` the only place that knows the server crate.

use dormouse_core::Timestamp;
use dormouse_core::key::{Kind, Role};
use dormouse_server::StartError;
use dormouse_server::app::WantedKey;
use dormouse_server::offline::{self, Command, Failed};
use serde_json::Value;

use super::Place;
use crate::failure::{Exit, Failure, Outcome};

pub(super) async fn create(place: Place, wanted: Value) -> Outcome<Value> {
    let word = |member: &str| wanted[member].as_str();
    let modules = wanted["modules"].as_array();
    let wanted = WantedKey {
        kind: match word("kind") {
            Some("event") => Kind::Event,
            _ => Kind::Api,
        },
        name: word("name").unwrap_or_default().to_owned(),
        role: word("role").and_then(Role::parse),
        modules: modules.map(|modules| {
            let names = modules.iter().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        }),
        payloads: wanted["payloads"] == true,
        expires_at: word("expires_at").and_then(|text| Timestamp::parse(text).ok()),
    };
    run(place, Command::Create(wanted)).await
}

pub(super) async fn list(place: Place) -> Outcome<Value> {
    run(place, Command::List).await
}

pub(super) async fn revoke(place: Place, id: &str) -> Outcome<Value> {
    let id = id
        .parse()
        .map_err(|error: dormouse_core::key::InvalidKeyId| Failure::usage(error.to_string()))?;
    run(place, Command::Revoke(id)).await
}

async fn run(place: Place, command: Command) -> Outcome<Value> {
    // With a database's address the directory is where a node would have its caches: there is nothing in it to be kept.
    let directory = match place.data_dir {
        Some(directory) => directory,
        None => std::env::temp_dir().join(format!("dormouse-keys-{}", std::process::id())),
    };
    let scratch = place.database_url.is_some().then(|| directory.clone());
    let done = offline::run(directory, place.database_url, command).await;
    if let Some(scratch) = scratch {
        // Nothing was put into it.
        let _ = std::fs::remove_dir(scratch);
    }
    done.map_err(|failed| match failed {
        Failed::Start(error) => not_opened(&error),
        Failed::Refused(problem) => Failure {
            exit: match problem.status {
                404 => Exit::NotFound,
                500.. => Exit::Unavailable,
                _ => Exit::Refused,
            },
            message: problem.message,
            place: None,
            code: Some(problem.code.to_owned()),
            help: problem.help,
        },
    })
}

fn not_opened(error: &StartError) -> Failure {
    let exit = match error.exit_code() {
        2 => Exit::Usage,
        _ => Exit::Unavailable,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        StartError::Unavailable(_) => failure.help(
            "a server that runs is asked over its API: leave --data-dir and --database-url out, and give an admin's key",
        ),
        _ => failure,
    }
}
