//! Runs that go over to another version of their module.

use std::sync::Arc;

use dormouse_core::run::RunError;
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::{Digest, RunId, Timestamp};

use super::fixture::{Fixture, at, json, node, step, suspend, version};
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{Append, Appended, Lost, Then};
use crate::registry::{Changed, NewVersion};
use crate::swap::{NewSwap, Swapped};

const STAYED: Swapped = Swapped {
    moved: false,
    stayed: true,
};
const MOVED: Swapped = Swapped {
    moved: true,
    stayed: false,
};

/// A second version of the module `shop`, active, and its generation.
async fn second(fixture: &Fixture) -> (Digest, i64) {
    let second = Digest::of(b"second");
    let new = NewVersion {
        policy: Some(Policy::Migrate),
        ..version("shop", second, true, at(5))
    };
    let stored = fixture.store.put_version(new).await.expect("stores");
    (second, stored.generation)
}

fn swap(to: Digest, generation: i64, stays: Option<RunError>) -> Option<NewSwap> {
    Some(NewSwap {
        module: "shop".to_owned(),
        to,
        stays,
        generation,
    })
}

fn swapped(seq: u32, from: Digest, to: Digest, at: Timestamp, stayed: Option<RunError>) -> Swap {
    Swap {
        seq,
        from,
        to,
        at,
        stayed,
    }
}

async fn append(fixture: &Fixture, append: Append) -> Appended {
    fixture.store.append(append).await.expect("appends")
}

async fn live_runs(fixture: &Fixture, version: Digest) -> u64 {
    let version = fixture.store.version("shop", version).await.expect("reads");
    version.expect("is there").live_runs
}

async fn swaps(fixture: &Fixture, run: RunId) -> Vec<Swap> {
    fixture.store.swaps(run).await.expect("reads")
}

pub(super) async fn the_first_entry_of_another_version_takes_the_run_over(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    fixture.append(id, 1, vec![step(0, "1")], Then::Continue).await;
    let (second, generation) = second(&fixture).await;
    assert_eq!(
        fixture.get(id).await.version,
        fixture.digest,
        "an activation moves nothing"
    );
    assert_eq!(
        (
            live_runs(&fixture, fixture.digest).await,
            live_runs(&fixture, second).await
        ),
        (1, 0)
    );

    let over = Append {
        swap: swap(second, generation, None),
        ..fixture.append_of(id, 1, vec![step(1, "2")], Then::Continue, at(600))
    };
    assert_eq!(append(&fixture, over.clone()).await, Appended::Done);
    let run = fixture.get(id).await;
    assert_eq!((run.version, run.swapped, run.journal_next), (second, MOVED, 2));
    assert_eq!(
        (
            live_runs(&fixture, fixture.digest).await,
            live_runs(&fixture, second).await
        ),
        (0, 1)
    );
    let history = [swapped(1, fixture.digest, second, at(600), None)];
    assert_eq!(swaps(&fixture, id).await, history);
    // The same again, as after a commit whose outcome was not known.
    assert_eq!(append(&fixture, over).await, Appended::Done);
    assert_eq!(swaps(&fixture, id).await, history);

    // Whoever drives it next is told.
    fixture.append(id, 1, Vec::new(), suspend(Some(at(700)))).await;
    let fired = fixture.fire(at(700), 10, 10).await;
    assert_eq!(
        (fired.claimed[0].version, fired.claimed[0].swapped),
        (second, MOVED)
    );
    // Nothing needs the first version any more.
    let deleted = fixture.store.delete_version("shop", fixture.digest).await;
    assert!(matches!(deleted, Ok(Changed::Done(_))), "{deleted:?}");
    assert_eq!(swaps(&fixture, id).await, history, "what was is still told");
}

pub(super) async fn a_run_may_go_over_with_its_wait_or_its_end(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (waits, ends) = (fixture.leased(at(0)).await, fixture.leased(at(1)).await);
    let (second, generation) = second(&fixture).await;
    for (id, then) in [
        (waits, suspend(Some(at(900)))),
        (ends, Then::Complete { output: json("1") }),
    ] {
        let over = Append {
            swap: swap(second, generation, None),
            ..fixture.append_of(id, 1, Vec::new(), then, at(600))
        };
        assert_eq!(append(&fixture, over).await, Appended::Done);
        assert_eq!(fixture.get(id).await.version, second);
        assert_eq!(
            swaps(&fixture, id).await,
            [swapped(0, fixture.digest, second, at(600), None)]
        );
    }
    assert_eq!(fixture.get(waits).await.wake_at, Some(at(900)));
    assert_eq!(fixture.get(ends).await.output, Some(json("1")));
    assert_eq!(live_runs(&fixture, second).await, 1);
}

pub(super) async fn who_cannot_go_over_stays_and_says_why(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let (second, generation) = second(&fixture).await;
    let why = RunError::new(
        "diverged",
        "entry 0: the journal has run \"größe\", the code asked for the end",
    );
    let stays = Append {
        swap: swap(second, generation, Some(why.clone())),
        ..fixture.append_of(id, 1, Vec::new(), Then::Continue, at(600))
    };
    assert_eq!(append(&fixture, stays).await, Appended::Done);
    let run = fixture.get(id).await;
    assert_eq!(
        (run.version, run.swapped, run.owner),
        (fixture.digest, STAYED, Some(fixture.node))
    );
    let history = [swapped(0, fixture.digest, second, at(600), Some(why))];
    assert_eq!(swaps(&fixture, id).await, history);
    // It goes on under the same lease, and its version is needed.
    fixture
        .append(id, 1, vec![step(0, "1")], suspend(Some(at(700))))
        .await;
    let fired = fixture.fire(at(700), 10, 10).await;
    assert_eq!(
        (fired.claimed[0].version, fired.claimed[0].swapped),
        (fixture.digest, STAYED)
    );
    let needed = fixture.store.delete_version("shop", fixture.digest).await;
    assert_eq!(needed.expect("answers"), Changed::Needed(1));
    // Then it goes over to a third.
    let third = Digest::of(b"third");
    let stored = fixture
        .store
        .put_version(version("shop", third, true, at(800)))
        .await;
    let over = Append {
        swap: swap(third, stored.expect("stores").generation, None),
        ..fixture.append_of(id, 2, vec![step(1, "2")], Then::Continue, at(900))
    };
    assert_eq!(append(&fixture, over).await, Appended::Done);
    let run = fixture.get(id).await;
    assert_eq!(
        (run.version, run.swapped),
        (
            third,
            Swapped {
                moved: true,
                stayed: true
            }
        )
    );
    assert_eq!(swaps(&fixture, id).await.len(), 2);
}

pub(super) async fn a_swap_is_decided_on_what_is_active_and_under_the_lease(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let (second, generation) = second(&fixture).await;
    let over = |to, generation| Append {
        swap: swap(to, generation, None),
        ..fixture.append_of(id, 1, vec![step(0, "1")], Then::Continue, at(600))
    };
    let stale = fixture.store.append(over(second, generation - 1)).await;
    assert!(matches!(stale, Err(Error::StaleRegistry)), "{stale:?}");
    let unknown = fixture
        .store
        .append(over(Digest::of(b"unknown"), generation))
        .await;
    assert!(matches!(unknown, Err(Error::StaleRegistry)), "{unknown:?}");
    let lost = [
        Append {
            epoch: 2,
            ..over(second, generation)
        },
        Append {
            owner: node(2).incarnation,
            ..over(second, generation)
        },
    ];
    for lost in lost {
        assert_eq!(append(&fixture, lost).await, Appended::Lost(Lost::TakenOver));
    }
    let run = fixture.get(id).await;
    assert_eq!(
        (run.version, run.swapped, run.journal_next),
        (fixture.digest, Swapped::default(), 0)
    );
    assert_eq!(swaps(&fixture, id).await, []);
    // A version that was deleted is not gone over to.
    let store = &fixture.store;
    store
        .activate("shop", fixture.digest, None, at(7))
        .await
        .expect("activates");
    let Ok(Changed::Done(generation)) = store.delete_version("shop", second).await else {
        panic!("nothing needs it")
    };
    let deleted = store.append(over(second, generation)).await;
    assert!(matches!(deleted, Err(Error::StaleRegistry)), "{deleted:?}");
}

pub(super) async fn an_activation_says_what_becomes_of_runs_in_flight(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    let active = async || {
        let registry = store.registry().await.expect("reads");
        let [active] = &*registry.active else {
            panic!("{registry:?}")
        };
        (
            active.digest,
            active.policy,
            active.activated_at,
            registry.generation,
        )
    };
    assert_eq!(active().await.1, Policy::Pin);
    let (second, generation) = second(&fixture).await;
    assert_eq!(active().await, (second, Policy::Migrate, Some(at(5)), generation));
    // Unsaid, it stays as it is.
    let again = store
        .put_version(version("shop", second, true, at(6)))
        .await
        .expect("stores");
    assert_eq!(
        (again.new, again.activated, again.generation),
        (false, false, generation)
    );
    let unchanged = store
        .activate("shop", second, None, at(7))
        .await
        .expect("answers");
    assert_eq!(unchanged, Changed::Unchanged(generation));
    let unchanged = store.activate("shop", second, Some(Policy::Migrate), at(7)).await;
    assert_eq!(unchanged.expect("answers"), Changed::Unchanged(generation));
    // Said anew, it is another decision about the same version.
    let Ok(Changed::Done(pinned)) = store.activate("shop", second, Some(Policy::Pin), at(8)).await else {
        panic!("it is another policy")
    };
    assert_eq!(active().await, (second, Policy::Pin, Some(at(5)), pinned));
    let said = NewVersion {
        policy: Some(Policy::Migrate),
        ..version("shop", second, true, at(9))
    };
    let said = store.put_version(said).await.expect("stores");
    assert!(
        !said.new && said.activated && said.generation > pinned,
        "{said:?}"
    );
    assert_eq!(
        active().await,
        (second, Policy::Migrate, Some(at(5)), said.generation)
    );
    // Another version's activation begins with none.
    store
        .activate("shop", fixture.digest, None, at(10))
        .await
        .expect("activates");
    let (digest, policy, since, _) = active().await;
    assert_eq!(
        (digest, policy, since),
        (fixture.digest, Policy::Pin, Some(at(10)))
    );
    let versions = store.versions("shop").await.expect("reads");
    assert!(
        versions.iter().all(|version| version.policy == Policy::Pin),
        "{versions:?}"
    );
}

pub(super) async fn swaps_are_deleted_with_their_run(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    let (second, generation) = second(&fixture).await;
    let over = Append {
        swap: swap(second, generation, None),
        ..fixture.append_of(id, 1, Vec::new(), Then::Complete { output: json("1") }, at(600))
    };
    assert_eq!(append(&fixture, over).await, Appended::Done);
    assert_eq!(fixture.store.prune(at(601), 10).await.expect("prunes"), 1);
    assert_eq!(swaps(&fixture, id).await, []);
    assert_eq!(fixture.store.run(id).await.expect("reads"), None);
}
