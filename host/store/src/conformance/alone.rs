//! Functions of which one run is there at a time.

use std::sync::Arc;

use dormouse_core::flow::concurrency::Scope;
use dormouse_core::flow::singleton::Mode;
use dormouse_core::flow::window::Kind;
use dormouse_core::flow::{Decision, Gathering, Limited, Need, Rate, Singleton};
use dormouse_core::run::{Phase, Status};
use dormouse_core::{RunId, invoke};

use super::fixture::{Fixture, at, function, json, sleep, suspend};
use crate::command::Commanded;
use crate::contract::Store;
use crate::execute::{Append, Appended, Then};
use crate::ingest::{Created, NewEvent, NewRun};
use crate::wait::{ChildWait, NewWait, WaitOn};

fn one(mode: Mode, key: &str) -> Option<Singleton> {
    Some(Singleton {
        mode,
        key: key.to_owned(),
    })
}

async fn asks(fixture: &Fixture, mode: Mode, key: &str, millis: i64) -> (RunId, Created) {
    fixture
        .create(at(millis), |run| run.admission.singleton = one(mode, key))
        .await
}

async fn starts(fixture: &Fixture, mode: Mode, key: &str, millis: i64) -> RunId {
    let (run, created) = asks(fixture, mode, key, millis).await;
    assert_eq!(created, Created::New { leased: false });
    run
}

fn skipped(by: RunId) -> Created {
    Created::Dropped {
        decision: Decision::Skipped,
        run: Some(by),
        until: None,
    }
}

async fn cancelled(fixture: &Fixture, run: RunId, by: RunId) {
    let found = fixture.get(run).await;
    assert_eq!(found.state.status, Status::Cancelled);
    let reason = found.reason.expect("a reason");
    assert!(
        reason.starts_with(&format!("cancelled by run {by}, which came later")),
        "{reason}"
    );
}

async fn complete(fixture: &Fixture, run: RunId, epoch: i64) {
    let output = json("1");
    assert_eq!(
        fixture
            .append(run, epoch, Vec::new(), Then::Complete { output })
            .await,
        Appended::Done
    );
}

pub(super) async fn while_a_run_lives_others_of_its_key_are_skipped(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let first = starts(&fixture, Mode::Skip, "\"a\"", 0).await;
    let (event, mut run) = {
        let event = fixture.event("shop/ordered");
        let run = fixture.run(event.id, "shop/order");
        (event, run)
    };
    run.admission.singleton = one(Mode::Skip, "\"a\"");
    let id = event.id;
    let ingest = fixture.ingest(vec![event], vec![run], at(10));
    assert_eq!(
        fixture.store.ingest(ingest).await.expect("ingests"),
        [skipped(first)]
    );
    let decisions = fixture.store.decisions(id).await.expect("reads");
    assert_eq!(decisions.len(), 1);
    assert_eq!(
        (decisions[0].decision, decisions[0].run),
        (Decision::Skipped, Some(first))
    );
    assert_eq!(
        decisions[0].detail,
        format!("run {first} for \"a\" has not ended, and there is one at a time (singleton)")
    );
    // Another key, and the same key of another function.
    starts(&fixture, Mode::Skip, "\"b\"", 20).await;
    let (_, created) = fixture
        .create(at(20), |run| {
            run.function = function("shop/ship");
            run.admission.singleton = one(Mode::Skip, "\"a\"");
        })
        .await;
    assert_eq!(created, Created::New { leased: false });
    // Whatever it does: it executes, sleeps, is paused, and goes on.
    let claimed = fixture.claim(10, at(30)).await;
    assert_eq!((claimed.len(), claimed[0].id), (3, first));
    assert_eq!(asks(&fixture, Mode::Skip, "\"a\"", 40).await.1, skipped(first));
    fixture
        .append(first, 1, vec![sleep(0)], suspend(Some(at(1_000))))
        .await;
    assert_eq!(asks(&fixture, Mode::Skip, "\"a\"", 50).await.1, skipped(first));
    fixture.store.pause(first).await.expect("pauses");
    assert_eq!(asks(&fixture, Mode::Skip, "\"a\"", 60).await.1, skipped(first));
    fixture.store.resume(first, at(70)).await.expect("resumes");
    assert_eq!(asks(&fixture, Mode::Skip, "\"a\"", 80).await.1, skipped(first));
    assert_eq!(fixture.claim(10, at(1_000)).await.len(), 1);
    complete(&fixture, first, 2).await;
    let second = starts(&fixture, Mode::Skip, "\"a\"", 1_010).await;
    // A cancelled one keeps nobody away, and neither does one that has been deleted since.
    fixture.store.cancel(second, at(1_020)).await.expect("cancels");
    let third = starts(&fixture, Mode::Skip, "\"a\"", 1_030).await;
    fixture.store.cancel(third, at(1_040)).await.expect("cancels");
    assert!(fixture.store.prune(at(5_000), 100).await.expect("prunes") >= 3);
    let fourth = starts(&fixture, Mode::Skip, "\"a\"", 6_000).await;
    assert_eq!(
        asks(&fixture, Mode::Skip, "\"a\"", 6_010).await.1,
        skipped(fourth)
    );
}

pub(super) async fn a_run_takes_the_place_of_the_one_before(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let leased = |mode, key: &'static str| {
        let node = fixture.node;
        move |run: &mut NewRun| {
            run.admission.singleton = one(mode, key);
            run.lease = Some(node);
        }
    };
    let (first, created) = fixture.create(at(0), leased(Mode::Cancel, "7")).await;
    assert_eq!(created, Created::New { leased: true });
    let (second, created) = fixture.create(at(10), leased(Mode::Cancel, "7")).await;
    assert_eq!(created, Created::New { leased: true }, "it begins at once");
    cancelled(&fixture, first, second).await;
    assert_eq!(fixture.get(first).await.ended_at, Some(at(10)));
    let output = json("1");
    let late = fixture
        .append(first, 1, Vec::new(), Then::Complete { output })
        .await;
    assert!(matches!(late, Appended::Lost(_)), "{late:?}");
    let (other, _) = fixture.create(at(20), leased(Mode::Cancel, "8")).await;
    assert_eq!(fixture.get(second).await.state.status, Status::Running);
    complete(&fixture, second, 1).await;
    let (third, _) = fixture.create(at(30), leased(Mode::Cancel, "7")).await;
    assert_eq!(fixture.get(second).await.state.status, Status::Completed);
    // One that is meant for later is there from its creation on.
    let (later, created) = fixture
        .create(at(40), |run| {
            run.start_at = at(9_000);
            run.admission.singleton = one(Mode::Cancel, "7");
        })
        .await;
    assert_eq!(created, Created::New { leased: false });
    cancelled(&fixture, third, later).await;
    let (fourth, _) = fixture.create(at(50), leased(Mode::Cancel, "7")).await;
    cancelled(&fixture, later, fourth).await;
    assert_eq!(
        fixture.fire(at(10_000), 10, 10).await.fired,
        0,
        "its timer is gone"
    );
    assert_eq!(fixture.get(other).await.state.status, Status::Running);
}

pub(super) async fn of_several_in_one_commit_the_first_or_the_last_is_left(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    for (mode, key) in [(Mode::Skip, "s"), (Mode::Cancel, "c")] {
        let (mut events, mut runs) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let event = fixture.event("shop/ordered");
            let mut run = fixture.run(event.id, "shop/order");
            run.lease = Some(fixture.node);
            run.admission.singleton = one(mode, key);
            events.push(event);
            runs.push(run);
        }
        let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
        let ingest = fixture.ingest(events, runs, at(100));
        let created = fixture.store.ingest(ingest).await.expect("ingests");
        match mode {
            Mode::Skip => {
                assert_eq!(created[0], Created::New { leased: true });
                assert_eq!(created[1..], [skipped(ids[0]); 3]);
                assert_eq!(fixture.get(ids[0]).await.state.status, Status::Running);
                assert_eq!(fixture.store.run(ids[1]).await.expect("reads"), None);
            }
            Mode::Cancel => {
                // Nobody begins those that are over already.
                assert_eq!(created[..3], [Created::New { leased: false }; 3]);
                assert_eq!(created[3], Created::New { leased: true });
                for place in 0..3 {
                    cancelled(&fixture, ids[place], ids[place + 1]).await;
                }
                assert_eq!(fixture.get(ids[3]).await.state.status, Status::Running);
            }
        }
    }
    assert_eq!(fixture.claim(10, at(200)).await, []);
}

pub(super) async fn who_is_kept_away_by_another_limit_displaces_nobody(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let limited = |run: &mut NewRun| {
        run.admission.singleton = one(Mode::Cancel, "");
        run.admission.rate_limit = Some(Limited {
            rate: Rate {
                limit: 1,
                period_ms: 1_000,
                burst: 1,
            },
            key: String::new(),
        });
    };
    let (first, _) = fixture.create(at(0), limited).await;
    let (_, created) = fixture.create(at(10), limited).await;
    assert!(
        matches!(
            created,
            Created::Dropped {
                decision: Decision::RateLimited,
                ..
            }
        ),
        "{created:?}"
    );
    assert_eq!(fixture.get(first).await.state.status, Status::Scheduled);
    // And the other way round: who is skipped has not used anything up.
    let skips = |run: &mut NewRun| {
        limited(run);
        run.admission.singleton = one(Mode::Skip, "");
    };
    assert_eq!(fixture.create(at(1_000), skips).await.1, skipped(first));
    fixture.store.cancel(first, at(1_010)).await.expect("cancels");
    assert_eq!(
        fixture.create(at(1_020), skips).await.1,
        Created::New { leased: false }
    );
}

pub(super) async fn who_makes_room_leaves_its_turn_and_its_pause(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let throttled = |key: &'static str| {
        move |run: &mut NewRun| {
            run.admission.singleton = one(Mode::Cancel, key);
            run.admission.throttle = Some(Limited {
                rate: Rate {
                    limit: 1,
                    period_ms: 1_000,
                    burst: 1,
                },
                key: String::new(),
            });
        }
    };
    fixture.create(at(0), throttled("a")).await;
    let (second, held) = fixture.create(at(0), throttled("b")).await;
    assert_eq!(held, Created::Held { until: at(1_000) });
    let (third, held) = fixture.create(at(0), throttled("c")).await;
    assert_eq!(held, Created::Held { until: at(2_000) });
    // The one that takes the place of the second is behind the third, which moves up.
    let (fourth, _) = fixture.create(at(10), throttled("b")).await;
    cancelled(&fixture, second, fourth).await;
    assert_eq!(fixture.get(third).await.wake_at, Some(at(1_000)));
    // What its function's pause holds makes room, too.
    let held = |run: &mut NewRun| {
        run.admission.singleton = one(Mode::Cancel, "p");
        run.held = true;
    };
    let (earlier, _) = fixture.create(at(20), held).await;
    assert_eq!(fixture.get(earlier).await.state.phase, Some(Phase::Paused));
    let (later, _) = fixture.create(at(30), held).await;
    cancelled(&fixture, earlier, later).await;
    assert_eq!(asks(&fixture, Mode::Skip, "p", 40).await.1, skipped(later));
}

pub(super) async fn who_makes_room_leaves_its_slot(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let needs = |key: Option<&'static str>| {
        move |run: &mut NewRun| {
            run.admission.singleton = key.and_then(|key| one(Mode::Cancel, key));
            run.admission.concurrency = vec![Need {
                scope: Scope::Account,
                source: Some("'api'".to_owned()),
                name: "\"api\"".to_owned(),
                limit: 1,
            }];
        }
    };
    let (first, _) = fixture.create(at(0), needs(Some("a"))).await;
    assert_eq!(fixture.claim(10, at(10)).await.len(), 1);
    let (waits, _) = fixture.create(at(20), needs(None)).await;
    assert_eq!(fixture.claim(10, at(30)).await, []);
    assert_eq!(fixture.get(waits).await.state.phase, Some(Phase::Limited));
    let (second, _) = fixture.create(at(40), needs(Some("a"))).await;
    cancelled(&fixture, first, second).await;
    let claimed: Vec<RunId> = fixture.claim(10, at(50)).await.iter().map(|run| run.id).collect();
    assert_eq!(claimed, [waits], "it has waited for longer");
}

pub(super) async fn a_debounce_makes_room_with_its_first_event(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let debounced = |run: &mut NewRun| {
        run.admission.singleton = one(Mode::Cancel, "a");
        run.admission.gathering = Some(Gathering {
            kind: Kind::Debounce {
                period_ms: 1_000,
                timeout_ms: None,
            },
            key: "a".to_owned(),
        });
    };
    let (first, _) = fixture.create(at(0), debounced).await;
    let (_, joined) = fixture.create(at(500), debounced).await;
    assert_eq!(
        joined,
        Created::Gathered {
            run: first,
            until: at(1_500)
        }
    );
    assert_eq!(fixture.fire(at(1_500), 10, 10).await.claimed.len(), 1);
    assert_eq!(fixture.get(first).await.state.status, Status::Running);
    let (second, _) = fixture.create(at(2_000), debounced).await;
    cancelled(&fixture, first, second).await;
    let (_, joined) = fixture.create(at(2_100), debounced).await;
    assert_eq!(
        joined,
        Created::Gathered {
            run: second,
            until: at(3_100)
        }
    );
    // One that is asked for by name takes its place, and what comes then opens another window: in one commit, too.
    let (mut events, mut runs) = (Vec::new(), Vec::new());
    for gathers in [false, true] {
        let event = fixture.event("shop/ordered");
        let mut run = fixture.run(event.id, "shop/order");
        debounced(&mut run);
        if !gathers {
            run.admission.gathering = None;
        }
        events.push(event);
        runs.push(run);
    }
    let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
    let ingest = fixture.ingest(events, runs, at(2_200));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created[0], Created::New { leased: false });
    assert_eq!(
        created[1],
        Created::Gathered {
            run: ids[1],
            until: at(3_200)
        }
    );
    cancelled(&fixture, second, ids[0]).await;
    cancelled(&fixture, ids[0], ids[1]).await;
}

/// An append that invokes: its entry, the child and the wait for it.
fn invokes(fixture: &Fixture, parent: RunId, mode: Mode, key: &str, millis: i64) -> (Append, RunId) {
    let event = fixture.event(invoke::EVENT);
    let child = NewRun {
        parent: Some(parent),
        depth: 1,
        ..fixture.run(event.id, "shop/order")
    };
    carries(fixture, parent, (event, child), (mode, key), millis)
}

fn carries(
    fixture: &Fixture,
    parent: RunId,
    (event, mut child): (NewEvent, NewRun),
    (mode, key): (Mode, &str),
    millis: i64,
) -> (Append, RunId) {
    child.admission.singleton = one(mode, key);
    let id = child.id;
    let mut append = fixture.append_of(parent, 1, vec![sleep(0)], suspend(None), at(millis));
    append.waits = vec![NewWait {
        operation: 0,
        on: WaitOn::Child(ChildWait {
            child: id,
            cancels: true,
        }),
    }];
    append.ingest = Some(fixture.ingest(vec![event], vec![child], at(millis)));
    (append, id)
}

pub(super) async fn an_invoke_fails_that_finds_one(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let living = starts(&fixture, Mode::Skip, "a", 0).await;
    fixture.store.pause(living).await.expect("pauses");
    let parent = fixture.leased(at(0)).await;
    let (append, child) = invokes(&fixture, parent, Mode::Skip, "a", 100);
    assert_eq!(
        fixture.store.append(append).await.expect("appends"),
        Appended::Done
    );
    assert_eq!(fixture.store.run(child).await.expect("reads"), None);
    // The step has its answer in the same commit, and the run that waits for it is ready.
    assert_eq!(fixture.get(parent).await.state.phase, Some(Phase::Queued));
    let completions = fixture.store.completions(parent).await.expect("reads");
    let failure = completions[0].outcome.clone().expect_err("a failure");
    assert_eq!(
        (completions.len(), failure.code.as_deref()),
        (1, Some("invoke-skipped"))
    );
    assert!(
        failure.message.contains(&living.to_string()),
        "{}",
        failure.message
    );
    // One that executes, too: it is told before it waits.
    let parent = fixture.leased(at(0)).await;
    let (mut append, _) = invokes(&fixture, parent, Mode::Skip, "a", 200);
    append.then = Then::Continue;
    assert_eq!(
        fixture.store.append(append).await.expect("appends"),
        Appended::Done
    );
    let told = fixture.append(parent, 1, Vec::new(), suspend(None)).await;
    assert!(matches!(told, Appended::Completions(_)), "{told:?}");
}

pub(super) async fn an_invoke_takes_the_place_of_any_but_its_caller(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let living = starts(&fixture, Mode::Cancel, "a", 0).await;
    fixture.store.pause(living).await.expect("pauses");
    let parent = fixture.leased(at(0)).await;
    let (append, child) = invokes(&fixture, parent, Mode::Cancel, "a", 100);
    fixture.store.append(append).await.expect("appends");
    cancelled(&fixture, living, child).await;
    // Whoever waits for one that makes room is told in that commit.
    let next = starts(&fixture, Mode::Cancel, "a", 200).await;
    cancelled(&fixture, child, next).await;
    let completions = fixture.store.completions(parent).await.expect("reads");
    assert_eq!(completions.len(), 1);
    assert_eq!(completions[0].outcome, Err(invoke::cancelled(child)));
    assert_eq!(fixture.get(parent).await.state.phase, Some(Phase::Queued));
    // Were a run cancelled for what it has invoked itself, that would be for nobody.
    let (parent, _) = fixture
        .create(at(300), |run| {
            run.lease = Some(fixture.node);
            run.admission.singleton = one(Mode::Cancel, "b");
        })
        .await;
    let (append, child) = invokes(&fixture, parent, Mode::Cancel, "b", 400);
    fixture.store.append(append).await.expect("appends");
    assert_eq!(fixture.store.run(child).await.expect("reads"), None);
    assert_eq!(fixture.get(parent).await.state.phase, Some(Phase::Queued));
}

pub(super) async fn a_rerun_is_one_of_them(store: Arc<dyn Store>) {
    let fixture = Fixture::on(store).await;
    let first = starts(&fixture, Mode::Skip, "a", 0).await;
    let event_id = fixture.get(first).await.event_id;
    let again = |mode| {
        let mut run = fixture.run(event_id, "shop/order");
        run.rerun_of = Some(first);
        run.admission.singleton = one(mode, "a");
        run
    };
    let ingest = fixture.ingest(Vec::new(), vec![again(Mode::Skip)], at(10));
    assert_eq!(
        fixture.store.ingest(ingest).await.expect("ingests"),
        [skipped(first)]
    );
    // Its event did start a run: who asked is told, and nobody else.
    assert_eq!(fixture.store.decisions(event_id).await.expect("reads"), []);
    let rerun = again(Mode::Cancel);
    let id = rerun.id;
    let ingest = fixture.ingest(Vec::new(), vec![rerun], at(20));
    fixture.store.ingest(ingest).await.expect("ingests");
    cancelled(&fixture, first, id).await;
    assert_eq!(asks(&fixture, Mode::Skip, "a", 30).await.1, skipped(id));
    let Commanded::Done(_) = fixture.store.cancel(id, at(40)).await.expect("cancels") else {
        panic!("it lives");
    };
    let ingest = fixture.ingest(Vec::new(), vec![again(Mode::Skip)], at(50));
    let created = fixture.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created, [Created::New { leased: false }]);
}
