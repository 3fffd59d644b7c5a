//! Waits for signals: one for each name.

use std::sync::Arc;

use dormouse_core::run::Phase;
use dormouse_core::wait::SignalWait;
use dormouse_core::{Outcome, RunId, Seq};

use super::fixture::{Fixture, at, cancelled, json, sleep, suspend};
use crate::contract::Store;
use crate::execute::{Append, Appended, Then};
use crate::wait::{NewSignal, NewWait, WaitOn};

/// A run whose entry `operation` waits for the signal `go`, and what storing it answered.
async fn waiting(fixture: &Fixture, run: RunId, operation: Seq, replace: bool) -> Appended {
    let wait = NewWait {
        operation,
        on: WaitOn::Signal(SignalWait {
            signal: "go".to_owned(),
            replace,
        }),
    };
    let append = Append {
        waits: vec![wait],
        ..fixture.append_of(run, 1, vec![sleep(operation)], suspend(None), at(500))
    };
    fixture.store.append(append).await.expect("appends")
}

async fn outcomes(fixture: &Fixture, run: RunId) -> Vec<Outcome> {
    let completions = fixture.store.completions(run).await.expect("reads");
    completions
        .into_iter()
        .map(|completion| completion.outcome)
        .collect()
}

async fn signal(fixture: &Fixture, data: &str) -> Option<RunId> {
    fixture
        .store
        .signal("go", json(data), at(600))
        .await
        .expect("answers")
}

fn code(outcome: &Outcome) -> Option<&str> {
    outcome.as_ref().err()?.code.as_deref()
}

pub(super) async fn a_signal_ends_the_one_wait_for_it(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    assert_eq!(signal(&fixture, "0").await, None);
    let id = fixture.leased(at(0)).await;
    assert_eq!(waiting(&fixture, id, 0, false).await, Appended::Done);
    assert_eq!(
        fixture
            .store
            .signal("stop", json("0"), at(600))
            .await
            .expect("answers"),
        None
    );
    assert_eq!(signal(&fixture, "1").await, Some(id));
    assert_eq!(signal(&fixture, "2").await, None, "once");
    assert_eq!(outcomes(&fixture, id).await, [Ok(json("1"))]);
    assert_eq!(fixture.get(id).await.state.phase, Some(Phase::Queued));
    // Given up, or the run's end: the name is free again.
    let ended = [Then::Continue, Then::Complete { output: json("1") }];
    for (number, then) in ended.into_iter().enumerate() {
        let id = fixture.leased(at(1 + number as i64)).await;
        let open = Append {
            waits: vec![NewWait {
                operation: 0,
                on: WaitOn::Signal(SignalWait {
                    signal: "go".to_owned(),
                    replace: false,
                }),
            }],
            ..fixture.append_of(id, 1, vec![sleep(0)], Then::Continue, at(500))
        };
        assert_eq!(fixture.store.append(open).await.expect("appends"), Appended::Done);
        assert_eq!(
            fixture.append(id, 1, vec![cancelled(1, 0)], then).await,
            Appended::Done
        );
        assert_eq!(signal(&fixture, "3").await, None);
    }
}

/// A run whose entry 0 sends the signal `go`, and what came of it.
async fn sending(fixture: &Fixture, run: RunId, waits: Vec<NewWait>) -> Vec<(Seq, Outcome)> {
    let operation = waits.len() as Seq;
    let append = Append {
        signals: vec![NewSignal {
            operation: Some(operation),
            signal: "go".to_owned(),
            data: json("[7]"),
        }],
        waits,
        ..fixture.append_of(
            run,
            1,
            (0..=operation).map(sleep).collect(),
            Then::Continue,
            at(500),
        )
    };
    // Again, as after a commit whose answer was lost: once.
    for _ in 0..2 {
        let appended = fixture.store.append(append.clone()).await.expect("appends");
        assert_eq!(appended, Appended::Done);
    }
    let completions = fixture.store.completions(run).await.expect("reads");
    completions
        .into_iter()
        .map(|completion| (completion.operation, completion.outcome))
        .collect()
}

pub(super) async fn what_a_run_signals_comes_with_its_entry(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let nobody = fixture.leased(at(0)).await;
    assert_eq!(
        sending(&fixture, nobody, Vec::new()).await,
        [(0, Ok(json("null")))]
    );
    let waiter = fixture.leased(at(1)).await;
    assert_eq!(waiting(&fixture, waiter, 0, false).await, Appended::Done);
    let sender = fixture.leased(at(2)).await;
    let told = json(&format!("{{\"run_id\":\"{waiter}\"}}"));
    assert_eq!(sending(&fixture, sender, Vec::new()).await, [(0, Ok(told))]);
    assert_eq!(outcomes(&fixture, waiter).await, [Ok(json("[7]"))]);
    assert_eq!(fixture.get(waiter).await.state.phase, Some(Phase::Queued));
    // Its own wait, which comes before it in the same commit.
    let own = fixture.leased(at(3)).await;
    let wait = NewWait {
        operation: 0,
        on: WaitOn::Signal(SignalWait {
            signal: "go".to_owned(),
            replace: false,
        }),
    };
    let told = json(&format!("{{\"run_id\":\"{own}\"}}"));
    assert_eq!(
        sending(&fixture, own, vec![wait]).await,
        [(0, Ok(json("[7]"))), (1, Ok(told))]
    );
    assert_eq!(signal(&fixture, "2").await, None);
}

pub(super) async fn a_second_waiter_fails_or_replaces_the_first(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let first = fixture.leased(at(0)).await;
    assert_eq!(waiting(&fixture, first, 0, false).await, Appended::Done);
    let second = fixture.leased(at(1)).await;
    let Appended::Completions(refused) = waiting(&fixture, second, 0, false).await else {
        panic!("it has its failure at once");
    };
    assert_eq!(code(&refused[0].outcome), Some("signal-taken"));
    assert_eq!(outcomes(&fixture, first).await, []);
    let third = fixture.leased(at(2)).await;
    assert_eq!(waiting(&fixture, third, 0, true).await, Appended::Done);
    assert_eq!(code(&outcomes(&fixture, first).await[0]), Some("signal-replaced"));
    assert_eq!(fixture.get(first).await.state.phase, Some(Phase::Queued));
    assert_eq!(signal(&fixture, "1").await, Some(third));
    // Many at once: one waits, the others are told.
    let mut tasks = Vec::new();
    let fixture = Arc::new(fixture);
    for number in 0..20 {
        let id = fixture.leased(at(10 + number)).await;
        let fixture = Arc::clone(&fixture);
        tasks.push(tokio::spawn(async move {
            waiting(&fixture, id, 0, number % 2 == 0).await
        }));
    }
    let mut waiting_now = 0;
    for task in tasks {
        task.await.expect("done");
    }
    while signal(&fixture, "2").await.is_some() {
        waiting_now += 1;
    }
    assert_eq!(waiting_now, 1);
}
