//! Throttles and priorities: when runs begin, and before which others.

use std::sync::Arc;

use dormouse_core::RunId;
use dormouse_core::flow::{Limited, Rate};
use dormouse_core::run::{Phase, State, Status};

use super::fixture::{Fixture, at};
use crate::contract::Store;
use crate::ingest::{Created, NewRun};

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
    // One that is cancelled gives its turn to nobody; one that is woken begins out of turn.
    fixture.store.cancel(runs[1], at(1_500)).await.expect("cancels");
    fixture.store.wake(runs[2], None, at(1_600)).await.expect("wakes");
    let claimed = fixture.claim(10, at(1_600)).await;
    assert_eq!(claimed.iter().map(|run| run.id).collect::<Vec<_>>(), [runs[2]]);
    assert_eq!(begin(&fixture, 10_000).await, []);
    for run in [first, other] {
        assert_eq!(
            fixture.get(run).await.started_at,
            fixture.get(run).await.started_at
        );
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
