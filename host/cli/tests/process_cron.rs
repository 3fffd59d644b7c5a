//! Crons, tested by killing: the server is killed around its ticks, before, while and after they come, and then every tick is
//! counted.

mod support;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dormouse_core::{EventId, Timestamp};
use rusqlite::Connection;
use support::server::Server;
use support::{Dice, guest, long, until};

/// Does each tick, oldest first: what is left out or superseded could not be counted.
const FUNCTION: &str = "catches-up";
const OTHERS: [&str; 4] = ["hourly", "skips", "allows", "forgets"];

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    i64::try_from(since.as_millis()).expect("it is not that late")
}

/// The database of a server that does not run.
fn database(server: &Server) -> Connection {
    Connection::open(server.data_dir().join("dormouse.db")).expect("it opens")
}

/// Where the schedule that is counted stands.
fn stands(database: &Connection) -> i64 {
    let text =
        "SELECT s.next_ms FROM schedules s JOIN functions f ON f.id = s.function_id WHERE f.function = ?1";
    database
        .query_row(text, [FUNCTION], |row| row.get(0))
        .expect("it is there")
}

/// The events that started runs of a function, one for each run.
async fn events(server: &Server, function: &str) -> Vec<EventId> {
    let path = format!("/v1/runs?function=cron/{function}&limit=100");
    let runs = server.get(&path).await.expect("lists");
    let runs = runs.as_array().expect("a list").iter();
    let events = runs.map(|run| run["event_id"].as_str().expect("an id").parse());
    events.collect::<Result<_, _>>().expect("ids")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_happens_once_however_often_the_server_is_killed() {
    let rounds = if long() { 80 } else { 12 };
    let mut dice = Dice::new();
    let mut server = Server::start("", &["--park-idle", "0"]).await;
    server.deploy("cron", guest("cron")).await;
    let mut ticks: Vec<i64> = Vec::new();
    for round in 0..rounds {
        server.kill();
        // The first kill may come before the schedules are there: the next start makes them.
        if round > 0 {
            let database = database(&server);
            // Ticks an hour apart are too few: each schedule is moved to one that comes soon, once the last has come.
            if ticks.last().is_none_or(|last| stands(&database) > *last) {
                let tick = now() + 200 + dice.below(500) as i64;
                database
                    .execute("UPDATE schedules SET next_ms = ?1", [tick])
                    .expect("they are moved");
                ticks.push(tick);
            }
        }
        server.boot().await;
        until("the schedules are there", async || {
            let schedules = server.get("/v1/schedules").await.ok()?;
            (schedules.as_array()?.len() == 9).then_some(())
        })
        .await;
        // A moment around the tick.
        tokio::time::sleep(Duration::from_millis(dice.below(800))).await;
    }
    let last = Timestamp::from_millis(*ticks.last().expect("there was one"));
    until("the last tick comes", async || {
        let schedules = server.get("/v1/schedules").await.ok()?;
        let mut schedules = schedules.as_array()?.iter();
        let counted = schedules.find(|schedule| schedule["function_id"] == format!("cron/{FUNCTION}"))?;
        let started = counted["last"]["scheduled_at"].as_str()?;
        (Timestamp::parse(started).ok()? >= last).then_some(())
    })
    .await;
    let mut started: HashMap<i64, u32> = HashMap::new();
    for event in events(&server, FUNCTION).await {
        *started.entry(event.time().as_millis()).or_default() += 1;
    }
    for tick in &ticks {
        assert_eq!(
            started.get(tick),
            Some(&1),
            "tick {tick} of {ticks:?}: {started:?}"
        );
    }
    println!("{rounds} kills, {} ticks", ticks.len());
    assert!(ticks.len() * 3 >= rounds, "{} ticks are too few", ticks.len());
    for function in OTHERS {
        let events = events(&server, function).await;
        let distinct: HashSet<_> = events.iter().map(|event| event.to_bytes()).collect();
        assert_eq!(distinct.len(), events.len(), "{function}: {events:?}");
    }
}
