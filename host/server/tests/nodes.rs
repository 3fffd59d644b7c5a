//! Several servers on one Postgres, in this process: what is asked of one is true at all, whatever their clocks say.
//!
//! Deaths, cuts and restarts are the process tests' (host/cli/tests).

#[path = "nodes/ending.rs"]
mod ending;
#[path = "support/gate.rs"]
mod gate;
#[path = "nodes/skew.rs"]
mod skew;
#[path = "nodes/slots.rs"]
mod slots;
mod support;
#[path = "nodes/upgrading.rs"]
mod upgrading;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dormouse_core::run::{Phase, Status};
use dormouse_core::{Digest, FunctionName, Json, RunId};
use dormouse_server::app::App;
use dormouse_server::{Options, Server, StartError, Tuning};
use dormouse_store::read::Run;
use dormouse_testing_postgres::{Cluster, Held, Pooler};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use support::component;

const DEADLINE: Duration = Duration::from_secs(60);

/// The database's name in a URL.
fn database_of(url: &str) -> &str {
    let name = url.rsplit('/').next().and_then(|rest| rest.split('?').next());
    name.expect("a name")
}

/// A node with its address, and its end.
struct Node {
    app: App,
    url: String,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), StartError>>,
    _dir: TempDir,
}

impl Node {
    async fn start(database: &str) -> Node {
        let started = Node::start_with(database, Tuning::default()).await;
        started.expect("it starts")
    }

    async fn start_with(database: &str, tuning: Tuning) -> Result<Node, StartError> {
        Node::start_configured(database, tuning, "").await
    }

    async fn start_configured(database: &str, tuning: Tuning, config: &str) -> Result<Node, StartError> {
        let dir = TempDir::new().expect("a directory");
        let config_file = dir.path().join("server.toml");
        std::fs::write(&config_file, config).expect("written");
        let options = Options {
            config: Some(config_file),
            database_url: Some(database.to_owned()),
            listen: vec!["127.0.0.1:0".parse::<SocketAddr>().expect("an address")],
            park_idle: support::park_idle(),
            ..Options::new(dir.path().join("data"))
        };
        let server = Server::start(options, tuning).await?;
        let (app, url) = (server.app().clone(), server.url());
        let stop = CancellationToken::new();
        let ended = tokio::spawn(server.run(stop.clone()));
        Ok(Node {
            app,
            url,
            stop,
            ended,
            _dir: dir,
        })
    }

    async fn pair() -> [Node; 2] {
        let database = Cluster::shared().database();
        [Node::start(&database).await, Node::start(&database).await]
    }

    async fn deploy(&self, guest: &str) {
        let deployed = self.app.deploy(guest, component(guest), "test", None, None).await;
        deployed.unwrap_or_else(|problem| panic!("{guest}: {problem:?}"));
    }

    /// Starts a function; a node that has not heard of its module yet is asked again.
    async fn invoke(&self, function: &str, data: &str) -> RunId {
        let function: FunctionName = function.parse().expect("a name");
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.app.invoke(&function, Json::parse(data).expect("JSON")).await {
                Ok((run, _)) => return run,
                Err(problem) => {
                    assert!(
                        problem.code == "not-found" && Instant::now() < deadline,
                        "{problem:?}"
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn until(&self, run: RunId, what: &str, holds: impl Fn(&Run) -> bool) -> Run {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.app.store().run(run).await.expect("read").expect("there");
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "the run never was {what}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn ended(&self, run: RunId) -> Run {
        self.until(run, "ended", |run| run.state.status.is_terminal())
            .await
    }

    /// Waits until the nodes together have as many guests in memory as `expected`.
    async fn until_live(nodes: [&Node; 2], expected: u32) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let live: u32 = nodes.iter().map(|node| node.app.instances().live).sum();
            if live == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{live} guests live, not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.expect("no panic").expect("it ends in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_deployed_at_one_node_runs_at_every_other() {
    let [first, second] = Node::pair().await;
    first.deploy("bench").await;
    let run = second.invoke("bench/ten", "{}").await;
    let run = first.ended(run).await;
    assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    first.stop().await;
    // What the one that deployed had compiled is gone with it.
    let run = second.invoke("bench/sleeper", r#"{"ms":50}"#).await;
    assert_eq!(second.ended(run).await.state.status, Status::Completed);
    second.stop().await;
}

/// Its bytes cannot be had: so the node leaves the runs to who has loaded it, though they were accepted here.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_claims_no_run_of_a_version_before_it_has_loaded_it() {
    let database = Cluster::shared().database();
    let first = Node::start(&database).await;
    first.deploy("bench").await;
    let held = Held::at(&database, "LOCK TABLE components");
    let second = Node::start(&database).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(second.invoke("bench/ten", "{}").await);
        runs.push(second.invoke("bench/sleeper", r#"{"ms":30}"#).await);
    }
    for run in runs {
        assert_eq!(first.ended(run).await.state.status, Status::Completed);
    }
    // Alone it waits for the version, and no longer.
    first.stop().await;
    let run = second.invoke("bench/ten", "{}").await;
    drop(held);
    assert_eq!(second.ended(run).await.state.status, Status::Completed);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_and_woken_from_any_node() {
    let [first, second] = Node::pair().await;
    first.deploy("bench").await;
    first.deploy("hostile").await;
    // Asleep for an hour: woken from elsewhere.
    let run = first.invoke("bench/sleeper", r#"{"ms":3600000}"#).await;
    first
        .until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    second.app.wake(run).await.expect("it wakes");
    assert_eq!(first.ended(run).await.state.status, Status::Completed);
    // In a body that never ends: cancelled from elsewhere, and the guest is ended where it is.
    let run = first.invoke("hostile/loop-long", "{}").await;
    first
        .until(run, "executing", |run| run.state.phase == Some(Phase::Executing))
        .await;
    // A claimed run is executing from its claim on; its node may have to load the version first.
    Node::until_live([&first, &second], 1).await;
    second.app.cancel(run).await.expect("it is cancelled");
    assert_eq!(second.ended(run).await.state.status, Status::Cancelled);
    Node::until_live([&first, &second], 0).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_or_a_run_is_paused_and_resumed_from_any_node() {
    let [first, second] = Node::pair().await;
    first.deploy("bench").await;
    let name: FunctionName = "bench/one".parse().expect("a name");
    second.app.pause_function(&name).await.expect("paused");
    // The first has not heard of it yet, or it has: it must not matter.
    let mut held = Vec::new();
    for node in [&first, &second] {
        held.push(node.invoke("bench/one", "{}").await);
    }
    for run in &held {
        let run = first
            .until(*run, "held", |run| run.state.phase == Some(Phase::Paused))
            .await;
        assert_eq!(run.state.status, Status::Scheduled);
    }
    let run = first.invoke("bench/sleeper", r#"{"ms":200}"#).await;
    second.app.pause(run).await.expect("paused");
    let paused = |run: &Run| run.state.phase == Some(Phase::Paused);
    first.until(run, "paused", paused).await;
    first.app.resume_function(&name).await.expect("resumed");
    for run in held {
        assert_eq!(second.ended(run).await.state.status, Status::Completed);
    }
    assert_eq!(
        second
            .app
            .store()
            .run(run)
            .await
            .expect("read")
            .expect("there")
            .state
            .phase,
        Some(Phase::Paused)
    );
    first.app.resume(run).await.expect("resumed");
    assert_eq!(second.ended(run).await.state.status, Status::Completed);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_followed_from_a_node_that_does_not_drive_it() {
    let [first, second] = Node::pair().await;
    first.deploy("bench").await;
    let at = first.app.now().as_millis() + 2_000;
    let run = first.invoke("bench/until", &format!(r#"{{"at":{at}}}"#)).await;
    // Without a proxy or TLS: nothing of either is needed on loopback.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let poll = client
        .get(format!("{}/v1/runs/{run}?wait=30s", second.url))
        .send();
    let stream = client.get(format!("{}/v1/runs/{run}/stream", second.url)).send();
    let (poll, stream) = tokio::join!(poll, stream);
    let poll: serde_json::Value =
        serde_json::from_str(&poll.expect("answers").text().await.expect("whole")).expect("JSON");
    assert_eq!(poll["data"]["status"], "Completed", "{poll}");
    let stream = stream.expect("answers").text().await.expect("whole");
    assert!(
        stream.contains("event: done") && stream.contains("\"Completed\""),
        "{stream}"
    );
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_ends_and_the_others_finish_its_runs() {
    let [first, second] = Node::pair().await;
    first.deploy("bench").await;
    let mut runs = Vec::new();
    for ms in 0..40 {
        let data = format!(r#"{{"ms":{}}}"#, 50 * ms);
        runs.push(first.invoke("bench/sleeper", &data).await);
    }
    let nodes = second.app.store().nodes(second.app.now()).await.expect("read");
    let found = nodes
        .iter()
        .find(|node| node.url == first.url)
        .expect("it has joined");
    let asked = second
        .app
        .drain(&found.incarnation.to_string())
        .await
        .expect("asked");
    assert!(asked.draining);
    first.ended.await.expect("no panic").expect("it ends in order");
    for run in runs {
        assert_eq!(second.ended(run).await.state.status, Status::Completed);
    }
    let left = second.app.store().nodes(second.app.now()).await.expect("read");
    assert_eq!(left.len(), 1);
    let problem = second
        .app
        .drain("nobody")
        .await
        .expect_err("there is no such node");
    assert_eq!(problem.code, "not-found");
    second.stop().await;
}

/// As while a listener connects anew: nothing that another node says arrives, and all of it is found by looking.
#[tokio::test(flavor = "multi_thread")]
async fn without_hints_a_node_still_finds_what_others_cancel_wake_and_end() {
    let database = Cluster::shared().database();
    let pooler = Pooler::start(Cluster::shared(), 8);
    let deaf = Node::start(&pooler.url(&database)).await;
    let other = Node::start(&pooler.url(&database)).await;
    deaf.deploy("bench").await;
    deaf.deploy("hostile").await;
    let run = deaf.invoke("hostile/loop-long", "{}").await;
    deaf.until(run, "executing", |run| run.state.phase == Some(Phase::Executing))
        .await;
    Node::until_live([&deaf, &other], 1).await;
    other.app.cancel(run).await.expect("it is cancelled");
    Node::until_live([&deaf, &other], 0).await;
    let run = deaf.invoke("bench/sleeper", r#"{"ms":3600000}"#).await;
    deaf.until(run, "asleep", |run| run.state.phase == Some(Phase::Sleeping))
        .await;
    let url = format!("{}/v1/runs/{run}?wait=30s", deaf.url);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let poll = tokio::spawn(async move { reqwest::get(url).await?.text().await });
    other.app.wake(run).await.expect("it wakes");
    let poll: serde_json::Value =
        serde_json::from_str(&poll.await.expect("no panic").expect("answers")).expect("JSON");
    assert_eq!(poll["data"]["status"], "Completed", "{poll}");
    deaf.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_asks_the_database_less_than_five_times_a_second() {
    let cluster = Cluster::start();
    let database = cluster.database();
    // Its transactions would be counted too.
    cluster.psql("postgres", "ALTER SYSTEM SET autovacuum = off");
    cluster.psql("postgres", "SELECT pg_reload_conf()");
    let [first, second] = [Node::start(&database).await, Node::start(&database).await];
    first.deploy("bench").await;
    first.deploy("cron").await;
    let run = second.invoke("bench/ten", "{}").await;
    first.ended(run).await;
    // Looking for work slows down once there is none, and a session that is idle tells what it did within ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let name = database_of(&database);
    // A single statement is a transaction.
    let asked = || -> f64 {
        let text = cluster.psql(
            "postgres",
            &format!("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{name}'"),
        );
        text.parse().expect("a number")
    };
    let (before, began) = (asked(), Instant::now());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let rate = (asked() - before) / began.elapsed().as_secs_f64() / 2.0;
    println!("{rate:.1} queries a second for each idle node");
    assert!(rate < 5.0, "{rate} queries a second");
    first.stop().await;
    second.stop().await;
}

/// It executes at one node; another is asked to pause it. It stops where it next records something, and goes on from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_executes_at_one_node_is_paused_from_another() {
    let [first, second] = Node::pair().await;
    first.deploy("bench").await;
    let run = first.invoke("bench/steps", r#"{"n":5000}"#).await;
    first
        .until(run, "executing", |run| run.state.phase == Some(Phase::Executing))
        .await;
    second.app.pause(run).await.expect("it is asked for");
    let paused = |run: &Run| run.state.phase == Some(Phase::Paused);
    let held = second.until(run, "paused", paused).await;
    assert_eq!(held.owner, None, "nobody drives it");
    assert!(held.journal_next < 5_000, "it had ended: {held:?}");
    Node::until_live([&first, &second], 0).await;
    // Nothing of it goes on meanwhile, at either.
    let left = first.app.store().run(run).await.expect("read").expect("there");
    assert_eq!(left, held);
    first.app.resume(run).await.expect("resumed");
    let run = second.ended(run).await;
    assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    assert_eq!(run.output.expect("an output").as_str(), "12497500");
    first.stop().await;
    second.stop().await;
}

/// What the database has of a component is damaged: a node that has no other goes without, until it is uploaded again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_component_is_not_run_and_an_upload_repairs_it() {
    let database = Cluster::shared().database();
    let first = Node::start(&database).await;
    first.deploy("bench").await;
    Cluster::shared().psql(
        database_of(&database),
        "UPDATE components SET bytes = overlay(bytes PLACING '\\xff00ff'::bytea FROM 100)",
    );
    let second = Node::start(&database).await;
    // Accepted at the one that cannot, done by the other, which has it.
    let run = second.invoke("bench/ten", "{}").await;
    assert_eq!(second.ended(run).await.state.status, Status::Completed);
    first.stop().await;
    let run = second.invoke("bench/ten", "{}").await;
    let digest = Digest::of(&component("bench"));
    let refused = second.app.store().component(digest).await;
    assert!(
        matches!(refused, Err(dormouse_store::Error::Corrupt(_))),
        "{refused:?}"
    );
    // It waits: neither is what is damaged run, nor is the run blocked for it.
    let waiting = second.app.store().run(run).await.expect("read").expect("there");
    assert_eq!(waiting.state.phase, Some(Phase::Queued), "{waiting:?}");
    second.deploy("bench").await;
    assert_eq!(second.ended(run).await.state.status, Status::Completed);
    second.stop().await;
}
