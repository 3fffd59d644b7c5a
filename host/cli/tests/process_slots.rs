//! Concurrency limits where nodes are killed and stand still: a gate outside counts how many bodies are open at once.

#[path = "../../server/tests/support/gate.rs"]
mod gate;
mod support;

use std::time::{Duration, Instant};

use gate::Gate;
use serde_json::json;
use support::fleet::Fleet;
use support::nemesis::SharedDatabase;
use support::{guest, until};

/// How many runs there are of each function.
const RUNS: usize = 100;
/// How long the gate keeps a body.
const KEEPS: Duration = Duration::from_millis(25);

/// One node is killed and started again, another stands still for longer than its lease and goes on: the slots that they held are
/// taken by others, no limit is exceeded, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn slots_of_nodes_that_are_killed_or_stand_still_are_taken_by_others() {
    let database = SharedDatabase::start(3).await;
    let gate = Gate::start(None).await;
    let mut fleet = Fleet::prepare(&gate.config("slots"), &database.arguments());
    fleet.boot().await;
    let client = fleet.client();
    client.deploy("slots", &guest("slots")).await;
    for node in &fleet.nodes {
        until("each node has the module", || async {
            let modules = node.get("/v1/modules").await.ok()?;
            (modules.as_array()?.len() == 1).then_some(())
        })
        .await;
    }
    for number in 0..RUNS {
        let data = json!({"key": format!("user-{}", number % 9), "turns": 2});
        for name in ["slots/limited", "slots/nested", "slots/shared"] {
            client.event(name, &format!("{name} {number}"), &data).await;
        }
    }
    let began = Instant::now();
    let at = async |millis| tokio::time::sleep_until((began + Duration::from_millis(millis)).into()).await;
    until("all slots are taken", || async {
        let full = [("limited", 3), ("nested", 4), ("shared", 2)];
        full.iter()
            .all(|(of, open)| gate.seen(of).open == *open)
            .then_some(())
    })
    .await;
    fleet.nodes[0].kill();
    fleet.nodes[1].signal("STOP");
    gate.keep_for(Some(KEEPS));
    at(3_000).await;
    fleet.nodes[0].spawn();
    // Its lease is over after ten seconds, and its runs are others' by then.
    at(16_000).await;
    fleet.nodes[1].signal("CONT");
    loop {
        // One that has lost its lease ends, and is started again.
        fleet.revive(|_| false);
        let runs = client.runs("slots", "").await;
        if runs.len() == 4 * RUNS && runs.iter().all(|run| run["status"] == "Completed") {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(180),
            "not all have ended:\n{}",
            fleet.log_tails(20)
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{} runs in {:.1} s", 4 * RUNS, began.elapsed().as_secs_f64());
    for (of, most, all) in [
        ("limited", 3, 2 * RUNS),
        ("nested", 4, 2 * RUNS),
        ("shared", 2, 4 * RUNS),
    ] {
        let seen = gate.seen(of);
        println!("{of}: {seen:?}, at most {most} at once");
        assert!(seen.most <= most, "{of}: {seen:?}\n{}", fleet.log_tails(20));
        // A body that was open when its node died is done again; nothing else is.
        assert!((all..=all + most).contains(&seen.all), "{of}: {seen:?}");
    }
    for user in 0..9 {
        assert!(gate.seen(&format!("nested user-{user}")).most <= 1, "{user}");
    }
}
