//! Several servers on one Postgres, in this process: what is asked of one is true at all, whatever their clocks say.
//!
//! Deaths, cuts and restarts are the process tests' (host/cli/tests).

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::run::{Phase, Status};
use dormouse_core::{FunctionName, Json, RunId, Timestamp};
use dormouse_server::app::App;
use dormouse_server::clock::{Clock, SystemClock};
use dormouse_server::{Options, Server, StartError, Tuning};
use dormouse_store::postgres::{self, PostgresStore};
use dormouse_store::read::{Run, RunFilter};
use dormouse_testing_postgres::{Cluster, Held, Pooler};
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use support::component;

const DEADLINE: Duration = Duration::from_secs(60);

/// What the next release adds to the schema: in every way in which a release may, on the tables that are busiest.
const NEXT_RELEASE: postgres::Migration = (
    1_000_000,
    "of the next release",
    "ALTER TABLE runs ADD COLUMN next_release text; \
     ALTER TABLE timers ADD COLUMN next_release bigint NOT NULL DEFAULT 0; \
     CREATE INDEX runs_of_the_next_release ON runs (next_release, id) WHERE next_release IS NOT NULL; \
     CREATE TABLE next_release (run_id uuid NOT NULL PRIMARY KEY)",
);

/// The database's name in a URL.
fn database_of(url: &str) -> &str {
    let name = url.rsplit('/').next().and_then(|rest| rest.split('?').next());
    name.expect("a name")
}

/// This machine's clock, wrong by so many milliseconds.
struct Wrong(i64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().as_millis() + self.0)
    }

    fn sleep_until(&self, time: Timestamp) -> BoxFuture<'static, ()> {
        SystemClock.sleep_until(Timestamp::from_millis(time.as_millis().saturating_sub(self.0)))
    }
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
    async fn start(database: &str, wrong_by: i64) -> Node {
        let tuning = Tuning {
            clock: Arc::new(Wrong(wrong_by)),
            ..Tuning::default()
        };
        Node::start_with(database, tuning).await.expect("it starts")
    }

    /// A node of the next release, which has brought the schema forward.
    async fn start_newer(database: &str) -> Node {
        let options = postgres::Options {
            later: vec![NEXT_RELEASE],
            ..postgres::Options::new(database)
        };
        let store = PostgresStore::open(options).await.expect("it opens");
        let tuning = Tuning {
            store: Some(Arc::new(store)),
            ..Tuning::default()
        };
        Node::start_with(database, tuning).await.expect("it starts")
    }

    async fn start_with(database: &str, tuning: Tuning) -> Result<Node, StartError> {
        let dir = TempDir::new().expect("a directory");
        let options = Options {
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

    async fn pair(wrong_by: [i64; 2]) -> [Node; 2] {
        let database = Cluster::shared().database();
        [
            Node::start(&database, wrong_by[0]).await,
            Node::start(&database, wrong_by[1]).await,
        ]
    }

    async fn deploy(&self, guest: &str) {
        let deployed = self.app.deploy(guest, component(guest), "test", None).await;
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
    let [first, second] = Node::pair([0, 0]).await;
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
    let first = Node::start(&database, 0).await;
    first.deploy("bench").await;
    let held = Held::at(&database, "LOCK TABLE components");
    let second = Node::start(&database, 0).await;
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
async fn clocks_that_are_minutes_apart_neither_hurry_nor_delay_a_run() {
    let [early, late] = Node::pair([-7 * 60_000, 5 * 60_000]).await;
    early.deploy("bench").await;
    for node in [&early, &late] {
        let asked = Instant::now();
        let mut runs = Vec::new();
        for _ in 0..20 {
            runs.push(node.invoke("bench/sleeper", r#"{"ms":1500}"#).await);
        }
        for run in runs {
            let run = late.ended(run).await;
            assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
            let took = run.ended_at.expect("ended").since(run.queued_at);
            assert!(took >= Duration::from_millis(1500), "{took:?}");
            let journal = early.app.store().journal(run.id, 0).await.expect("read");
            assert!(
                journal.windows(2).all(|pair| pair[0].at <= pair[1].at),
                "{journal:?}"
            );
        }
        assert!(asked.elapsed() >= Duration::from_millis(1500));
        // Minutes would pass if a node went by its own clock; the deadline of this test is one.
        let difference = early.app.now().as_millis() - late.app.now().as_millis();
        assert!(difference.abs() < 1_000, "{difference}");
    }
    early.stop().await;
    late.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_and_woken_from_any_node() {
    let [first, second] = Node::pair([0, 0]).await;
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
    let [first, second] = Node::pair([0, 0]).await;
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
    let [first, second] = Node::pair([0, 0]).await;
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
    let [first, second] = Node::pair([0, 0]).await;
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
    let deaf = Node::start(&pooler.url(&database), 0).await;
    let other = Node::start(&pooler.url(&database), 0).await;
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
    let [first, second] = [Node::start(&database, 0).await, Node::start(&database, 0).await];
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

/// Three nodes wait for the same ticks, and each tick comes at all of them in the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_started_once_however_many_nodes_see_it() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut nodes = Vec::new();
    for wrong_by in [0, 240_000, -240_000] {
        nodes.push(Node::start(&database, wrong_by).await);
    }
    nodes[0].deploy("cron").await;
    let functions = ["hourly", "forgets", "renamed"];
    let filter = |function: &str| RunFilter {
        module: Some("cron".to_owned()),
        function: Some(function.to_owned()),
        limit: 100,
        ..RunFilter::default()
    };
    let deadline = Instant::now() + DEADLINE;
    for round in 1..=3 {
        // All rows are there, and in four seconds all their ticks come.
        while nodes[0].app.store().schedules().await.expect("lists").len() < 9 {
            assert!(Instant::now() < deadline, "the schedules never were there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.psql(
            database_of(&database),
            "UPDATE schedules SET next_ms = (extract(epoch FROM clock_timestamp()) * 1000)::int8 + 4000",
        );
        // Every node looks anew when something else is active or paused than before.
        let other: FunctionName = "cron/allows".parse().expect("a name");
        match round % 2 {
            1 => nodes[1].app.pause_function(&other).await.expect("paused"),
            _ => nodes[1].app.resume_function(&other).await.expect("resumed"),
        };
        for function in functions {
            loop {
                let found = nodes[2].app.store().runs(filter(function)).await.expect("lists");
                if found.len() >= round {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "{function} ticked {} times",
                    found.len()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    for function in functions {
        let found = nodes[2].app.store().runs(filter(function)).await.expect("lists");
        for run in &found {
            let run = nodes[0].ended(run.id).await;
            assert_eq!(run.state.status, Status::Completed, "{run:#?}");
        }
        // An hour may begin meanwhile, but a tick has one event, and that one run.
        let events: HashSet<_> = found.iter().map(|run| run.event_id).collect();
        assert_eq!(events.len(), found.len(), "{found:#?}");
    }
    for node in nodes {
        node.stop().await;
    }
}

/// Nodes are replaced one after the other while runs of all kinds are under way: the first of the next release brings the
/// schema forward under the feet of the older ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_with_an_added_migration_loses_nothing() {
    let database = Cluster::shared().database();
    let older = [Node::start(&database, 0).await, Node::start(&database, 0).await];
    older[0].deploy("bench").await;
    let mut runs = Vec::new();
    // Some are asleep when the schema changes and end at a newer node, some are never there when it changes.
    for ms in [50, 3_000, 6_000] {
        for node in &older {
            for _ in 0..20 {
                runs.push(node.invoke("bench/sleeper", &format!(r#"{{"ms":{ms}}}"#)).await);
            }
        }
    }
    let stop = CancellationToken::new();
    let load = |node: &Node| {
        let (app, stop) = (node.app.clone(), stop.clone());
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            while !stop.is_cancelled() {
                let function: FunctionName = "bench/ten".parse().expect("a name");
                match app.invoke(&function, Json::parse("{}").expect("JSON")).await {
                    Ok((run, _)) => accepted.push(run),
                    // What is refused is not lost: the client knows.
                    Err(problem) => assert_eq!(problem.status, 503, "{problem:?}"),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            accepted
        })
    };
    let loads = [load(&older[0]), load(&older[1])];

    let newer = Node::start_newer(&database).await;
    let refused = Node::start_with(&database, Tuning::default()).await;
    let refused = refused.map(|node| node.url);
    assert!(
        matches!(refused, Err(StartError::NewerSchema(_))),
        "an older node started on the newer schema: {refused:?}"
    );
    // The older ones go on beside the newer one.
    for node in &older {
        let run = node.invoke("bench/ten", "{}").await;
        assert_eq!(node.ended(run).await.state.status, Status::Completed);
    }
    stop.cancel();
    for load in loads {
        runs.extend(load.await.expect("no panic"));
    }
    for node in older {
        let nodes = newer.app.store().nodes(newer.app.now()).await.expect("read");
        let found = nodes
            .iter()
            .find(|found| found.url == node.url)
            .expect("it is listed");
        newer
            .app
            .drain(&found.incarnation.to_string())
            .await
            .expect("it is asked");
        node.ended.await.expect("no panic").expect("it ends in order");
    }
    let second = Node::start_newer(&database).await;
    for run in &runs {
        let run = second.ended(*run).await;
        assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    }
    println!("{} runs went through the upgrade", runs.len());
    newer.stop().await;
    second.stop().await;
}

/// An older node may meet what a newer one wrote. Blocked, the run waits for somebody who can read it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_of_another_release_cannot_read_is_tried_by_the_others() {
    let database = Cluster::shared().database();
    let psql = |sql: &str| Cluster::shared().psql(database_of(&database), sql);
    let older = Node::start(&database, 0).await;
    older.deploy("bench").await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        // Its time comes while no node is there.
        let run = older.invoke("bench/sleeper", r#"{"ms":3000}"#).await;
        let asleep = |run: &Run| run.state.phase == Some(Phase::Sleeping);
        older.until(run, "asleep", asleep).await;
        runs.push(run);
    }
    // What it has in memory it need not read.
    older.stop().await;
    let hex = |run: RunId| -> String { run.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect() };
    let (kind, version) = (hex(runs[0]), hex(runs[1]));
    psql(&format!(
        "UPDATE journal SET kind = kind + 90 WHERE run_id = '{kind}'"
    ));
    psql(&format!(
        "UPDATE journal SET meta = replace(meta, '{{\"v\":1', '{{\"v\":2') WHERE run_id = '{version}'"
    ));
    let release = |run: &Run| {
        let blocked = run.state.phase == Some(Phase::Blocked);
        let error = run.error.as_ref().filter(|_| blocked)?;
        assert_eq!(error.code, "journal-unreadable", "{error:?}");
        let details: serde_json::Value = error.details.as_ref()?.read().ok()?;
        details["release"].as_str().map(str::to_owned)
    };
    let older = Node::start(&database, 0).await;
    for run in &runs {
        let run = older.until(*run, "blocked", |run| release(run).is_some()).await;
        assert_eq!(release(&run).as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
    let tuning = Tuning {
        release: "1000.0.0".to_owned(),
        ..Tuning::default()
    };
    let newer = Node::start_with(&database, tuning).await.expect("it starts");
    let tried = |run: &Run| release(run).as_deref() == Some("1000.0.0");
    for run in &runs {
        newer.until(*run, "tried by the newer node", tried).await;
    }
    // From now on it can be read: whoever blocked it last, it is tried again.
    psql(&format!(
        "UPDATE journal SET kind = kind - 90 WHERE run_id = '{kind}'"
    ));
    psql(&format!(
        "UPDATE journal SET meta = replace(meta, '{{\"v\":2', '{{\"v\":1') WHERE run_id = '{version}'"
    ));
    for run in runs {
        let run = newer.ended(run).await;
        assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    }
    older.stop().await;
    newer.stop().await;
}
