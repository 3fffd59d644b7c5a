//! Runs that go over to another version of their module.

use std::sync::Arc;

use dormouse_core::run::{Phase, RunError, State, Status};
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::{Digest, RunId, Timestamp};

use super::fixture::{Fixture, at, json, node, sleep, step, suspend, version};
use crate::command::Commanded;
use crate::contract::Store;
use crate::error::Error;
use crate::execute::{Append, Appended, Lost, Then};
use crate::registry::{Changed, NewVersion};
use crate::swap::{Asked, NewSwap, Swapped, ToRestart};

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
        restarted: false,
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

pub(super) async fn a_person_says_which_version_a_run_is_on(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let store = &fixture.store;
    let id = fixture.leased(at(0)).await;
    let (second, third) = (Digest::of(b"second"), Digest::of(b"third"));
    for (digest, activate) in [(second, false), (third, true)] {
        store
            .put_version(version("shop", digest, activate, at(5)))
            .await
            .expect("stores");
    }
    let ask = async |version: Option<Digest>| {
        let asked = version.map(|version| Asked {
            module: "shop".to_owned(),
            version,
        });
        store.ask_version(id, asked, at(6)).await
    };
    assert_eq!(fixture.get(id).await.asked, None);
    let asked = ask(Some(second)).await.expect("answers");
    assert!(matches!(asked, Commanded::Done(_)), "{asked:?}");
    let run = fixture.get(id).await;
    assert_eq!(
        (run.asked, run.version, run.owner),
        (Some(second), fixture.digest, Some(fixture.node))
    );
    // It is needed by that, as the run's own is.
    for needed in [second, fixture.digest] {
        let kept = store.delete_version("shop", needed).await.expect("answers");
        assert_eq!(kept, Changed::Needed(1));
    }
    fixture.append(id, 1, Vec::new(), suspend(Some(at(10)))).await;
    assert_eq!(fixture.fire(at(10), 1, 1).await.claimed[0].asked, Some(second));
    assert_eq!(store.examine(&[id]).await.expect("reads")[0].asked, Some(second));
    let unknown = ask(Some(Digest::of(b"unknown"))).await;
    assert!(matches!(unknown, Err(Error::StaleRegistry)), "{unknown:?}");
    ask(None).await.expect("answers");
    assert_eq!(fixture.get(id).await.asked, None);
    let deleted = store.delete_version("shop", second).await;
    assert!(matches!(deleted, Ok(Changed::Done(_))), "{deleted:?}");

    // One that is blocked is tried again; one that has ended is left alone.
    let error = RunError::new("diverged", "it does");
    fixture.append(id, 2, Vec::new(), Then::Block { error }).await;
    let asked = ask(Some(fixture.digest)).await.expect("answers");
    assert_eq!(
        asked,
        Commanded::Done(State::live(Status::Running, Phase::Queued))
    );
    assert_eq!(fixture.claim(1, at(20)).await[0].asked, Some(fixture.digest));
    fixture
        .append(id, 3, Vec::new(), Then::Complete { output: json("1") })
        .await;
    let ended = ask(Some(third)).await.expect("answers");
    assert!(matches!(ended, Commanded::Refused(_)), "{ended:?}");
    let nobody = RunId::from_parts(at(0), [9; 10]);
    assert_eq!(
        store.ask_version(nobody, None, at(6)).await.expect("answers"),
        Commanded::NotFound
    );
}

pub(super) async fn a_run_begins_again_on_another_version(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let id = fixture.leased(at(0)).await;
    fixture
        .append(id, 1, vec![step(0, "1"), sleep(1)], Then::Continue)
        .await;
    let then = Then::ContinueWith { continued: json("7") };
    fixture.append(id, 1, Vec::new(), then).await;
    fixture.claim(1, at(550)).await;
    fixture
        .append(id, 2, vec![step(2, "1"), sleep(3)], suspend(Some(at(5_000))))
        .await;
    let other = fixture.leased(at(1)).await;
    let (second, generation) = second(&fixture).await;
    let restart = |to, functions: &[&str], limit| ToRestart {
        module: "shop".to_owned(),
        to,
        functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        limit,
        now: at(600),
    };
    let store = &fixture.store;
    // Not those on the version, of other functions, or that do something.
    for (to, functions, limit) in [
        (fixture.digest, &["order"][..], 9),
        (second, &["other"][..], 9),
        (second, &[][..], 9),
        (second, &["order"][..], 0),
    ] {
        let woken = store.wake_to_restart(restart(to, functions, limit)).await;
        assert_eq!(woken.expect("answers"), 0, "{functions:?}");
    }
    let woken = store.wake_to_restart(restart(second, &["order"], 9)).await;
    assert_eq!(woken.expect("answers"), 1);
    assert_eq!(fixture.get(id).await.state.phase, Some(Phase::Queued));
    assert_eq!(fixture.get(other).await.state.phase, Some(Phase::Executing));
    assert_eq!(store.upcoming_timers(Timestamp::MAX, 9).await.expect("reads"), []);

    let claimed = &fixture.claim(1, at(610)).await[0];
    assert_eq!((claimed.id, claimed.continued.clone()), (id, Some(json("7"))));
    let again = Append {
        swap: swap(second, generation, None),
        ..fixture.append_of(id, 3, Vec::new(), Then::Restart, at(620))
    };
    assert_eq!(append(&fixture, again).await, Appended::Done);
    assert_eq!(store.journal(id, 0).await.expect("reads"), []);
    let claimed = &fixture.claim(1, at(630)).await[0];
    assert_eq!((claimed.version, claimed.continued.clone()), (second, None));
    assert_eq!(
        (claimed.journal_base, claimed.journal_next, claimed.journal_bytes),
        (4, 4, 0)
    );
    assert_eq!((claimed.queued_at, claimed.swapped), (at(620), MOVED));
    let told = Swap {
        restarted: true,
        ..swapped(4, fixture.digest, second, at(620), None)
    };
    assert_eq!(swaps(&fixture, id).await, [told]);
    // One that a person wants somewhere is left alone.
    fixture.append(id, 4, vec![sleep(4)], suspend(None)).await;
    let asked = Asked {
        module: "shop".to_owned(),
        version: second,
    };
    store
        .ask_version(id, Some(asked), at(640))
        .await
        .expect("answers");
    let woken = store
        .wake_to_restart(restart(fixture.digest, &["order"], 9))
        .await;
    assert_eq!(woken.expect("answers"), 0);
}
