//! Two nodes on machines of their own, one of which is cut off from the database: a cable is pulled.
//!
//! What a proxy shows is in `process_nodes.rs` and the interpreter test (docs/adr/0007); here the kernel itself has sent what
//! nobody acknowledges.

mod support;

use std::time::{Duration, Instant};

use dormouse_testing_postgres::Cluster;
use serde_json::{Value, json};
use support::network::{HUB, Machine, Network};
use support::witness::Witness;
use support::{guest, until};

/// A node that gives no sign of life for this long is dead to the others.
const LEASE: Duration = Duration::from_secs(10);
/// How long they may take to do its work after that.
const TAKEN_OVER: Duration = Duration::from_secs(5);
/// What the kernel says of a connection whose data nobody acknowledges: ETIMEDOUT.
const UNACKNOWLEDGED: &str = "os error 110";

/// Two machines with a node each, and what they share.
struct Lab {
    one: Machine,
    other: Machine,
    network: Network,
    witness: Witness,
    config: String,
    arguments: Vec<String>,
    // Ends after the nodes.
    _cluster: Cluster,
}

impl Lab {
    async fn start() -> Lab {
        let cluster = tokio::task::spawn_blocking(Cluster::start);
        let cluster = cluster.await.expect("it starts");
        let url = cluster.database().replace("127.0.0.1", HUB);
        let witness = Witness::start().await;
        let port = witness.port();
        let mut network = Network::to(&[cluster.port(), port]).await;
        let config = format!(
            "[modules.interpreter]\nhttp = [\"{HUB}:{port}\"]\nconfig = {{ sink = \"http://{HUB}:{port}/\" }}\n"
        );
        let mut lab = Lab {
            one: network.machine(),
            other: network.machine(),
            network,
            witness,
            config,
            arguments: vec!["--database-url".to_owned(), url],
            _cluster: cluster,
        };
        lab.start_one().await;
        let arguments: Vec<&str> = lab.arguments.iter().map(String::as_str).collect();
        lab.other.start(&lab.config, &arguments).await;
        let component = tempfile::NamedTempFile::with_suffix(".wasm").expect("a file");
        std::fs::write(&component, guest("interpreter")).expect("written");
        let path = component.path().to_str().expect("UTF-8");
        lab.one.ask(&["deploy", path, "--module", "interpreter"]);
        until("the other node has the module", || {
            let modules = lab.other.try_ask(&["modules", "list"]);
            let has = modules.is_some_and(|modules| modules.as_array().is_some_and(|list| list.len() == 1));
            std::future::ready(has.then_some(()))
        })
        .await;
        lab
    }

    async fn start_one(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.one.start(&self.config, &arguments).await;
    }

    /// Runs that the first node drives, each with its body open: until the witness is let go.
    async fn open_bodies(&self, count: usize) -> Vec<String> {
        self.witness.hold(true);
        let before = self.witness.count();
        let runs = (0..count).map(|_| self.invoke(&self.one)).collect();
        self.witness.reaches(before + count).await;
        runs
    }

    /// A body, then a sleep.
    fn invoke(&self, machine: &Machine) -> String {
        let steps = json!([{"run": {"fails": 0, "pad": 0}}, {"sleep": {"ms": 10}}]);
        let data = json!({"tag": 0, "tells": null, "chapters": [{"sequence": steps}]}).to_string();
        let started = machine.ask(&["invoke", "interpreter/interpret", "--data", &data]);
        started["run_id"].as_str().expect("a run").to_owned()
    }
}

/// The run, once it has ended.
async fn ended(machine: &Machine, run: &str) -> Value {
    until(&format!("run {run} ends"), || {
        let found = machine.try_ask(&["runs", "get", run]);
        std::future::ready(found.filter(|found| found["ended_at"].is_string()))
    })
    .await
}

fn journal(machine: &Machine, run: &str) -> Value {
    machine.ask(&["runs", "journal", run])
}

async fn all_completed(machine: &Machine, runs: &[String]) {
    for run in runs {
        let run = ended(machine, run).await;
        assert_eq!(run["status"], "Completed", "{run:#}");
    }
}

/// The cut-off node's last words are under way when its cable is pulled, and its bodies have answers that it never gets.
#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_a_node_whose_cable_is_pulled_are_done_by_the_other() {
    let mut lab = Lab::start().await;
    let runs = lab.open_bodies(20).await;
    let before = lab.one.listed_at(&lab.other).expect("it is listed");
    lab.network.pull(1);
    let pulled = Instant::now();
    lab.witness.hold(false);
    all_completed(&lab.other, &runs).await;
    let took = pulled.elapsed();
    println!(
        "20 runs were done {:.1} s after the cable was pulled",
        took.as_secs_f64()
    );
    assert!(took < LEASE + TAKEN_OVER, "it took {took:?}");
    let journals: Vec<Value> = runs.iter().map(|run| journal(&lab.other, run)).collect();

    // Its kernel gives the connections up, long before anybody else would.
    until("a connection ends by its own", || {
        std::future::ready(lab.one.log().contains(UNACKNOWLEDGED).then_some(()))
    })
    .await;
    println!(
        "and its connections had ended after {:.1} s",
        pulled.elapsed().as_secs_f64()
    );

    lab.network.plug(1);
    let deadline = Instant::now() + support::DEADLINE;
    loop {
        if let Some(code) = lab.one.ended_by_itself() {
            assert_eq!(code, 5, "{}", lab.one.log());
            lab.start_one().await;
        }
        let now = lab.one.listed_at(&lab.other);
        if now.is_some_and(|now| now["incarnation"] != before["incarnation"]) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "it never joined anew:\n{}",
            lab.one.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (run, then) in runs.iter().zip(journals) {
        assert_eq!(journal(&lab.other, run), then, "it was written to afterwards");
    }
    let run = lab.invoke(&lab.one);
    all_completed(&lab.one, &[run]).await;
}

/// What was sent meanwhile is sent again by the kernels.
#[tokio::test(flavor = "multi_thread")]
async fn a_cable_that_was_out_for_less_than_the_lease_costs_nothing_but_the_time() {
    let mut lab = Lab::start().await;
    let runs = lab.open_bodies(20).await;
    let before = lab.one.listed_at(&lab.other).expect("it is listed");
    lab.network.pull(1);
    lab.witness.hold(false);
    until("the other node misses it", || {
        let silent = lab.one.listed_at(&lab.other).expect("it is listed");
        let missed = silent["silent_ms"].as_u64().is_some_and(|ms| ms > 3_000);
        std::future::ready(missed.then_some(()))
    })
    .await;
    lab.network.plug(1);
    all_completed(&lab.other, &runs).await;
    assert_eq!(lab.one.ended_by_itself(), None, "{}", lab.one.log());
    let after = lab.one.listed_at(&lab.other).expect("it is listed");
    assert_eq!(after["incarnation"], before["incarnation"]);
    // No body ran again: its answer came, late.
    assert_eq!(lab.witness.count(), runs.len());
}
