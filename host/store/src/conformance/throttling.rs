//! Throttles and priorities: when runs begin, and before which others.

use std::sync::Arc;

use dormouse_core::flow::{Limited, Rate};
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{EventId, RunId};

use super::fixture::{Fixture, at, function, sleep, suspend};
use crate::cancellation::{Examined, NewCancellation};
use crate::command::Commanded;
use crate::contract::Store;
use crate::ingest::{Created, NewRun};
use crate::registry::Changed;

const HELD: State = State::live(Status::Scheduled, Phase::Limited);

/// One each second for each key.
fn throttled(key: &'static str) -> impl Fn(&mut NewRun) {
    move |run| {
        let rate = Rate {
            limit: 60,
            period_ms: 60_000,
            burst: 1,
        };
        run.admission.throttle = Some(Limited {
            rate,
            key: key.to_owned(),
        });
        run.lease = Some(super::fixture::node(1).incarnation);
    }
}

/// Runs that begin at a time, as far as their timers are concerned, in order.
async fn begin(fixture: &Fixture, millis: i64) -> Vec<RunId> {
    let fired = fixture.fire(at(millis), 100, 100).await;
    fired.claimed.iter().map(|run| run.id).collect()
}

pub(super) async fn runs_begin_one_after_the_other(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, created) = fixture.create(at(0), throttled("a")).await;
    assert_eq!(created, Created::New { leased: true });
    let mut runs = Vec::new();
    for number in 1..4 {
        let (run, created) = fixture.create(at(number), throttled("a")).await;
        assert_eq!(
            created,
            Created::Held {
                until: at(number * 1_000)
            }
        );
        let found = fixture.get(run).await;
        assert_eq!(
            (found.state, found.owner, found.wake_at),
            (HELD, None, Some(at(number * 1_000)))
        );
        assert_eq!(found.queued_at, at(number * 1_000));
        let reason = found.reason.expect("a reason");
        assert_eq!(
            reason,
            format!("throttled to 60 per 1m for a: begins at {}", at(number * 1_000))
        );
        runs.push(run);
    }
    // Another key begins at once; what is held is not ready beside that.
    let (other, created) = fixture.create(at(5), throttled("b")).await;
    assert_eq!(created, Created::New { leased: true });
    assert_eq!(fixture.claim(10, at(5)).await, []);
    assert_eq!(begin(&fixture, 999).await, []);
    assert_eq!(begin(&fixture, 1_000).await, [runs[0]]);
    let begun = fixture.get(runs[0]).await;
    assert_eq!(
        (begun.state.status, begun.reason, begun.started_at),
        (Status::Running, None, Some(at(1_000)))
    );
    for (run, born) in [(first, 0), (other, 5)] {
        assert_eq!(fixture.get(run).await.started_at, Some(at(born)));
    }
    for (number, run) in runs[1..].iter().enumerate() {
        assert_eq!(begin(&fixture, 2_000 + number as i64 * 1_000).await, [*run]);
    }
    // After a rest there is room again.
    let (_, created) = fixture.create(at(20_000), throttled("a")).await;
    assert_eq!(created, Created::New { leased: true });
}

pub(super) async fn what_is_meant_for_later_takes_its_turn_then(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut later = Vec::new();
    for _ in 0..3 {
        let (run, created) = fixture
            .create(at(0), |run| {
                throttled("a")(run);
                run.start_at = at(50_000);
            })
            .await;
        assert_eq!(created, Created::Held { until: at(50_000) });
        let reason = fixture.get(run).await.reason.expect("a reason");
        assert!(
            reason.starts_with(&format!("starts at {}", at(50_000))),
            "{reason}"
        );
        later.push(run);
    }
    // It holds up nothing that comes before.
    let (_, created) = fixture.create(at(10), throttled("a")).await;
    assert_eq!(created, Created::New { leased: true });
    let fired = fixture.fire(at(50_000), 100, 100).await;
    assert_eq!(
        fired.claimed.iter().map(|run| run.id).collect::<Vec<_>>(),
        [later[0]]
    );
    assert_eq!((fired.fired, &fired.held[..]), (3, &[at(51_000), at(52_000)][..]));
    let found = fixture.get(later[2]).await;
    assert_eq!(
        (found.state, found.wake_at, found.queued_at),
        (HELD, Some(at(52_000)), at(52_000))
    );
    assert!(
        found
            .reason
            .expect("a reason")
            .starts_with("throttled to 60 per 1m")
    );
    let (_, created) = fixture.create(at(50_010), throttled("a")).await;
    assert_eq!(created, Created::Held { until: at(53_000) });
    assert_eq!(begin(&fixture, 51_000).await, [later[1]]);
    assert_eq!(begin(&fixture, 52_000).await, [later[2]]);
}

pub(super) async fn those_that_were_held_up_together_do_not_begin_together(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for number in 0..6 {
        runs.push(fixture.create(at(number), throttled("a")).await.0);
    }
    // Nobody was there when the first four had their turns. The last of them is not too late.
    let fired = fixture.fire(at(5_000), 100, 100).await;
    let begun: Vec<RunId> = fired.claimed.iter().map(|run| run.id).collect();
    assert_eq!(begun, [runs[4], runs[5]]);
    assert_eq!(fired.held, [at(6_000), at(7_000), at(8_000)]);
    for (number, run) in runs[1..4].iter().enumerate() {
        assert_eq!(begin(&fixture, 6_000 + 1_000 * number as i64).await, [*run]);
    }
    assert_eq!(begin(&fixture, 60_000).await, []);
}

/// Runs in line, with turns at 1, 2, … seconds; one before them began at once.
async fn line(fixture: &Fixture, count: usize) -> Vec<RunId> {
    fixture.create(at(0), throttled("a")).await;
    let mut runs = Vec::new();
    for number in 1..=count as i64 {
        let (run, created) = fixture.create(at(0), throttled("a")).await;
        let until = at(number * 1_000);
        assert_eq!(created, Created::Held { until });
        runs.push(run);
    }
    runs
}

/// When runs have begun: these, second by second from one on.
async fn begin_in_turn(fixture: &Fixture, from: i64, runs: &[RunId]) {
    for (number, run) in (from..).zip(runs) {
        assert_eq!(begin(fixture, number * 1_000 - 1).await, [], "before {number}");
        assert_eq!(begin(fixture, number * 1_000).await, [*run], "at {number}");
    }
}

pub(super) async fn a_run_that_leaves_the_line_leaves_its_turn_to_the_others(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let runs = line(&fixture, 6).await;
    // The first and one in the middle are cancelled: those behind them begin a second earlier each.
    fixture.store.cancel(runs[0], at(100)).await.expect("cancels");
    let first = fixture.get(runs[1]).await;
    assert_eq!((first.wake_at, first.queued_at), (Some(at(1_000)), at(1_000)));
    assert_eq!(
        first.reason.expect("a reason"),
        format!("throttled to 60 per 1m for a: begins at {}", at(1_000))
    );
    fixture.store.cancel(runs[3], at(100)).await.expect("cancels");
    begin_in_turn(&fixture, 1, &[runs[1], runs[2]]).await;
    // One that is woken begins out of turn, and its turn is free, too.
    let state = fixture.store.wake(runs[4], None, at(2_100)).await.expect("wakes");
    assert_eq!(state, Commanded::Done(State::NEW));
    assert_eq!(fixture.claim(10, at(2_100)).await[0].id, runs[4]);
    begin_in_turn(&fixture, 3, &[runs[5]]).await;
    assert_eq!(begin(&fixture, 60_000).await, []);
    // All leave: it is as if they had not come.
    let (next, _) = fixture.create(at(60_000), throttled("a")).await;
    let mut last = Vec::new();
    for _ in 0..3 {
        last.push(fixture.create(at(60_000), throttled("a")).await.0);
    }
    for run in last {
        fixture.store.cancel(run, at(60_100)).await.expect("cancels");
    }
    assert_eq!(fixture.get(next).await.started_at, Some(at(60_000)));
    let (_, created) = fixture.create(at(60_200), throttled("a")).await;
    assert_eq!(created, Created::Held { until: at(61_000) });
}

pub(super) async fn many_that_are_cancelled_hold_up_nobody(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let runs = line(&fixture, 40).await;
    let id = EventId::from_parts(at(50), [0; 10]);
    let new = NewCancellation {
        id,
        function: function("shop/order"),
        started_after: None,
        started_before: None,
        condition: None,
        now: at(50),
    };
    fixture.store.put_cancellation(new).await.expect("stores");
    let (before, stay) = runs.split_at(35);
    for some in before.chunks(10) {
        let examined = Examined {
            id,
            runs: some.to_vec(),
            last: some.last().copied(),
            now: at(60),
        };
        let cancelled = fixture.store.cancel_examined(examined).await.expect("cancels");
        assert_eq!(cancelled, some);
    }
    let (later, created) = fixture.create(at(70), throttled("a")).await;
    assert!(matches!(created, Created::Held { .. }));
    begin_in_turn(&fixture, 1, &[stay, &[later]].concat()).await;
    let (_, created) = fixture.create(at(6_500), throttled("a")).await;
    assert_eq!(created, Created::Held { until: at(7_000) });
}

pub(super) async fn a_paused_run_leaves_the_line_and_takes_another_turn(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let runs = line(&fixture, 4).await;
    for run in [runs[0], runs[2]] {
        let paused = fixture.store.pause(run).await.expect("answers");
        assert_eq!(
            paused,
            Commanded::Done(State::live(Status::Scheduled, Phase::Paused))
        );
    }
    begin_in_turn(&fixture, 1, &[runs[1], runs[3]]).await;
    assert_eq!(begin(&fixture, 9_000).await, []);
    // Resumed together after a rest, they begin one after the other, none of them is lost, and others come after them.
    for run in [runs[0], runs[2]] {
        let resumed = fixture.store.resume(run, at(9_000)).await.expect("answers");
        assert_eq!(resumed, Commanded::Done(HELD));
        let found = fixture.get(run).await;
        assert_eq!((found.wake_at, found.owner), (Some(at(9_000)), None));
    }
    let fired = fixture.fire(at(9_000), 100, 100).await;
    let begun: Vec<RunId> = fired.claimed.iter().map(|run| run.id).collect();
    assert_eq!((begun, fired.held), (vec![runs[0]], vec![at(10_000)]));
    let (later, created) = fixture.create(at(9_100), throttled("a")).await;
    assert_eq!(created, Created::Held { until: at(11_000) });
    begin_in_turn(&fixture, 10, &[runs[2], later]).await;
    // Resumed before its time, it is as it was.
    let (delayed, _) = fixture
        .create(at(12_000), |run| {
            throttled("b")(run);
            run.start_at = at(50_000);
        })
        .await;
    fixture.store.pause(delayed).await.expect("answers");
    fixture.store.resume(delayed, at(13_000)).await.expect("answers");
    let found = fixture.get(delayed).await;
    assert_eq!((found.state, found.wake_at), (HELD, Some(at(50_000))));
    assert_eq!(begin(&fixture, 50_000).await, [delayed]);
    // One that has begun is a run like any other.
    fixture
        .append(delayed, 1, vec![sleep(0)], suspend(Some(at(51_000))))
        .await;
    fixture.store.pause(delayed).await.expect("answers");
    let resumed = fixture.store.resume(delayed, at(50_100)).await.expect("answers");
    assert_eq!(
        resumed,
        Commanded::Done(State::live(Status::Running, Phase::Queued))
    );
}

pub(super) async fn a_paused_function_that_is_resumed_keeps_to_its_throttle(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let name = function("shop/order");
    let Changed::Done(generation) = fixture.store.pause_function(&name, at(0)).await.expect("answers") else {
        panic!("it is not paused yet");
    };
    fixture.generation = generation;
    let mut held = Vec::new();
    for number in 0..6 {
        let (run, created) = fixture
            .create(at(number), |run| {
                throttled("a")(run);
                run.held = true;
            })
            .await;
        assert_eq!(created, Created::New { leased: false });
        let found = fixture.get(run).await;
        assert_eq!(found.state, State::live(Status::Scheduled, Phase::Paused));
        assert!(found.reason.expect("a reason").contains("shop/order is paused"));
        held.push(run);
    }
    // A person lets one on, and another begins meanwhile.
    let resumed = fixture.store.resume(held[3], at(100)).await.expect("answers");
    assert_eq!(resumed, Commanded::Done(HELD));
    assert_eq!(begin(&fixture, 100).await, [held[3]]);
    fixture.store.resume_function(&name).await.expect("answers");
    assert_eq!(
        fixture.store.release_held(10, at(5_000)).await.expect("answers"),
        5
    );
    assert_eq!(
        fixture.claim(10, at(5_000)).await,
        [],
        "nothing is ready but by the throttle"
    );
    let mut begun = Vec::new();
    for second in 5..20 {
        let now = begin(&fixture, second * 1_000).await;
        assert!(now.len() <= 1, "at {second}: {now:?}");
        begun.extend(now);
    }
    let rest: Vec<RunId> = held.iter().copied().filter(|run| *run != held[3]).collect();
    assert_eq!(begun, rest, "each, in order");
}

pub(super) async fn what_waits_to_begin_goes_by_priority(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for (number, priority) in [0, 0, -1, 10, 600].into_iter().enumerate() {
        let (run, _) = fixture
            .create(at(1_000_000 + number as i64), |run| {
                run.admission.priority = priority
            })
            .await;
        assert_eq!(fixture.get(run).await.queued_at, at(1_000_000 + number as i64));
        runs.push(run);
    }
    let claimed = fixture.claim(10, at(1_000_010)).await;
    let order: Vec<RunId> = claimed.iter().map(|run| run.id).collect();
    assert_eq!(order, [runs[4], runs[3], runs[0], runs[1], runs[2]]);
}
