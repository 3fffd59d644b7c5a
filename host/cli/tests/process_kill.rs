//! Durability, tested by killing: hundreds of runs at once with every kind of step, `kill -9` at random moments, then counting.
//!
//! All the while events are sent, by a client that repeats what is not acknowledged; runs are paused and resumed, and so is
//! their function.
//!
//! What is counted: every acknowledged event's run completes, once. Every output in the journal is the one the run
//! used. No body ran again after its output was recorded. SQL rows exactly once, and events that steps send too.
//! Also when each kill is a power failure, of which only synced bytes are left.

mod support;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dormouse_testing_disk::{Shadow, Shim};
use serde_json::{Value, json};
use support::fleet::Client;
use support::server::Server;
use support::witness::Witness;
use support::{DEADLINE, Dice, guest, is_turn, long};
use tokio::sync::mpsc;

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
    let longest = if dice.one_in(4) { 2_000 } else { 60 };
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
        "sleep_ms": 1 + dice.below(longest),
    })
}

/// How many runs must be there at some kill, at least, where that many begin at once.
const AT_ONCE: u64 = 200;

/// The power supply of a server's whole directory.
struct Power {
    dir: PathBuf,
    shadow: Shadow,
    place: tempfile::TempDir,
}

impl Power {
    fn of(server: &Server) -> Power {
        // The kernel names files by their real path, and so does the shim.
        let dir = server.dir().canonicalize().expect("it is there");
        let place = tempfile::TempDir::new().expect("a temporary directory");
        let shadow = Shadow::of(&dir, &place.path().join("shadow"));
        Power { dir, shadow, place }
    }

    /// Leaves of the directory what was synced. Nobody uses it.
    fn fail(&mut self) {
        let left = self.place.path().join("left");
        self.shadow.restore(&self.dir, &left);
        for entry in std::fs::read_dir(&self.dir).expect("it is there") {
            let path = entry.expect("an entry").path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.expect("removed");
        }
        for entry in std::fs::read_dir(&left).expect("it is there") {
            let entry = entry.expect("an entry");
            std::fs::rename(entry.path(), self.dir.join(entry.file_name())).expect("moved");
        }
        self.shadow = Shadow::of(&self.dir, &self.place.path().join("shadow"));
    }
}

async fn boot(server: &mut Server, power: Option<&Power>) {
    let mut command = server.start_command();
    if let Some(power) = power {
        let shim = Shim {
            root: &power.dir,
            shadow: Some(&power.shadow),
            fault: None,
        };
        shim.stand_before(&mut command);
    }
    server.boot_by(command).await;
}

/// Sends what it is given, each until it is acknowledged, while the server is killed and started. How many those were.
async fn send(client: Client, mut plans: mpsc::UnboundedReceiver<Value>) -> u64 {
    let mut acknowledged = 0;
    while let Some(plan) = plans.recv().await {
        client.event("test/kill", key(&plan), &plan).await;
        acknowledged += 1;
    }
    acknowledged
}

/// What a plan is known by, and its event's id.
fn key(plan: &Value) -> &str {
    plan["key"].as_str().expect("a key")
}

/// Sends many at once, so that as many runs begin at once.
async fn send_at_once(server: &Server, plans: &[Value]) {
    let event = |plan| json!({ "name": "test/kill", "id": key(plan), "data": plan });
    let events: Vec<Value> = plans.iter().map(event).collect();
    let (status, answer) = server.send("POST", "/e/key", json!(events).to_string()).await;
    assert_eq!(status, 200, "{answer}");
}

/// What a storm is like.
struct Storm {
    /// How often the server is killed while runs are on their way.
    kills: u64,
    /// How many runs begin before the first kill.
    first: u64,
    /// How many there are in all.
    runs: u64,
    /// For how long instances stay in memory: an option of the server.
    park_idle: &'static str,
    /// Whether each kill is a power failure too: of all files only what was synced is left, also of the application's.
    power_fails: bool,
}

async fn storm(storm: Storm) {
    let Storm {
        kills,
        first,
        runs,
        park_idle,
        power_fails,
    } = storm;
    let mut dice = Dice::new();
    let witness = Witness::start().await;
    let mut server = Server::prepare(&config(&witness), &["--park-idle", park_idle]);
    std::fs::create_dir(server.dir().join("migrations")).expect("a directory");
    std::fs::write(server.dir().join("migrations/0001_counter.sql"), COUNTER).expect("a migration");
    let mut power = power_fails.then(|| Power::of(&server));
    boot(&mut server, power.as_ref()).await;
    server.deploy("kill", guest("kill")).await;

    let mut plans: Vec<Value> = (0..first).map(|number| plan(&mut dice, number)).collect();
    send_at_once(&server, &plans).await;
    let (sender, to_send) = mpsc::unbounded_channel();
    let client = Client::of(std::slice::from_ref(&server));
    let sending = tokio::spawn(send(client.clone(), to_send));
    let mut asked: Vec<String> = Vec::new();
    let (mut most, mut idle) = (0, 0);
    for kill in 0..kills {
        // Runs are spread over the kills, so that each kill meets some at every stage, and some whose event is on its way.
        while plans.len() as u64 * kills < runs * (kill + 1) && (plans.len() as u64) < runs {
            let plan = plan(&mut dice, plans.len() as u64);
            sender.send(plan.clone()).expect("somebody sends");
            plans.push(plan);
        }
        // A random moment: after some more lines, or after some time, whichever comes first.
        let lines = witness.count() + dice.below(40) as usize;
        let _ = tokio::time::timeout(Duration::from_millis(dice.below(150)), witness.reaches(lines)).await;
        pause_some(&server, &mut dice, &mut asked).await;
        let live = live(&server).await;
        most = most.max(live);
        idle += u64::from(live == 0);
        server.kill();
        if let Some(power) = &mut power {
            power.fail();
        }
        boot(&mut server, power.as_ref()).await;
        resume_all(&server, &mut asked).await;
    }
    drop(sender);
    let acknowledged = sending.await.expect("all is sent");
    println!("{kills} kills, {runs} runs, {most} at most at once, {idle} kills without any");
    assert_eq!((plans.len() as u64, first + acknowledged), (runs, runs));
    assert!(most >= first.min(AT_ONCE), "{most} runs at once are too few");
    assert!(idle * 5 <= kills, "{idle} of {kills} kills met no run");
    check(&server, &client, &witness, &plans).await;
}

/// How many runs have not ended; at least [`AT_ONCE`] are counted where there are as many.
async fn live(server: &Server) -> u64 {
    let mut live = 0;
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/runs?status=Scheduled,Running&limit=100{cursor}");
        let (status, page) = server.send("GET", &path, "").await;
        assert_eq!(status, 200, "{page}");
        live += page["data"].as_array().map_or(0, Vec::len) as u64;
        match page["metadata"]["cursor"].as_str() {
            Some(next) if live < AT_ONCE => cursor = format!("&cursor={next}"),
            _ => return live,
        }
    }
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

/// The runs of the plans, by their keys. Where a sender had no answer it has sent again: the event is stored twice then, and
/// starts one run.
async fn runs_by_key(client: &Client) -> HashMap<String, Vec<String>> {
    let events = client.pages("/v1/events?name=test/kill").await;
    let keys: HashMap<&str, &str> = events
        .iter()
        .map(|event| (event["internal_id"].as_str().expect("an id"), key(&event["data"])))
        .collect();
    let mut runs: HashMap<String, Vec<String>> = HashMap::new();
    for run in client.pages("/v1/runs?function=kill/kill").await {
        let event = run["event_id"].as_str().expect("an id");
        let key = keys
            .get(event)
            .unwrap_or_else(|| panic!("event {event} is not listed: {run}"));
        let id = run["run_id"].as_str().expect("an id").to_owned();
        runs.entry((*key).to_owned()).or_default().push(id);
    }
    runs
}

async fn check(server: &Server, client: &Client, witness: &Witness, plans: &[Value]) {
    all_ended(server).await;
    let by_key = runs_by_key(client).await;
    assert_eq!(by_key.len(), plans.len());
    let mut runs = HashMap::new();
    for plan in plans {
        let of_plan = &by_key[key(plan)];
        assert_eq!(of_plan.len(), 1, "{plan} has started one run: {of_plan:?}");
        let run = server.ended(&of_plan[0]).await;
        assert_eq!(run["status"], "Completed", "{run:#}");
        runs.insert(key(plan), run);
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
    for plan in plans {
        let run = &runs[key(plan)];
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

/// Waits until all runs have ended. One that was under way at five kills in a row, and had got no further in between, is
/// suspected of having caused them, and blocked: here it is innocent, and woken as its error says. Others may wait for it.
async fn all_ended(server: &Server) {
    let mut last = (Vec::new(), Instant::now());
    loop {
        let (status, page) = server
            .send("GET", "/v1/runs?status=Scheduled,Running&limit=100", "")
            .await;
        assert_eq!(status, 200, "{page}");
        let open = page["data"].as_array().expect("a list");
        if open.is_empty() {
            return;
        }
        for run in open.iter().filter(|run| run["phase"] == "blocked") {
            assert_eq!(run["error"]["code"], "crash-loop", "{run:#}");
            println!(
                "run {} was suspected of a crash loop, and is woken",
                run["run_id"]
            );
            let path = format!("/v1/runs/{}/wake", run["run_id"].as_str().expect("an id"));
            let (status, answer) = server.send("POST", &path, "").await;
            assert!(matches!(status, 200 | 409), "{status} {answer}");
        }
        let ids: Vec<Value> = open.iter().map(|run| run["run_id"].clone()).collect();
        if ids != last.0 {
            last = (ids, Instant::now());
        }
        assert!(last.1.elapsed() < DEADLINE, "these never end: {open:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
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
        let ended = server.ended(runs[0]["run_id"].as_str().expect("an id")).await;
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
        let child = server.ended(child["run_id"].as_str().expect("an id")).await;
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

/// Kills of a process, with or without instances that wait in memory.
fn kills(park_idle: &'static str) -> Storm {
    let (kills, runs) = if long() { (2_000, 8_000) } else { (50, 500) };
    Storm {
        kills,
        first: 250,
        runs,
        park_idle,
        power_fails: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_recorded_runs_again_when_instances_are_dropped() {
    if is_turn(false) {
        storm(kills("0")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_recorded_runs_again_when_instances_are_parked() {
    if is_turn(true) {
        storm(kills("5s")).await;
    }
}

/// The same of a whole server and its application's database when the power fails.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_recorded_runs_again_when_the_power_fails() {
    if !is_turn(false) {
        return;
    }
    let (kills, runs) = if long() { (200, 800) } else { (10, 60) };
    let power_fails = Storm {
        kills,
        first: 40,
        runs,
        park_idle: "0",
        power_fails: true,
    };
    storm(power_fails).await;
}
