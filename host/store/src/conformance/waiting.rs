//! Waits for events: what ends them, when, and that nothing slips between.

use std::sync::Arc;

use dormouse_core::run::Phase;
use dormouse_core::wait::{EventWait, key};
use dormouse_core::{Json, RunId, Seq};
use serde_json::Value;

use super::fixture::{Fixture, at, cancelled, delivered, json, sleep, suspend};
use crate::contract::Store;
use crate::execute::{Append, Appended, Then};
use crate::ingest::NewEvent;
use crate::wait::{NewWait, WaitOn};

fn wait(event: &str) -> EventWait {
    EventWait {
        event: event.to_owned(),
        path: String::new(),
        key: String::new(),
        condition: None,
        lookback_from: None,
    }
}

fn on(operation: Seq, wait: EventWait) -> NewWait {
    NewWait {
        operation,
        on: WaitOn::Event(wait),
    }
}

/// A run whose first entry opens a wait, and that suspends with it.
async fn waiting(fixture: &Fixture, millis: i64, wait: EventWait) -> RunId {
    let id = fixture.leased(at(millis)).await;
    let append = Append {
        waits: vec![on(0, wait)],
        ..fixture.append_of(id, 1, vec![sleep(0)], suspend(None), at(500))
    };
    assert_eq!(
        fixture.store.append(append).await.expect("appends"),
        Appended::Done
    );
    id
}

fn event(fixture: &Fixture, name: &str, data: &str) -> NewEvent {
    let event = fixture.event(name);
    NewEvent {
        payload: json(&format!(r#"{{"name":"{name}","data":{data}}}"#)),
        ..event
    }
}

async fn send(fixture: &Fixture, event: &NewEvent) {
    let ingest = fixture.ingest(vec![event.clone()], Vec::new(), at(600));
    fixture.store.ingest(ingest).await.expect("ingests");
}

async fn results(fixture: &Fixture, run: RunId) -> Vec<(Seq, Json)> {
    let completions = fixture.store.completions(run).await.expect("reads");
    let result = |completion: crate::execute::Completion| {
        (completion.operation, completion.outcome.expect("an event"))
    };
    completions.into_iter().map(result).collect()
}

async fn phase(fixture: &Fixture, run: RunId) -> Option<Phase> {
    fixture.get(run).await.state.phase
}

pub(super) async fn an_event_ends_the_waits_that_it_fits(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let started_by: Value = serde_json::json!({"data": {"id": 7}});
    let by_field = EventWait {
        path: "data.id".to_owned(),
        key: key(&started_by, "data.id").expect("a number"),
        ..wait("shop/paid")
    };
    let large = EventWait {
        condition: Some("async.data.amount > 100 && event.name == 'shop/ordered'".to_owned()),
        ..wait("shop/paid")
    };
    let any = waiting(&fixture, 0, wait("shop/paid")).await;
    let field = waiting(&fixture, 1, by_field).await;
    let condition = waiting(&fixture, 2, large).await;
    let other = waiting(&fixture, 3, wait("shop/paid.not")).await;
    // Each event, and which of the runs it wakes.
    for (data, woken) in [
        (r#"{"id":8,"amount":1}"#, vec![any]),
        (r#"{"id":7.0,"amount":100}"#, vec![field]),
        (r#"{"id":9,"amount":101}"#, vec![condition]),
        (r#"{"id":7,"amount":500}"#, vec![]),
    ] {
        let event = event(&fixture, "shop/paid", data);
        send(&fixture, &event).await;
        for run in &woken {
            assert_eq!(
                results(&fixture, *run).await,
                [(0, event.payload.clone())],
                "{data}"
            );
            assert_eq!(phase(&fixture, *run).await, Some(Phase::Queued));
        }
        let claimed = fixture.claim(10, at(700)).await;
        assert_eq!(
            claimed.iter().map(|run| run.id).collect::<Vec<_>>(),
            woken,
            "{data}"
        );
    }
    assert_eq!(phase(&fixture, other).await, Some(Phase::Sleeping));
}

pub(super) async fn a_wait_ends_once_and_with_its_operation_or_its_run(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let again = waiting(&fixture, 0, wait("a")).await;
    let first = event(&fixture, "a", "1");
    send(&fixture, &first).await;
    send(&fixture, &event(&fixture, "a", "2")).await;
    send(&fixture, &first).await;
    assert_eq!(results(&fixture, again).await, [(0, first.payload)]);
    // Cancelled, delivered, ended, begun anew: the wait is gone.
    for (number, (records, then)) in [
        (vec![cancelled(1, 0)], Then::Continue),
        (vec![delivered(1, 0)], Then::Continue),
        (vec![], Then::Complete { output: json("1") }),
        (vec![], Then::ContinueWith { continued: json("1") }),
    ]
    .into_iter()
    .enumerate()
    {
        let id = fixture.leased(at(number as i64)).await;
        let open = Append {
            waits: vec![on(0, wait("b"))],
            ..fixture.append_of(id, 1, vec![sleep(0)], Then::Continue, at(500))
        };
        assert_eq!(fixture.store.append(open).await.expect("appends"), Appended::Done);
        assert_eq!(fixture.append(id, 1, records, then).await, Appended::Done);
        send(&fixture, &event(&fixture, "b", "1")).await;
        assert_eq!(results(&fixture, id).await, [], "case {number}");
    }
    let cancelled = waiting(&fixture, 9, wait("c")).await;
    fixture.store.cancel(cancelled, at(600)).await.expect("cancels");
    send(&fixture, &event(&fixture, "c", "1")).await;
    assert_eq!(results(&fixture, cancelled).await, []);
    // A run that executes is not disturbed: it finds the result when it wants to wait.
    let busy = fixture.leased(at(10)).await;
    let open = Append {
        waits: vec![on(0, wait("d"))],
        ..fixture.append_of(busy, 1, vec![sleep(0)], Then::Continue, at(500))
    };
    assert_eq!(fixture.store.append(open).await.expect("appends"), Appended::Done);
    send(&fixture, &event(&fixture, "d", "1")).await;
    assert_eq!(phase(&fixture, busy).await, Some(Phase::Executing));
    let answer = fixture.append(busy, 1, vec![], suspend(None)).await;
    assert!(
        matches!(answer, Appended::Completions(ref found) if found.len() == 1),
        "{answer:?}"
    );
}

pub(super) async fn a_wait_that_looks_back_finds_the_latest(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut events = Vec::new();
    for data in ["1", "2", "3"] {
        let event = event(&fixture, "a", data);
        send(&fixture, &event).await;
        events.push(event);
    }
    let since = |index: usize| Some(events[index].received_at);
    for (lookback_from, condition, found) in [
        (None, None, None),
        (since(0), None, Some(2)),
        (since(1), Some("async.data < 3"), Some(1)),
        (since(1), Some("async.data < 2"), None),
    ] {
        let id = fixture.leased(at(20)).await;
        let back = EventWait {
            lookback_from,
            condition: condition.map(str::to_owned),
            ..wait("a")
        };
        let append = Append {
            waits: vec![on(0, back)],
            ..fixture.append_of(id, 1, vec![sleep(0)], suspend(None), at(900))
        };
        let appended = fixture.store.append(append).await.expect("appends");
        match found {
            Some(index) => {
                let Appended::Completions(completions) = appended else {
                    panic!("{appended:?}")
                };
                assert_eq!(completions[0].outcome, Ok(events[index].payload.clone()));
                assert_eq!(
                    phase(&fixture, id).await,
                    Some(Phase::Executing),
                    "it keeps its lease"
                );
                // It was ended by that: a later one ends nothing.
                assert_eq!(
                    fixture.append(id, 1, vec![delivered(1, 0)], suspend(None)).await,
                    Appended::Done
                );
                assert_eq!(results(&fixture, id).await, []);
            }
            None => assert_eq!(appended, Appended::Done),
        }
        fixture.store.cancel(id, at(950)).await.expect("cancels");
    }
}

/// Runs that begin to wait, looking back, while their events come: each gets its event, whichever was first.
pub(super) async fn events_and_waits_at_once_never_miss_each_other(store: Arc<dyn Store>) {
    let fixture = Arc::new(Fixture::on(store).await);
    let mut tasks = Vec::new();
    let mut runs = Vec::new();
    for number in 0..60 {
        let id = fixture.leased(at(number)).await;
        runs.push(id);
        let back = EventWait {
            lookback_from: Some(at(0)),
            condition: Some(format!("async.data == {number}")),
            ..wait("a")
        };
        let append = Append {
            waits: vec![on(0, back)],
            ..fixture.append_of(id, 1, vec![sleep(0)], suspend(None), at(500))
        };
        let (one, two) = (Arc::clone(&fixture), Arc::clone(&fixture));
        let event = event(&fixture, "a", &number.to_string());
        tasks.push(tokio::spawn(async move {
            one.store.append(append).await.expect("appends");
        }));
        tasks.push(tokio::spawn(async move { send(&two, &event).await }));
    }
    for task in tasks {
        task.await.expect("done");
    }
    for (number, run) in runs.into_iter().enumerate() {
        let found = results(&fixture, run).await;
        assert_eq!(found.len(), 1, "run {number}");
        assert!(
            found[0].1.as_str().contains(&format!("\"data\":{number}}}")),
            "{found:?}"
        );
    }
}
