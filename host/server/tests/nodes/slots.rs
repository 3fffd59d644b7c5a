//! Concurrency limits across nodes: how many bodies a gate outside sees at once.

use std::time::Duration;

use dormouse_core::RunId;
use dormouse_core::run::{Phase, Status};
use dormouse_server::Tuning;
use dormouse_testing_postgres::Cluster;
use serde_json::{Value, json};

use super::Node;
use super::gate::Gate;

async fn three(gate: &Gate) -> Vec<Node> {
    let database = Cluster::shared().database();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let config = gate.config("slots");
        let started = Node::start_configured(&database, Tuning::default(), &config);
        nodes.push(started.await.expect("it starts"));
    }
    nodes[0].deploy("slots").await;
    // A node that has not heard of the module yet would start nothing for an event.
    for node in &nodes {
        let run = node.invoke("slots/free", r#"{"key":"first","turns":0}"#).await;
        node.ended(run).await;
    }
    nodes
}

async fn send(node: &Node, name: &str, data: Value) -> Vec<RunId> {
    let event = json!({ "name": name, "data": data }).to_string();
    node.app.send_events(&[&event], None).await.expect("sent").runs
}

/// Events with mixed limits at three nodes: none is exceeded, nothing is lost, nothing is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_exceeded_by_three_nodes_together() {
    let gate = Gate::start(Some(Duration::from_millis(3))).await;
    let nodes = three(&gate).await;
    let mut runs = Vec::new();
    for number in 0..90 {
        let data = json!({"key": format!("user-{}", number % 5), "turns": 1 + number % 2});
        for name in ["slots/limited", "slots/nested", "slots/shared", "slots/free"] {
            runs.extend(send(&nodes[number % 3], name, data.clone()).await);
        }
    }
    assert_eq!(runs.len(), 450, "one is for two functions");
    for run in &runs {
        let run = nodes[0].ended(*run).await;
        assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    }
    for (of, most, all) in [("limited", 3, 135), ("nested", 4, 135), ("shared", 2, 270)] {
        let seen = gate.seen(of);
        assert!(seen.most <= most, "{of}: {seen:?}");
        assert_eq!((seen.open, seen.all), (0, all), "{of}: {seen:?}");
        println!("{of}: {} of {most} at once", seen.most);
    }
    for user in 0..5 {
        assert_eq!(gate.seen(&format!("nested user-{user}")).most, 1);
    }
    assert_eq!(gate.seen("free").all, 135);
    for node in nodes {
        node.stop().await;
    }
}

/// What one node frees, another takes; and a run may be cancelled where it waits, from anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_freed_at_one_node_is_taken_at_another() {
    let gate = Gate::start(None).await;
    let mut nodes = three(&gate).await;
    let mut runs = Vec::new();
    for number in 0..12 {
        runs.extend(send(&nodes[number % 3], "slots/limited", json!({"key": "a"})).await);
    }
    let limited = |run: &super::Run| run.state.phase == Some(Phase::Limited);
    let mut waiting = 0;
    for run in &runs {
        let found = nodes[1].until(*run, "decided", |run| {
            limited(run) || run.state.phase == Some(Phase::Executing)
        });
        if limited(&found.await) {
            waiting += 1;
            nodes[2].app.cancel(*run).await.expect("it is cancelled");
            if waiting == 4 {
                break;
            }
        }
    }
    // A node that ends in order hands its runs on, and with them their slots.
    gate.keep_for(Some(Duration::from_millis(5)));
    nodes.remove(0).stop().await;
    let mut completed = 0;
    for run in &runs {
        let run = nodes[0].ended(*run).await;
        completed += usize::from(run.state.status == Status::Completed);
    }
    assert_eq!((completed, waiting), (8, 4));
    assert!(gate.seen("limited").most <= 3);
    for node in nodes {
        node.stop().await;
    }
}
