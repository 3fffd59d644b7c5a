//! A swap storm: hundreds of runs of two modules (sleeping, waiting, executing, backing off) while one version after the other
//! becomes active, each under a policy, and nodes are killed in between. On both stores.
//!
//! What is checked: every acknowledged event starts one run, and each comes to its end. A run went over only to a version that
//! was active with `migrate` at that time and fits what it had recorded, and stayed only where that did not fit. No recorded
//! step ran again. Sending events never fails, but for the moments in which no node is up.

mod support;
#[path = "swaps/versions.rs"]
mod versions;

use std::collections::HashMap;
use std::time::Duration;

use dormouse_core::Timestamp;
use serde_json::{Value, json};
use support::fleet::{Client, Fleet};
use support::nemesis::SharedDatabase;
use support::witness::Witness;
use support::{DEADLINE, Dice, long, until};
use tokio::sync::mpsc;
use versions::{Kind, Plan, Recorded};

/// The modules, each with versions of its own history.
const MODULES: [&str; 2] = ["walks", "strolls"];
/// What a node may commit after another version was activated, of a body that was under way; and how long an event may be on its
/// way from its receipt to the commit.
const LATE_MS: i64 = 10_000;

/// How a storm is.
struct Storm {
    nodes: usize,
    swaps: u64,
    kills: u64,
    runs: u64,
}

/// A version became active between these two times, under a policy.
#[derive(Debug)]
struct Activation {
    module: &'static str,
    kind: Kind,
    version: String,
    policy: &'static str,
    asked_ms: i64,
    answered_ms: i64,
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as i64)
}

fn millis(time: &Value) -> i64 {
    let time: Timestamp = serde_json::from_value(time.clone()).expect("a time");
    time.as_millis()
}

fn plan(dice: &mut Dice, key: u64) -> Value {
    let longest = if dice.one_in(3) { 2_500 } else { 500 };
    json!({
        "laps": 1 + dice.below(4),
        "ms": 20 + dice.below(longest),
        "failing": if dice.one_in(3) { dice.below(4) } else { 0 },
        "event": if dice.one_in(4) { "test/swaps.never" } else { "" },
        "key": format!("run {key}"),
    })
}

fn config(witness: &Witness) -> String {
    let host = witness.host();
    let module = |name: &str| {
        format!("[modules.{name}]\nhttp = [\"{host}\"]\nconfig = {{ sink = \"http://{host}/\" }}\n")
    };
    MODULES.map(module).concat()
}

/// Makes a version active: uploads it where the module does not have it. Until a node has done it.
async fn activate(
    client: &Client,
    module: &'static str,
    kind: Kind,
    policy: &'static str,
    components: &HashMap<Kind, (Vec<u8>, String)>,
) -> Activation {
    let (component, version) = &components[&kind];
    let asked_ms = now_ms();
    let upload = format!("/v1/modules/{module}?policy={policy}");
    let path = format!("/v1/modules/{module}/activate");
    let body = json!({ "version": version, "policy": policy }).to_string();
    until(&format!("{kind:?} of {module} is active"), || async {
        let (status, answer) = match client.ask("POST", &path, body.clone()).await? {
            (404, _) => client.upload(&upload, component).await?,
            answered => answered,
        };
        assert!(
            matches!(status, 200 | 201),
            "{kind:?} {policy}: {status} {answer}"
        );
        assert_eq!(answer["data"]["policy"], policy);
        Some(())
    })
    .await;
    Activation {
        module,
        kind,
        version: version.clone(),
        policy,
        asked_ms,
        answered_ms: now_ms(),
    }
}

/// Sends what it is given, each until it is acknowledged.
async fn send(client: Client, mut plans: mpsc::UnboundedReceiver<Value>) {
    while let Some(plan) = plans.recv().await {
        let key = plan["key"].as_str().expect("a key").to_owned();
        client.event("test/swaps.walk", &key, &plan).await;
    }
}

async fn storm(storm: Storm) {
    let mut dice = Dice::new();
    let witness = Witness::start().await;
    let database = match storm.nodes {
        1 => None,
        nodes => Some(SharedDatabase::start(nodes).await),
    };
    let arguments = match &database {
        Some(database) => database.arguments(),
        None => vec![Vec::new()],
    };
    let mut fleet = Fleet::prepare(&config(&witness), &arguments);
    fleet.boot().await;
    let client = fleet.client();
    let components: HashMap<Kind, (Vec<u8>, String)> =
        Kind::ALL.iter().map(|kind| (*kind, kind.component())).collect();

    let mut activations = Vec::new();
    for module in MODULES {
        activations.push(activate(&client, module, Kind::First, "pin", &components).await);
    }
    let (sender, to_send) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send(client.clone(), to_send));
    let mut runs = Vec::new();
    let mut sent = 0;
    for number in 0..storm.swaps {
        while sent * storm.swaps < storm.runs * (number + 1) {
            sender.send(plan(&mut dice, sent)).expect("somebody sends");
            sent += 1;
        }
        let module = MODULES[dice.below(2) as usize];
        // Each kind comes up, and after a version that new runs fail on there is soon another.
        let kind = Kind::ALL[(number % Kind::ALL.len() as u64) as usize];
        let policy = if dice.one_in(3) { "pin" } else { "migrate" };
        activations.push(activate(&client, module, kind, policy, &components).await);
        if dice.below(storm.swaps) < storm.kills {
            let node = dice.below(storm.nodes as u64) as usize;
            fleet.nodes[node].kill();
        }
        fleet.revive(|_| false);
        // A random moment: after some more bodies, or after some time, whichever comes first.
        let lines = witness.count() + dice.below(60) as usize;
        let _ = tokio::time::timeout(Duration::from_millis(dice.below(500)), witness.reaches(lines)).await;
    }
    drop(sender);
    sending.await.expect("all is sent");
    for module in MODULES {
        activations.push(activate(&client, module, Kind::First, "migrate", &components).await);
    }
    all_ended(&mut fleet, &client).await;
    for module in MODULES {
        runs.extend(client.runs(module, "").await);
    }
    check(&client, &witness, &activations, &runs, storm.runs).await;
}

/// Waits until all runs have ended. One that was under way at several kills in a row is suspected of having caused them, and
/// woken; no other is blocked.
async fn all_ended(fleet: &mut Fleet, client: &Client) {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        fleet.revive(|_| false);
        let (open, _) = client.get("/v1/runs?status=Scheduled,Running&limit=100").await;
        let open = open.as_array().expect("a list");
        if open.is_empty() {
            return;
        }
        for run in open.iter().filter(|run| run["phase"] == "blocked") {
            assert_eq!(run["error"]["code"], "crash-loop", "{run:#}");
            let path = format!("/v1/runs/{}/wake", run["run_id"].as_str().expect("an id"));
            client.ask("POST", &path, "").await;
        }
        let late = std::time::Instant::now() > deadline;
        assert!(!late, "these never end: {open:#?}\n{}", fleet.log_tails(40));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What has come of all runs together.
#[derive(Debug, Default)]
struct Counts {
    moved: usize,
    stayed: HashMap<String, usize>,
    failed: usize,
}

async fn check(client: &Client, witness: &Witness, activations: &[Activation], runs: &[Value], events: u64) {
    let mut told: HashMap<(String, String), String> = HashMap::new();
    for line in witness.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let [run, step, _attempt, token] = parts[..] else {
            panic!("a strange line: {line}")
        };
        // The last one counts.
        told.insert((run.to_owned(), step.to_owned()), token.to_owned());
    }
    let plans = plans(client, activations, runs, events).await;
    let mut counts = Counts::default();
    for listed in runs {
        let id = listed["run_id"].as_str().expect("an id");
        let plan = plans[listed["event_id"].as_str().expect("an id")];
        let (run, _) = client.get(&format!("/v1/runs/{id}")).await;
        let (journal, _) = client.get(&format!("/v1/runs/{id}/journal")).await;
        let journal = journal.as_array().expect("a list");
        let told = |step: &str| told.get(&(id.to_owned(), step.to_owned())).map(String::as_str);
        for entry in journal.iter().filter(|entry| entry["entry"] == "step") {
            let step = entry["name"].as_str().expect("a name");
            assert_eq!(
                told(step),
                entry["output"].as_str(),
                "run {id}, step {step}: the body ran again after its output was recorded"
            );
        }
        let of_module =
            |activation: &&Activation| listed["function_id"] == format!("{}/walk", activation.module);
        let history: Vec<&Activation> = activations.iter().filter(of_module).collect();
        check_end(&run, &history, &mut counts);
        check_swaps(&run, journal, &plan, &history, &mut counts);
    }
    println!("{} runs: {counts:?}", runs.len());
    assert!(counts.moved > 0, "{counts:?}");
    assert!(!counts.stayed.is_empty(), "{counts:?}");
    // In a short storm not each of them need come up.
    for code in ["diverged", "guest-panic", "function-gone"] {
        assert!(!long() || counts.stayed.contains_key(code), "{code}: {counts:?}");
    }
}

/// The plans of the events by their ids; and that each event has started one run of each module, but where that had no function
/// for it.
async fn plans(
    client: &Client,
    activations: &[Activation],
    runs: &[Value],
    events: u64,
) -> HashMap<String, Plan> {
    let mut started: HashMap<(&str, &str), usize> = HashMap::new();
    for run in runs {
        let module = run["function_id"].as_str().and_then(|name| name.split_once('/'));
        let event = run["event_id"].as_str().expect("an id");
        *started.entry((module.expect("a name").0, event)).or_default() += 1;
    }
    let received = client.pages("/v1/events?name=test/swaps.walk").await;
    let mut keys: HashMap<&str, Vec<&Value>> = HashMap::new();
    for event in &received {
        let key = event["data"]["key"].as_str().expect("a key");
        keys.entry(key).or_default().push(event);
    }
    assert_eq!(keys.len() as u64, events, "every event is there");
    for (key, sent) in &keys {
        for module in MODULES {
            // Sent again without an answer, it may be stored twice; then it has started one run.
            let of = |event: &&Value| {
                let id = event["internal_id"].as_str().expect("an id");
                started.get(&(module, id)).copied().unwrap_or(0)
            };
            let count: usize = sent.iter().map(of).sum();
            let times: Vec<i64> = sent.iter().map(|event| millis(&event["received_at"])).collect();
            let may_be_gone = times.iter().any(|at| may_be_gone(activations, module, *at));
            assert!(
                count == 1 || (count == 0 && may_be_gone),
                "{key} has started {count} runs of {module}"
            );
        }
    }
    let plan = |event: &Value| {
        let id = event["internal_id"].as_str().expect("an id").to_owned();
        (id, Plan::of(&event["data"]))
    };
    received.iter().map(plan).collect()
}

/// Whether a version without the function may have been active at a time.
fn may_be_gone(activations: &[Activation], module: &str, at_ms: i64) -> bool {
    let of_module: Vec<&Activation> = activations
        .iter()
        .filter(|activation| activation.module == module)
        .collect();
    let ends = |place: usize| of_module.get(place + 1).map_or(i64::MAX, |next| next.answered_ms);
    of_module.iter().enumerate().any(|(place, activation)| {
        activation.kind == Kind::FunctionGone
            && (activation.asked_ms - LATE_MS..=ends(place).saturating_add(LATE_MS)).contains(&at_ms)
    })
}

fn kind_of(history: &[&Activation], version: &Value) -> Kind {
    let named = history.iter().find(|activation| *version == activation.version);
    named.unwrap_or_else(|| panic!("no such version: {version}")).kind
}

/// A run has completed, or failed because the version it was on does.
fn check_end(run: &Value, history: &[&Activation], counts: &mut Counts) {
    match run["status"].as_str() {
        Some("Completed") => {}
        Some("Failed") => {
            let kind = kind_of(history, &run["version"]);
            assert!(matches!(kind, Kind::Trapping | Kind::TrappingLater), "{run:#}");
            assert_eq!(run["error"]["code"], "guest-panic", "{run:#}");
            counts.failed += 1;
        }
        _ => panic!("it has ended otherwise: {run:#}"),
    }
}

/// Each swap was asked for at its time, and is what the run's record allowed.
fn check_swaps(run: &Value, journal: &[Value], plan: &Plan, history: &[&Activation], counts: &mut Counts) {
    let empty = Vec::new();
    let swaps = run["swaps"].as_array().unwrap_or(&empty);
    let mut current = swaps.first().map_or(&run["version"], |first| &first["from"]);
    for swap in swaps {
        assert_eq!(&swap["from"], current, "{run:#}");
        let at = millis(&swap["at"]);
        let asked_for = history.iter().enumerate().any(|(place, activation)| {
            let until = history.get(place + 1).map_or(i64::MAX, |next| next.answered_ms);
            swap["to"] == activation.version
                && activation.policy == "migrate"
                && activation.asked_ms <= at
                && at <= until.saturating_add(LATE_MS)
        });
        assert!(asked_for, "nobody asked for {swap:#} of {run:#}: {history:#?}");
        let seq = swap["seq"].as_u64().expect("a number");
        let before = journal
            .iter()
            .take_while(|entry| entry["seq"].as_u64() < Some(seq));
        let recorded = Recorded::of(&before.cloned().collect::<Vec<_>>());
        let kind = kind_of(history, &swap["to"]);
        let moved = swap["outcome"] == "moved";
        assert_eq!(
            moved,
            kind.fits(plan, &recorded),
            "to {kind:?} with {recorded:?} of {plan:?}: {run:#}"
        );
        if moved {
            current = &swap["to"];
            counts.moved += 1;
        } else {
            let code = swap["error"]["code"].as_str().expect("a code");
            *counts.stayed.entry(code.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(current, &run["version"], "{run:#}");
    let tried: Vec<&Value> = swaps.iter().filter(|swap| swap["outcome"] == "stayed").collect();
    for (place, swap) in tried.iter().enumerate() {
        let again = tried[place + 1..].iter().any(|other| other["to"] == swap["to"]);
        assert!(!again, "the same version was tried again: {run:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_swaps_on_one_node() {
    storm(Storm {
        nodes: 1,
        swaps: if long() { 120 } else { 20 },
        kills: if long() { 40 } else { 5 },
        runs: if long() { 2_000 } else { 150 },
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_swaps_on_two_nodes_and_postgres() {
    storm(Storm {
        nodes: 2,
        swaps: if long() { 120 } else { 20 },
        kills: if long() { 20 } else { 3 },
        runs: if long() { 2_000 } else { 150 },
    })
    .await;
}
