//! Runs that are ended from outside by themselves: by events that cancel them, and by the clock.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::ending::{Cancels, Clock, Deadline};
use dormouse_core::flow::{Admission, Decision, Limited, Rate};
use dormouse_core::run::{Phase, Status};
use dormouse_core::system::Kinds;
use dormouse_core::wait::{EventWait, key};
use dormouse_core::{Failure, RunId};
use serde_json::json;

use super::fixture::{Fixture, at, json as text, sleep, suspend, version};
use crate::command::Commanded;
use crate::contract::Store;
use crate::ends::Expired;
use crate::execute::{Append, Appended, Lost, Then};
use crate::ingest::{Created, Ingest, NewEvent};
use crate::registry::NewVersion;
use crate::wait::{ChildWait, NewWait, WaitOn};

fn any() -> Cancels {
    Cancels {
        event: "shop/cancelled".to_owned(),
        path: String::new(),
        key: String::new(),
        condition: None,
        until: None,
    }
}

fn with_id(id: u32) -> Cancels {
    Cancels {
        path: "data.id".to_owned(),
        key: key(&json!({"data": {"id": id}}), "data.id").expect("a number"),
        ..any()
    }
}

fn event(fixture: &Fixture, name: &str, data: &str) -> NewEvent {
    let event = fixture.event(name);
    NewEvent {
        received_at: at(600),
        payload: text(&format!(r#"{{"name":"{name}","data":{data}}}"#)),
        ..event
    }
}

impl Fixture {
    /// A run that some events cancel.
    async fn cancelled_by(&self, cancels: Cancels, leased: bool) -> RunId {
        let (id, _) = self
            .create(at(10), |run| {
                run.ends.cancel_on = vec![cancels];
                run.lease = leased.then_some(self.node);
            })
            .await;
        id
    }

    async fn cancels(&self, name: &str, data: &str) -> NewEvent {
        let event = event(self, name, data);
        let ingest = self.ingest(vec![event.clone()], vec![], at(600));
        self.store.ingest(ingest).await.expect("ingests");
        event
    }

    async fn status(&self, run: RunId) -> Status {
        self.get(run).await.state.status
    }
}

pub(super) async fn an_event_cancels_the_runs_that_it_fits(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let seven = fixture.cancelled_by(with_id(7), false).await;
    let eight = fixture.cancelled_by(with_id(8), false).await;
    let conditional = Cancels {
        condition: Some("async.data.amount > 3 && event.name == 'shop/ordered'".to_owned()),
        ..any()
    };
    let by_condition = fixture.cancelled_by(conditional, false).await;
    let over = Cancels {
        until: Some(at(599)),
        ..with_id(7)
    };
    let closed = fixture.cancelled_by(over, false).await;
    let other = fixture
        .cancelled_by(
            Cancels {
                event: "shop/other".to_owned(),
                ..any()
            },
            false,
        )
        .await;
    let event = fixture.cancels("shop/cancelled", r#"{"id":7}"#).await;
    let run = fixture.get(seven).await;
    assert_eq!(run.state.status, Status::Cancelled);
    assert_eq!(run.ended_at, Some(event.received_at));
    let reason = format!("cancelled by event \"shop/cancelled\" ({})", event.id);
    assert_eq!(run.reason, Some(reason));
    let decided = fixture.store.decisions(event.id).await.expect("reads");
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].decision, Decision::Cancelled);
    assert_eq!((decided[0].run, decided[0].at), (Some(seven), event.received_at));
    assert_eq!(decided[0].detail, "it has cancelled a run");
    for run in [eight, by_condition, closed, other] {
        assert_eq!(fixture.status(run).await, Status::Scheduled);
    }
    fixture.cancels("shop/cancelled", r#"{"amount":4}"#).await;
    assert_eq!(fixture.status(by_condition).await, Status::Cancelled);
    assert_eq!(fixture.status(eight).await, Status::Scheduled);
    // One that was stored before is no news.
    let again = fixture.cancelled_by(with_id(7), false).await;
    let ingest = fixture.ingest(vec![event], vec![], at(700));
    fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(fixture.status(again).await, Status::Scheduled);
    assert_eq!(fixture.claim(10, at(800)).await.len(), 4);
}

pub(super) async fn whatever_a_run_does_an_event_cancels_it(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let queued = fixture.cancelled_by(any(), false).await;
    let executing = fixture.cancelled_by(any(), true).await;
    let sleeping = fixture.cancelled_by(any(), true).await;
    fixture
        .append(sleeping, 1, vec![sleep(0)], suspend(Some(at(9_000))))
        .await;
    let waiting = fixture.cancelled_by(any(), true).await;
    let append = Append {
        waits: vec![NewWait {
            operation: 0,
            on: WaitOn::Event(EventWait {
                event: "shop/cancelled".to_owned(),
                path: String::new(),
                key: String::new(),
                condition: None,
                lookback_from: None,
            }),
        }],
        ..fixture.append_of(waiting, 1, vec![sleep(0)], suspend(None), at(500))
    };
    fixture.store.append(append).await.expect("appends");
    let paused = fixture.cancelled_by(any(), false).await;
    let commanded = fixture.store.pause(paused).await.expect("pauses");
    assert!(matches!(commanded, Commanded::Done(_)));
    let rate = Rate {
        limit: 1,
        period_ms: 60_000,
        burst: 1,
    };
    let mut throttled = Vec::new();
    for number in 0..3 {
        let (id, created) = fixture
            .create(at(20), |run| {
                run.admission = Admission {
                    throttle: Some(Limited {
                        rate,
                        key: String::new(),
                    }),
                    ..Admission::default()
                };
                if number == 1 {
                    run.ends.cancel_on = vec![any()];
                }
            })
            .await;
        throttled.push((id, created));
    }
    let (first, second) = match (throttled[1].1, throttled[2].1) {
        (Created::Held { until: first }, Created::Held { until: second }) => (first, second),
        other => panic!("{other:?}"),
    };
    assert!(first < second);
    let event = fixture.cancels("shop/cancelled", "{}").await;
    let decided = fixture.store.decisions(event.id).await.expect("reads");
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].detail, "it has cancelled 6 runs");
    for run in [queued, executing, sleeping, waiting, paused, throttled[1].0] {
        assert_eq!(fixture.status(run).await, Status::Cancelled, "{run}");
        assert_eq!(fixture.store.completions(run).await.expect("reads"), []);
    }
    // Its node finds out with what it writes next, and who stood behind it in line takes its turn.
    let append = fixture.append(executing, 1, vec![sleep(0)], Then::Continue).await;
    assert_eq!(append, Appended::Lost(Lost::Cancelled));
    assert_eq!(fixture.get(throttled[2].0).await.wake_at, Some(first));
}

pub(super) async fn an_event_from_before_a_run_does_not_cancel_it(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let older = fixture.cancelled_by(any(), false).await;
    let run_of = |event: &NewEvent| {
        let mut run = fixture.run(event.id, "shop/order");
        run.start_at = at(600);
        run.lease = Some(fixture.node);
        run.ends.cancel_on = vec![any()];
        run
    };
    // In one ingest: an event that cancels, one that starts, and one that does both.
    let before = event(&fixture, "shop/cancelled", "{}");
    let starts = event(&fixture, "shop/ordered", "{}");
    let both = event(&fixture, "shop/cancelled", "{}");
    let (first, second) = (run_of(&starts), run_of(&both));
    let ids = [first.id, second.id];
    let ingest = Ingest {
        events: vec![before, starts, both.clone()],
        runs: vec![first, second],
        generation: fixture.generation,
        now: at(600),
    };
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created, [Created::New { leased: true }; 2]);
    assert_eq!(fixture.status(older).await, Status::Cancelled);
    assert_eq!(fixture.status(ids[0]).await, Status::Cancelled, "by the last");
    let reason = fixture.get(ids[0]).await.reason.unwrap_or_default();
    assert!(reason.contains(&both.id.to_string()), "{reason}");
    assert_eq!(fixture.status(ids[1]).await, Status::Running, "not by its own");
    fixture.cancels("shop/cancelled", "{}").await;
    assert_eq!(fixture.status(ids[1]).await, Status::Cancelled);
}

pub(super) async fn what_may_end_a_run_stays_when_it_begins_anew(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (id, _) = fixture
        .create(at(10), |run| {
            run.lease = Some(fixture.node);
            run.ends.cancel_on = vec![any()];
            run.ends.deadlines = vec![deadline(Clock::Finish, 5_000)];
        })
        .await;
    let continued = text("1");
    fixture
        .append(id, 1, vec![sleep(0)], Then::ContinueWith { continued })
        .await;
    assert_eq!(fixture.get(id).await.state.phase, Some(Phase::Queued));
    let due = fixture.store.next_deadline().await.expect("reads");
    assert_eq!(due, Some(at(5_010)));
    fixture.cancels("shop/cancelled", "{}").await;
    assert_eq!(fixture.status(id).await, Status::Cancelled);
    assert_eq!(fixture.store.next_deadline().await.expect("reads"), None);
}

pub(super) async fn who_waits_for_a_run_is_told_that_an_event_has_cancelled_it(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let manifest =
        r#"{"schema":1,"functions":[{"id":"a","triggers":[{"event":"inngest/function.cancelled"}]}]}"#;
    let listens = NewVersion {
        manifest: text(manifest),
        ..version("audit", dormouse_core::Digest::of(b"audit"), true, at(0))
    };
    let stored = fixture.store.put_version(listens).await.expect("stores");
    fixture.generation = stored.generation;
    let parent = fixture.leased(at(5)).await;
    let invoked = fixture.event("dormouse/function.invoked");
    let mut child = fixture.run(invoked.id, "shop/child");
    (child.parent, child.depth) = (Some(parent), 1);
    child.ends.cancel_on = vec![any()];
    let id = child.id;
    let append = Append {
        ingest: Some(fixture.ingest(vec![invoked], vec![child], at(500))),
        waits: vec![NewWait {
            operation: 0,
            on: WaitOn::Child(ChildWait {
                child: id,
                cancels: true,
            }),
        }],
        ..fixture.append_of(parent, 1, vec![sleep(0)], suspend(None), at(500))
    };
    assert_eq!(
        fixture.store.append(append).await.expect("appends"),
        Appended::Done
    );
    fixture.cancels("shop/cancelled", "{}").await;
    assert_eq!(fixture.status(id).await, Status::Cancelled);
    let completions = fixture.store.completions(parent).await.expect("reads");
    let failures: Vec<&Failure> = completions
        .iter()
        .filter_map(|completion| completion.outcome.as_ref().err())
        .collect();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].code.as_deref(), Some("invoke-cancelled"));
    assert_eq!(fixture.get(parent).await.state.phase, Some(Phase::Queued));
    let untold = fixture.store.untold(10).await.expect("reads");
    let told: Vec<(RunId, Kinds)> = untold.iter().map(|untold| (untold.run, untold.kinds)).collect();
    assert_eq!(told, [(id, Kinds::of(Status::Cancelled))]);
}

fn deadline(clock: Clock, millis: u64) -> Deadline {
    let period = Duration::from_millis(millis);
    Deadline {
        clock,
        period,
        due: at(10).after(period),
    }
}

pub(super) async fn runs_that_take_too_long_are_cancelled(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    assert_eq!(fixture.store.next_deadline().await.expect("reads"), None);
    let nothing = fixture.store.expire(10, at(9_999)).await.expect("looks");
    assert_eq!(nothing, Expired::default());
    let both = [deadline(Clock::Start, 1_000), deadline(Clock::Finish, 2_000)];
    let mut create = Vec::new();
    for leased in [false, true, true] {
        let (id, _) = fixture
            .create(at(10), |run| {
                run.lease = leased.then_some(fixture.node);
                run.ends.deadlines = both.to_vec();
            })
            .await;
        create.push(id);
    }
    let [waits, executes, ends]: [RunId; 3] = create.try_into().expect("three");
    let output = text("1");
    fixture.append(ends, 1, vec![], Then::Complete { output }).await;
    assert_eq!(
        fixture.store.next_deadline().await.expect("reads"),
        Some(at(1_010))
    );
    let early = fixture.store.expire(10, at(1_009)).await.expect("looks");
    assert_eq!(early, Expired::default());
    let expired = fixture.store.expire(10, at(1_010)).await.expect("looks");
    assert_eq!((expired.looked, expired.cancelled), (2, vec![waits]));
    let run = fixture.get(waits).await;
    assert_eq!(
        (run.state.status, run.ended_at),
        (Status::Cancelled, Some(at(1_010)))
    );
    assert_eq!(
        run.reason.as_deref(),
        Some("cancelled: it did not begin within 1 s (timeouts.start)")
    );
    assert_eq!(fixture.status(executes).await, Status::Running);
    assert_eq!(
        fixture.store.next_deadline().await.expect("reads"),
        Some(at(2_010))
    );
    let expired = fixture.store.expire(1, at(2_500)).await.expect("looks");
    assert_eq!((expired.looked, expired.cancelled), (1, vec![executes]));
    let reason = fixture.get(executes).await.reason.unwrap_or_default();
    assert!(reason.contains("timeouts.finish"), "{reason}");
    assert_eq!(fixture.status(ends).await, Status::Completed);
    assert_eq!(fixture.store.next_deadline().await.expect("reads"), None);
    assert!(fixture.claim(10, at(3_000)).await.is_empty());
}

pub(super) async fn the_time_to_end_is_counted_from_the_beginning(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (id, _) = fixture
        .create(at(10), |run| {
            run.ends.deadlines = vec![deadline(Clock::Finish, 1_000)]
        })
        .await;
    // It has not begun, so it has all of its time.
    let looked = fixture.store.expire(10, at(1_500)).await.expect("looks");
    assert_eq!((looked.looked, looked.cancelled.len()), (1, 0));
    assert_eq!(
        fixture.store.next_deadline().await.expect("reads"),
        Some(at(2_500))
    );
    assert_eq!(fixture.claim(1, at(1_800)).await.len(), 1);
    let looked = fixture.store.expire(10, at(2_500)).await.expect("looks");
    assert_eq!((looked.looked, looked.cancelled.len()), (1, 0));
    assert_eq!(
        fixture.store.next_deadline().await.expect("reads"),
        Some(at(2_800))
    );
    // However many look at once, it is cancelled once.
    let (one, two) = tokio::join!(
        fixture.store.expire(10, at(2_800)),
        fixture.store.expire(10, at(2_800))
    );
    let mut cancelled = one.expect("looks").cancelled;
    cancelled.extend(two.expect("looks").cancelled);
    assert_eq!(cancelled, [id]);
    assert_eq!(fixture.status(id).await, Status::Cancelled);
}
