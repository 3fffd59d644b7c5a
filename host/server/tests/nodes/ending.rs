//! How runs end on many nodes: what an event at one cancels at another, and that each end is told once.

use std::collections::HashMap;
use std::time::Instant;

use dormouse_core::RunId;
use dormouse_core::run::{Phase, Status};
use dormouse_store::read::{Run, RunFilter};
use serde_json::{Value, json};

use super::{DEADLINE, Node};

async fn send(node: &Node, name: &str, data: Value) -> Vec<RunId> {
    let event = json!({ "name": name, "data": data }).to_string();
    node.app.send_events(&[&event], None).await.expect("sent").runs
}

/// Deploys the guest and waits until both nodes start its functions.
async fn deploy(nodes: &[Node; 2]) {
    nodes[0].deploy("ends").await;
    let deadline = Instant::now() + DEADLINE;
    for node in nodes {
        while send(node, "test/renew", json!({"id": "first"})).await.is_empty() {
            assert!(Instant::now() < deadline, "it never knew the module");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

async fn runs_of(node: &Node, function: &str) -> Vec<Run> {
    let filter = RunFilter {
        module: Some("ends".to_owned()),
        function: Some(function.to_owned()),
        limit: 1_000,
        ..RunFilter::default()
    };
    node.app.store().runs(filter).await.expect("lists")
}

/// How often a function has run for the end of each run.
async fn told(node: &Node, function: &str) -> HashMap<String, u32> {
    let mut told: HashMap<String, u32> = HashMap::new();
    for run in runs_of(node, function).await {
        let run = node.app.store().run(run.id).await.expect("reads").expect("there");
        let output: Value = run.output.expect("an output").read().expect("JSON");
        let of = [&output["run_id"], &output["run"], &output["data"]["run_id"]];
        let of = of.into_iter().find_map(Value::as_str).expect("a run");
        *told.entry(of.to_owned()).or_default() += 1;
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_at_one_node_cancels_what_executes_at_another() {
    let nodes = Node::pair().await;
    deploy(&nodes).await;
    for (here, there) in [(0, 1), (1, 0)] {
        let spins = send(
            &nodes[here],
            "test/cancellable",
            json!({"id": here, "does": "spin"}),
        )
        .await[0];
        nodes[here]
            .until(spins, "executing", |run| {
                run.state.phase == Some(Phase::Executing)
            })
            .await;
        send(&nodes[there], "test/cancel", json!({"id": here})).await;
        let run = nodes[here].ended(spins).await;
        assert_eq!(run.state.status, Status::Cancelled, "{run:#?}");
    }
    // The bodies were ended, long before they would have returned.
    Node::until_live([&nodes[0], &nodes[1]], 0).await;
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_is_told_once_by_whichever_node() {
    let nodes = Node::pair().await;
    deploy(&nodes).await;
    let mut orders = Vec::new();
    let mut cancelled = Vec::new();
    for number in 0..60 {
        let node = &nodes[number % 2];
        let data = json!({"fails": number % 3 == 0, "sleeps_ms": number % 5});
        orders.extend(send(node, "shop/ordered", data).await);
        if number % 4 == 0 {
            cancelled.extend(send(node, "test/cancellable", json!({"id": number})).await);
            send(&nodes[(number + 1) % 2], "test/cancel", json!({"id": number})).await;
        }
    }
    let mut expected: HashMap<&str, HashMap<String, u32>> = HashMap::new();
    for run in &orders {
        let ended = nodes[0].ended(*run).await;
        let listeners: &[&str] = match ended.state.status {
            Status::Completed => &["hears-finished"],
            Status::Failed => &["hears-finished", "hears-failed", "order-failed"],
            other => panic!("{other:?}"),
        };
        for listener in listeners {
            expected.entry(listener).or_default().insert(run.to_string(), 1);
        }
    }
    for run in &cancelled {
        assert_eq!(nodes[1].ended(*run).await.state.status, Status::Cancelled);
        expected
            .entry("hears-cancelled")
            .or_default()
            .insert(run.to_string(), 1);
    }
    // The second run that made the nodes known to have the module has cancelled the first.
    let renewed = runs_of(&nodes[0], "renews").await;
    for run in renewed.iter().filter(|run| run.state.status == Status::Cancelled) {
        expected
            .entry("hears-cancelled")
            .or_default()
            .insert(run.id.to_string(), 1);
    }
    let deadline = Instant::now() + DEADLINE;
    loop {
        let store = nodes[0].app.store();
        let untold = store.untold(10).await.expect("reads");
        let mut live = 0;
        for listener in expected.keys() {
            let runs = runs_of(&nodes[0], listener).await;
            live += runs.iter().filter(|run| !run.state.status.is_terminal()).count();
        }
        if untold.is_empty() && live == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{untold:?} {live}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for (listener, expected) in &expected {
        assert_eq!(told(&nodes[0], listener).await, *expected, "{listener}");
    }
    for node in nodes {
        node.stop().await;
    }
}
