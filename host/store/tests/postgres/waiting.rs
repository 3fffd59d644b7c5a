//! Waits and events that come in at different nodes.

use std::sync::Arc;

use dormouse_core::RunId;
use dormouse_core::journal::{Entry, Event, OperationKind, Record};
use dormouse_core::run::{Phase, Wait};
use dormouse_core::wait::EventWait;
use dormouse_core::{EventId, Json};
use dormouse_store::Store;
use dormouse_store::execute::{Append, Appended, Then};
use dormouse_store::ingest::{Ingest, NewEvent};
use dormouse_store::wait::{NewWait, WaitOn};
use dormouse_testing_postgres::Cluster;
use tokio::task::JoinSet;

use crate::{Member, at, until};

fn opens() -> Record {
    let event = Event::Started {
        kind: OperationKind::WaitForEvent,
        name: "wait".to_owned(),
        occurrence: 0,
        input_hash: 1,
        input: Json::trusted("{}"),
        due_at: None,
    };
    Entry {
        seq: 0,
        at: at(1),
        event,
    }
    .encode()
}

/// Waits for the event of that name whose data is that number.
fn wait(name: &str, number: usize, looks_back: bool) -> NewWait {
    NewWait {
        operation: 0,
        on: WaitOn::Event(EventWait {
            event: name.to_owned(),
            path: String::new(),
            key: String::new(),
            condition: Some(format!("async.data == {number}")),
            lookback_from: looks_back.then(|| at(0)),
        }),
    }
}

fn waits(member: &Member, run: RunId, wait: NewWait) -> Append {
    let then = Then::Suspend {
        wait: Wait::External,
        reason: "waits".to_owned(),
        wake_at: None,
        known: Vec::new(),
    };
    Append {
        waits: vec![wait],
        ..member.append(run, 1, vec![opens()], then)
    }
}

fn event(member: &Member, name: &str, number: usize) -> Ingest {
    let ingest = member.ingest(false, None);
    Ingest {
        events: vec![NewEvent {
            name: name.to_owned(),
            payload: Json::trusted(format!("{{\"data\":{number}}}")),
            ..ingest.events[0].clone()
        }],
        runs: Vec::new(),
        ..ingest
    }
}

/// Runs at one node begin to wait, looking back, while their events come in at another, and the other way round: each
/// run gets its event, whichever was first, and gets it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_and_events_at_two_nodes_never_miss_each_other() {
    let url = Cluster::shared().database();
    let one = Arc::new(Member::join(&url, 1).await);
    let two = Arc::new(Member::join(&url, 2).await);
    for round in 0..25 {
        let mut tasks = JoinSet::new();
        let mut runs = Vec::new();
        for number in 0..16 {
            let (own, other) = match number % 2 {
                0 => (&one, &two),
                _ => (&two, &one),
            };
            let run = own.create(true).await;
            runs.push((run, number));
            let name = format!("shop/{}", (number / 2 + round) % 3);
            let append = waits(own, run, wait(&name, number + round * 100, true));
            let ingest = event(other, &name, number + round * 100);
            let (own, other) = (Arc::clone(own), Arc::clone(other));
            tasks.spawn(async move {
                own.store.append(append).await.expect("appends");
            });
            tasks.spawn(async move {
                other.store.ingest(ingest).await.expect("ingests");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("does not panic");
        }
        for (run, number) in runs {
            let found = one.store.completions(run).await.expect("reads");
            let payloads: Vec<_> = found
                .iter()
                .map(|completion| completion.outcome.clone().expect("an event"))
                .collect();
            let expected = format!("{{\"data\":{}}}", number + round * 100);
            assert_eq!(payloads, [Json::trusted(expected)], "round {round}, run {number}");
        }
    }
}

/// An event at one node wakes a run that another node suspended: that node hears of it, and the event is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_at_another_node_wakes_a_run() {
    let url = Cluster::shared().database();
    let one = Member::join(&url, 1).await;
    let two = Member::join(&url, 2).await;
    let mut hints = one.store.hints();
    // Heartbeats say that there is somebody to tell.
    for member in [&one, &two] {
        member.store.heartbeat(member.node, at(0)).await.expect("lives");
    }
    let run = one.create(true).await;
    let append = waits(&one, run, wait("shop/paid", 7, false));
    assert_eq!(one.store.append(append).await.expect("appends"), Appended::Done);
    hints.mark_unchanged();
    two.store
        .ingest(event(&two, "shop/paid", 8))
        .await
        .expect("ingests");
    let phase = async || {
        let run = one.store.run(run).await.expect("reads").expect("is there");
        run.state.phase
    };
    assert_eq!(phase().await, Some(Phase::Waiting));
    let woken = two.store.woken();
    two.store
        .ingest(event(&two, "shop/paid", 7))
        .await
        .expect("ingests");
    tokio::time::timeout(crate::PATIENCE, woken)
        .await
        .expect("it hears of it itself");
    assert_eq!(phase().await, Some(Phase::Queued));
    until("the other node hears of it", async || {
        hints.has_changed().expect("is open").then_some(())
    })
    .await;
    two.store
        .ingest(event(&two, "shop/paid", 7))
        .await
        .expect("ingests");
    assert_eq!(one.store.completions(run).await.expect("reads").len(), 1);
    let claimed = one.store.claim(one.claim(9)).await.expect("claims").claimed;
    assert_eq!(claimed.iter().map(|run| run.id).collect::<Vec<_>>(), [run]);
}

/// Appends of two nodes that wake each other's runs: all of a batch's runs are locked together, in one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_wake_each_other_do_not_stand_in_each_others_way() {
    let url = Cluster::shared().database();
    let one = Arc::new(Member::join(&url, 1).await);
    let two = Arc::new(Member::join(&url, 2).await);
    let mut tasks = JoinSet::new();
    let mut runs: Vec<(RunId, EventId)> = Vec::new();
    for number in 0..40 {
        let (own, other) = match number % 2 {
            0 => (Arc::clone(&one), Arc::clone(&two)),
            _ => (Arc::clone(&two), Arc::clone(&one)),
        };
        let (waiter, sender) = (own.create(true).await, other.create(true).await);
        let append = Append {
            then: Then::Continue,
            ..waits(&own, waiter, wait("shop/ready", number, false))
        };
        assert_eq!(own.store.append(append).await.expect("appends"), Appended::Done);
        let ingest = event(&other, "shop/ready", number);
        runs.push((waiter, ingest.events[0].id));
        let sends = Append {
            ingest: Some(ingest),
            ..other.append(sender, 1, vec![opens()], Then::Continue)
        };
        // Meanwhile the waiting run goes on.
        let goes_on = own.append(waiter, 1, vec![crate::step(1, "1")], Then::Continue);
        tasks.spawn(async move {
            let appended = other.store.append(sends).await.expect("appends");
            assert_eq!(appended, Appended::Done);
        });
        tasks.spawn(async move {
            let appended = own.store.append(goes_on).await.expect("appends");
            assert_eq!(appended, Appended::Done);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("does not panic");
    }
    for (run, event) in runs {
        assert!(two.store.event(event).await.expect("reads").is_some());
        assert_eq!(two.store.completions(run).await.expect("reads").len(), 1);
        assert_eq!(two.store.journal(run, 0).await.expect("reads").len(), 2);
    }
}
