//! Pausing and resuming, of runs and of functions.

use std::sync::Arc;

use dormouse_core::run::{Phase, RunError, State, Status};
use dormouse_core::{Json, RunId};

use super::fixture::{Fixture, at, delivered, function, json, node, sleep, step, suspend};
use crate::command::Commanded;
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{Appended, Lost, Then};
use crate::ingest::Created;
use crate::registry::Changed;

const PAUSED: State = State::live(Status::Running, Phase::Paused);
const QUEUED: State = State::live(Status::Running, Phase::Queued);
const EXECUTING: State = State::live(Status::Running, Phase::Executing);

async fn pause(fixture: &Fixture, run: RunId) -> Commanded {
    fixture.store.pause(run).await.expect("answers")
}

async fn resume(fixture: &Fixture, run: RunId) -> Commanded {
    fixture.store.resume(run, at(70)).await.expect("answers")
}

pub(super) async fn a_run_is_paused_and_resumed(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let ready = fixture.ready(at(0)).await;
    let sleeping = fixture.leased(at(0)).await;
    fixture
        .append(sleeping, 1, vec![sleep(0)], suspend(Some(at(1000))))
        .await;
    for id in [ready, sleeping] {
        let Commanded::Done(state) = pause(&fixture, id).await else {
            panic!("run {id} is not paused");
        };
        assert_eq!(state.phase, Some(Phase::Paused));
        assert_eq!(pause(&fixture, id).await, Commanded::Done(state), "once more");
        let run = fixture.get(id).await;
        assert_eq!((run.state, run.owner, run.wake_at), (state, None, None));
        assert!(run.reason.expect("a reason").contains("resume"));
        assert_eq!(
            fixture.store.wake(id, None, at(61)).await.expect("answers"),
            Commanded::Refused(state)
        );
    }
    assert_eq!(fixture.claim(10, at(2000)).await, []);
    assert_eq!(fixture.fire(at(2000), 10, 10).await.fired, 0);
    assert_eq!(resume(&fixture, ready).await, Commanded::Done(State::NEW));
    assert_eq!(resume(&fixture, sleeping).await, Commanded::Done(QUEUED));
    let claimed: Vec<RunId> = fixture
        .claim(10, at(2001))
        .await
        .iter()
        .map(|run| run.id)
        .collect();
    assert_eq!(
        claimed,
        [ready, sleeping],
        "what was due is found by who comes back to it"
    );
    for id in claimed {
        assert_eq!(resume(&fixture, id).await, Commanded::Refused(EXECUTING));
    }
    let blocked = fixture.leased(at(0)).await;
    let error = RunError::new("diverged", "entry 0");
    fixture.append(blocked, 1, vec![], Then::Block { error }).await;
    assert!(matches!(pause(&fixture, blocked).await, Commanded::Refused(_)));
    fixture.store.cancel(ready, at(80)).await.expect("cancels");
    assert!(matches!(pause(&fixture, ready).await, Commanded::Refused(_)));
    assert!(matches!(resume(&fixture, ready).await, Commanded::Refused(_)));
    let unknown = RunId::from_parts(at(0), [5; 10]);
    assert_eq!(pause(&fixture, unknown).await, Commanded::NotFound);
    assert_eq!(resume(&fixture, unknown).await, Commanded::NotFound);
}

pub(super) async fn an_executing_run_is_paused_with_its_next_entry(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let again = Then::ContinueWith { continued: json("1") };
    for then in [
        Then::Continue,
        suspend(Some(at(1000))),
        Then::Release { host_trap: false },
        again,
    ] {
        let id = fixture.leased(at(0)).await;
        assert_eq!(pause(&fixture, id).await, Commanded::Done(EXECUTING));
        let run = fixture.get(id).await;
        assert!(run.owner.is_some() && run.reason.expect("a reason").contains("will be paused"));
        let appended = fixture.append(id, 1, vec![step(0, "1")], then.clone()).await;
        assert_eq!(appended, Appended::Paused, "{then:?}");
        let run = fixture.get(id).await;
        assert_eq!(
            (run.state, run.owner, run.wake_at),
            (PAUSED, None, None),
            "{then:?}"
        );
        assert_eq!(run.journal_next, 1, "what was recorded is kept");
        let lost = fixture.append(id, 1, vec![step(1, "1")], Then::Continue).await;
        assert_eq!(lost, Appended::Lost(Lost::TakenOver));
        assert_eq!(fixture.claim(10, at(2000)).await, []);
        assert_eq!(resume(&fixture, id).await, Commanded::Done(QUEUED));
        let claimed = fixture.claim(10, at(2000)).await;
        assert_eq!((claimed[0].id, claimed[0].epoch), (id, 2));
        fixture.store.cancel(id, at(2001)).await.expect("cancels");
    }
    // What ends with what it does now, ends.
    let id = fixture.leased(at(0)).await;
    pause(&fixture, id).await;
    let done = Then::Complete { output: json("1") };
    assert_eq!(fixture.append(id, 1, vec![], done).await, Appended::Done);
    assert_eq!(fixture.get(id).await.state.status, Status::Completed);
    assert!(matches!(resume(&fixture, id).await, Commanded::Refused(_)));
}

pub(super) async fn what_comes_while_a_run_is_paused_is_kept(store: Arc<dyn Store>) {
    use crate::wait::{NewWait, WaitOn};
    use dormouse_core::wait::SignalWait;
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let mut append = fixture.append_of(id, 1, vec![sleep(0)], suspend(None), at(50));
    append.waits = vec![NewWait {
        operation: 0,
        on: WaitOn::Signal(SignalWait {
            signal: "go".to_owned(),
            replace: false,
        }),
    }];
    assert_eq!(
        fixture.store.append(append).await.expect("appends"),
        Appended::Done
    );
    pause(&fixture, id).await;
    let signalled = fixture
        .store
        .signal("go", json("7"), at(65))
        .await
        .expect("answers");
    assert_eq!(signalled, Some(id));
    assert_eq!(fixture.get(id).await.state, PAUSED, "nothing is delivered");
    assert_eq!(fixture.claim(10, at(66)).await, []);
    resume(&fixture, id).await;
    assert_eq!(fixture.claim(10, at(71)).await[0].id, id);
    let kept = fixture.store.completions(id).await.expect("reads");
    assert_eq!(
        (kept[0].at, &kept[0].outcome),
        (at(65), &Ok::<Json, _>(json("7")))
    );
    assert_eq!(
        fixture.append(id, 2, vec![delivered(1, 0)], Then::Continue).await,
        Appended::Done
    );
}

pub(super) async fn a_pause_can_be_taken_back_and_outlives_the_node(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    pause(&fixture, id).await;
    assert_eq!(resume(&fixture, id).await, Commanded::Done(EXECUTING));
    assert_eq!(fixture.get(id).await.reason, None);
    assert_eq!(
        fixture.append(id, 1, vec![step(0, "1")], Then::Continue).await,
        Appended::Done
    );
    pause(&fixture, id).await;
    fixture.store.leave(fixture.node, at(80)).await.expect("leaves");
    assert_eq!(fixture.store.take_over(10, at(81)).await.expect("takes over"), 1);
    let run = fixture.get(id).await;
    assert_eq!((run.state, run.owner, run.epoch), (PAUSED, None, 2));
    fixture.store.join(node(1), at(82)).await.expect("joins");
    assert_eq!(fixture.claim(10, at(83)).await, []);
    resume(&fixture, id).await;
    assert_eq!(fixture.claim(10, at(84)).await[0].id, id);
}

pub(super) async fn a_delayed_run_that_is_resumed_keeps_its_time(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (id, _) = fixture.create(at(0), |run| run.start_at = at(5000)).await;
    pause(&fixture, id).await;
    assert_eq!(fixture.fire(at(6000), 10, 10).await.fired, 0);
    let sleeping = State::live(Status::Scheduled, Phase::Sleeping);
    assert_eq!(resume(&fixture, id).await, Commanded::Done(sleeping));
    assert_eq!(fixture.get(id).await.wake_at, Some(at(5000)));
    assert_eq!(fixture.claim(10, at(71)).await, []);
    assert_eq!(fixture.fire(at(5000), 10, 10).await.claimed[0].id, id);
    // Resumed when its time has come: it is ready.
    let (late, _) = fixture.create(at(0), |run| run.start_at = at(5000)).await;
    pause(&fixture, late).await;
    let resumed = fixture.store.resume(late, at(5000)).await.expect("answers");
    assert_eq!(resumed, Commanded::Done(State::NEW));
}

pub(super) async fn a_paused_function_holds_its_new_runs(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let name = function("shop/order");
    let before = fixture.ready(at(0)).await;
    let paused = fixture.store.pause_function(&name, at(1)).await.expect("answers");
    let Changed::Done(generation) = paused else {
        panic!("{paused:?}");
    };
    assert_eq!(generation, fixture.generation + 1);
    assert_eq!(
        fixture.store.pause_function(&name, at(2)).await.expect("answers"),
        Changed::Unchanged(generation)
    );
    let registry = fixture.store.registry().await.expect("reads");
    assert_eq!(
        (registry.generation, registry.paused),
        (generation, vec![name.clone()])
    );
    // Whoever has not seen it is told to look again.
    let event = fixture.event("shop/ordered");
    let run = fixture.run(event.id, "shop/order");
    let stale = fixture.ingest(vec![event], vec![run], at(3));
    assert!(matches!(
        fixture.store.ingest(stale).await,
        Err(Error::StaleRegistry)
    ));
    fixture.generation = generation;
    let mut held = Vec::new();
    for number in 0..5 {
        let change = |run: &mut crate::ingest::NewRun| {
            run.held = true;
            run.lease = Some(fixture.node);
            run.start_at = if number == 4 { at(9000) } else { at(4) };
        };
        let (id, created) = fixture.create(at(4), change).await;
        assert_eq!(created, Created::New { leased: false });
        let run = fixture.get(id).await;
        assert_eq!(run.state, State::live(Status::Scheduled, Phase::Paused));
        assert!(run.reason.expect("a reason").contains("shop/order is paused"));
        held.push(id);
    }
    assert_eq!(
        fixture.claim(10, at(5)).await[0].id,
        before,
        "runs from before go on"
    );
    assert_eq!(fixture.store.release_held(10, at(6)).await.expect("answers"), 0);
    // One is cancelled, one let on, one paused for itself.
    fixture.store.cancel(held[0], at(6)).await.expect("cancels");
    assert_eq!(resume(&fixture, held[1]).await, Commanded::Done(State::NEW));
    pause(&fixture, held[2]).await;
    assert_eq!(fixture.claim(10, at(71)).await[0].id, held[1]);
    let resumed = fixture.store.resume_function(&name).await.expect("answers");
    assert_eq!(resumed, Changed::Done(generation + 1));
    assert_eq!(
        fixture.store.resume_function(&name).await.expect("answers"),
        Changed::Unchanged(generation + 1)
    );
    assert_eq!(fixture.store.registry().await.expect("reads").paused, []);
    let mut released = 0;
    loop {
        match fixture.store.release_held(1, at(80)).await.expect("answers") {
            0 => break,
            count => released += count,
        }
    }
    assert_eq!(released, 2);
    assert_eq!(fixture.claim(10, at(81)).await[0].id, held[3]);
    assert_eq!(fixture.claim(10, at(81)).await, []);
    let delayed = fixture.get(held[4]).await;
    assert_eq!(delayed.state, State::live(Status::Scheduled, Phase::Sleeping));
    assert_eq!(fixture.fire(at(9000), 10, 10).await.claimed[0].id, held[4]);
    assert_eq!(fixture.get(held[2]).await.state.phase, Some(Phase::Paused));
}
