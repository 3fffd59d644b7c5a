//! Nodes of two releases at once.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{Phase, Status};
use dormouse_core::{FunctionName, Json, RunId};
use dormouse_server::{StartError, Tuning};
use dormouse_store::postgres::{self, PostgresStore};
use dormouse_store::read::Run;
use dormouse_testing_postgres::Cluster;
use tokio_util::sync::CancellationToken;

use super::{Node, database_of};

/// What the next release adds to the schema: in every way in which a release may, on the tables that are busiest.
const NEXT_RELEASE: postgres::Migration = (
    1_000_000,
    "of the next release",
    "ALTER TABLE runs ADD COLUMN next_release text; \
     ALTER TABLE timers ADD COLUMN next_release bigint NOT NULL DEFAULT 0; \
     CREATE INDEX runs_of_the_next_release ON runs (next_release, id) WHERE next_release IS NOT NULL; \
     CREATE TABLE next_release (run_id uuid NOT NULL PRIMARY KEY)",
);

/// A node of the next release, which has brought the schema forward.
async fn newer(database: &str) -> Node {
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

/// Nodes are replaced one after the other while runs of all kinds are under way: the first of the next release brings the
/// schema forward under the feet of the older ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_with_an_added_migration_loses_nothing() {
    let database = Cluster::shared().database();
    let older = [Node::start(&database).await, Node::start(&database).await];
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

    let first = newer(&database).await;
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
        let nodes = first.app.store().nodes(first.app.now()).await.expect("read");
        let found = nodes
            .iter()
            .find(|found| found.url == node.url)
            .expect("it is listed");
        first
            .app
            .drain(&found.incarnation.to_string())
            .await
            .expect("it is asked");
        node.ended.await.expect("no panic").expect("it ends in order");
    }
    let second = newer(&database).await;
    for run in &runs {
        let run = second.ended(*run).await;
        assert_eq!(run.state.status, Status::Completed, "{:?}", run.error);
    }
    println!("{} runs went through the upgrade", runs.len());
    first.stop().await;
    second.stop().await;
}

/// An older node may meet what a newer one wrote. Blocked, the run waits for somebody who can read it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_of_another_release_cannot_read_is_tried_by_the_others() {
    let database = Cluster::shared().database();
    let psql = |sql: &str| Cluster::shared().psql(database_of(&database), sql);
    let older = Node::start(&database).await;
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
    let older = Node::start(&database).await;
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
