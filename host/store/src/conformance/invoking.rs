//! Runs that steps invoke: their end is the step's outcome, and whoever is given up is cancelled.

use std::sync::Arc;

use dormouse_core::run::{Phase, RunError, Status};
use dormouse_core::{EventId, Failure, Outcome, RunId, Seq};

use super::fixture::{Fixture, at, cancelled, delivered, function, json, sleep, suspend};
use crate::cancellation::{Examined, NewCancellation};
use crate::contract::Store;
use crate::execute::{Append, Appended, Then};
use crate::read::RunFilter;
use crate::wait::{ChildWait, NewWait, WaitOn};

/// A leased run that invokes another with the entry `operation`, and the other, leased too.
async fn invoke(fixture: &Fixture, parent: RunId, operation: Seq, cancels: bool, then: Then) -> RunId {
    let event = fixture.event("dormouse/function.invoked");
    let mut run = fixture.run(event.id, "shop/ship");
    run.parent = Some(parent);
    run.depth = 1;
    let child = run.id;
    let wait = NewWait {
        operation,
        on: WaitOn::Child(ChildWait { child, cancels }),
    };
    let append = Append {
        ingest: Some(fixture.ingest(vec![event], vec![run], at(500))),
        waits: vec![wait],
        ..fixture.append_of(parent, 1, vec![sleep(operation)], then, at(500))
    };
    let appended = fixture.store.append(append).await.expect("appends");
    assert_eq!(appended, Appended::Done);
    child
}

async fn lease(fixture: &Fixture, child: RunId, parent: RunId) {
    let claimed = fixture.claim(1, at(600)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(
        (claimed[0].id, claimed[0].parent, claimed[0].depth),
        (child, Some(parent), 1)
    );
}

/// Ends a child under its first lease.
async fn end(fixture: &Fixture, child: RunId, parent: RunId, then: Then) {
    let append = Append {
        parent: Some(parent),
        ..fixture.append_of(child, 1, Vec::new(), then, at(700))
    };
    let appended = fixture.store.append(append).await.expect("appends");
    assert_eq!(appended, Appended::Done);
}

async fn outcomes(fixture: &Fixture, run: RunId) -> Vec<(Seq, Outcome)> {
    let completions = fixture.store.completions(run).await.expect("reads");
    let outcomes = completions.into_iter();
    outcomes
        .map(|completion| (completion.operation, completion.outcome))
        .collect()
}

async fn orphans(fixture: &Fixture) -> Vec<RunId> {
    let mut cancelled = Vec::new();
    loop {
        let orphans = fixture.store.cancel_orphans(1, at(800)).await.expect("answers");
        cancelled.extend(orphans.cancelled);
        if orphans.taken == 0 {
            return cancelled;
        }
    }
}

pub(super) async fn a_childs_end_completes_the_step_that_waits_for_it(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let failure = Failure::terminal("boom", "it broke");
    let ends = [
        (Then::Complete { output: json("[1]") }, Ok(json("[1]"))),
        (
            Then::Complete {
                output: json(&format!("\"{}\"", "x".repeat(70_000))),
            },
            Ok(json(&format!("\"{}\"", "x".repeat(70_000)))),
        ),
        (
            Then::Fail {
                error: RunError::new("boom", "it broke"),
            },
            Err(failure),
        ),
    ];
    for (number, (then, outcome)) in ends.into_iter().enumerate() {
        let parent = fixture.leased(at(number as i64)).await;
        let child = invoke(&fixture, parent, 0, true, suspend(None)).await;
        assert_eq!(fixture.get(child).await.parent, Some(parent));
        let filter = RunFilter {
            parent: Some(parent),
            limit: 10,
            ..RunFilter::default()
        };
        let listed = fixture.store.runs(filter).await.expect("lists");
        assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [child]);
        lease(&fixture, child, parent).await;
        assert_eq!(outcomes(&fixture, parent).await, []);
        end(&fixture, child, parent, then).await;
        assert_eq!(outcomes(&fixture, parent).await, [(0, outcome)]);
        assert_eq!(fixture.get(parent).await.state.phase, Some(Phase::Queued));
        assert_eq!(fixture.claim(1, at(701)).await[0].id, parent);
        let closing = vec![delivered(1, 0)];
        let done = Then::Complete { output: json("1") };
        assert_eq!(fixture.append(parent, 2, closing, done).await, Appended::Done);
        assert_eq!(orphans(&fixture).await, [], "it had ended by itself");
    }
    // Somebody cancels it; the one that waits executes meanwhile.
    let parent = fixture.leased(at(20)).await;
    let child = invoke(&fixture, parent, 0, true, Then::Continue).await;
    fixture.store.cancel(child, at(700)).await.expect("cancels");
    let [(0, Err(failure))] = &outcomes(&fixture, parent).await[..] else {
        panic!("the step has failed");
    };
    assert_eq!(failure.code.as_deref(), Some("invoke-cancelled"));
    assert_eq!(fixture.get(parent).await.state.phase, Some(Phase::Executing));
}

pub(super) async fn who_is_given_up_is_cancelled_unless_abandoned(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let closings: [(Vec<_>, Then); 5] = [
        (vec![delivered(1, 0)], Then::Continue),
        (vec![cancelled(1, 0)], suspend(None)),
        (Vec::new(), Then::Complete { output: json("1") }),
        (
            Vec::new(),
            Then::Fail {
                error: RunError::new("boom", "it broke"),
            },
        ),
        (Vec::new(), Then::ContinueWith { continued: json("1") }),
    ];
    for cancels in [true, false] {
        for (number, (records, then)) in closings.clone().into_iter().enumerate() {
            let parent = fixture.leased(at(number as i64)).await;
            let child = invoke(&fixture, parent, 0, cancels, Then::Continue).await;
            assert_eq!(fixture.append(parent, 1, records, then).await, Appended::Done);
            let expected: &[RunId] = if cancels { &[child] } else { &[] };
            assert_eq!(orphans(&fixture).await, expected, "{number}");
            let status = fixture.get(child).await.state.status;
            assert_eq!(status == Status::Cancelled, cancels);
            if !cancels {
                // Its end is nobody's concern any more.
                fixture.store.cancel(child, at(900)).await.expect("cancels");
                assert_eq!(outcomes(&fixture, parent).await, []);
            }
            fixture.store.cancel(parent, at(900)).await.expect("answers");
        }
    }
    // In one commit with its beginning, and by a command; children of children follow.
    let parent = fixture.leased(at(40)).await;
    let child = invoke(&fixture, parent, 0, true, Then::Complete { output: json("1") }).await;
    assert_eq!(orphans(&fixture).await, [child]);
    let parent = fixture.leased(at(50)).await;
    let child = invoke(&fixture, parent, 0, true, suspend(None)).await;
    lease(&fixture, child, parent).await;
    let grandchild = invoke(&fixture, child, 0, true, suspend(None)).await;
    fixture.store.cancel(parent, at(700)).await.expect("cancels");
    assert_eq!(fixture.get(child).await.state.phase, Some(Phase::Sleeping));
    assert_eq!(orphans(&fixture).await, [child, grandchild]);
    assert_eq!(orphans(&fixture).await, []);
}

pub(super) async fn a_wait_for_nothing_has_its_failure_at_once(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let parent = fixture.leased(at(0)).await;
    let failure = Failure::terminal("function-not-found", "there is none");
    let append = Append {
        waits: vec![NewWait {
            operation: 0,
            on: WaitOn::Nothing(failure.clone()),
        }],
        ..fixture.append_of(parent, 1, vec![sleep(0)], suspend(None), at(500))
    };
    let Appended::Completions(completions) = fixture.store.append(append).await.expect("appends") else {
        panic!("it has its failure at once");
    };
    assert_eq!(completions[0].outcome, Err(failure));
}

/// Cancels runs as one command for many does.
async fn cancel_many(fixture: &Fixture, number: u8, runs: &[RunId]) {
    let new = NewCancellation {
        id: EventId::from_parts(at(1000), [number; 10]),
        function: function("shop/ship"),
        started_after: None,
        started_before: None,
        condition: None,
        now: at(1000),
    };
    let id = new.id;
    fixture.store.put_cancellation(new).await.expect("stores");
    let examined = Examined {
        id,
        runs: runs.to_vec(),
        last: None,
        now: at(1001),
    };
    let cancelled = fixture.store.cancel_examined(examined).await;
    assert_eq!(cancelled.expect("cancels"), runs);
}

pub(super) async fn who_is_cancelled_with_many_is_told_of_and_given_up_alike(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let waiting = fixture.leased(at(0)).await;
    let first = invoke(&fixture, waiting, 0, true, suspend(None)).await;
    let paused = fixture.leased(at(1)).await;
    let second = invoke(&fixture, paused, 0, false, suspend(None)).await;
    fixture.store.pause(paused).await.expect("pauses");
    cancel_many(&fixture, 1, &[first, second]).await;
    for (parent, phase) in [(waiting, Phase::Queued), (paused, Phase::Paused)] {
        let [(0, Err(failure))] = &outcomes(&fixture, parent).await[..] else {
            panic!("the step has failed");
        };
        assert_eq!(failure.code.as_deref(), Some("invoke-cancelled"));
        assert_eq!(fixture.get(parent).await.state.phase, Some(phase));
    }
    fixture.store.resume(paused, at(1002)).await.expect("resumes");
    let mut claimed: Vec<RunId> = fixture
        .claim(10, at(1003))
        .await
        .iter()
        .map(|run| run.id)
        .collect();
    claimed.sort_unstable();
    assert_eq!(claimed, [waiting, paused]);
    assert_eq!(orphans(&fixture).await, [], "they have ended");
    // Whoever invoked, and whom it invoked, in either order; and one whose caller alone is meant.
    for (number, swapped) in [(2, false), (3, true)] {
        let parent = fixture.leased(at(2)).await;
        let child = invoke(&fixture, parent, 0, true, suspend(None)).await;
        let caller = fixture.leased(at(3)).await;
        let orphan = invoke(&fixture, caller, 0, true, suspend(None)).await;
        let mut meant = vec![parent, child, caller];
        if swapped {
            meant.reverse();
        }
        cancel_many(&fixture, number, &meant).await;
        assert_eq!(outcomes(&fixture, parent).await, []);
        assert_eq!(orphans(&fixture).await, [orphan]);
        for run in [parent, child, caller, orphan] {
            assert_eq!(fixture.get(run).await.state.status, Status::Cancelled);
        }
    }
}
