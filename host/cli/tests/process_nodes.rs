//! Two nodes on one Postgres: one is killed, stands still, drains, is cut off; clients ask the other.

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};
use support::fleet::{Client, Fleet};
use support::nemesis::SharedDatabase;
use support::proxy::Way;
use support::server::Server;
use support::witness::Witness;
use support::{guest, until};

/// A node that gives no sign of life for this long is dead to the others.
const LEASE: Duration = Duration::from_secs(10);
/// How long they may take to do its work after that.
const TAKEN_OVER: Duration = Duration::from_secs(5);
/// What an open body may go on after its run was cancelled.
const GRACE: Duration = Duration::from_secs(5);
/// What a node may take to notice what was asked of another.
const NOTICED: Duration = Duration::from_secs(3);

/// Two nodes, and what they share.
struct Pair {
    one: Server,
    other: Server,
    database: SharedDatabase,
    witness: Witness,
}

async fn pair() -> Pair {
    let database = SharedDatabase::start(2).await;
    let witness = Witness::start().await;
    let host = witness.host();
    let config =
        format!("[modules.interpreter]\nhttp = [\"{host}\"]\nconfig = {{ sink = \"http://{host}/\" }}\n");
    let mut fleet = Fleet::prepare(&config, &database.arguments());
    fleet.boot().await;
    let mut nodes = fleet.nodes.into_iter();
    let (one, other) = (nodes.next().expect("a node"), nodes.next().expect("a node"));
    one.deploy("interpreter", guest("interpreter")).await;
    until("the other node has the module", || async {
        let modules = other.get("/v1/modules").await.ok()?;
        (modules.as_array()?.len() == 1).then_some(())
    })
    .await;
    Pair {
        one,
        other,
        database,
        witness,
    }
}

/// A body, then a sleep.
fn body_then_sleep(ms: u64) -> Value {
    json!({"tag": 0, "tells": null, "chapters": [{"sequence": [{"run": {"fails": 0, "pad": 0}}, {"sleep": {"ms": ms}}]}]})
}

impl Pair {
    /// Runs that the first node drives, each with its body open: until the witness is let go.
    async fn open_bodies(&self, count: usize) -> Vec<String> {
        self.witness.hold(true);
        let before = self.witness.count();
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push(
                self.one
                    .invoke("interpreter/interpret", &body_then_sleep(10))
                    .await,
            );
        }
        self.witness.reaches(before + count).await;
        runs
    }

    /// How many instances a node has in memory.
    async fn live(node: &Server) -> Option<u64> {
        let text = reqwest::get(node.url("/metrics")).await.ok()?.text().await.ok()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("dormouse_instances_live "))?;
        value.trim().parse().ok()
    }
}

/// What a node knows of the nodes: the one at this URL.
async fn listed(asked: &Server, node: &Server) -> Option<Value> {
    let nodes = asked.get("/v1/nodes").await.ok()?;
    let mut nodes = nodes.as_array()?.iter();
    nodes.find(|listed| listed["url"] == node.url("")).cloned()
}

/// Waits until a node says that it lives; it may have ended with 5 before, and is then started again.
async fn lives(asked: &Server, node: &mut Server) {
    let deadline = Instant::now() + support::DEADLINE;
    loop {
        if let Some(code) = node.ended_by_itself() {
            assert_eq!(code, 5, "{}", node.log_tail(20));
            node.spawn();
        }
        let known = listed(asked, node).await;
        if known.is_some_and(|node| node["silent_ms"].as_u64().is_some_and(|ms| ms < 2_500)) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "it never came back:\n{}",
            node.log_tail(20)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all_completed(node: &Server, runs: &[String]) {
    for run in runs {
        let run = node.ended(run).await;
        assert_eq!(run["status"], "Completed", "{run:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_a_killed_node_are_done_by_the_other_within_the_lease_and_five_seconds() {
    let mut pair = pair().await;
    let runs = pair.open_bodies(20).await;
    let sleeping = pair
        .one
        .invoke("interpreter/interpret", &body_then_sleep(12_000))
        .await;
    pair.witness.reaches(21).await;
    pair.one.kill();
    let killed = Instant::now();
    pair.witness.hold(false);
    all_completed(&pair.other, &runs).await;
    let took = killed.elapsed();
    println!(
        "20 runs were done {:.1} s after their node was killed",
        took.as_secs_f64()
    );
    assert!(took < LEASE + TAKEN_OVER, "it took {took:?}");
    all_completed(&pair.other, &[sleeping]).await;
    assert!(
        listed(&pair.other, &pair.one).await.is_none(),
        "the dead node is still listed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_nodes_were_killed_the_one_that_comes_back_does_everything() {
    let mut pair = pair().await;
    pair.one.deploy("steps", guest("steps")).await;
    // Each of these is in its phase when its node ends, and for longer than that takes.
    let program = |program: Value| json!({"tag": 1, "tells": null, "chapters": [{"sequence": [program]}]});
    let interpret = "interpreter/interpret";
    let phases = [
        ("sleeping", interpret, program(json!({"sleep": {"ms": 20_000}}))),
        ("waiting", interpret, program(json!({"lonely": {"ms": 20_000}}))),
        ("backing-off", "steps/timed", json!({"ms": 1, "backoff": 20_000})),
    ];
    let mut waiting = Vec::new();
    for (phase, function, data) in &phases {
        for _ in 0..2 {
            waiting.push((pair.one.invoke(function, data).await, *phase));
        }
    }
    for (run, phase) in &waiting {
        pair.other.in_phase(run, phase).await;
    }
    let mut runs = pair.open_bodies(20).await;
    for (run, phase) in waiting {
        let found = pair.other.get(&format!("/v1/runs/{run}")).await.expect("a run");
        assert_eq!(found["phase"], phase, "{found:#}");
        runs.push(run);
    }
    pair.one.kill();
    pair.other.kill();
    pair.witness.hold(false);
    pair.other.boot().await;
    all_completed(&pair.other, &runs).await;
}

/// The stopped node wakes up with the answers to its bodies waiting in its sockets, and believes that it owns their runs.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_node_writes_is_accepted_after_it_stood_still_past_its_lease() {
    let mut pair = pair().await;
    let runs = pair.open_bodies(20).await;
    let before = listed(&pair.other, &pair.one).await.expect("it is listed");
    pair.one.signal("STOP");
    pair.witness.hold(false);
    all_completed(&pair.other, &runs).await;
    let mut ended = Vec::new();
    for run in &runs {
        let journal = pair
            .other
            .get(&format!("/v1/runs/{run}/journal"))
            .await
            .expect("a journal");
        ended.push((
            pair.other.get(&format!("/v1/runs/{run}")).await.expect("a run"),
            journal,
        ));
    }

    pair.one.signal("CONT");
    let one = &mut pair.one;
    let deadline = Instant::now() + support::DEADLINE;
    let rejoined = loop {
        if let Some(code) = one.ended_by_itself() {
            assert_eq!(code, 5, "{}", one.log_tail(20));
            break false;
        }
        let now = listed(&pair.other, one).await;
        if now.is_some_and(|now| now["incarnation"] != before["incarnation"]) {
            break true;
        }
        assert!(
            Instant::now() < deadline,
            "it neither ended nor joined anew:\n{}",
            one.log_tail(20)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!(
        "the woken node {}",
        if rejoined { "joined anew" } else { "ended" }
    );
    for (run, (then, journal)) in runs.iter().zip(ended) {
        assert_eq!(pair.other.get(&format!("/v1/runs/{run}")).await, Ok(then));
        assert_eq!(
            pair.other.get(&format!("/v1/runs/{run}/journal")).await,
            Ok(journal)
        );
    }
    if !rejoined {
        one.boot().await;
    }
    let run = one.invoke("interpreter/interpret", &body_then_sleep(1)).await;
    all_completed(&pair.other, &[run]).await;
}

/// What a client asks of a run works at a node that does not drive it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_woken_and_followed_at_the_node_that_does_not_drive_it() {
    let pair = pair().await;
    let runs = pair.open_bodies(1).await;
    let [run] = &runs[..] else {
        unreachable!("one was asked for")
    };
    pair.other.in_phase(run, "executing").await;
    let (status, body) = pair.other.send("DELETE", &format!("/v1/runs/{run}"), "").await;
    assert_eq!(status, 200, "{body}");
    let asked = Instant::now();
    assert_eq!(pair.one.ended(run).await["status"], "Cancelled");
    until("the cancelled run's instance is gone", || async {
        (Pair::live(&pair.one).await? == 0).then_some(())
    })
    .await;
    println!(
        "cancelled at the other node: its body was ended after {:.2} s",
        asked.elapsed().as_secs_f64()
    );
    assert!(
        asked.elapsed() < GRACE + NOTICED,
        "the body went on for {:?}",
        asked.elapsed()
    );
    pair.witness.hold(false);

    let sleeping = pair
        .one
        .invoke("interpreter/interpret", &body_then_sleep(3_600_000))
        .await;
    pair.other.in_phase(&sleeping, "sleeping").await;
    let (status, body) = pair
        .other
        .send("POST", &format!("/v1/runs/{sleeping}/wake"), "")
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(pair.other.ended(&sleeping).await["status"], "Completed");

    let runs = pair.open_bodies(1).await;
    let [run] = &runs[..] else {
        unreachable!("one was asked for")
    };
    let url = pair.other.url(&format!("/v1/runs/{run}/stream"));
    let mut stream = reqwest::get(url).await.expect("a stream").bytes_stream();
    let path = format!("/v1/runs/{run}?wait=30s");
    let poll = pair.other.get(&path);
    let follow = async {
        let mut text = String::new();
        while let Some(Ok(bytes)) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
            if text.contains("event: done") {
                return text;
            }
        }
        panic!("the stream ended: {text}")
    };
    let let_go = async {
        // The long poll and the stream have begun by now, or begin later, which is as well.
        pair.other.in_phase(run, "executing").await;
        pair.witness.hold(false);
        pair.one.ended(run).await;
        Instant::now()
    };
    let timed = |future| async {
        (
            tokio::time::timeout(Duration::from_secs(30), future).await,
            Instant::now(),
        )
    };
    let (polled, (stream, streamed), ended) =
        tokio::join!(async { (poll.await, Instant::now()) }, timed(follow), let_go);
    assert_eq!(polled.0.expect("a run")["status"], "Completed");
    let stream = stream.expect("the stream says that the run is done");
    assert!(stream.contains("Completed"), "{stream}");
    for (what, at) in [("long poll", polled.1), ("stream", streamed)] {
        let late = at.saturating_duration_since(ended);
        println!("the {what} at the other node: {:.3} s later", late.as_secs_f64());
        assert!(late < NOTICED, "the {what} came {late:?} late");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_drains_while_runs_go_on_at_the_other() {
    let mut pair = pair().await;
    let mut runs = Vec::new();
    for number in 0..40 {
        let node = if number % 2 == 0 { &pair.one } else { &pair.other };
        runs.push(
            node.invoke("interpreter/interpret", &body_then_sleep(1_500))
                .await,
        );
    }
    let node = listed(&pair.other, &pair.one).await.expect("it is listed");
    let output = pair
        .other
        .command(&["nodes", "drain", node["name"].as_str().expect("a name")])
        .output()
        .expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let deadline = Instant::now() + support::DEADLINE;
    let code = loop {
        runs.push(
            pair.other
                .invoke("interpreter/interpret", &body_then_sleep(5))
                .await,
        );
        if let Some(code) = pair.one.ended_by_itself() {
            break code;
        }
        assert!(
            Instant::now() < deadline,
            "it never ended:\n{}",
            pair.one.log_tail(20)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(code, 0, "{}", pair.one.log_tail(20));
    assert!(
        listed(&pair.other, &pair.one).await.is_none(),
        "it has left the list"
    );
    let drained = Instant::now();
    for run in &runs {
        let ended = pair.other.ended(run).await;
        assert_eq!(ended["status"], "Completed", "{ended:#}");
        println!(
            "{} {} {} {}",
            drained.elapsed().as_millis(),
            ended["queued_at"],
            ended["run_started_at"],
            ended["ended_at"]
        );
    }
    println!(
        "{} runs were done {:.1} s after the node had drained",
        runs.len(),
        drained.elapsed().as_secs_f64()
    );
    // Nothing had to wait for a lease to expire: it was handed over.
    assert!(drained.elapsed() < LEASE, "it took {:?}", drained.elapsed());
}

/// As by a power cut; its synchronous standby is promoted while bodies are open, runs sleep and clients go on asking.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_is_lost_and_its_standby_promoted_every_run_completes() {
    let pair = pair().await;
    let standby = pair.database.standby().await;
    let mut runs = pair.open_bodies(20).await;
    pair.database.down().await;
    let lost = Instant::now();
    let sent = tokio::spawn({
        let client = Client::of_urls([pair.one.url(""), pair.other.url("")]);
        async move {
            for number in 0..10 {
                let id = format!("while-away-{number}");
                client.event("kill/none", &id, &json!({})).await;
            }
        }
    });
    let promoted = pair.database.promote(standby).await;
    sent.await.expect("events are taken again");
    println!(
        "events were taken {:.1} s after the primary was lost",
        lost.elapsed().as_secs_f64()
    );
    for node in [&pair.one, &pair.other] {
        runs.push(node.invoke("interpreter/interpret", &body_then_sleep(100)).await);
    }
    pair.witness.hold(false);
    for node in [&pair.one, &pair.other] {
        all_completed(node, &runs).await;
    }
    // Nobody was declared dead: an outage is everybody's.
    for node in [&pair.one, &pair.other] {
        assert!(listed(&pair.other, node).await.is_some(), "{}", node.log_tail(20));
    }
    drop(promoted);
}

/// Cut off for longer than its lease, a node begins nothing; when the way is open again it ends or joins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_begins_no_body_that_another_has_done() {
    for way in [Way::Silent, Way::Shut] {
        let mut pair = pair().await;
        let runs = pair.open_bodies(10).await;
        pair.database.proxies[0].set(way);
        let cut = Instant::now();
        // The other node has begun them all once more.
        pair.witness.reaches(20).await;
        assert!(
            cut.elapsed() > LEASE - Duration::from_secs(3),
            "they were taken over after {:?}",
            cut.elapsed()
        );
        pair.witness.hold(false);
        all_completed(&pair.other, &runs).await;
        let mut ended = Vec::new();
        for run in &runs {
            ended.push(
                pair.other
                    .get(&format!("/v1/runs/{run}/journal"))
                    .await
                    .expect("a journal"),
            );
        }
        let told = pair.witness.count();
        pair.database.proxies[0].set(Way::Open);
        lives(&pair.other, &mut pair.one).await;
        for (run, journal) in runs.iter().zip(ended) {
            assert_eq!(
                pair.other.get(&format!("/v1/runs/{run}/journal")).await,
                Ok(journal)
            );
        }
        assert_eq!(pair.witness.count(), told, "a body ran again");
    }
}
