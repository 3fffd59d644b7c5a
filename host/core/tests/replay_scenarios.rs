//! Replay step by step, where the place of each answer matters.

use dormouse_core::journal::{Event, OperationKind};
use dormouse_core::replay::{Attempt, Awaited, Begun, Gap, Replay, StartedOperation};
use dormouse_core::{Entry, Failure, Json, Outcome, Seq, Timestamp};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn number(number: u32) -> Json {
    Json::from_value(&number).expect("a number")
}

fn again(replay: &Replay) -> Replay {
    Replay::new(replay.entries().to_vec(), 0, at(0)).expect("no gap")
}

fn attempt(name: &str, occurrence: u32, number: u32, position: Seq) -> Begun {
    Begun::Execute(Attempt {
        name: name.to_owned(),
        occurrence,
        number,
        position,
    })
}

fn sleep(replay: &mut Replay, name: &str, millis: u32, now: i64) -> StartedOperation {
    let due = at(now + i64::from(millis));
    replay
        .start(OperationKind::Sleep, name, &number(millis), at(now), || Some(due))
        .expect("as recorded")
}

fn fail(replay: &mut Replay, now: i64, due: i64) {
    replay.defer(Failure::new("x", "no luck"), at(now), at(due), at(now));
}

const NULL: fn() -> Outcome = || Ok(Json::null());

/// join!(run "a", sleep 10 s): the body fails first, is due after 1 s, and is tried again while the sleep goes on.
#[test]
fn one_branch_is_tried_again_while_another_waits() {
    let mut first = Replay::new(vec![], 0, at(0)).expect("empty");
    assert_eq!(first.begin("a"), Ok(attempt("a", 0, 1, 0)));
    fail(&mut first, 10, 1_010);

    // The leg is over. In the next, the answer at this place is that the step is deferred; only then comes the sleep.
    let mut second = again(&first);
    assert!(second.is_replaying());
    assert_eq!(second.begin("a"), Ok(Begun::Deferred(0)));
    assert!(!second.is_replaying());
    assert_eq!(second.now(), at(10));
    assert_eq!(
        sleep(&mut second, "long", 10_000, 20),
        StartedOperation {
            operation: 1,
            new: true
        }
    );
    assert_eq!(
        second
            .open()
            .map(|open| (open.operation, open.kind, open.due_at))
            .collect::<Vec<_>>(),
        [
            (0, None, Some(at(1_010))),
            (1, Some(OperationKind::Sleep), Some(at(10_020))),
        ]
    );
    assert_eq!(second.await_any(&[0, 1]), Ok(Awaited::Pending));
    second.deliver(0, NULL(), at(1_010));
    assert_eq!(second.await_any(&[0, 1]), Ok(Awaited::Ready(0)));
    assert_eq!(second.begin("a"), Ok(attempt("a", 0, 2, 3)));
    second.complete(Ok(number(7)), at(1_011), at(1_012));
    assert_eq!(second.await_any(&[1]), Ok(Awaited::Pending));

    // A replay gives each answer at the place where it was given.
    let mut third = again(&second);
    assert_eq!(third.begin("a"), Ok(Begun::Deferred(0)));
    assert_eq!(
        sleep(&mut third, "long", 10_000, 99_999),
        StartedOperation {
            operation: 1,
            new: false
        }
    );
    assert_eq!(third.await_any(&[0, 1]), Ok(Awaited::Ready(0)));
    assert_eq!(third.begin("a"), Ok(Begun::Recorded(Ok(number(7)))));
    assert_eq!(third.await_any(&[1]), Ok(Awaited::Pending));
    assert_eq!(
        third.open().map(|open| open.due_at).collect::<Vec<_>>(),
        [Some(at(10_020))],
        "the recorded time"
    );
    third.deliver(1, NULL(), at(10_020));
    assert_eq!(third.await_any(&[1]), Ok(Awaited::Ready(0)));
    assert_eq!(third.finish(false), Ok(()));
}

/// join!(run "a", run "a"): both fail; the second is due first. Each goes on as itself.
#[test]
fn two_steps_of_one_name_are_each_tried_again_as_themselves() {
    let mut replay = Replay::new(vec![], 0, at(0)).expect("empty");
    assert_eq!(replay.begin("a"), Ok(attempt("a", 0, 1, 0)));
    fail(&mut replay, 1, 9_000);
    let mut replay = again(&replay);
    assert_eq!(replay.begin("a"), Ok(Begun::Deferred(0)));
    assert_eq!(
        replay.begin("a"),
        Ok(attempt("a", 1, 1, 1)),
        "the other use of the name"
    );
    fail(&mut replay, 2, 3_000);

    let mut replay = again(&replay);
    assert_eq!(
        (replay.begin("a"), replay.begin("a")),
        (Ok(Begun::Deferred(0)), Ok(Begun::Deferred(1)))
    );
    assert_eq!(replay.await_any(&[0, 1]), Ok(Awaited::Pending));
    replay.deliver(1, NULL(), at(3_000));
    assert_eq!(replay.await_any(&[0, 1]), Ok(Awaited::Ready(1)));
    assert_eq!(replay.begin("a"), Ok(attempt("a", 1, 2, 3)));
    fail(&mut replay, 3_001, 5_000);

    let mut replay = again(&replay);
    assert_eq!(
        (replay.begin("a"), replay.begin("a")),
        (Ok(Begun::Deferred(0)), Ok(Begun::Deferred(1)))
    );
    assert_eq!(replay.await_any(&[0, 1]), Ok(Awaited::Ready(1)));
    assert_eq!(replay.begin("a"), Ok(Begun::Deferred(3)));
    assert_eq!(replay.await_any(&[0, 3]), Ok(Awaited::Pending));
    replay.deliver(3, NULL(), at(5_000));
    assert_eq!(replay.await_any(&[0, 3]), Ok(Awaited::Ready(1)));
    assert_eq!(replay.begin("a"), Ok(attempt("a", 1, 3, 5)));
    replay.complete(Ok(number(1)), at(5_001), at(5_001));
    assert_eq!(replay.await_any(&[0]), Ok(Awaited::Pending));
    replay.deliver(0, NULL(), at(9_000));
    assert_eq!(replay.await_any(&[0]), Ok(Awaited::Ready(0)));
    assert_eq!(replay.begin("a"), Ok(attempt("a", 0, 2, 7)));
    replay.complete(Ok(number(0)), at(9_001), at(9_001));
    assert_eq!(
        replay.begin("a"),
        Ok(attempt("a", 2, 1, 8)),
        "a third use is a new one"
    );
    assert_eq!(replay.steps(), 3, "attempts are no steps");
}

/// select!(run "a", sleep): the sleep is over during the back-off; the step is given up for good.
#[test]
fn a_step_given_up_during_its_back_off_is_not_tried_again() {
    let mut replay = Replay::new(vec![], 0, at(0)).expect("empty");
    replay.begin("a").expect("live");
    fail(&mut replay, 1, 60_000);
    let mut replay = again(&replay);
    assert_eq!(replay.begin("a"), Ok(Begun::Deferred(0)));
    sleep(&mut replay, "s", 10, 2);
    assert_eq!(replay.await_any(&[0, 1]), Ok(Awaited::Pending));
    replay.deliver(1, NULL(), at(12));
    assert_eq!(replay.await_any(&[0, 1]), Ok(Awaited::Ready(1)));
    replay.cancel(0, at(12)).expect("live");
    replay.cancel(0, at(12)).expect("a second time does nothing");
    replay.cancel(1, at(12)).expect("after delivery it does nothing");
    assert_eq!((replay.open_count(), replay.next_seq()), (0, 4));
    assert_eq!(replay.begin("a"), Ok(attempt("a", 1, 1, 4)));

    let mut replay = again(&replay);
    assert_eq!(replay.begin("a"), Ok(Begun::Deferred(0)));
    sleep(&mut replay, "s", 10, 2);
    assert_eq!(replay.await_any(&[0, 1]), Ok(Awaited::Ready(1)));
    let told = replay
        .begin("a")
        .expect_err("the journal has the cancellation first")
        .to_string();
    assert_eq!(
        told,
        "entry 3: the journal has the cancellation of entry 0, the code asked for run \"a\" (use 2)"
    );
}

/// A step that came due and was dropped all the same does not answer for the next of its name.
#[test]
fn a_step_given_up_when_it_had_come_due_is_not_tried_again() {
    let mut replay = Replay::new(vec![], 0, at(0)).expect("empty");
    replay.begin("a").expect("live");
    fail(&mut replay, 1, 5);
    let mut replay = again(&replay);
    assert_eq!(replay.begin("a"), Ok(Begun::Deferred(0)));
    assert_eq!(replay.await_any(&[0]), Ok(Awaited::Pending));
    replay.deliver(0, NULL(), at(5));
    assert_eq!(replay.await_any(&[0]), Ok(Awaited::Ready(0)));
    replay.cancel(0, at(5)).expect("no entry");
    assert_eq!(replay.next_seq(), 2);
    assert_eq!(replay.begin("a"), Ok(attempt("a", 1, 1, 2)));
}

/// Giving up in another order is another program.
#[test]
fn the_cancellation_of_another_operation_is_a_divergence() {
    let two = |replay: &mut Replay| {
        sleep(replay, "a", 1, 1);
        sleep(replay, "b", 1, 1);
    };
    let mut recorded = Replay::new(vec![], 0, at(0)).expect("empty");
    two(&mut recorded);
    recorded.cancel(0, at(2)).expect("live");
    let mut replay = again(&recorded);
    two(&mut replay);
    let told = replay.cancel(1, at(2)).expect_err("the other one").to_string();
    assert_eq!(
        told,
        "entry 2: the journal has the cancellation of entry 0, the code asked for the cancellation of entry 1"
    );
    assert!(replay.is_open(0) && replay.is_open(1));
}

#[test]
fn time_never_decreases() {
    let mut replay = Replay::new(vec![], 0, at(1_000)).expect("empty");
    assert_eq!(replay.now(), at(1_000));
    sleep(&mut replay, "a", 1, 10);
    assert_eq!(
        (replay.now(), replay.entries()[0].at),
        (at(1_000), at(1_000)),
        "a clock that was set back"
    );
    sleep(&mut replay, "b", 1, 5_000);
    sleep(&mut replay, "c", 1, 4_000);
    assert_eq!(replay.now(), at(5_000));
    // A journal from a node whose clock was behind, after a run's start on another.
    let mut recorded = Replay::new(vec![], 0, at(0)).expect("empty");
    sleep(&mut recorded, "a", 1, 3);
    let mut replay = Replay::new(recorded.entries().to_vec(), 0, at(70)).expect("no gap");
    sleep(&mut replay, "a", 1, 80);
    assert_eq!((replay.entries()[0].at, replay.now()), (at(3), at(70)));
}

/// Names are not enough: the use counts.
#[test]
fn another_use_of_the_name_is_a_divergence() {
    let entry = |event| {
        vec![Entry {
            seq: 0,
            at: at(1),
            event,
        }]
    };
    let step = Event::Step {
        name: "a".to_owned(),
        occurrence: 1,
        attempt: 1,
        started_at: at(1),
        outcome: NULL(),
    };
    let mut replay = Replay::new(entry(step), 0, at(0)).expect("no gap");
    let told = replay.begin("a").expect_err("the first use").to_string();
    assert_eq!(
        told,
        "entry 0: the journal has run \"a\" (use 2), the code asked for run \"a\""
    );
    let mut recorded = Replay::new(vec![], 0, at(0)).expect("empty");
    sleep(&mut recorded, "a", 1, 1);
    sleep(&mut recorded, "a", 1, 1);
    let second = recorded.entries()[1].event.clone();
    let mut replay = Replay::new(entry(second), 0, at(0)).expect("no gap");
    let started = replay.start(OperationKind::Sleep, "a", &number(1), at(1), || None);
    assert!(started.expect_err("the first use").journal.contains("(use 2)"));
}

#[test]
fn what_is_appended_is_pending_until_it_is_committed() {
    let mut replay = Replay::new(vec![], 5, at(0)).expect("empty");
    sleep(&mut replay, "a", 1, 1);
    sleep(&mut replay, "b", 1, 1);
    assert_eq!(
        replay.pending().iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [5, 6]
    );
    replay.committed();
    assert!(replay.pending().is_empty());
    sleep(&mut replay, "c", 1, 1);
    assert_eq!(
        replay.pending().iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [7]
    );
    let loaded = Replay::new(replay.entries().to_vec(), 5, at(0)).expect("no gap");
    assert!(loaded.pending().is_empty() && loaded.is_replaying());
}

#[test]
fn a_journal_with_a_gap_is_refused() {
    let entry = |seq| Entry {
        seq,
        at: at(0),
        event: Event::Cancelled { operation: 0 },
    };
    assert_eq!(
        Replay::new(vec![entry(1), entry(3)], 1, at(0)).err(),
        Some(Gap {
            expected: 2,
            found: 3
        })
    );
    assert_eq!(
        Replay::new(vec![entry(1)], 0, at(0)).err(),
        Some(Gap {
            expected: 0,
            found: 1
        })
    );
    assert_eq!(
        Replay::new(vec![entry(1), entry(1)], 1, at(0)).err(),
        Some(Gap {
            expected: 2,
            found: 1
        })
    );
}

/// The sentences that people read.
#[test]
fn a_divergence_names_the_entry_and_both_sides() {
    let mut recorded = Replay::new(vec![], 7, at(0)).expect("empty");
    sleep(&mut recorded, "a", 1_000, 1);
    let entries = recorded.entries().to_vec();
    let replay = || Replay::new(entries.clone(), 7, at(0)).expect("no gap");
    let start = |kind, name: &str, input| {
        replay()
            .start(kind, name, &number(input), at(9), || {
                unreachable!("nothing is begun")
            })
            .expect_err("diverges")
    };
    for (told, code) in [
        (replay().begin("b").expect_err("diverges"), "run \"b\""),
        (start(OperationKind::Sleep, "a", 2_000), "sleep \"a\" 2000"),
        (
            start(OperationKind::SleepUntil, "a", 1_000),
            "sleep-until \"a\" 1000",
        ),
        (start(OperationKind::Sleep, "ä", 1_000), "sleep \"ä\" 1000"),
        (
            replay().await_any(&[7, 8]).expect_err("diverges"),
            "the result of one of the entries 7, 8",
        ),
        (
            replay().finish(false).expect_err("diverges"),
            "the end, with an output",
        ),
        (
            replay().finish(true).expect_err("diverges"),
            "the end, with a failure",
        ),
    ] {
        assert_eq!(
            told.to_string(),
            format!("entry 7: the journal has sleep \"a\" 1000, the code asked for {code}")
        );
    }
}

/// select!(fetch, sleep): tries in vain are entries that no call stands for, wherever they fall.
#[test]
fn tries_in_vain_are_passed_over() {
    let mut first = Replay::new(vec![], 0, at(0)).expect("empty");
    let started = first
        .start(OperationKind::Fetch, "f", &number(1), at(5), || None)
        .expect("as recorded");
    assert_eq!(started.operation, 0);
    assert_eq!(first.await_any(&[0]), Ok(Awaited::Pending));
    let failure = || Failure::new("http-failed", "no luck");
    first.tried(0, 1, failure(), at(6), at(1_010), at(10));
    assert_eq!(first.now(), at(5), "the guest's time stands still");
    let open = first.open().next().expect("open");
    assert_eq!((open.tries, open.retry_at), (1, Some(at(1_010))));

    let mut second = again(&first);
    let started = second
        .start(OperationKind::Fetch, "f", &number(1), at(2_000), || None)
        .expect("as recorded");
    assert!(!started.new && !second.is_replaying());
    assert_eq!(second.await_any(&[0]), Ok(Awaited::Pending));
    let open = second.open().next().expect("open");
    assert_eq!((open.tries, open.retry_at), (1, Some(at(1_010))));
    second.tried(0, 2, failure(), at(1_011), at(3_000), at(1_020));
    second.deliver(0, Ok(number(7)), at(3_010));
    assert_eq!(second.await_any(&[0]), Ok(Awaited::Ready(0)));

    let mut third = again(&second);
    let started = third
        .start(OperationKind::Fetch, "f", &number(1), at(9_000), || None)
        .expect("as recorded");
    assert_eq!(third.await_any(&[started.operation]), Ok(Awaited::Ready(0)));
    assert_eq!((third.outcome(0), third.now()), (Some(&Ok(number(7))), at(3_010)));
    assert_eq!(third.finish(false), Ok(()));
}
