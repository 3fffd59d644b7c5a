//! Debounces and batches, tested by killing: a server takes in events and is killed at any moment, and then each event that it
//! has acknowledged is in one batch, and each debounced key has its run.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::server::Server;
use support::{Dice, guest, long, until};

/// Sends events until the server is gone. Answers with the numbers of those that were acknowledged.
async fn send(http: reqwest::Client, url: String, from: u64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for n in from.. {
        // Under ids of their own: one that was stored without an answer is not sent again here.
        let events = json!([
            {"name": "windows/slow", "data": {"n": n}, "id": format!("slow-{n}")},
            {"name": "windows/debounced", "data": {"n": n, "user": n % 3}},
        ]);
        let sent = http.post(&url).json(&events).send().await;
        let Ok(true) = sent.map(|answer| answer.status().is_success()) else {
            break;
        };
        acknowledged.push(n);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    acknowledged
}

async fn runs(server: &Server, function: &str) -> Option<Vec<Value>> {
    let path = format!("/v1/runs?function=windows/{function}&limit=100");
    let mut runs: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    loop {
        let url = server.url(&format!("{path}{cursor}"));
        let page: Value = reqwest::get(url).await.ok()?.json().await.ok()?;
        runs.extend(page["data"].as_array()?.iter().cloned());
        match page["metadata"]["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(runs),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_in_one_batch_however_often_the_server_is_killed() {
    let rounds = if long() { 40 } else { 8 };
    let mut dice = Dice::new();
    let mut server = Server::start("", &["--park-idle", "0"]).await;
    server.deploy("windows", guest("windows")).await;
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let url = server.url("/e/test");
        let sender = tokio::spawn(send(reqwest::Client::new(), url, round * 100_000));
        tokio::time::sleep(Duration::from_millis(50 + dice.below(700))).await;
        server.kill();
        acknowledged.extend(sender.await.expect("no panic"));
        server.boot().await;
    }
    assert!(acknowledged.len() > rounds as usize, "{acknowledged:?}");
    let batches = until("all batches have ended", async || {
        let runs = runs(&server, "slow-batch").await?;
        runs.iter()
            .all(|run| run["status"] == "Completed")
            .then_some(runs)
    })
    .await;
    let mut of: HashMap<u64, u32> = HashMap::new();
    for run in &batches {
        let id = run["run_id"].as_str().expect("an id");
        let whole = server.get(&format!("/v1/runs/{id}")).await.expect("it is there");
        let numbers = whole["output"].as_array().expect("a list").clone();
        assert!((1..=7).contains(&numbers.len()), "{numbers:?}");
        assert_eq!(whole["event_ids"].as_array().map(Vec::len), Some(numbers.len()));
        for n in numbers {
            *of.entry(n.as_u64().expect("a number")).or_default() += 1;
        }
    }
    for n in &acknowledged {
        assert_eq!(of.get(n), Some(&1), "event {n}");
    }
    assert!(of.values().all(|count| *count == 1), "{of:?}");
    println!("{rounds} kills, {} events in {} batches", of.len(), batches.len());

    // Nothing came for the period at last: one run for each user, with the last event of that.
    let debounced = until("all debounced runs have ended", async || {
        let runs = runs(&server, "debounced").await?;
        runs.iter()
            .all(|run| run["status"] == "Completed")
            .then_some(runs)
    })
    .await;
    let mut last: HashMap<u64, u64> = HashMap::new();
    for run in &debounced {
        let id = run["run_id"].as_str().expect("an id");
        let whole = server.get(&format!("/v1/runs/{id}")).await.expect("it is there");
        let (user, n) = (whole["output"]["user"].as_u64(), whole["output"]["n"].as_u64());
        let seen = last.entry(user.expect("a user")).or_default();
        *seen = n.expect("a number").max(*seen);
    }
    for user in 0..3 {
        let sent = acknowledged.iter().filter(|n| **n % 3 == user).max();
        // One that was stored and not acknowledged may have come after it.
        assert!(last.get(&user) >= sent, "user {user}: {last:?}, {sent:?}");
    }
}
