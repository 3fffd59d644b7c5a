//! Durability, tested by killing: hundreds of runs with every kind of step, `kill -9` at random moments, then counting.
//!
//! In between runs are paused and resumed, and so is their function.
//!
//! What is counted: every acknowledged event's run completes, once. Every output in the journal is the one the run
//! used. No body ran again after its output was recorded. SQL rows exactly once, and events that steps send too.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::server::Server;
use support::witness::Witness;
use support::{Dice, guest, long, until};

const FUNCTION_PAUSE: &str = "/v1/functions/kill/kill/pause";
const FUNCTION_RESUME: &str = "/v1/functions/kill/kill/resume";
const COUNTER: &str = "CREATE TABLE counter (run_id TEXT PRIMARY KEY, n INTEGER NOT NULL);";

fn config(witness: &Witness) -> String {
    format!(
        r#"
        [modules.kill]
        http = ["{host}"]
        config = {{ sink = "http://{host}/" }}
        databases.app = {{ url = "sqlite:app.db", migrations = "migrations" }}
        "#,
        host = witness.host()
    )
}

fn plan(dice: &mut Dice, key: u64) -> Value {
    json!({
        "steps": 1 + dice.below(3),
        "failing_attempts": dice.below(3),
        "sql": dice.below(3),
        "branches": dice.below(3),
        "sends": dice.below(3),
        "answers": dice.below(3),
        "invokes": dice.below(3),
        "fetches": dice.below(3),
        "signal": dice.below(2) == 0,
        "key": format!("run {key}"),
        "race": dice.below(2) == 0,
        "sleep_ms": 1 + dice.below(60),
    })
}

/// Kills the server `kills` times while `runs` runs are on their way.
async fn storm(kills: u64, runs: u64, park_idle: &str) {
    let mut dice = Dice::new();
    let witness = Witness::start().await;
    let mut server = Server::prepare(&config(&witness), &["--park-idle", park_idle]);
    std::fs::create_dir(server.dir().join("migrations")).expect("a directory");
    std::fs::write(server.dir().join("migrations/0001_counter.sql"), COUNTER).expect("a migration");
    server.boot().await;
    server.deploy("kill", guest("kill")).await;

    let mut plans = HashMap::new();
    let mut sent = 0;
    let mut asked: Vec<String> = Vec::new();
    for kill in 0..kills {
        // Runs are spread over the kills, so that each kill meets some at every stage.
        while sent * kills < runs * (kill + 1) && sent < runs {
            let plan = plan(&mut dice, sent);
            let event = server.event("test/kill", &format!("event-{sent}"), &plan).await;
            plans.insert(event, plan);
            sent += 1;
        }
        // A random moment: after some more lines, or after some time, whichever comes first.
        let lines = witness.count() + dice.below(40) as usize;
        let _ = tokio::time::timeout(Duration::from_millis(dice.below(150)), witness.reaches(lines)).await;
        pause_some(&server, &mut dice, &mut asked).await;
        server.kill();
        server.boot().await;
        resume_all(&server, &mut asked).await;
    }
    check(&server, &witness, &plans).await;
}

/// Asks for up to three runs to be paused, and now and then for the function.
async fn pause_some(server: &Server, dice: &mut Dice, asked: &mut Vec<String>) {
    if dice.below(3) == 0 {
        server.send("POST", FUNCTION_PAUSE, "").await;
    }
    let Ok(runs) = server.get("/v1/runs?status=Running&limit=40").await else {
        return;
    };
    let runs = runs.as_array().cloned().unwrap_or_default();
    for _ in 0..3.min(runs.len()) {
        let run = &runs[dice.below(runs.len() as u64) as usize];
        let run = run["run_id"].as_str().expect("an id").to_owned();
        let (status, answer) = server.send("POST", &format!("/v1/runs/{run}/pause"), "").await;
        assert!(matches!(status, 200 | 409), "pausing {run}: {status} {answer}");
        // One that is blocked, or has ended meanwhile, is not to be resumed either.
        if status == 200 {
            asked.push(run);
        }
    }
}

/// Resumes what was asked to be paused: a pause outlives the process, done or only noted.
async fn resume_all(server: &Server, asked: &mut Vec<String>) {
    asked.sort();
    asked.dedup();
    for run in asked.drain(..) {
        let (status, answer) = server.send("POST", &format!("/v1/runs/{run}/resume"), "").await;
        let ended = status == 409 && answer["code"] == "already-ended";
        assert!(status == 200 || ended, "resuming {run}: {status} {answer}");
    }
    let (status, answer) = server.send("POST", FUNCTION_RESUME, "").await;
    assert_eq!(status, 200, "{answer}");
}

async fn check(server: &Server, witness: &Witness, plans: &HashMap<String, Value>) {
    let mut runs = HashMap::new();
    for event in plans.keys() {
        let of_event = until("the event's runs are listed", || async {
            server.get(&format!("/v1/events/{event}/runs")).await.ok()
        })
        .await;
        let of_event = of_event.as_array().expect("a list");
        assert_eq!(
            of_event.len(),
            1,
            "event {event} has started one run: {of_event:?}"
        );
        let run = ended(server, of_event[0]["run_id"].as_str().expect("an id")).await;
        assert_eq!(run["status"], "Completed", "{run:#}");
        runs.insert(event.clone(), run);
    }

    let mut told: HashMap<(String, String), Vec<String>> = HashMap::new();
    for line in witness.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let [run, step, _attempt, token] = parts[..] else {
            panic!("a strange line: {line}")
        };
        told.entry((run.to_owned(), step.to_owned()))
            .or_default()
            .push(token.to_owned());
    }
    let counters = counters(server);
    for (event, plan) in plans {
        let run = &runs[event];
        let id = run["run_id"].as_str().expect("an id");
        let mut recorded = Vec::new();
        for step in run["steps"].as_array().expect("steps") {
            if step["kind"] != "run" || step["status"] != "completed" {
                continue;
            }
            let name = step["name"].as_str().expect("a name").to_owned();
            let token = step["output"]
                .as_str()
                .unwrap_or_else(|| panic!("an output: {step:#}"));
            let tokens = &told[&(id.to_owned(), name.clone())];
            assert_eq!(
                tokens.last().map(String::as_str),
                Some(token),
                "run {id}, step {name}: the body ran again after its output was recorded: {tokens:?}"
            );
            recorded.push(token.to_owned());
        }
        let mut used: Vec<String> = run["output"]["tokens"]
            .as_array()
            .expect("tokens")
            .iter()
            .map(|token| token.as_str().expect("a token").to_owned())
            .collect();
        used.sort();
        recorded.sort();
        assert_eq!(used, recorded, "run {id} used the outputs that its journal holds");
        let sql = plan["sql"].as_u64().expect("a number");
        assert_eq!(
            counters.get(id).copied().unwrap_or(0),
            sql,
            "run {id}: each sql step took effect once"
        );
        check_sent(server, run, plan).await;
        check_invoked(server, run, plan).await;
        for number in 0..plan["fetches"].as_u64().expect("a number") {
            let step = (id.to_owned(), format!("fetch-{number}"));
            assert!(told.contains_key(&step), "run {id}: {step:?} reached the witness");
        }
        if plan["race"] == true {
            assert_eq!(run["output"]["winner"], "sleep", "run {id}");
        }
    }
}

/// Waits until a run has ended. One that was under way at five kills in a row, and had got no further in between, is suspected
/// of having caused them, and blocked: here it is innocent, and woken as its error says.
async fn ended(server: &Server, run: &str) -> Value {
    loop {
        let settled = server.settled(run).await;
        if settled["phase"] != "blocked" {
            return settled;
        }
        assert_eq!(settled["error"]["code"], "crash-loop", "{settled:#}");
        println!("run {run} was suspected of a crash loop, and is woken");
        let (status, answer) = server.send("POST", &format!("/v1/runs/{run}/wake"), "").await;
        assert!(matches!(status, 200 | 409), "{status} {answer}");
    }
}

/// Each event that the run's steps sent is there once, and has started one run.
async fn check_sent(server: &Server, run: &Value, plan: &Value) {
    let sent = run["output"]["sent"].as_array().expect("ids");
    assert_eq!(sent.len() as u64, plan["sends"].as_u64().expect("a number"));
    for (number, id) in sent.iter().enumerate() {
        let id = id.as_str().expect("an id");
        let runs = server
            .get(&format!("/v1/events/{id}/runs"))
            .await
            .expect("the event is there");
        let runs = runs.as_array().expect("a list");
        assert_eq!(runs.len(), 1, "event {id} has started one run: {runs:?}");
        let ended = ended(server, runs[0]["run_id"].as_str().expect("an id")).await;
        assert_eq!(
            ended["output"],
            json!({"by": run["run_id"], "number": number}),
            "{ended:#}"
        );
    }
}

/// Each function that the run's steps have invoked has run once and was given back; the one that was given up has ended.
async fn check_invoked(server: &Server, run: &Value, plan: &Value) {
    let invokes = plan["invokes"].as_u64().expect("a number");
    let signals = plan["signal"] == true;
    let expected: Vec<u64> = (0..invokes).collect();
    assert_eq!(run["output"]["invoked"], json!(expected), "{run:#}");
    let id = run["run_id"].as_str().expect("an id");
    let children = server
        .get(&format!("/v1/runs?parent={id}&limit=100"))
        .await
        .expect("they are listed");
    let children = children.as_array().expect("a list");
    // The one that is given up may be given up before it begins.
    let least = invokes as usize + usize::from(signals);
    assert!(
        (least..=least + usize::from(invokes > 0)).contains(&children.len()),
        "{children:#?}"
    );
    let mut completed = 0;
    for child in children {
        assert_eq!(child["parent_run_id"], run["run_id"]);
        let child = ended(server, child["run_id"].as_str().expect("an id")).await;
        match child["status"].as_str() {
            Some("Completed") => completed += 1,
            Some("Cancelled") => {}
            _ => panic!("{child:#}"),
        }
    }
    assert!(completed >= least, "{children:#?}");
}

fn counters(server: &Server) -> HashMap<String, u64> {
    let database =
        rusqlite::Connection::open(server.dir().join("app.db")).expect("the application's database");
    let mut counters = database
        .prepare("SELECT run_id, n FROM counter")
        .expect("the table");
    counters
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))
        .expect("counters")
        .collect::<Result<_, _>>()
        .expect("counters")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_recorded_runs_again_when_instances_are_dropped() {
    let (kills, runs) = if long() { (2_000, 8_000) } else { (50, 300) };
    storm(kills, runs, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_recorded_runs_again_when_instances_are_parked() {
    let (kills, runs) = if long() { (2_000, 8_000) } else { (50, 300) };
    storm(kills, runs, "5s").await;
}
