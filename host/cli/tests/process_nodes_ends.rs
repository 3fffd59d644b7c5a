//! Ends of runs, windows, singletons and deadlines on several nodes of one Postgres, while nodes are killed and the database loses
//! its power: each end is told once and each failure handled once, each event is in one batch, no two runs of a singleton's key live
//! at once, and what is over is cancelled.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use dormouse_core::{RunId, Timestamp};
use serde_json::{Value, json};
use support::fleet::{Client, Fleet};
use support::nemesis::SharedDatabase;
use support::{DEADLINE, Dice, guest, long, until};

/// Clocks of nodes on one machine are not further apart.
const APART: Duration = Duration::from_millis(250);

/// All runs of a function, whole.
async fn runs(client: &Client, function: &str) -> Vec<Value> {
    let mut whole = Vec::new();
    for run in client.pages(&format!("/v1/runs?function={function}")).await {
        let id = run["run_id"].as_str().expect("an id");
        whole.push(client.get(&format!("/v1/runs/{id}")).await.0);
    }
    whole
}

/// How often a function has run for the end of each run, which its output names.
async fn told(client: &Client, function: &str) -> HashMap<String, u32> {
    let mut found: HashMap<String, u32> = HashMap::new();
    for run in runs(client, function).await {
        let output = &run["output"];
        let of = [&output["run_id"], &output["run"], &output["data"]["run_id"]];
        if let Some(of) = of.into_iter().find_map(Value::as_str) {
            *found.entry(of.to_owned()).or_default() += 1;
        }
    }
    found
}

/// Waits until no run goes on and, for some time, nothing new has come: what is told starts runs.
async fn quiet(fleet: &mut Fleet, client: &Client) {
    let mut deadline = Instant::now() + DEADLINE;
    let (mut looks, mut known) = (0, 0);
    while looks < 10 {
        fleet.revive(|_| false);
        let open = client.pages("/v1/runs?status=Scheduled,Running").await;
        for run in open.iter().filter(|run| run["phase"] == "blocked") {
            // It was under way at five kills in a row, and is innocent.
            let path = format!("/v1/runs/{}/wake", run["run_id"].as_str().expect("an id"));
            client.ask("POST", &path, "").await;
        }
        let all = client
            .pages("/v1/runs?status=Completed,Failed,Cancelled")
            .await
            .len();
        match open.is_empty() && all == known {
            true => looks += 1,
            false => looks = 0,
        }
        if all > known {
            deadline = Instant::now() + DEADLINE;
        }
        known = all;
        let late = Instant::now() > deadline;
        assert!(!late, "these never end: {open:#?}\n{}", fleet.log_tails(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn time(run: &Value, member: &str) -> Timestamp {
    let text = run[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} of {run:#?}"));
    Timestamp::parse(text).expect("a time")
}

fn text<'a>(run: &'a Value, member: &str) -> &'a str {
    run[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} of {run:#?}"))
}

/// Sends what there is to send in a round, which has a number of its own.
async fn send(client: &Client, dice: &mut Dice, round: u64) {
    for number in round * 6..round * 6 + 6 {
        let data = json!({"fails": dice.one_in(2), "sleeps_ms": dice.below(300)});
        client
            .event("shop/ordered", &format!("order {number}"), &data)
            .await;
        client
            .event("windows/slow", &format!("slow {number}"), &json!({"n": number}))
            .await;
        let data = json!({"user": number % 2, "n": number, "sleeps_ms": dice.below(400)});
        client
            .event("alone/skipping", &format!("skipping {number}"), &data)
            .await;
        client
            .event("alone/latest", &format!("latest {number}"), &data)
            .await;
    }
    let id = json!({"id": round});
    client
        .event("test/cancellable", &format!("begins {round}"), &id)
        .await;
    client
        .event("test/cancel", &format!("cancels {round}"), &id)
        .await;
    client
        .event("test/brief", &format!("brief {round}"), &json!({}))
        .await;
}

/// No two runs of a key have lived at once.
fn one_at_a_time(runs: &[Value], events: &HashMap<String, Value>) -> BTreeMap<u64, Vec<Value>> {
    let mut of_key: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for run in runs {
        let user = events[text(run, "event_id")]["user"].as_u64().expect("a user");
        of_key.entry(user).or_default().push(run.clone());
    }
    for of_key in of_key.values_mut() {
        of_key.sort_by_key(|run| text(run, "run_id").to_owned());
        for pair in of_key.windows(2) {
            let created = text(&pair[1], "run_id").parse::<RunId>().expect("an id").time();
            let ended = time(&pair[0], "ended_at");
            assert!(ended <= created.after(APART), "they lived at once: {pair:#?}");
        }
    }
    of_key
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_windows_and_singletons_hold_on_nodes_that_are_killed() {
    let rounds = if long() { 40 } else { 6 };
    let mut dice = Dice::new();
    let database = SharedDatabase::start(2).await;
    let mut fleet = Fleet::prepare("", &database.arguments());
    fleet.boot().await;
    let client = fleet.client();
    for module in ["ends", "windows", "alone"] {
        client.deploy(module, &guest(module)).await;
    }
    for node in &fleet.nodes {
        until("each node has the modules", || async {
            let modules = node.get("/v1/modules").await.ok()?;
            (modules.as_array()?.len() == 3).then_some(())
        })
        .await;
    }
    for round in 0..rounds {
        fleet.revive(|_| false);
        send(&client, &mut dice, round).await;
        // A moment in which runs end, are told and handled, or not; and around the second that the brief ones have.
        tokio::time::sleep(Duration::from_millis(dice.below(1_300))).await;
        match round % 3 {
            2 => {
                database.down().await;
                database.up().await;
            }
            number => fleet.nodes[number as usize].kill(),
        }
    }
    quiet(&mut fleet, &client).await;

    // Each end is told once, each failure handled once.
    let orders = runs(&client, "ends/order").await;
    assert_eq!(orders.len() as u64, rounds * 6, "each order has one run");
    let mut heard = Vec::new();
    for name in [
        "hears-finished",
        "hears-failed",
        "hears-cancelled",
        "order-failed",
    ] {
        heard.push(told(&client, &format!("ends/{name}")).await);
    }
    for run in &orders {
        let expected = match text(run, "status") {
            "Completed" => [Some(&1), None, None, None],
            "Failed" => [Some(&1), Some(&1), None, Some(&1)],
            other => panic!("{other}: {run:#?}"),
        };
        let id = text(run, "run_id");
        let seen: Vec<Option<&u32>> = heard.iter().map(|told| told.get(id)).collect();
        assert_eq!(seen, expected, "{run:#?}");
    }
    // What an event cancels, and what is over.
    for (function, why) in [
        ("ends/cancellable", "cancelled by event"),
        ("ends/brief", "did not end within"),
    ] {
        let runs = runs(&client, function).await;
        assert_eq!(runs.len() as u64, rounds, "{function}");
        for run in &runs {
            assert_eq!(run["status"], "Cancelled", "{run:#?}");
            assert!(text(run, "reason").contains(why), "{run:#?}");
            assert_eq!(heard[2].get(text(run, "run_id")), Some(&1), "{run:#?}");
            if function == "ends/brief" {
                let took = time(run, "ended_at").since(time(run, "run_started_at"));
                assert!(took >= Duration::from_secs(1), "{took:?}: {run:#?}");
            }
        }
    }
    // Each event is in one batch.
    let mut numbers: Vec<u64> = Vec::new();
    for run in runs(&client, "windows/slow-batch").await {
        assert_eq!(run["status"], "Completed", "{run:#?}");
        let of_run: Vec<u64> = serde_json::from_value(run["output"].clone()).expect("numbers");
        assert!((1..=7).contains(&of_run.len()), "{of_run:?}");
        numbers.extend(of_run);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..rounds * 6).collect::<Vec<_>>());
    // One at a time, and of the newest the last is left.
    let mut events: HashMap<String, Value> = HashMap::new();
    for event in client.pages("/v1/events?name=alone/skipping").await {
        events.insert(text(&event, "internal_id").to_owned(), event["data"].clone());
    }
    for event in client.pages("/v1/events?name=alone/latest").await {
        events.insert(text(&event, "internal_id").to_owned(), event["data"].clone());
    }
    let skipping = runs(&client, "alone/skipping").await;
    assert!(
        skipping.iter().all(|run| run["status"] == "Completed"),
        "{skipping:#?}"
    );
    one_at_a_time(&skipping, &events);
    let latest = runs(&client, "alone/latest").await;
    assert_eq!(latest.len() as u64, rounds * 6, "each event has one run");
    for (user, runs) in one_at_a_time(&latest, &events) {
        let last = runs.last().expect("there are some");
        assert_eq!(last["status"], "Completed", "{last:#?}");
        let n = events[text(last, "event_id")]["n"].as_u64().expect("a number");
        assert_eq!(n, rounds * 6 - 2 + user, "the last event of user {user}");
    }
    println!(
        "{rounds} kills: {} orders, {} of {} events skipped",
        orders.len(),
        rounds * 6 - skipping.len() as u64,
        rounds * 6
    );
}
