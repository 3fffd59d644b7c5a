//! Windows: which events start one run together, and when.

use std::sync::Arc;

use dormouse_core::flow::window::Kind;
use dormouse_core::flow::{Decision, Gathering, Limited, Rate};
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{EventId, Json, RunId};

use super::fixture::{Fixture, at, function, json, version};
use crate::command::Commanded;
use crate::contract::Store;
use crate::ingest::{Created, NewEvent, NewRun};
use crate::read::RunFilter;
use crate::registry::Changed;

const WAITS: State = State::live(Status::Scheduled, Phase::Limited);
const DEBOUNCE: Kind = Kind::Debounce {
    period_ms: 1_000,
    timeout_ms: Some(2_500),
};
const BATCH: Kind = Kind::Batch {
    max_size: 3,
    timeout_ms: 1_000,
};

/// An event and what it asks for, at a time.
fn asks(fixture: &Fixture, kind: Kind, key: &str, millis: i64) -> (NewEvent, NewRun) {
    let mut event = fixture.event("shop/ordered");
    event.received_at = at(millis);
    let mut run = fixture.run(event.id, "shop/order");
    let random = run.id.to_bytes()[6..].try_into().expect("ten bytes");
    run.id = RunId::from_parts(at(millis), random);
    run.start_at = at(millis);
    run.lease = Some(fixture.node);
    run.admission.gathering = Some(Gathering {
        kind,
        key: key.to_owned(),
    });
    (event, run)
}

/// Sends an event. Answers with its id, the run that it has a part in, and when that starts.
async fn send(fixture: &Fixture, kind: Kind, key: &str, millis: i64) -> (EventId, RunId, i64) {
    let (event, run) = asks(fixture, kind, key, millis);
    let id = event.id;
    let (run, until) = store(fixture, event, run, millis).await;
    (id, run, until)
}

async fn store(fixture: &Fixture, event: NewEvent, run: NewRun, millis: i64) -> (RunId, i64) {
    let ingest = fixture.ingest(vec![event], vec![run], at(millis));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    let [Created::Gathered { run, until }] = created[..] else {
        panic!("it starts a run with others: {created:?}");
    };
    (run, until.as_millis() - at(0).as_millis())
}

async fn begin(fixture: &Fixture, millis: i64) -> Vec<(RunId, EventId)> {
    let fired = fixture.fire(at(millis), 100, 100).await;
    fired.claimed.iter().map(|run| (run.id, run.event_id)).collect()
}

async fn batch(fixture: &Fixture, run: RunId) -> Vec<EventId> {
    let events = fixture.store.batch(run).await.expect("reads");
    events.iter().map(|event| event.id).collect()
}

pub(super) async fn a_debounce_starts_with_the_last_event(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, run, until) = send(&fixture, DEBOUNCE, "a", 0).await;
    assert_eq!(until, 1_000);
    let (other, elsewhere, _) = send(&fixture, DEBOUNCE, "b", 100).await;
    assert_ne!(run, elsewhere, "another key");
    let (second, joined, until) = send(&fixture, DEBOUNCE, "a", 900).await;
    assert_eq!((joined, until), (run, 1_900));
    let found = fixture.get(run).await;
    assert_eq!((found.state, found.event_id), (WAITS, second));
    assert_eq!((found.wake_at, found.queued_at), (Some(at(1_900)), at(1_900)));
    let reason = found.reason.expect("a reason");
    assert_eq!(
        reason,
        format!(
            "debounced by 1s for a: starts at {} with the last event, unless another comes before",
            at(1_900)
        )
    );
    assert_eq!(fixture.claim(10, at(950)).await, [], "it is not ready");
    assert_eq!(begin(&fixture, 1_100).await, [(elsewhere, other)]);
    let (third, joined, until) = send(&fixture, DEBOUNCE, "a", 1_899).await;
    assert_eq!((joined, until), (run, 2_500), "no longer than its timeout");
    assert_eq!(begin(&fixture, 2_499).await, []);
    // What comes when its time is over opens another, also when nobody has begun it yet.
    let (_, next, until) = send(&fixture, DEBOUNCE, "a", 2_500).await;
    assert_ne!(next, run);
    assert_eq!(until, 3_500);
    assert_eq!(
        begin(&fixture, 9_000).await,
        [(run, third), (next, fixture.get(next).await.event_id)]
    );
    assert_eq!(fixture.get(run).await.state.status, Status::Running);
    for (event, count) in [(first, 0), (second, 0), (third, 1)] {
        let filter = RunFilter {
            event: Some(event),
            limit: 10,
            ..RunFilter::default()
        };
        assert_eq!(fixture.store.runs(filter).await.expect("reads").len(), count);
        let decisions = fixture.store.decisions(event).await.expect("reads");
        assert_eq!(decisions.len(), 1);
        assert_eq!(
            (decisions[0].decision, decisions[0].run),
            (Decision::Debounced, Some(run))
        );
        assert_eq!(
            decisions[0].detail,
            format!("debounced by 1s for a: run {run} starts with the last event")
        );
    }
    assert_eq!(fixture.store.batch(run).await.expect("reads"), []);
    // Events that no run starts with are old some day, and go; that of the run stays.
    fixture.store.prune(at(5_000), 100).await.expect("prunes");
    for (event, there) in [(first, false), (second, false), (third, true)] {
        assert_eq!(fixture.store.event(event).await.expect("reads").is_some(), there);
    }
}

pub(super) async fn events_of_one_commit_share_a_window(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (mut events, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (event, run) = asks(&fixture, DEBOUNCE, "a", 0);
        events.push(event);
        runs.push(run);
    }
    for _ in 0..7 {
        let (event, run) = asks(&fixture, BATCH, "b", 0);
        events.push(event);
        runs.push(NewRun {
            function: function("shop/ship"),
            ..run
        });
    }
    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    let ingest = fixture.ingest(events, runs, at(0));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    let of: Vec<RunId> = created
        .iter()
        .map(|created| match created {
            Created::Gathered { run, .. } => *run,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(of[..3].iter().all(|run| *run == of[0]), "{of:?}");
    assert_eq!(fixture.get(of[0]).await.event_id, ids[2]);
    let (first, second, third) = (of[3], of[6], of[9]);
    assert_eq!(of[3..], [first, first, first, second, second, second, third]);
    assert_eq!(batch(&fixture, first).await, ids[3..6]);
    assert_eq!(batch(&fixture, second).await, ids[6..9]);
    assert_eq!(batch(&fixture, third).await, ids[9..]);
    // Full ones begin at once.
    let mut begun: Vec<RunId> = begin(&fixture, 0).await.into_iter().map(|(run, _)| run).collect();
    begun.sort_unstable();
    assert_eq!(begun, [first, second]);
    assert_eq!(
        begin(&fixture, 1_000).await.len(),
        2,
        "the debounce, and what is not full"
    );
}

pub(super) async fn an_event_that_comes_twice_puts_nothing_off(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let known = |(event, run): (NewEvent, NewRun)| {
        let event = NewEvent {
            external_id: Some("mine".to_owned()),
            ..event
        };
        let dedupe = Some("mine".to_owned());
        (event, NewRun { dedupe, ..run })
    };
    let (event, run) = known(asks(&fixture, DEBOUNCE, "a", 0));
    let (of, _) = self::store(&fixture, event, run, 0).await;
    let (_, joined, _) = send(&fixture, DEBOUNCE, "a", 500).await;
    assert_eq!(joined, of);
    let (event, run) = known(asks(&fixture, DEBOUNCE, "a", 900));
    let ingest = fixture.ingest(vec![event], vec![run], at(900));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created, [Created::Duplicate(of)]);
    assert_eq!(fixture.get(of).await.wake_at, Some(at(1_500)));
    // One that joins is known, too.
    let (event, run) = known(asks(&fixture, BATCH, "a", 1_000));
    let (event, run) = (
        NewEvent {
            external_id: Some("other".to_owned()),
            ..event
        },
        NewRun {
            dedupe: Some("other".to_owned()),
            ..run
        },
    );
    let again = (
        event.clone(),
        NewRun {
            id: asks(&fixture, BATCH, "a", 1_000).1.id,
            ..run.clone()
        },
    );
    let (of, _) = self::store(&fixture, event, run, 1_000).await;
    let ingest = fixture.ingest(vec![again.0], vec![again.1], at(1_001));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created, [Created::Duplicate(of)]);
    assert_eq!(batch(&fixture, of).await.len(), 1);
}

pub(super) async fn a_batch_starts_when_it_is_full_or_when_its_time_is_over(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, run, until) = send(&fixture, BATCH, "a", 0).await;
    assert_eq!(until, 1_000);
    let (second, joined, until) = send(&fixture, BATCH, "a", 400).await;
    assert_eq!(
        (joined, until),
        (run, 1_000),
        "its time is that of its first event"
    );
    let found = fixture.get(run).await;
    assert_eq!((found.state, found.event_id), (WAITS, first));
    assert_eq!(
        found.reason.expect("a reason"),
        format!(
            "a batch of 2 of 3 events for a: starts at {}, or when it is full",
            at(1_000)
        )
    );
    let (third, joined, until) = send(&fixture, BATCH, "a", 500).await;
    assert_eq!((joined, until), (run, 500));
    let (fourth, next, _) = send(&fixture, BATCH, "a", 500).await;
    assert_ne!(next, run, "a full batch takes no more");
    assert_eq!(begin(&fixture, 500).await, [(run, first)]);
    assert_eq!(batch(&fixture, run).await, [first, second, third]);
    assert_eq!(begin(&fixture, 1_499).await, []);
    assert_eq!(begin(&fixture, 1_500).await, [(next, fourth)]);
    assert_eq!(batch(&fixture, next).await, [fourth]);
    let events = fixture.store.batch(run).await.expect("reads");
    let payload = fixture
        .store
        .event(second)
        .await
        .expect("reads")
        .expect("there")
        .payload;
    assert_eq!(events[1].payload, payload);
    for event in [first, second, third] {
        let filter = RunFilter {
            event: Some(event),
            limit: 10,
            ..RunFilter::default()
        };
        let runs = fixture.store.runs(filter).await.expect("reads");
        assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [run]);
    }
    let decisions = fixture.store.decisions(second).await.expect("reads");
    assert_eq!(
        (decisions[0].decision, decisions[0].run),
        (Decision::Batched, Some(run))
    );
    assert_eq!(
        decisions[0].detail,
        format!("number 2 of the events that start run {run} for a")
    );

    // They are kept as long as the run, and go with it.
    fixture.store.prune(at(90_000), 100).await.expect("prunes");
    assert_eq!(batch(&fixture, run).await.len(), 3);
    for run in [run, next] {
        fixture.store.cancel(run, at(600)).await.expect("cancels");
    }
    assert_eq!(fixture.store.prune(at(90_000), 100).await.expect("done"), 2);
    assert_eq!(batch(&fixture, run).await, []);
    assert_eq!(fixture.store.event(second).await.expect("reads"), None);
}

pub(super) async fn a_batch_has_no_more_bytes_than_its_limit(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let big: Json = json(&format!(r#"{{"data":"{}"}}"#, "x".repeat(3 << 20)));
    let mut runs = Vec::new();
    for number in 0..4 {
        let (event, run) = asks(
            &fixture,
            Kind::Batch {
                max_size: 100,
                timeout_ms: 1_000,
            },
            "a",
            number,
        );
        let event = NewEvent {
            payload: big.clone(),
            ..event
        };
        runs.push(self::store(&fixture, event, run, number).await.0);
    }
    assert_eq!(runs[0], runs[2]);
    assert_ne!(runs[0], runs[3]);
    let found = fixture.get(runs[0]).await;
    assert_eq!(
        (found.state, found.wake_at),
        (WAITS, Some(at(3))),
        "what has no room starts it"
    );
    assert_eq!(batch(&fixture, runs[0]).await.len(), 3);
    assert_eq!(fixture.get(runs[3]).await.wake_at, Some(at(1_003)));
}

pub(super) async fn what_ends_or_begins_a_window_s_run_closes_it(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    for (number, kind) in [DEBOUNCE, BATCH].into_iter().enumerate() {
        let start = number as i64 * 10_000;
        let key = format!("{number}");
        let (_, cancelled, _) = send(&fixture, kind, &key, start).await;
        let commanded = fixture.store.cancel(cancelled, at(start + 1)).await;
        assert!(matches!(commanded, Ok(Commanded::Done(_))), "{commanded:?}");
        let (event, woken, _) = send(&fixture, kind, &key, start + 2).await;
        assert_ne!(woken, cancelled);
        let commanded = fixture.store.wake(woken, None, at(start + 3)).await;
        assert!(matches!(commanded, Ok(Commanded::Done(_))), "{commanded:?}");
        let claimed = fixture.claim(10, at(start + 3)).await;
        assert_eq!(
            claimed
                .iter()
                .map(|run| (run.id, run.event_id))
                .collect::<Vec<_>>(),
            [(woken, event)]
        );
        let (_, paused, until) = send(&fixture, kind, &key, start + 4).await;
        assert_ne!(paused, woken);
        fixture.store.pause(paused).await.expect("pauses");
        let (_, last, _) = send(&fixture, kind, &key, start + 5).await;
        assert_ne!(last, paused);
        // A person's pause is a person's: it takes no more events, and begins in its time.
        fixture
            .store
            .resume(paused, at(start + 6))
            .await
            .expect("resumes");
        let found = fixture.get(paused).await;
        assert_eq!(found.wake_at, Some(at(until)));
        assert_eq!(begin(&fixture, start + 2_000).await.len(), 2);
    }
}

pub(super) async fn a_paused_function_s_windows_go_on_and_their_runs_are_held(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let paused = State::live(Status::Scheduled, Phase::Paused);
    for (number, kind) in [DEBOUNCE, BATCH].into_iter().enumerate() {
        let start = number as i64 * 10_000;
        let (_, before, _) = send(&fixture, kind, "a", start).await;
        let changed = fixture
            .store
            .pause_function(&function("shop/order"), at(start))
            .await;
        let Ok(Changed::Done(generation)) = changed else {
            panic!("{changed:?}");
        };
        fixture.generation = generation;
        let held = async |millis: i64| {
            let (event, run) = asks(&fixture, kind, "a", millis);
            let id = event.id;
            let run = NewRun { held: true, ..run };
            let (run, until) = self::store(&fixture, event, run, millis).await;
            (id, run, until)
        };
        let (last, joined, until) = held(start + 100).await;
        assert_eq!(joined, before);
        let found = fixture.get(before).await;
        assert_eq!(
            (found.state, found.wake_at, found.queued_at),
            (paused, None, at(until))
        );
        assert_eq!(begin(&fixture, start + 1_500).await, []);
        // Its time is over, paused or not.
        let (_, next, until) = held(start + 2_000).await;
        assert_ne!(next, before);
        assert_eq!(fixture.get(next).await.state, paused);
        assert_eq!(held(start + 2_100).await.1, next);
        let changed = fixture.store.resume_function(&function("shop/order")).await;
        let Ok(Changed::Done(generation)) = changed else {
            panic!("{changed:?}");
        };
        fixture.generation = generation;
        assert_eq!(
            fixture
                .store
                .release_held(10, at(start + 2_200))
                .await
                .expect("done"),
            2
        );
        let claimed = fixture.claim(10, at(start + 2_200)).await;
        assert_eq!(claimed.iter().map(|run| run.id).collect::<Vec<_>>(), [before]);
        if kind == DEBOUNCE {
            assert_eq!(claimed[0].event_id, last);
        }
        // The other one's time has not come, and it is still open.
        let (_, joined, _) = send(&fixture, kind, "a", start + 2_300).await;
        assert_eq!(joined, next);
        assert!(until > start + 2_300);
        begin(&fixture, start + 9_000).await;
    }
}

pub(super) async fn a_window_s_run_takes_its_turn_in_a_throttle(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let throttled = async |kind: Kind, key: &str, millis: i64| {
        let (event, mut run) = asks(&fixture, kind, key, millis);
        run.admission.throttle = Some(Limited {
            rate: Rate {
                limit: 1,
                period_ms: 10_000,
                burst: 1,
            },
            key: String::new(),
        });
        self::store(&fixture, event, run, millis).await.0
    };
    let first = throttled(DEBOUNCE, "a", 0).await;
    let second = throttled(DEBOUNCE, "b", 0).await;
    let third = throttled(BATCH, "b", 0).await;
    let fired = fixture.fire(at(1_000), 100, 100).await;
    assert_eq!(fired.claimed.len(), 1);
    let begun = fired.claimed[0].id;
    let waiting: Vec<RunId> = [first, second, third]
        .into_iter()
        .filter(|run| *run != begun)
        .collect();
    let mut turns = Vec::new();
    for run in &waiting {
        turns.push(fixture.get(*run).await.wake_at.expect("a turn"));
    }
    turns.sort_unstable();
    assert_eq!(turns, [at(11_000), at(21_000)]);
    // Those that wait for their turns take no more events.
    for (kind, key) in [(DEBOUNCE, "b"), (BATCH, "b")] {
        let next = throttled(kind, key, 1_000).await;
        assert!(![first, second, third].contains(&next));
    }
}

pub(super) async fn a_window_s_run_is_of_the_version_that_its_last_event_met(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let old = fixture.digest;
    let (_, run, _) = send(&fixture, DEBOUNCE, "a", 0).await;
    let (_, full, _) = send(&fixture, BATCH, "b", 0).await;
    let new = dormouse_core::Digest::of(b"shop, second version");
    let stored = fixture.store.put_version(version("shop", new, true, at(1))).await;
    fixture.generation = stored.expect("stores a version").generation;
    fixture.digest = new;
    let deleted = fixture.store.delete_version("shop", old).await;
    assert!(matches!(deleted, Ok(Changed::Needed(_))), "{deleted:?}");
    let (last, joined, _) = send(&fixture, DEBOUNCE, "a", 10).await;
    assert_eq!(joined, run);
    let found = fixture.get(run).await;
    assert_eq!((found.version, found.event_id), (new, last));
    assert_eq!(fixture.get(full).await.version, old, "nobody has joined it since");
    let (_, joined, _) = send(&fixture, BATCH, "b", 20).await;
    assert_eq!(joined, full);
    let deleted = fixture.store.delete_version("shop", old).await;
    assert!(matches!(deleted, Ok(Changed::Done(_))), "{deleted:?}");
}

pub(super) async fn a_rerun_has_the_events_of_the_run(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, run, _) = send(&fixture, BATCH, "a", 0).await;
    let (second, _, _) = send(&fixture, BATCH, "a", 1).await;
    begin(&fixture, 1_000).await;
    fixture.store.cancel(run, at(1_001)).await.expect("cancels");
    let mut again = fixture.run(first, "shop/order");
    again.rerun_of = Some(run);
    let id = again.id;
    let ingest = fixture.ingest(Vec::new(), vec![again], at(1_002));
    fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(batch(&fixture, id).await, [first, second]);
    assert_eq!(
        fixture.store.prune(at(90_000), 100).await.expect("done"),
        1,
        "the first run goes"
    );
    assert_eq!(batch(&fixture, id).await, [first, second], "what both have stays");
    // One for another event has that alone.
    let event = fixture.event("shop/ordered");
    let mut edited = fixture.run(event.id, "shop/order");
    edited.rerun_of = Some(id);
    let id = edited.id;
    let ingest = fixture.ingest(vec![event], vec![edited], at(1_003));
    fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(batch(&fixture, id).await, []);
}
