//! Recordings of releases: what a server had stored when it stopped, with a run in the middle of each thing that a run can be
//! in the middle of (`testing/guests/golden`). Every later release must bring the schema forward, replay the journals with
//! the components of then, and end each run as was written down when the recording was made.
//!
//! `testing/golden/<release>/<database>` has what was stored and `expected.json`. With `DORMOUSE_GOLDEN_RECORD=DIR` a
//! recording of this release is kept in DIR, which is how a release gets its own.

mod support;

use std::path::{Path, PathBuf};

use dormouse_testing_postgres::Cluster;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::server::Server;
use support::{guest, until};

const CONFIG: &str = r#"
[modules.golden]
databases.app = { url = "sqlite:app.db", migrations = "migrations" }
"#;
/// The databases, each with the log beside it that may not be empty, and the components. The rest of a data directory is made
/// anew: compiled modules, and who has the directory.
const OWN: &str = "dormouse.db";
const COMPONENTS: &str = "modules";
const APPLICATION: &str = "app.db";
/// As long as the guest's pauses.
const PAUSE_MS: i64 = 600_000;
/// Stands in expected outputs for that of the body of this name.
const TOKEN: &str = "token";

/// An event, and what its run is like when the server stops and once it has ended.
struct Case {
    function: &'static str,
    data: Value,
    /// How late it may begin, in milliseconds.
    after_ms: i64,
    phase: Option<&'static str>,
    status: &'static str,
    output: Value,
}

fn case(function: &'static str, data: Value, phase: &'static str, output: Value) -> Case {
    Case {
        function,
        data,
        after_ms: 0,
        phase: Some(phase),
        status: "Completed",
        output,
    }
}

/// In the order in which they are sent. Events of one window have one run.
fn cases() -> Vec<Case> {
    vec![
        case(
            "sleeps",
            json!({"n": 21}),
            "sleeping",
            json!({"token": TOKEN, "doubled": 42}),
        ),
        Case {
            after_ms: PAUSE_MS,
            ..case("later", json!({"n": 3}), "sleeping", json!({"n": 3}))
        },
        case(
            "waits",
            json!({"id": "for it"}),
            "waiting",
            json!({"token": TOKEN, "came": {"id": "for it", "sure": true}}),
        ),
        Case {
            status: "Cancelled",
            ..case("waits", json!({"id": "in vain"}), "waiting", Value::Null)
        },
        case(
            "listens",
            json!({}),
            "waiting",
            json!({"token": TOKEN, "heard": {"loud": true}}),
        ),
        case(
            "invokes",
            json!({"n": 5}),
            "waiting",
            json!({"token": TOKEN, "doubled": 10}),
        ),
        case("sends", json!({}), "sleeping", json!({"token": TOKEN, "sent": 2})),
        case(
            "stumbles",
            json!({}),
            "backing-off",
            json!({"token": TOKEN, "attempt": 2}),
        ),
        case(
            "races",
            json!({}),
            "waiting",
            json!({"token": TOKEN, "won": "sleep"}),
        ),
        case("books", json!({"n": 100}), "sleeping", json!({"token": TOKEN})),
        case("turns", json!({}), "sleeping", json!({"token": TOKEN, "turn": 1})),
        Case {
            phase: None,
            ..case("throttled", json!({"n": 1}), "", json!({"n": 1}))
        },
        case("throttled", json!({"n": 2}), "limited", json!({"n": 2})),
        case(
            "debounced",
            json!({"key": "a", "n": 1}),
            "limited",
            json!({"n": 2}),
        ),
        case(
            "debounced",
            json!({"key": "a", "n": 2}),
            "limited",
            json!({"n": 2}),
        ),
        case("batched", json!({"n": 1}), "limited", json!({"numbers": [1, 2]})),
        case("batched", json!({"n": 2}), "limited", json!({"numbers": [1, 2]})),
        case(
            "alone",
            json!({"key": "a", "n": 1}),
            "sleeping",
            json!({"token": TOKEN}),
        ),
        case(
            "alone",
            json!({"key": "a", "n": 2}),
            "sleeping",
            json!({"token": TOKEN}),
        ),
        Case {
            status: "Cancelled",
            ..case("hasty", json!({}), "waiting", Value::Null)
        },
        Case {
            phase: None,
            status: "Failed",
            ..case("fails", json!({}), "", Value::Null)
        },
        // Paused afterwards.
        case(
            "sleeps",
            json!({"n": 4}),
            "sleeping",
            json!({"token": TOKEN, "doubled": 8}),
        ),
    ]
}

fn server(extra: &[&str]) -> Server {
    let server = Server::prepare(CONFIG, extra);
    let migrations = server.dir().join("migrations");
    std::fs::create_dir(&migrations).expect("a directory");
    let table = "CREATE TABLE booking (id INTEGER NOT NULL, run TEXT NOT NULL);";
    std::fs::write(migrations.join("0001_booking.sql"), table).expect("a migration");
    server
}

async fn data(server: &Server, path: &str) -> Value {
    server
        .get(path)
        .await
        .unwrap_or_else(|status| panic!("{path}: {status}"))
}

/// The run that an event has started.
async fn run_of(server: &Server, event: &str) -> String {
    until("an event has its run", || async {
        let found = server.get(&format!("/v1/events/{event}/runs")).await.ok()?;
        Some(found[0]["run_id"].as_str()?.to_owned())
    })
    .await
}

async fn runs_of(server: &Server, function: &str) -> Vec<String> {
    let runs = data(server, &format!("/v1/runs?function=golden/{function}&limit=100")).await;
    let id = |run: &Value| run["run_id"].as_str().expect("an id").to_owned();
    runs.as_array().expect("a list").iter().map(id).collect()
}

/// Has a run in each phase, stops the server, and writes down what is to come of them.
async fn record(mut server: Server) -> (Server, Value) {
    server.boot().await;
    server.deploy("golden", guest("golden")).await;
    let mut runs: Vec<Value> = Vec::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("it is later than 1970").as_millis() as i64;
    for case in cases() {
        let mut event = json!({"name": format!("golden/{}", case.function), "data": case.data});
        if case.after_ms > 0 {
            event["ts"] = json!(now + case.after_ms);
        }
        let (status, sent) = server.send("POST", "/e/test", event.to_string()).await;
        assert_eq!(status, 200, "{sent}");
        let run = match case.function {
            // Only the window's first event has its run from the beginning.
            "debounced" | "batched" => runs_of(&server, case.function).await.remove(0),
            _ => run_of(&server, sent["ids"][0].as_str().expect("an id")).await,
        };
        match case.phase {
            Some(phase) => drop(server.in_phase(&run, phase).await),
            None => drop(server.ended(&run).await),
        }
        runs.retain(|known| known["run_id"] != json!(run));
        // A batch begins when the recording is played, and then sleeps.
        let wake = case.function == "batched";
        runs.push(json!({"run_id": run, "status": case.status, "output": case.output, "wake": wake}));
    }
    let paused = runs.last().expect("there are cases")["run_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (status, said) = server.send("POST", &format!("/v1/runs/{paused}/pause"), "").await;
    assert_eq!(status, 200, "{said}");

    // Runs that others have begun.
    for (function, output) in [
        (
            "mourns",
            json!({"token": TOKEN, "error": {"message": "as asked"}}),
        ),
        ("sleeps", json!({"token": TOKEN, "doubled": 10})),
    ] {
        for run in runs_of(&server, function).await {
            if !runs.iter().any(|known| known["run_id"] == json!(run)) {
                server.in_phase(&run, "sleeping").await;
                runs.push(json!({"run_id": run, "status": "Completed", "output": output.clone()}));
            }
        }
    }
    for expected in &mut runs {
        let id = expected["run_id"].as_str().expect("an id").to_owned();
        let run = data(&server, &format!("/v1/runs/{id}")).await;
        let steps = run["steps"].as_array().expect("steps").clone();
        let token = steps.iter().find(|step| step["name"] == TOKEN);
        if expected["output"]["token"] == TOKEN {
            expected["output"]["token"] = token.expect("its body has run")["output"].clone();
        }
        expected["journal"] = data(&server, &format!("/v1/runs/{id}/journal")).await;
        expected["run"] = run;
    }
    let expected = json!({
        "directory": server.dir(),
        "runs": runs,
        "then": [
            ["/e/test", {"name": "golden/go", "data": {"id": "for it", "sure": false}}],
            ["/e/test", {"name": "golden/go", "data": {"id": "for it", "sure": true}}],
            ["/e/test", {"name": "golden/stop", "data": {"id": "in vain"}}],
            ["/v1/signals", {"signal": "golden", "data": {"loud": true}}],
            [format!("/v1/runs/{paused}/resume"), null],
        ],
    });
    assert_eq!(server.terminate(), Some(0), "{}", server.log_tail(20));
    (server, expected)
}

/// Whether all that is expected is there; more may be.
fn has(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => expected
            .iter()
            .all(|(name, value)| has(found.get(name).unwrap_or(&Value::Null), value)),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() >= expected.len()
                && found.iter().zip(expected).all(|(found, value)| has(found, value))
        }
        (found, expected) => found == expected,
    }
}

/// Lets a server go on that has what a recording has.
async fn play(mut server: Server, expected: &Value) {
    server.boot().await;
    let runs = expected["runs"].as_array().expect("runs");
    for then in expected["then"].as_array().expect("what is done") {
        let body = match &then[1] {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, said) = server.send("POST", then[0].as_str().expect("a path"), body).await;
        assert_eq!(status, 200, "{then}: {said}");
    }
    for expected in runs {
        let id = expected["run_id"].as_str().expect("an id");
        if expected["wake"] == true {
            server.in_phase(id, "sleeping").await;
            let (status, said) = server.send("POST", &format!("/v1/runs/{id}/wake"), "").await;
            assert_eq!(status, 200, "{said}");
        }
        let run = server.settled(id).await;
        let function = &run["function_id"];
        assert_eq!(run["status"], expected["status"], "{function}: {run:#}");
        let output = &run["output"];
        assert!(
            has(output, &expected["output"]),
            "{function}: {output} and not {}",
            expected["output"]
        );
        let journal = data(&server, &format!("/v1/runs/{id}/journal")).await;
        assert!(
            has(&journal, &expected["journal"]),
            "{function}: what was recorded is no longer there: {journal:#} and not {:#}",
            expected["journal"]
        );
        if expected["run"]["ended_at"].is_string() {
            assert!(
                has(&run, &expected["run"]),
                "{run:#} and not {:#}",
                expected["run"]
            );
        }
    }
    let app = Connection::open(server.dir().join(APPLICATION)).expect("the application's database");
    let mut booked = app.prepare("SELECT id FROM booking ORDER BY id").expect("SQL");
    let booked = booked.query_map([], |row| row.get::<_, i64>(0)).expect("rows");
    let booked: Vec<i64> = booked.map(|id| id.expect("a number")).collect();
    assert_eq!(booked, [100, 101], "a SQL step was lost or done again");
}

/// Copies the files whose names begin so, but not what SQLite keeps in memory that processes share.
fn copy(from: &Path, to: &Path, name: &str) {
    std::fs::create_dir_all(to).expect("a directory");
    let mut copied = 0;
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry").file_name();
        let entry_name = entry.to_string_lossy();
        if entry_name.starts_with(name) && !entry_name.ends_with("-shm") {
            std::fs::copy(from.join(&entry), to.join(&entry)).expect("copied");
            copied += 1;
        }
    }
    assert!(copied > 0, "there is no {name} in {}", from.display());
}

/// Keeps what was recorded where this is asked for.
fn keep(database: &str, server: &Server, expected: &Value, write: impl FnOnce(&Path)) {
    let Some(dir) = std::env::var_os("DORMOUSE_GOLDEN_RECORD") else {
        return;
    };
    let dir = PathBuf::from(dir).join(database);
    std::fs::create_dir_all(&dir).expect("a directory");
    let text = serde_json::to_string_pretty(expected).expect("JSON");
    std::fs::write(dir.join("expected.json"), text + "\n").expect("written");
    copy(server.dir(), &dir, APPLICATION);
    write(&dir);
}

/// The directories of all recordings with this database.
fn recordings(database: &str) -> Vec<PathBuf> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testing/golden");
    let releases = std::fs::read_dir(golden).expect("recordings");
    let mut found: Vec<PathBuf> = releases
        .map(|release| release.expect("a directory").path().join(database))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "there is no recording");
    found
}

fn expected(recording: &Path) -> Value {
    let text = std::fs::read_to_string(recording.join("expected.json")).expect("what to expect");
    serde_json::from_str(&text).expect("JSON")
}

/// Where the server was when it was recorded. Its runs keep the configuration that they began with, and so the path of the
/// application's database: whoever moves that has to say so, as is done here.
fn directory(expected: &Value) -> &str {
    expected["directory"].as_str().expect("a path")
}

#[tokio::test(flavor = "multi_thread")]
async fn this_release_can_be_recorded_on_sqlite() {
    let (server, expected) = record(server(&[])).await;
    keep("sqlite", &server, &expected, |dir| {
        copy(&server.data_dir(), dir, OWN);
        copy(&server.data_dir().join(COMPONENTS), &dir.join(COMPONENTS), "");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn this_release_can_be_recorded_on_postgres() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .expect("it starts");
    cluster.psql("postgres", "CREATE DATABASE golden");
    let (server, expected) = record(server(&["--database-url", &cluster.url("golden")])).await;
    keep("postgres", &server, &expected, |dir| {
        cluster.dump("golden", &dir.join("dump.sql"))
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_releases_left_on_sqlite_goes_on() {
    for recording in recordings("sqlite") {
        let server = server(&[]);
        copy(&recording, &server.data_dir(), OWN);
        copy(
            &recording.join(COMPONENTS),
            &server.data_dir().join(COMPONENTS),
            "",
        );
        copy(&recording, server.dir(), APPLICATION);
        let expected = expected(&recording);
        let moved = "UPDATE configs SET document = replace(document, ?1, ?2)";
        let own = Connection::open(server.data_dir().join(OWN)).expect("the store");
        own.execute(
            moved,
            [directory(&expected), server.dir().to_str().expect("UTF-8")],
        )
        .expect("the configuration is moved");
        drop(own);
        play(server, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_releases_left_on_postgres_goes_on() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .expect("it starts");
    for (number, recording) in recordings("postgres").into_iter().enumerate() {
        let database = format!("golden_{number}");
        cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
        let server = server(&["--database-url", &cluster.url(&database)]);
        copy(&recording, server.dir(), APPLICATION);
        let expected = expected(&recording);
        let dump = std::fs::read_to_string(recording.join("dump.sql")).expect("a dump");
        let moved = server.dir().join("dump.sql");
        let here = server.dir().to_str().expect("UTF-8");
        std::fs::write(&moved, dump.replace(directory(&expected), here)).expect("written");
        cluster.restore(&database, &moved);
        play(server, &expected).await;
    }
}
