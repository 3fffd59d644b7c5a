//! Cancel, wake, unblock.

use std::sync::Arc;

use dormouse_core::run::{Phase, RunError, State, Status};
use dormouse_core::{Digest, Json, RunId};

use super::fixture::{Fixture, at, delivered, function, sleep, step, suspend, version};
use crate::command::{Commanded, unreadable};
use crate::contract::Store;
use crate::execute::{Appended, Then};
use crate::ingest::NewRun;

pub(super) async fn cancel_is_final(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let ready = fixture.ready(at(0)).await;
    let executing = fixture.leased(at(0)).await;
    let sleeping = fixture.leased(at(0)).await;
    fixture
        .append(sleeping, 1, vec![sleep(0), sleep(1)], Then::Continue)
        .await;
    fixture.store.wake(sleeping, Some(1), at(1)).await.expect("wakes");
    fixture
        .append(sleeping, 1, vec![delivered(2, 1)], suspend(Some(at(100))))
        .await;
    let ended = State {
        status: Status::Cancelled,
        phase: None,
    };
    for id in [ready, executing, sleeping] {
        let epoch = fixture.get(id).await.epoch;
        assert_eq!(
            fixture.store.cancel(id, at(50)).await.expect("cancels"),
            Commanded::Done(ended)
        );
        let run = fixture.get(id).await;
        assert_eq!((run.state, run.epoch, run.owner), (ended, epoch + 1, None));
        assert_eq!(
            (run.ended_at, run.wake_at, run.reason),
            (Some(at(50)), None, None)
        );
        assert_eq!(
            fixture.store.cancel(id, at(51)).await.expect("answers"),
            Commanded::Refused(ended)
        );
        assert_eq!(
            fixture.store.wake(id, None, at(51)).await.expect("answers"),
            Commanded::Refused(ended)
        );
    }
    assert_eq!(fixture.claim(10, at(200)).await, []);
    assert_eq!(fixture.fire(at(200), 10, 10).await.fired, 0);
    assert_eq!(
        fixture.store.journal(sleeping, 0).await.expect("reads").len(),
        3,
        "the journal stays readable"
    );
    let unknown = RunId::from_parts(at(0), [5; 10]);
    assert_eq!(
        fixture.store.cancel(unknown, at(50)).await.expect("answers"),
        Commanded::NotFound
    );
    assert_eq!(
        fixture.store.wake(unknown, None, at(50)).await.expect("answers"),
        Commanded::NotFound
    );
}

pub(super) async fn wake_completes_an_open_operation_once(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    fixture
        .append(id, 1, vec![sleep(0)], suspend(Some(at(9000))))
        .await;
    let queued = State::live(Status::Running, Phase::Queued);
    for time in [60, 61] {
        let woken = fixture.store.wake(id, Some(0), at(time)).await.expect("wakes");
        assert_eq!(woken, Commanded::Done(queued));
    }
    let completions = fixture.store.completions(id).await.expect("reads");
    assert_eq!(completions.len(), 1);
    assert_eq!((completions[0].operation, completions[0].at), (0, at(60)));
    assert_eq!(completions[0].outcome, Ok(Json::null()));
    assert_eq!(fixture.claim(10, at(70)).await[0].id, id);
    assert_eq!(fixture.fire(at(9000), 10, 10).await.fired, 0, "its timer is gone");
    assert_eq!(
        fixture.append(id, 2, vec![delivered(1, 0)], Then::Continue).await,
        Appended::Done
    );
    assert_eq!(fixture.store.completions(id).await.expect("reads"), []);
}

pub(super) async fn wake_of_what_is_not_open_is_refused(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    fixture
        .append(
            id,
            1,
            vec![sleep(0), step(1, "1"), delivered(2, 0), sleep(3)],
            suspend(Some(at(9000))),
        )
        .await;
    let sleeping = State::live(Status::Running, Phase::Sleeping);
    // Delivered; a step; a delivery; not there.
    for operation in [0, 1, 2, 4] {
        let woken = fixture
            .store
            .wake(id, Some(operation), at(60))
            .await
            .expect("answers");
        assert_eq!(woken, Commanded::Refused(sleeping), "operation {operation}");
    }
    assert_eq!(fixture.store.completions(id).await.expect("reads"), []);
    let awake = fixture.ready(at(0)).await;
    assert_eq!(
        fixture.store.wake(awake, None, at(1)).await.expect("answers"),
        Commanded::Refused(State::NEW)
    );
}

pub(super) async fn wake_begins_a_delayed_run_now(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (id, _) = fixture.create(at(0), |run| run.start_at = at(5000)).await;
    assert_eq!(
        fixture.store.wake(id, None, at(60)).await.expect("wakes"),
        Commanded::Done(State::NEW)
    );
    let claimed = fixture.claim(10, at(61)).await;
    assert_eq!((claimed[0].id, claimed[0].queued_at), (id, at(60)));
    assert_eq!(fixture.fire(at(9000), 10, 10).await.fired, 0);
}

pub(super) async fn unblock_is_for_one_module(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let digest = Digest::of(b"stock");
    let stored = fixture
        .store
        .put_version(version("stock", digest, true, at(1)))
        .await
        .expect("stores");
    fixture.generation = stored.generation;
    let mut blocked = Vec::new();
    for module in ["shop", "stock", "shop"] {
        let change = |run: &mut NewRun| {
            run.lease = Some(fixture.node);
            run.function = function(&format!("{module}/order"));
            if module == "stock" {
                run.version = digest;
            }
        };
        let (id, _) = fixture.create(at(0), change).await;
        let error = RunError::new("diverged", "entry 0");
        assert_eq!(
            fixture.append(id, 1, vec![], Then::Block { error }).await,
            Appended::Done
        );
        blocked.push(id);
    }
    assert_eq!(fixture.store.unblock("shop", at(20)).await.expect("unblocks"), 2);
    assert_eq!(fixture.store.unblock("shop", at(20)).await.expect("unblocks"), 0);
    assert_eq!(fixture.get(blocked[1]).await.state.phase, Some(Phase::Blocked));
    assert_eq!(fixture.claim(10, at(21)).await.len(), 2);
}

pub(super) async fn what_another_release_could_not_read_is_tried_again(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut blocked = Vec::new();
    for error in [
        unreadable("entry 7", "0.2.0"),
        unreadable("entry 7", "0.3.0"),
        RunError::new("diverged", "entry 7"),
    ] {
        let id = fixture.leased(at(0)).await;
        let block = Then::Block { error };
        assert_eq!(fixture.append(id, 1, vec![], block).await, Appended::Done);
        blocked.push(id);
    }
    let retry = async |release: &str, limit| {
        let retried = fixture.store.retry_unreadable(release, limit, at(20)).await;
        retried.expect("tries again")
    };
    assert_eq!(retry("0.2.0", 9).await, 1, "not what it could not read itself");
    assert_eq!(retry("0.2.0", 9).await, 0);
    let claimed = fixture.claim(9, at(21)).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].id, blocked[1]);
    // By the one that has it now, neither.
    let block = Then::Block {
        error: unreadable("entry 7", "0.4.0"),
    };
    assert_eq!(fixture.append(blocked[1], 2, vec![], block).await, Appended::Done);
    assert_eq!(retry("0.5.0", 1).await, 1, "no more than the limit");
    assert_eq!(retry("0.5.0", 1).await, 1);
    assert_eq!(retry("0.5.0", 1).await, 0);
    let diverged = fixture.get(blocked[2]).await;
    assert_eq!(diverged.state.phase, Some(Phase::Blocked));
}
