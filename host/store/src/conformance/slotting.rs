//! Concurrency limits: how many runs execute at once, who waits, and who goes next.

use std::collections::BTreeSet;
use std::sync::Arc;

use dormouse_core::flow::Need;
use dormouse_core::flow::concurrency::Scope;
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{Digest, Json, RunId};

use super::fixture::{Fixture, at, function, json, node, sleep, suspend, version};
use crate::command::Commanded;
use crate::contract::Store;
use crate::execute::{Appended, Then};
use crate::ingest::{Created, NewRun};
use crate::schedule::{Claim, ClaimedBatch};

const WAITS: State = State::live(Status::Scheduled, Phase::Limited);

fn need(name: &str, limit: u32) -> Need {
    Need {
        scope: Scope::Function,
        source: (!name.is_empty()).then(|| "event.data.key".to_owned()),
        name: name.to_owned(),
        limit,
    }
}

fn shared(name: &str, limit: u32) -> Need {
    Need {
        scope: Scope::Account,
        ..need(name, limit)
    }
}

/// A ready run that needs these.
async fn ready(fixture: &Fixture, millis: i64, needs: &[Need]) -> RunId {
    ready_of(fixture, "shop/order", millis, needs).await
}

async fn ready_of(fixture: &Fixture, name: &str, millis: i64, needs: &[Need]) -> RunId {
    let (run, created) = fixture
        .create(at(millis), |run| {
            run.function = function(name);
            run.admission.concurrency = needs.to_vec();
            run.lease = Some(fixture.node);
        })
        .await;
    assert_eq!(
        created,
        Created::New { leased: false },
        "it has to ask for a slot"
    );
    run
}

async fn claim(fixture: &Fixture, limit: u32, millis: i64) -> ClaimedBatch {
    let claim = Claim {
        node: fixture.node,
        limit,
        versions: None,
        now: at(millis),
    };
    fixture.store.claim(claim).await.expect("claims")
}

/// Claims all that can be. The ids, in order.
async fn go(fixture: &Fixture, millis: i64) -> Vec<RunId> {
    let batch = claim(fixture, 100, millis).await;
    batch.claimed.iter().map(|run| run.id).collect()
}

async fn end(fixture: &Fixture, run: RunId) {
    let epoch = fixture.get(run).await.epoch;
    let then = Then::Complete { output: Json::null() };
    assert_eq!(fixture.append(run, epoch, vec![], then).await, Appended::Done);
}

pub(super) async fn no_more_execute_than_the_limit(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let limit = [need("", 2)];
    let mut runs = Vec::new();
    for number in 0..5 {
        runs.push(ready(&fixture, number, &limit).await);
    }
    let free = fixture.ready(at(6)).await;
    let batch = claim(&fixture, 100, 10).await;
    let claimed: Vec<RunId> = batch.claimed.iter().map(|run| run.id).collect();
    assert_eq!(claimed, [runs[0], runs[1], free]);
    assert_eq!((batch.waiting, batch.again), (3, false));
    let waits = fixture.get(runs[2]).await;
    assert_eq!((waits.state, waits.wake_at, waits.owner), (WAITS, None, None));
    assert_eq!(
        waits.reason.expect("a reason"),
        "waits for a slot: the concurrency limit of 2 is used up"
    );
    assert_eq!(go(&fixture, 20).await, [], "nobody goes before a slot is free");
    // The first one to come is the first to go; whoever comes later queues up behind it.
    end(&fixture, runs[0]).await;
    let late = ready(&fixture, 25, &limit).await;
    assert_eq!(go(&fixture, 30).await, [runs[2]]);
    // One that sleeps has no slot.
    let then = suspend(Some(at(1_000)));
    assert_eq!(
        fixture.append(runs[1], 1, vec![sleep(0)], then).await,
        Appended::Done
    );
    assert_eq!(go(&fixture, 40).await, [runs[3]]);
    // When it wakes it asks for one again, and is behind those that were there before.
    let fired = fixture.fire(at(1_000), 10, 10).await;
    assert_eq!((fired.claimed.len(), fired.readied), (0, 1));
    assert_eq!(go(&fixture, 1_001).await, []);
    let woken = fixture.get(runs[1]).await;
    assert_eq!(woken.state, State::live(Status::Running, Phase::Limited));
    end(&fixture, runs[2]).await;
    end(&fixture, runs[3]).await;
    assert_eq!(go(&fixture, 1_010).await, [runs[4], late]);
    end(&fixture, late).await;
    assert_eq!(go(&fixture, 1_020).await, [runs[1]]);
    // What is left of it all is room.
    end(&fixture, runs[1]).await;
    end(&fixture, runs[4]).await;
    let next = ready(&fixture, 1_030, &limit).await;
    assert_eq!(go(&fixture, 1_040).await, [next]);
}

pub(super) async fn each_key_has_slots_of_its_own(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let ann = [need("ann", 1)];
    let (first, second) = (ready(&fixture, 0, &ann).await, ready(&fixture, 1, &ann).await);
    let bob = ready(&fixture, 2, &[need("bob", 1)]).await;
    // Another function's, which is another's even under the same name.
    let other = ready_of(&fixture, "shop/ship", 3, &ann).await;
    assert_eq!(go(&fixture, 10).await, [first, bob, other]);
    end(&fixture, bob).await;
    end(&fixture, other).await;
    assert_eq!(go(&fixture, 20).await, []);
    end(&fixture, first).await;
    assert_eq!(go(&fixture, 30).await, [second]);
}

pub(super) async fn functions_share_slots_by_a_global_key(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let (low, high) = ([shared("api", 1)], [shared("api", 3)]);
    let first = ready_of(&fixture, "shop/low", 0, &low).await;
    let waits = ready_of(&fixture, "shop/low", 1, &low).await;
    let mut highs = Vec::new();
    for number in 2..6 {
        highs.push(ready_of(&fixture, "shop/high", number, &high).await);
    }
    // What one function takes is gone for the other, and each keeps to its own limit.
    assert_eq!(go(&fixture, 10).await, [first, highs[0], highs[1]]);
    let reason = fixture.get(waits).await.reason.expect("a reason");
    assert_eq!(
        reason,
        "waits for a slot: the concurrency limit of 1 for api, which functions share, is used up"
    );
    // One that waits for fewer to execute does not hold up those who may go already.
    end(&fixture, first).await;
    assert_eq!(go(&fixture, 20).await, [highs[2]]);
    for run in &highs[..3] {
        end(&fixture, *run).await;
    }
    assert_eq!(go(&fixture, 30).await, [waits, highs[3]]);
}

pub(super) async fn a_run_needs_all_its_slots_and_holds_none_before(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let both = |user: &str| [need("", 2), need(user, 1)];
    let ann: Vec<RunId> = vec![
        ready(&fixture, 0, &both("ann")).await,
        ready(&fixture, 1, &both("ann")).await,
        ready(&fixture, 2, &both("ann")).await,
    ];
    let bob = ready(&fixture, 3, &both("bob")).await;
    let cid = ready(&fixture, 4, &both("cid")).await;
    // The second of ann's waits for ann, and takes nothing from bob.
    assert_eq!(go(&fixture, 10).await, [ann[0], bob]);
    let reason = async |run| fixture.get(run).await.reason.expect("a reason");
    // All that came after it found the function's slots taken.
    assert!(reason(ann[1]).await.contains("limit of 1 for ann"));
    assert!(
        reason(cid).await.contains("limit of 2 is"),
        "{}",
        reason(cid).await
    );
    end(&fixture, bob).await;
    assert_eq!(go(&fixture, 20).await, [cid], "ann's are passed by");
    end(&fixture, ann[0]).await;
    assert_eq!(go(&fixture, 30).await, [ann[1]]);
    end(&fixture, cid).await;
    assert_eq!(go(&fixture, 40).await, []);
    assert!(reason(ann[2]).await.contains("limit of 1 for ann"));
    end(&fixture, ann[1]).await;
    assert_eq!(go(&fixture, 50).await, [ann[2]]);
}

pub(super) async fn who_waits_for_a_slot_can_be_cancelled_and_paused(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let limit = [need("k", 1)];
    let mut runs = Vec::new();
    for number in 0..5 {
        runs.push(ready(&fixture, number, &limit).await);
    }
    assert_eq!(go(&fixture, 10).await, [runs[0]]);
    // A wake would only cost it its place.
    assert_eq!(
        fixture.store.wake(runs[1], None, at(11)).await.expect("answers"),
        Commanded::Refused(WAITS)
    );
    let cancelled = fixture.store.cancel(runs[1], at(12)).await.expect("answers");
    assert!(matches!(cancelled, Commanded::Done(_)));
    let paused = fixture.store.pause(runs[2]).await.expect("answers");
    assert_eq!(
        paused,
        Commanded::Done(State::live(Status::Scheduled, Phase::Paused))
    );
    end(&fixture, runs[0]).await;
    assert_eq!(go(&fixture, 20).await, [runs[3]]);
    let resumed = fixture.store.resume(runs[2], at(30)).await.expect("answers");
    assert_eq!(resumed, Commanded::Done(State::NEW));
    assert_eq!(go(&fixture, 31).await, []);
    assert_eq!(fixture.get(runs[2]).await.state, WAITS);
    // Cancelled while it executes, a run gives its slot to the next.
    fixture.store.cancel(runs[3], at(40)).await.expect("answers");
    assert_eq!(go(&fixture, 41).await, [runs[4]]);
    // Paused while it executes, it gives it back with its next entry.
    fixture.store.pause(runs[4]).await.expect("answers");
    assert_eq!(go(&fixture, 50).await, []);
    assert_eq!(
        fixture.append(runs[4], 1, vec![sleep(0)], Then::Continue).await,
        Appended::Paused
    );
    assert_eq!(go(&fixture, 51).await, [runs[2]]);
}

pub(super) async fn what_comes_for_a_run_that_waits_for_a_slot_is_kept(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let limit = [need("k", 1)];
    let first = ready(&fixture, 0, &limit).await;
    assert_eq!(go(&fixture, 1).await, [first]);
    assert_eq!(
        fixture
            .append(first, 1, vec![sleep(0), sleep(1)], suspend(Some(at(100))))
            .await,
        Appended::Done
    );
    let second = ready(&fixture, 2, &limit).await;
    assert_eq!(go(&fixture, 3).await, [second]);
    fixture.fire(at(100), 10, 10).await;
    assert_eq!(go(&fixture, 101).await, []);
    let state = State::live(Status::Running, Phase::Limited);
    let woken = fixture
        .store
        .wake(first, Some(1), at(102))
        .await
        .expect("answers");
    assert_eq!(woken, Commanded::Done(state), "it keeps its place");
    assert_eq!(fixture.store.completions(first).await.expect("reads").len(), 1);
    assert_eq!(go(&fixture, 103).await, []);
    end(&fixture, second).await;
    assert_eq!(go(&fixture, 104).await, [first]);
}

pub(super) async fn slots_of_a_node_that_ended_come_free(store: Arc<dyn Store>) {
    let mut fixture = Fixture::on(store).await;
    let limit = [need("k", 2)];
    let mut runs = Vec::new();
    for number in 0..4 {
        runs.push(ready(&fixture, number, &limit).await);
    }
    assert_eq!(go(&fixture, 10).await, runs[..2]);
    fixture.store.leave(fixture.node, at(20)).await.expect("leaves");
    fixture.store.join(node(2), at(20)).await.expect("joins");
    fixture.node = node(2).incarnation;
    assert_eq!(go(&fixture, 21).await, [], "its leases still count");
    assert_eq!(fixture.store.take_over(10, at(30)).await.expect("takes over"), 2);
    // Those that have waited longer go first.
    assert_eq!(go(&fixture, 31).await, runs[2..]);
    end(&fixture, runs[2]).await;
    end(&fixture, runs[3]).await;
    assert_eq!(go(&fixture, 40).await, runs[..2]);
    assert_eq!(fixture.get(runs[0]).await.epoch, 3);
}

pub(super) async fn a_new_version_says_how_many(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let limit = [need("k", 1)];
    for number in 0..6 {
        ready(&fixture, number, &limit).await;
    }
    assert_eq!(go(&fixture, 10).await.len(), 1);
    let activate = async |number: u8, concurrency: &str, millis: i64| {
        let mut new = version("shop", Digest::of(&[number]), true, at(millis));
        new.manifest = json(&format!(
            r#"{{"functions":[{{"id":"order","concurrency":{concurrency}}}]}}"#
        ));
        fixture.store.put_version(new).await.expect("stores");
    };
    activate(1, r#"[{"limit":3,"key":"event.data.key"}]"#, 20).await;
    assert_eq!(go(&fixture, 21).await.len(), 2);
    // Less than what executes ends nothing, and lets nobody go.
    activate(2, r#"[{"limit":2,"key":"event.data.key"}]"#, 30).await;
    assert_eq!(go(&fixture, 31).await, []);
    // With another key, what was waited for stays as it was.
    activate(3, r#"[{"limit":9,"key":"event.data.other"}]"#, 40).await;
    assert_eq!(go(&fixture, 41).await, []);
    // Without any it is lifted.
    activate(4, "[]", 50).await;
    assert_eq!(go(&fixture, 51).await.len(), 3);
}

pub(super) async fn who_waits_for_a_slot_goes_by_priority(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut runs = Vec::new();
    for (number, priority) in [0, 0, -1, 600, 10].into_iter().enumerate() {
        let (run, _) = fixture
            .create(at(1_000_000 + number as i64), |run: &mut NewRun| {
                run.admission.concurrency = vec![need("k", 1)];
                run.admission.priority = priority;
            })
            .await;
        runs.push(run);
    }
    let mut order = Vec::new();
    for step in 0..5 {
        let went = go(&fixture, 1_000_010 + step).await;
        assert_eq!(went.len(), 1, "one after the other");
        end(&fixture, went[0]).await;
        order.extend(went);
    }
    assert_eq!(order, [runs[3], runs[4], runs[0], runs[1], runs[2]]);
}

pub(super) async fn a_line_leaves_what_a_node_has_not_loaded_to_others(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let second = Digest::of(b"shop, second version");
    let stored = fixture.store.put_version(version("shop", second, false, at(0)));
    let generation = stored.await.expect("stores").generation;
    let mut fixture = fixture;
    fixture.generation = generation;
    let limit = [need("k", 1)];
    let first = ready(&fixture, 0, &limit).await;
    let (newer, _) = fixture
        .create(at(1), |run| {
            run.version = second;
            run.admission.concurrency = limit.to_vec();
        })
        .await;
    let last = ready(&fixture, 2, &limit).await;
    assert_eq!(go(&fixture, 10).await, [first]);
    end(&fixture, first).await;
    let claim = |versions: Vec<Digest>| Claim {
        node: fixture.node,
        limit: 10,
        versions: Some(versions.into()),
        now: at(20),
    };
    // No claim for nothing, and what was freed is not forgotten.
    let none = fixture.store.claim(claim(vec![])).await.expect("claims");
    assert_eq!(
        (none.claimed.len(), none.lacking),
        (0, {
            let mut both = vec![fixture.digest, second];
            both.sort();
            both
        })
    );
    let old = fixture
        .store
        .claim(claim(vec![fixture.digest]))
        .await
        .expect("claims");
    assert_eq!(old.claimed.iter().map(|run| run.id).collect::<Vec<_>>(), [last]);
    assert_eq!(old.lacking, [second]);
    end(&fixture, last).await;
    assert_eq!(go(&fixture, 30).await, [newer]);
}

pub(super) async fn a_long_line_moves_on_bit_by_bit(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let mut all = BTreeSet::new();
    for user in 0..300 {
        // Two limits: nearly all wait for the function's, and most of these would have to wait for ann's, too.
        let key = if user < 200 {
            "ann".to_owned()
        } else {
            format!("user {user}")
        };
        all.insert(ready(&fixture, user, &[need("", 5), need(&key, 1)]).await);
    }
    let mut went = BTreeSet::new();
    let mut executing: Vec<RunId> = Vec::new();
    let mut rounds = 0;
    while went.len() < all.len() {
        rounds += 1;
        assert!(rounds < 2_000, "{} of {} went", went.len(), all.len());
        let batch = claim(&fixture, 7, 1_000 + rounds).await;
        for run in &batch.claimed {
            assert!(went.insert(run.id), "claimed twice");
            executing.push(run.id);
        }
        assert!(executing.len() <= 5);
        let idle = batch.claimed.is_empty() && batch.waiting == 0 && !batch.again;
        if idle && !executing.is_empty() {
            end(&fixture, executing.remove(0)).await;
        }
    }
    assert_eq!(went, all);
}
