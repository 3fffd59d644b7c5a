//! Random events for functions with all limits at once, on one node and on three: no limit is exceeded, nothing is lost, nothing
//! happens twice. The long form sends thousands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use dormouse_core::flow::Decision;
use dormouse_core::run::{Phase, Status};
use dormouse_core::{EventId, RunId};
use dormouse_server::Tuning;
use dormouse_store::read::{Run, RunFilter};
use dormouse_testing_postgres::Cluster;
use serde_json::{Value, json};

use super::Node;
use super::gate::Gate;

const KEYS: u64 = 5;
const DEADLINE: Duration = Duration::from_secs(600);

/// How many events: thousands in the long form.
fn count() -> u64 {
    match std::env::var_os("DORMOUSE_TEST_LONG").is_some_and(|value| value == "1") {
        true => 4_000,
        false => 160,
    }
}

/// A small generator, so that a failure can be repeated.
fn next(state: &mut u64, below: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// An event that was sent.
struct Sent {
    id: EventId,
    key: String,
    number: u64,
    once: u64,
}

async fn nodes(gate: &Gate, count: usize) -> Vec<Node> {
    let database = Cluster::shared().database();
    let mut nodes = Vec::new();
    for _ in 0..count {
        let config = gate.config("mixed");
        let started = Node::start_configured(&database, Tuning::default(), &config);
        nodes.push(started.await.expect("it starts"));
    }
    nodes[0].deploy("mixed").await;
    // A node that has not heard of the module yet would start nothing for an event.
    for node in &nodes {
        let run = node.invoke("mixed/throttled", r#"{"key":"first","number":0,"once":0}"#);
        node.ended(run.await).await;
    }
    nodes
}

/// Sends events, several in a request, to the nodes in turn.
async fn send(nodes: &[Node], seed: u64) -> Vec<Sent> {
    let mut random = seed;
    let mut sent = Vec::new();
    let mut turn = 0;
    while (sent.len() as u64) < count() {
        let mut texts = Vec::new();
        let mut asked = Vec::new();
        for _ in 0..1 + next(&mut random, 6) {
            let number = (sent.len() + asked.len()) as u64;
            let key = format!("key-{}", next(&mut random, KEYS));
            let once = next(&mut random, count() / 4 + 1);
            let data = json!({"key": key, "number": number, "once": once});
            texts.push(json!({"name": "mixed/all", "data": data}).to_string());
            asked.push((key, number, once));
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let answer = nodes[turn % nodes.len()].app.send_events(&texts, None).await;
        let ids = answer.expect("sent").ids;
        for (id, (key, number, once)) in ids.into_iter().zip(asked) {
            sent.push(Sent {
                id,
                key,
                number,
                once,
            });
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(next(&mut random, 30))).await;
    }
    sent
}

/// All runs, once each of them has ended.
async fn ended(node: &Node) -> Vec<Run> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let live = RunFilter {
            status: vec![Status::Scheduled, Status::Running],
            limit: 1,
            ..RunFilter::default()
        };
        let live = node.app.store().runs(live).await.expect("reads");
        let Some(run) = live.first() else { break };
        assert_ne!(run.state.phase, Some(Phase::Blocked), "{run:#?}");
        assert!(Instant::now() < deadline, "it never ended: {run:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let filter = RunFilter {
            limit: 100,
            before,
            ..RunFilter::default()
        };
        let page = node.app.store().runs(filter).await.expect("reads");
        before = page.last().map(|run| run.id);
        all.extend(page);
        if before.is_none() {
            return all;
        }
    }
}

/// No stretch as long as a second has more than `most`.
fn keeps_to(mut times: Vec<i64>, most: usize, what: &str) {
    times.sort_unstable();
    for (index, start) in times.iter().enumerate() {
        let within = times[index..]
            .iter()
            .take_while(|time| **time < start + 1_000)
            .count();
        assert!(
            within <= most,
            "{what}: {within} within a second, from {start} on"
        );
    }
}

async fn mixed(number: usize) {
    let gate = Gate::start(Some(Duration::from_millis(2))).await;
    let nodes = nodes(&gate, number).await;
    let sent = send(&nodes, 7 + number as u64).await;
    let by_id: HashMap<EventId, &Sent> = sent.iter().map(|sent| (sent.id, sent)).collect();
    let mut runs: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in ended(&nodes[0]).await {
        if by_id.contains_key(&run.event_id) {
            runs.entry(run.function.function().to_owned())
                .or_default()
                .push(run);
        }
    }
    // Each event has a run of each function, or there stands why not.
    let store = nodes[0].app.store();
    let mut decisions: BTreeMap<(EventId, String), (Decision, Option<RunId>)> = BTreeMap::new();
    for sent in &sent {
        for decided in store.decisions(sent.id).await.expect("reads") {
            let function = decided.function.function().to_owned();
            decisions.insert((sent.id, function), (decided.decision, decided.run));
        }
    }
    let own = |function: &str, run: &Run| {
        let decided = decisions.get(&(run.event_id, function.to_owned()));
        decided.is_none_or(|(decision, _)| decision.is_gathered())
    };
    for (function, runs) in &runs {
        let events: BTreeSet<EventId> = runs.iter().map(|run| run.event_id).collect();
        assert_eq!(
            events.len(),
            runs.len(),
            "{function}: an event has started two runs"
        );
        assert!(
            runs.iter().all(|run| own(function, run)),
            "{function}: a run was started and dropped"
        );
        for sent in &sent {
            let started = events.contains(&sent.id);
            let decided = decisions.contains_key(&(sent.id, function.clone()));
            assert!(started || decided, "{function}: event {} is lost", sent.number);
        }
        let failed = runs.iter().find(|run| {
            run.state.status != Status::Completed
                && !(function == "newest" && run.state.status == Status::Cancelled)
        });
        assert!(failed.is_none(), "{failed:#?}");
    }
    assert_eq!(runs.len(), 9, "{:?}", runs.keys());
    let key = |run: &Run| by_id[&run.event_id].key.clone();
    let all = sent.len();

    // concurrency, priority
    for (of, most) in [("limited", 4), ("urgent", 2)] {
        let seen = gate.seen(of);
        assert!(seen.most <= most, "{of}: {seen:?}");
        assert_eq!(
            (seen.open, seen.all, runs[of].len()),
            (0, all, all),
            "{of}: {seen:?}"
        );
    }
    // rate_limit, throttle, idempotency
    for number in 0..KEYS {
        let name = format!("key-{number}");
        assert!(gate.seen(&format!("limited {name}")).most <= 1);
        assert!(
            gate.seen(&format!("single {name}")).most <= 1,
            "two of one key executed at once"
        );
        let of_key = runs["rated"].iter().filter(|run| key(run) == name);
        keeps_to(
            of_key.map(|run| run.id.time().as_millis()).collect(),
            5 + 2 - 1,
            "rate_limit",
        );
    }
    assert_eq!(runs["throttled"].len(), all);
    let turns = runs["throttled"].iter().map(|run| run.queued_at.as_millis());
    keeps_to(turns.collect(), 200 + 10 - 1, "throttle");
    let once: BTreeSet<u64> = runs["once"].iter().map(|run| by_id[&run.event_id].once).collect();
    let asked: BTreeSet<u64> = sent.iter().map(|sent| sent.once).collect();
    assert_eq!((once.len(), &once), (runs["once"].len(), &asked));
    // debounce
    for run in &runs["debounced"] {
        let of_run = sent.iter().filter(|sent| {
            decisions[&(sent.id, "debounced".to_owned())] == (Decision::Debounced, Some(run.id))
        });
        let events: Vec<&Sent> = of_run.collect();
        assert!(events.iter().all(|sent| sent.key == key(run)));
        assert_eq!(
            events.iter().map(|sent| sent.number).max(),
            Some(by_id[&run.event_id].number)
        );
    }
    // batch_events
    let mut batched: Vec<u64> = Vec::new();
    for run in &runs["batched"] {
        let run = store.run(run.id).await.expect("reads").expect("there");
        let output: Value = run.output.as_ref().expect("an output").read().expect("JSON");
        let numbers: Vec<u64> = serde_json::from_value(output).expect("numbers");
        assert!((1..=7).contains(&numbers.len()), "{numbers:?}");
        batched.extend(numbers);
    }
    batched.sort_unstable();
    assert_eq!(
        batched,
        (0..all as u64).collect::<Vec<_>>(),
        "each event is in one batch"
    );
    // singleton
    let skipped = |run: &(&(EventId, String), &(Decision, Option<RunId>))| run.1.0 == Decision::Skipped;
    let skipped = decisions.iter().filter(skipped).count();
    assert_eq!(runs["single"].len() + skipped, all);
    assert_eq!(gate.seen("single").all, runs["single"].len());
    for number in 0..KEYS {
        let name = format!("key-{number}");
        let of_key = runs["newest"].iter().filter(|run| key(run) == name);
        let last = of_key.max_by_key(|run| by_id[&run.event_id].number);
        assert!(
            last.is_none_or(|run| run.state.status == Status::Completed),
            "{last:#?}"
        );
    }
    assert_eq!(runs["newest"].len(), all);
    let counts: Vec<(&String, usize)> = runs
        .iter()
        .map(|(function, runs)| (function, runs.len()))
        .collect();
    println!("{all} events on {number} nodes: {counts:?}, {skipped} skipped");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_limits_hold_at_once_on_one_node() {
    mixed(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_limits_hold_at_once_on_three_nodes() {
    mixed(3).await;
}
