//! Claims, timers, takeover, nodes.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{Digest, RunId};

use super::fixture::{Fixture, at, node, sleep, step, suspend};
use crate::command::Commanded;
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{Appended, LogLine, Lost, Then};
use crate::schedule::{Claim, ClaimedRun, FireTimers, Glance, crash_loop};

fn ids(claimed: &[ClaimedRun]) -> Vec<RunId> {
    claimed.iter().map(|run| run.id).collect()
}

pub(super) async fn claims_go_to_the_oldest(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let late = fixture.ready(at(30)).await;
    let early = fixture.ready(at(10)).await;
    let middle = fixture.ready(at(20)).await;
    let claimed = fixture.claim(2, at(40)).await;
    assert_eq!(ids(&claimed), [early, middle]);
    assert_eq!(
        (claimed[0].epoch, claimed[0].seed, claimed[0].config_revision),
        (1, [7; 32], 1)
    );
    assert_eq!(
        (claimed[0].version, claimed[0].continued.clone()),
        (fixture.digest, None)
    );
    let event = fixture
        .store
        .event(claimed[0].event_id)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(claimed[0].event, event.payload);
    assert_eq!(ids(&fixture.claim(10, at(41)).await), [late]);
    assert_eq!(fixture.claim(10, at(42)).await, []);
    assert_eq!(fixture.get(late).await.started_at, Some(at(41)));
}

/// A node takes runs of the versions it has loaded, and is told which others there are.
pub(super) async fn a_node_claims_only_what_it_has_loaded(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let other = Digest::of(b"another version");
    let runs = [fixture.ready(at(10)).await, fixture.ready(at(20)).await];
    let claim = |versions: &[Digest], limit| Claim {
        node: fixture.node,
        limit,
        versions: Some(versions.into()),
        now: at(30),
    };
    for nothing in [&[][..], &[other][..]] {
        let batch = fixture.store.claim(claim(nothing, 10)).await.expect("claims");
        assert_eq!((batch.claimed, batch.blocked), (vec![], vec![]));
        assert_eq!(batch.lacking, [fixture.digest]);
    }
    // As many as were asked for: what else there may be is for the next time.
    let batch = fixture
        .store
        .claim(claim(&[other, fixture.digest], 1))
        .await
        .expect("claims");
    assert_eq!((ids(&batch.claimed), batch.lacking), (vec![runs[0]], vec![]));
    let batch = fixture
        .store
        .claim(claim(&[fixture.digest], 10))
        .await
        .expect("claims");
    assert_eq!((ids(&batch.claimed), batch.lacking), (vec![runs[1]], vec![]));

    let due = fixture.leased(at(31)).await;
    let suspended = fixture
        .append(due, 1, vec![sleep(0)], suspend(Some(at(40))))
        .await;
    assert_eq!(suspended, Appended::Done);
    let fire = FireTimers {
        node: fixture.node,
        now: at(50),
        limit: 10,
        claim_limit: 10,
        versions: Some([other].into()),
    };
    let fired = fixture.store.fire_timers(fire).await.expect("fires");
    assert_eq!((fired.claimed, fired.readied, fired.fired), (vec![], 1, 1));
    let batch = fixture.store.claim(claim(&[other], 10)).await.expect("claims");
    assert_eq!((batch.claimed, batch.lacking), (vec![], vec![fixture.digest]));
    assert_eq!(ids(&fixture.claim(10, at(51)).await), [due]);
}

pub(super) async fn timers_fire_in_order_and_within_limits(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for number in 0..300 {
        let id = fixture.leased(at(0)).await;
        // Later runs are due earlier.
        assert_eq!(
            fixture
                .append(id, 1, vec![sleep(0)], suspend(Some(at(1000 - number))))
                .await,
            Appended::Done
        );
        runs.push(id);
    }
    runs.reverse();
    let fired = fixture.fire(at(1000), 200, 150).await;
    assert_eq!((fired.fired, fired.readied), (200, 50));
    assert_eq!(ids(&fired.claimed), runs[..150]);
    assert!(fired.claimed.iter().all(|run| run.epoch == 2));
    let fired = fixture.fire(at(1001), 200, 0).await;
    assert_eq!((fired.fired, fired.readied, fired.claimed.len()), (100, 100, 0));
    let claimed = fixture.claim(500, at(1002)).await;
    assert_eq!(claimed.len(), 150);
    // The 50 became ready before the 100.
    assert!(ids(&claimed)[..50].iter().all(|id| runs[150..200].contains(id)));
}

pub(super) async fn upcoming_timers_are_the_soonest(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    for due in [900, 700, 800, 700] {
        let id = fixture.leased(at(0)).await;
        fixture
            .append(id, 1, vec![sleep(0)], suspend(Some(at(due))))
            .await;
    }
    let upcoming = fixture.store.upcoming_timers(at(900), 10).await.expect("reads");
    assert_eq!(upcoming, [at(700), at(700), at(800)]);
    assert_eq!(
        fixture.store.upcoming_timers(at(9000), 1).await.expect("reads"),
        [at(700)]
    );
}

/// Lets a run's node die so often that the next claim blocks it.
async fn crash_often(fixture: &Fixture, id: RunId) {
    for round in 0..5 {
        assert_eq!(
            ids(&fixture.claim(10, at(10 + round)).await),
            [id],
            "claim {round}"
        );
        fixture.store.leave(fixture.node, at(20)).await.expect("leaves");
        assert_eq!(fixture.store.take_over(10, at(20)).await.expect("takes over"), 1);
        fixture.store.join(node(1), at(20)).await.expect("joins");
    }
}

pub(super) async fn a_crash_loop_is_blocked(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.ready(at(0)).await;
    crash_often(&fixture, id).await;
    let claim = Claim {
        node: fixture.node,
        limit: 10,
        versions: None,
        now: at(30),
    };
    let batch = fixture.store.claim(claim).await.expect("claims");
    assert_eq!((batch.claimed, batch.blocked), (vec![], vec![id]));
    let run = fixture.get(id).await;
    assert_eq!((run.state.phase, run.owner), (Some(Phase::Blocked), None));
    assert_eq!(
        (run.reason, run.error),
        (Some(crash_loop().message), Some(crash_loop()))
    );
    assert!(matches!(
        fixture.store.wake(id, None, at(31)).await.expect("wakes"),
        Commanded::Done(_)
    ));
    assert_eq!(
        ids(&fixture.claim(10, at(32)).await),
        [id],
        "a person may try again"
    );
}

pub(super) async fn handing_a_run_back_is_no_crash(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.ready(at(0)).await;
    for round in 0..12 {
        let claimed = fixture.claim(10, at(10 + round)).await;
        assert_eq!(ids(&claimed), [id]);
        let (epoch, next) = (claimed[0].epoch, claimed[0].journal_next);
        let (records, then) = match round % 3 {
            0 => (vec![], Then::Release { host_trap: false }),
            1 => (vec![step(next, "1")], Then::Release { host_trap: true }),
            _ => (vec![], suspend(Some(at(0)))),
        };
        assert_eq!(fixture.append(id, epoch, records, then).await, Appended::Done);
        if round % 3 == 2 {
            assert_eq!(fixture.fire(at(600), 10, 0).await.readied, 1);
        }
    }
    // Host traps count until the next entry.
    for traps in [1, 2, 3] {
        let claimed = fixture.claim(10, at(700)).await;
        assert_eq!(claimed[0].host_traps, traps);
        fixture
            .append(id, claimed[0].epoch, vec![], Then::Release { host_trap: true })
            .await;
    }
}

pub(super) async fn runs_of_nodes_that_left_are_taken_over(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(fixture.leased(at(0)).await);
    }
    assert_eq!(
        fixture
            .append(runs[0], 1, vec![step(0, "1")], Then::Continue)
            .await,
        Appended::Done
    );
    assert_eq!(
        fixture.store.take_over(10, at(5)).await.expect("takes over"),
        0,
        "its node lives"
    );
    fixture.store.leave(fixture.node, at(6)).await.expect("leaves");
    assert_eq!(fixture.store.take_over(3, at(7)).await.expect("takes over"), 3);
    assert_eq!(fixture.store.take_over(3, at(7)).await.expect("takes over"), 2);
    assert_eq!(fixture.store.take_over(3, at(7)).await.expect("takes over"), 0);
    let lost = fixture
        .append(runs[0], 1, vec![step(1, "1")], Then::Continue)
        .await;
    assert_eq!(lost, Appended::Lost(Lost::TakenOver));
    fixture.store.join(node(2), at(8)).await.expect("joins");
    let claim = Claim {
        node: node(2).incarnation,
        limit: 10,
        versions: None,
        now: at(9),
    };
    let claimed = fixture.store.claim(claim).await.expect("claims").claimed;
    assert_eq!(ids(&claimed), runs);
    assert!(
        claimed.iter().all(|run| run.epoch == 3),
        "taken over, then claimed"
    );
    assert_eq!(claimed[0].journal_next, 1);
}

pub(super) async fn a_node_that_left_gets_nothing(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.ready(at(0)).await;
    fixture.store.leave(fixture.node, at(78)).await.expect("leaves");
    assert_eq!(fixture.store.nodes(at(78)).await.expect("reads"), []);
    let claim = Claim {
        node: fixture.node,
        limit: 10,
        versions: None,
        now: at(79),
    };
    assert!(matches!(
        fixture.store.claim(claim).await,
        Err(Error::DeclaredDead)
    ));
    let fire = FireTimers {
        node: fixture.node,
        now: at(79),
        limit: 10,
        claim_limit: 10,
        versions: None,
    };
    assert!(matches!(
        fixture.store.fire_timers(fire).await,
        Err(Error::DeclaredDead)
    ));
    assert!(matches!(
        fixture.store.heartbeat(fixture.node, at(79)).await,
        Err(Error::DeclaredDead)
    ));
    assert_eq!(fixture.get(id).await.state.phase, Some(Phase::Queued));
}

/// The times are the store's own: on a database that nodes share, they are not the ones that were given.
pub(super) async fn a_node_is_told_how_it_stands(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    let first = store.heartbeat(fixture.node, at(70)).await.expect("lives");
    let second = store.heartbeat(fixture.node, at(77)).await.expect("lives");
    assert!(second.now >= first.now && !first.draining && !second.draining);
    fixture.leased(at(1)).await;
    fixture.leased(at(2)).await;
    fixture.ready(at(3)).await;
    let nodes = store.nodes(at(80)).await.expect("reads");
    assert_eq!(nodes.len(), 1);
    let expected = node(1);
    assert_eq!(
        (
            nodes[0].incarnation,
            &nodes[0].name,
            &nodes[0].release,
            &nodes[0].url
        ),
        (
            expected.incarnation,
            &expected.name,
            &expected.release,
            &expected.url
        )
    );
    assert_eq!(nodes[0].heartbeat_at, second.now);
    assert!(nodes[0].joined_at <= first.now && nodes[0].silent_for < Duration::from_secs(60));
    assert_eq!((nodes[0].draining, nodes[0].runs), (false, 2));
    assert!(
        store.hints().has_changed().is_ok(),
        "whoever waits for hints waits"
    );
}

pub(super) async fn a_draining_node_is_told_so(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    assert!(!store.drain(node(9).incarnation, at(1)).await.expect("answers"));
    assert!(store.drain(fixture.node, at(2)).await.expect("answers"));
    assert!(store.drain(fixture.node, at(3)).await.expect("again is fine"));
    assert!(store.nodes(at(4)).await.expect("reads")[0].draining);
    let standing = store.heartbeat(fixture.node, at(5)).await.expect("lives");
    assert!(standing.draining);
    let standing = store.join(node(2), at(6)).await.expect("joins");
    assert!(!standing.draining, "it is another node");
    store.leave(fixture.node, at(7)).await.expect("leaves");
    assert!(!store.drain(fixture.node, at(8)).await.expect("answers"));
}

pub(super) async fn a_glance_sees_what_others_change(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, second, third) = (
        fixture.leased(at(0)).await,
        fixture.leased(at(0)).await,
        fixture.ready(at(0)).await,
    );
    let missing = RunId::from_parts(at(0), [9; 10]);
    let asked = [third, missing, second, first, first];
    let mut append = fixture.append_of(first, 1, vec![step(0, "1"), step(1, "2")], Then::Continue, at(5));
    append.logs = vec![LogLine {
        number: 4,
        at: at(5),
        level: "info".to_owned(),
        step: None,
        message: "hello".to_owned(),
        fields: None,
    }];
    fixture.store.append(append).await.expect("appends");
    fixture.store.cancel(second, at(6)).await.expect("cancels");
    let mut expected = vec![
        Glance {
            id: first,
            state: State::live(Status::Running, Phase::Executing),
            owner: Some(fixture.node),
            epoch: 1,
            journal_next: 2,
            log_lines: 5,
        },
        Glance {
            id: second,
            state: fixture.get(second).await.state,
            owner: None,
            epoch: 2,
            journal_next: 0,
            log_lines: 0,
        },
        Glance {
            id: third,
            state: State::NEW,
            owner: None,
            epoch: 0,
            journal_next: 0,
            log_lines: 0,
        },
    ];
    expected.sort_by_key(|glance| glance.id);
    assert_eq!(fixture.store.glance(&asked).await.expect("reads"), expected);
    assert_eq!(fixture.store.glance(&[]).await.expect("reads"), []);
    let many: Vec<RunId> = (0..1000)
        .map(|number: u16| {
            let mut random = [7; 10];
            random[..2].copy_from_slice(&number.to_be_bytes());
            RunId::from_parts(at(1), random)
        })
        .chain([second])
        .collect();
    let seen = fixture.store.glance(&many).await.expect("reads");
    assert_eq!(seen.iter().map(|glance| glance.id).collect::<Vec<_>>(), [second]);
    assert_eq!(seen[0].state.status, Status::Cancelled);
}

pub(super) async fn runs_in_flight_are_examined_without_a_lease(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (first, second, third) = (
        fixture.ready(at(0)).await,
        fixture.leased(at(1)).await,
        fixture.leased(at(2)).await,
    );
    fixture.store.cancel(third, at(3)).await.expect("cancels");
    let missing = RunId::from_parts(at(0), [9; 10]);
    let looked = fixture
        .store
        .examine(&[third, missing, second, first, first])
        .await;
    let looked = looked.expect("reads");
    assert_eq!(ids(&looked), [first, second]);
    assert_eq!(fixture.store.examine(&[]).await.expect("reads"), []);

    let module = looked[0].function.module().to_owned();
    let mut all = fixture.store.in_flight(&module, 10).await.expect("reads");
    let sample = fixture.store.in_flight(&module, 1).await.expect("reads");
    assert_eq!(sample, all[..1]);
    all.sort_unstable();
    assert_eq!(all, [first, second]);
    assert_eq!(fixture.store.in_flight("nothing", 10).await.expect("reads"), []);

    // Looking leased nothing, and shows what the claim then gives.
    let run = fixture.get(first).await;
    assert_eq!((run.owner, run.epoch), (None, 0));
    let claimed = fixture.claim(10, at(4)).await;
    let expected = ClaimedRun {
        epoch: claimed[0].epoch,
        ..looked[0].clone()
    };
    assert_eq!(claimed, [expected]);
}
