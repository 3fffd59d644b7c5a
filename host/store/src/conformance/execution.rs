//! Appending and what follows.

use std::sync::Arc;

use dormouse_core::run::{Phase, RunError, State, Status, Wait};

use super::fixture::{Fixture, at, cancelled, delivered, json, node, sleep, step, suspend};
use crate::command::Commanded;
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{Appended, LogLine, Lost, Then};

pub(super) async fn entries_are_kept_in_order(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let records = vec![step(0, "1"), sleep(1), delivered(2, 1)];
    assert_eq!(
        fixture.append(id, 1, records[..1].to_vec(), Then::Continue).await,
        Appended::Done
    );
    assert_eq!(
        fixture.append(id, 1, records[1..].to_vec(), Then::Continue).await,
        Appended::Done
    );
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), records);
    assert_eq!(fixture.store.journal(id, 2).await.expect("reads"), records[2..]);
    assert_eq!(fixture.get(id).await.journal_next, 3);
    // A gap is a mistake and changes nothing.
    let gap = fixture.append_of(id, 1, vec![step(5, "5")], Then::Continue, at(500));
    assert!(matches!(fixture.store.append(gap).await, Err(Error::Corrupt(_))));
    let unordered = fixture.append_of(id, 1, vec![step(3, "3"), step(5, "5")], Then::Continue, at(500));
    assert!(matches!(
        fixture.store.append(unordered).await,
        Err(Error::Corrupt(_))
    ));
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), records);
}

pub(super) async fn only_the_lease_holder_appends(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let complete = || Then::Complete { output: json("1") };
    let lost = Appended::Lost(Lost::TakenOver);
    assert_eq!(fixture.append(id, 2, vec![step(0, "1")], complete()).await, lost);
    let mut other = fixture.append_of(id, 1, vec![step(0, "1")], complete(), at(1));
    other.owner = node(2).incarnation;
    assert_eq!(fixture.store.append(other).await.expect("answers"), lost);
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), []);
    assert_eq!(
        fixture.append(id, 1, vec![step(0, "1")], complete()).await,
        Appended::Done
    );
    assert_eq!(
        fixture.append(id, 1, vec![step(1, "1")], Then::Continue).await,
        lost,
        "it has ended"
    );
    let cancelled = fixture.leased(at(1)).await;
    fixture.store.cancel(cancelled, at(2)).await.expect("cancels");
    let answer = fixture.append(cancelled, 1, vec![step(0, "1")], complete()).await;
    assert_eq!(answer, Appended::Lost(Lost::Cancelled));
    let gone = dormouse_core::RunId::from_parts(at(0), [3; 10]);
    assert_eq!(
        fixture.append(gone, 1, vec![], Then::Continue).await,
        Appended::Lost(Lost::Gone)
    );
}

pub(super) async fn the_same_entries_again_are_taken_once(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let records = vec![step(0, "1"), step(1, "2")];
    for _ in 0..2 {
        assert_eq!(
            fixture.append(id, 1, records.clone(), Then::Continue).await,
            Appended::Done
        );
    }
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), records);
    let different = fixture.append_of(id, 1, vec![step(1, "3")], Then::Continue, at(500));
    assert!(matches!(
        fixture.store.append(different).await,
        Err(Error::Corrupt(_))
    ));
    assert_eq!(
        fixture.append(id, 1, vec![step(2, "3")], Then::Continue).await,
        Appended::Done
    );
    assert_eq!(fixture.get(id).await.journal_next, 3);
}

pub(super) async fn a_run_suspends_and_its_timer_wakes_it(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    assert_eq!(
        fixture
            .append(id, 1, vec![sleep(0)], suspend(Some(at(1000))))
            .await,
        Appended::Done
    );
    let run = fixture.get(id).await;
    assert_eq!(run.state, State::live(Status::Running, Phase::Sleeping));
    assert_eq!(
        (run.owner, run.wake_at, run.reason.as_deref()),
        (None, Some(at(1000)), Some("sleeps"))
    );
    let after = fixture.append(id, 1, vec![step(1, "1")], Then::Continue).await;
    assert_eq!(after, Appended::Lost(Lost::TakenOver), "the lease was given up");
    let fired = fixture.fire(at(1000), 10, 10).await;
    assert_eq!((fired.fired, fired.readied), (1, 0));
    let claimed = &fired.claimed[0];
    assert_eq!((claimed.id, claimed.epoch, claimed.journal_next), (id, 2, 1));
    assert_eq!(
        fixture.fire(at(9000), 10, 10).await.fired,
        0,
        "a timer fires once"
    );
    assert_eq!(
        fixture.append(id, 2, vec![delivered(1, 0)], Then::Continue).await,
        Appended::Done
    );
    // The other waits have their phases, and need no timer.
    for (wait, phase) in [
        (Wait::External, Phase::Waiting),
        (Wait::BackOff, Phase::BackingOff),
    ] {
        let id = fixture.leased(at(0)).await;
        let then = Then::Suspend {
            wait,
            reason: "waits".to_owned(),
            wake_at: None,
            known: vec![],
        };
        assert_eq!(fixture.append(id, 1, vec![], then).await, Appended::Done);
        assert_eq!(fixture.get(id).await.state.phase, Some(phase));
    }
}

pub(super) async fn a_completion_that_is_there_keeps_a_run_from_waiting(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    assert_eq!(
        fixture
            .append(id, 1, vec![sleep(0), sleep(1)], Then::Continue)
            .await,
        Appended::Done
    );
    let woken = fixture.store.wake(id, Some(1), at(20)).await.expect("wakes");
    assert_eq!(
        woken,
        Commanded::Done(State::live(Status::Running, Phase::Executing))
    );
    let answer = fixture
        .append(id, 1, vec![step(2, "1")], suspend(Some(at(1000))))
        .await;
    let Appended::Completions(completions) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(completions.len(), 1);
    assert_eq!((completions[0].operation, completions[0].at), (1, at(20)));
    assert_eq!(
        fixture.store.journal(id, 0).await.expect("reads").len(),
        3,
        "the entries are durable"
    );
    assert_eq!(fixture.get(id).await.owner, Some(fixture.node), "the lease stays");
    // What the caller knows and cannot deliver does not keep it; what is new does.
    let knowing = |known| Then::Suspend {
        wait: Wait::Sleep,
        reason: String::new(),
        wake_at: None,
        known,
    };
    fixture.store.wake(id, Some(0), at(21)).await.expect("wakes");
    let answer = fixture.append(id, 1, vec![], knowing(vec![1])).await;
    let Appended::Completions(completions) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        completions
            .iter()
            .map(|completion| completion.operation)
            .collect::<Vec<_>>(),
        [1, 0]
    );
    assert_eq!(
        fixture.append(id, 1, vec![], knowing(vec![0, 1])).await,
        Appended::Done
    );
    assert_eq!(fixture.store.completions(id).await.expect("reads").len(), 2);
}

pub(super) async fn a_delivered_completion_is_gone(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    fixture
        .append(id, 1, vec![sleep(0), sleep(1), sleep(2)], Then::Continue)
        .await;
    for operation in 0..3 {
        fixture
            .store
            .wake(id, Some(operation), at(20))
            .await
            .expect("wakes");
    }
    let records = vec![delivered(3, 1), cancelled(4, 0)];
    let answer = fixture.append(id, 1, records, suspend(None)).await;
    let Appended::Completions(left) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        left.iter()
            .map(|completion| completion.operation)
            .collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(
        fixture.append(id, 1, vec![delivered(5, 2)], suspend(None)).await,
        Appended::Done
    );
    assert_eq!(fixture.store.completions(id).await.expect("reads"), []);
}

pub(super) async fn runs_complete_and_fail(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (done, failed) = (fixture.leased(at(0)).await, fixture.leased(at(0)).await);
    let output = json(r#"{"message":"hello"}"#);
    fixture.append(done, 1, vec![sleep(0)], Then::Continue).await;
    fixture.store.wake(done, Some(0), at(1)).await.expect("wakes");
    assert_eq!(
        fixture
            .append(
                done,
                1,
                vec![],
                Then::Complete {
                    output: output.clone()
                }
            )
            .await,
        Appended::Done
    );
    let run = fixture.get(done).await;
    assert_eq!(
        run.state,
        State {
            status: Status::Completed,
            phase: None
        }
    );
    assert_eq!(
        (run.output, run.error, run.ended_at, run.owner),
        (Some(output), None, Some(at(500)), None)
    );
    assert_eq!(fixture.store.completions(done).await.expect("reads"), []);
    let error = RunError::new("boom", "it went wrong");
    assert_eq!(
        fixture
            .append(failed, 1, vec![], Then::Fail { error: error.clone() })
            .await,
        Appended::Done
    );
    let run = fixture.get(failed).await;
    assert_eq!(
        run.state,
        State {
            status: Status::Failed,
            phase: None
        }
    );
    assert_eq!((run.output, run.error), (None, Some(error)));
}

pub(super) async fn continue_with_begins_anew(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    fixture
        .append(id, 1, vec![step(0, "1"), sleep(1)], Then::Continue)
        .await;
    fixture.store.wake(id, Some(1), at(1)).await.expect("wakes");
    let then = Then::ContinueWith {
        continued: json(r#"{"page":2}"#),
    };
    assert_eq!(
        fixture.append(id, 1, vec![step(2, "2")], then).await,
        Appended::Done
    );
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), []);
    assert_eq!(fixture.store.completions(id).await.expect("reads"), []);
    let claimed = fixture.claim(1, at(600)).await;
    assert_eq!(
        (claimed[0].id, claimed[0].epoch, claimed[0].queued_at),
        (id, 2, at(500))
    );
    assert_eq!(
        (
            claimed[0].journal_base,
            claimed[0].journal_next,
            claimed[0].journal_bytes
        ),
        (3, 3, 0)
    );
    assert_eq!(claimed[0].continued, Some(json(r#"{"page":2}"#)));
    assert_eq!(
        fixture.append(id, 2, vec![step(3, "3")], Then::Continue).await,
        Appended::Done
    );
    assert_eq!(fixture.store.journal(id, 0).await.expect("reads"), [step(3, "3")]);
}

pub(super) async fn a_blocked_run_says_why(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let error = RunError::new("diverged", "entry 7: journal has another step");
    assert_eq!(
        fixture
            .append(id, 1, vec![], Then::Block { error: error.clone() })
            .await,
        Appended::Done
    );
    let run = fixture.get(id).await;
    assert_eq!((run.state.phase, run.owner), (Some(Phase::Blocked), None));
    assert_eq!(
        (run.reason, run.error),
        (Some(error.message.clone()), Some(error))
    );
    let woken = fixture.store.wake(id, None, at(10)).await.expect("wakes");
    assert_eq!(
        woken,
        Commanded::Done(State::live(Status::Running, Phase::Queued))
    );
    let run = fixture.get(id).await;
    assert_eq!((run.reason, run.error), (None, None));
    assert_eq!(fixture.claim(1, at(11)).await[0].id, id);
}

pub(super) async fn many_appends_at_once_are_all_kept(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for _ in 0..100 {
        runs.push(fixture.leased(at(0)).await);
    }
    let mut calls = Vec::new();
    for (number, id) in runs.iter().enumerate() {
        // Every seventh has lost its lease: it must not take the others with it.
        let epoch = if number % 7 == 0 { 9 } else { 1 };
        let first = fixture.append_of(*id, epoch, vec![step(0, "0"), sleep(1)], Then::Continue, at(500));
        let second = match number % 3 {
            0 => Then::Complete { output: json("3") },
            1 => suspend(Some(at(1000))),
            _ => Then::Release { host_trap: false },
        };
        let second = fixture.append_of(*id, epoch, vec![step(2, "2")], second, at(501));
        let store = Arc::clone(&fixture.store);
        calls.push(tokio::spawn(async move {
            let first = store.append(first).await.expect("answers");
            (first, store.append(second).await.expect("answers"))
        }));
    }
    for (number, (call, id)) in calls.into_iter().zip(runs).enumerate() {
        let answers = call.await.expect("no panic");
        let journal = fixture.store.journal(id, 0).await.expect("reads");
        if number % 7 == 0 {
            let lost = Appended::Lost(Lost::TakenOver);
            assert_eq!(answers, (lost.clone(), lost));
            assert_eq!(journal, []);
            continue;
        }
        assert_eq!(answers, (Appended::Done, Appended::Done));
        assert_eq!(journal, [step(0, "0"), sleep(1), step(2, "2")]);
        let phase = [None, Some(Phase::Sleeping), Some(Phase::Queued)][number % 3];
        assert_eq!(fixture.get(id).await.state.phase, phase);
    }
}

pub(super) async fn logs_are_kept_by_number(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let line = |number: u32| LogLine {
        number,
        at: at(number.into()),
        level: "info".to_owned(),
        step: number.is_multiple_of(2).then(|| "a step".to_owned()),
        message: format!("line {number}"),
        fields: number.is_multiple_of(3).then(|| json(r#"{"a":1}"#)),
    };
    let mut append = fixture.append_of(id, 1, vec![], Then::Continue, at(1));
    append.logs = (0..5).map(line).collect();
    assert_eq!(
        fixture.store.append(append.clone()).await.expect("appends"),
        Appended::Done
    );
    append.logs = vec![line(5)];
    append.then = Then::Release { host_trap: false };
    assert_eq!(
        fixture.store.append(append).await.expect("appends"),
        Appended::Done
    );
    let lines = fixture.store.logs(id, 2, 3).await.expect("reads");
    assert_eq!(lines, (2..5).map(line).collect::<Vec<_>>());
    assert_eq!(fixture.claim(1, at(2)).await[0].log_lines, 6);
}
