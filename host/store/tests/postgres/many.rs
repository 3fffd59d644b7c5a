//! Several nodes on one database: leases, claims, deploys, hints.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{Phase, Status, Wait};
use dormouse_core::{Digest, Json, RunId};
use dormouse_store::execute::{Appended, Lost, Then};
use dormouse_store::ingest::Created;
use dormouse_store::postgres::{Options, PostgresStore};
use dormouse_store::registry::NewVersion;
use dormouse_store::schedule::FireTimers;
use dormouse_store::{Error, Store};
use dormouse_testing_postgres::Cluster;

use crate::{Member, at, node, open, step, until};

/// As a process that is stopped and goes on after its lease: nothing it still writes is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_declared_dead_writes_nothing_more() {
    let url = Cluster::shared().database();
    let stale = Member::join(&url, 1).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(stale.create(true).await);
    }
    let append = stale.append(runs[0], 1, vec![step(0, "1")], Then::Continue);
    assert_eq!(stale.store.append(append).await.expect("appends"), Appended::Done);

    // Another node whose idea of a lease is short: so nobody has to wait for ten seconds.
    let options = Options {
        lease: Duration::from_millis(300),
        ..Options::new(&url)
    };
    let other = Arc::new(PostgresStore::open(options).await.expect("opens"));
    let other_node = node(2).incarnation;
    let taken = until("the runs are taken over", async || {
        // Anew each time: where the machine is slow, its own lease may have ended.
        other.join(node(2), at(0)).await.expect("joins");
        let mut taken = 0;
        loop {
            match other.take_over(2, at(10)).await.expect("takes over") {
                0 => break,
                count => taken += count,
            }
        }
        (taken > 0).then_some(taken)
    })
    .await;
    assert_eq!(taken, 5);

    assert!(matches!(
        stale.store.heartbeat(stale.node, at(0)).await,
        Err(Error::DeclaredDead)
    ));
    assert!(matches!(
        stale.store.claim(stale.claim(9)).await,
        Err(Error::DeclaredDead)
    ));
    let fire = FireTimers {
        node: stale.node,
        now: at(99),
        limit: 9,
        claim_limit: 9,
        versions: None,
    };
    assert!(matches!(
        stale.store.fire_timers(fire).await,
        Err(Error::DeclaredDead)
    ));
    assert!(!stale.store.drain(stale.node, at(0)).await.expect("answers"));
    for run in &runs {
        for then in [
            Then::Continue,
            Then::Complete {
                output: Json::trusted("1"),
            },
            Then::Release { host_trap: false },
        ] {
            let append = stale.append(*run, 1, vec![step(1, "\"stale\"")], then);
            let appended = stale.store.append(append).await.expect("answers");
            assert_eq!(appended, Appended::Lost(Lost::TakenOver));
        }
    }
    // What it ingests is stored, but not leased to it.
    let ingest = stale.ingest(true, None);
    let created = stale.store.ingest(ingest).await.expect("ingests");
    assert_eq!(created, [Created::New { leased: false }]);
    let journal = other.journal(runs[0], 0).await.expect("reads");
    assert_eq!(journal, [step(0, "1")]);
    other.join(node(2), at(0)).await.expect("joins");
    let nodes = other.nodes(at(0)).await.expect("reads");
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].incarnation, nodes[0].runs), (other_node, 0));
    assert_eq!(other.take_over(9, at(11)).await.expect("looks"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claims_of_many_nodes_never_give_a_run_twice() {
    let url = Cluster::shared().database();
    let mut members = vec![Arc::new(Member::join(&url, 1).await)];
    for number in 2..=4 {
        members.push(Arc::new(Member::join(&url, number).await));
    }
    let mut all = HashSet::new();
    for _ in 0..20 {
        let mut ingest = members[0].ingest(false, None);
        for _ in 0..39 {
            let more = members[0].ingest(false, None);
            ingest.events.extend(more.events);
            ingest.runs.extend(more.runs);
        }
        all.extend(ingest.runs.iter().map(|run| run.id));
        members[0].store.ingest(ingest).await.expect("ingests");
    }
    let mut claimers = Vec::new();
    for member in &members {
        for _ in 0..2 {
            let member = Arc::clone(member);
            claimers.push(tokio::spawn(async move {
                let mut mine: Vec<RunId> = Vec::new();
                let mut empty = 0;
                // What another claimer has locked is passed over, so once with nothing is not the end.
                while empty < 20 {
                    let batch = member.store.claim(member.claim(7)).await.expect("claims");
                    empty = if batch.claimed.is_empty() { empty + 1 } else { 0 };
                    mine.extend(batch.claimed.iter().map(|run| run.id));
                }
                mine
            }));
        }
    }
    let mut claimed = Vec::new();
    for claimer in claimers {
        claimed.extend(claimer.await.expect("no panic"));
    }
    assert_eq!(claimed.len(), all.len(), "each once");
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), all);
}

/// Claims, cancels and timers on the same runs, from two nodes: no deadlock, and everything adds up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claims_timers_and_cancels_get_along() {
    let url = Cluster::shared().database();
    let first = Arc::new(Member::join(&url, 1).await);
    let second = Arc::new(Member::join(&url, 2).await);
    let mut runs = Vec::new();
    for number in 0..200 {
        let leased = number % 2 == 0;
        let run = first.create(leased).await;
        if leased {
            let then = Then::Suspend {
                wait: Wait::Sleep,
                reason: "sleeps".to_owned(),
                wake_at: Some(at(1)),
                known: vec![],
            };
            let append = first.append(run, 1, vec![], then);
            assert_eq!(
                first.store.append(append).await.expect("suspends"),
                Appended::Done
            );
        }
        runs.push(run);
    }
    let mut tasks = Vec::new();
    for member in [Arc::clone(&first), Arc::clone(&second)] {
        let claiming = Arc::clone(&member);
        tasks.push(tokio::spawn(async move {
            for _ in 0..60 {
                claiming.store.claim(claiming.claim(3)).await.expect("claims");
            }
        }));
        let firing = Arc::clone(&member);
        tasks.push(tokio::spawn(async move {
            for _ in 0..60 {
                let fire = FireTimers {
                    node: firing.node,
                    now: at(5),
                    limit: 3,
                    claim_limit: 1,
                    versions: None,
                };
                firing.store.fire_timers(fire).await.expect("fires");
            }
        }));
        let cancelling = runs.clone();
        tasks.push(tokio::spawn(async move {
            for run in cancelling.iter().step_by(3) {
                member.store.cancel(*run, at(6)).await.expect("cancels");
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let glances = first.store.glance(&runs).await.expect("reads");
    assert_eq!(glances.len(), runs.len());
    let cancelled = glances
        .iter()
        .filter(|glance| glance.state.status == Status::Cancelled);
    assert_eq!(cancelled.count(), runs.iter().step_by(3).count());
    for glance in &glances {
        let executing = glance.state.phase == Some(Phase::Executing);
        assert_eq!(executing, glance.owner.is_some(), "{glance:?}");
    }
    let counts = second.store.counts().await.expect("counts");
    assert_eq!(
        counts.live.iter().sum::<u64>() as usize + runs.iter().step_by(3).count(),
        runs.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deploys_on_many_nodes_come_one_after_the_other() {
    let url = Cluster::shared().database();
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(open(&url).await);
    }
    let mut deploys = Vec::new();
    for (number, store) in stores.iter().enumerate() {
        for round in 0..5_u64 {
            let store = Arc::clone(store);
            deploys.push(tokio::spawn(async move {
                let version = NewVersion {
                    module: format!("module-{}", round % 2),
                    digest: Digest::of(&[number as u8, round as u8]),
                    manifest: Json::trusted("{}"),
                    size: 1,
                    uploaded_by: "a test".to_owned(),
                    message: None,
                    activate: true,
                    policy: None,
                    now: at(0),
                };
                let config = store
                    .put_config(Json::trusted(format!("[{round}]")), at(0))
                    .await
                    .expect("stores");
                (
                    store.put_version(version).await.expect("stores").generation,
                    round,
                    config,
                )
            }));
        }
    }
    let (mut generations, mut configs) = (HashSet::new(), HashSet::new());
    for deploy in deploys {
        let (generation, round, config) = deploy.await.expect("no panic");
        assert!(generations.insert(generation), "each moved the generation");
        configs.insert((round, config));
    }
    assert_eq!(
        configs.len(),
        5,
        "the same document has one revision on all nodes"
    );
    let registry = stores[0].registry().await.expect("reads");
    assert_eq!(registry.generation, 21);
    assert_eq!(registry.active.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_event_on_many_nodes_starts_one_run() {
    let url = Cluster::shared().database();
    let mut members = Vec::new();
    for number in 1..=4 {
        members.push(Arc::new(Member::join(&url, number).await));
    }
    for round in 0..10 {
        let key = format!("order {round}");
        let mut ingests = Vec::new();
        for member in &members {
            let (member, ingest) = (Arc::clone(member), member.ingest(false, Some(&key)));
            ingests.push(tokio::spawn(async move {
                let run = ingest.runs[0].id;
                (run, member.store.ingest(ingest).await.expect("ingests")[0])
            }));
        }
        let mut answers = Vec::new();
        for ingest in ingests {
            answers.push(ingest.await.expect("no panic"));
        }
        let created: Vec<RunId> = answers
            .iter()
            .filter(|(_, created)| matches!(created, Created::New { .. }))
            .map(|(run, _)| *run)
            .collect();
        assert_eq!(created.len(), 1, "{answers:?}");
        for (run, answer) in &answers {
            assert!(
                *run == created[0] || *answer == Created::Duplicate(created[0]),
                "{answers:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_tell_each_other_and_nobody_talks_to_himself() {
    let url = Cluster::shared().database();
    let first = Member::join(&url, 1).await;
    let second = Member::join(&url, 2).await;
    // Learns that there is somebody to tell.
    for member in [&first, &second] {
        member.store.heartbeat(member.node, at(0)).await.expect("lives");
    }
    let (mut own, mut others) = (first.store.hints(), second.store.hints());
    // The first move is the listener's own, when it begins to listen.
    for hints in [&mut own, &mut others] {
        let moved = hints.wait_for(|number| *number > 0);
        tokio::time::timeout(crate::PATIENCE, moved)
            .await
            .expect("in time")
            .expect("listens");
        hints.mark_unchanged();
    }
    let run = first.create(false).await;
    tokio::time::timeout(crate::PATIENCE, others.changed())
        .await
        .expect("something is ready")
        .expect("is told");
    let claimed = second.store.claim(second.claim(1)).await.expect("claims").claimed;
    assert_eq!(claimed[0].id, run);
    others.mark_unchanged();
    first.store.cancel(run, at(3)).await.expect("cancels");
    tokio::time::timeout(crate::PATIENCE, others.changed())
        .await
        .expect("something ended")
        .expect("is told");
    assert!(!own.has_changed().expect("lives"), "nobody else did anything");
    let glance = second.store.glance(&[run]).await.expect("reads");
    assert_eq!((glance[0].state.status, glance[0].epoch), (Status::Cancelled, 2));
}

/// A second node that waits for the lock of a run's row must see what was committed before it was given: otherwise a
/// run would go to sleep over the completion that wakes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wake_and_a_suspension_at_once_do_not_miss_each_other() {
    let url = Cluster::shared().database();
    let owner = Arc::new(Member::join(&url, 1).await);
    let other = open(&url).await;
    for _ in 0..60 {
        let run = owner.create(true).await;
        let append = owner.append(run, 1, vec![sleep()], Then::Continue);
        assert_eq!(owner.store.append(append).await.expect("appends"), Appended::Done);
        let suspending = Arc::clone(&owner);
        let suspend = tokio::spawn(async move {
            let then = Then::Suspend {
                wait: Wait::Sleep,
                reason: "sleeps".to_owned(),
                wake_at: None,
                known: vec![],
            };
            suspending
                .store
                .append(suspending.append(run, 1, vec![], then))
                .await
        });
        let wake = other.wake(run, Some(0), at(5)).await.expect("wakes");
        let suspended = suspend.await.expect("no panic").expect("answers");
        let phase = other
            .run(run)
            .await
            .expect("reads")
            .expect("is there")
            .state
            .phase;
        match suspended {
            Appended::Done => assert_eq!(
                phase,
                Some(Phase::Queued),
                "it sleeps over its completion: {wake:?}"
            ),
            Appended::Completions(completions) => {
                assert_eq!((completions.len(), phase), (1, Some(Phase::Executing)));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn sleep() -> dormouse_core::journal::Record {
    use dormouse_core::journal::{Entry, Event, OperationKind};
    let event = Event::Started {
        kind: OperationKind::Sleep,
        name: "sleep".to_owned(),
        occurrence: 0,
        input_hash: 42,
        input: Json::trusted("1000"),
        due_at: None,
    };
    Entry {
        seq: 0,
        at: at(0),
        event,
    }
    .encode()
}

/// Whatever is asked at once, and of which kind; and they are not made anew each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_has_eight_connections_at_most_and_keeps_them() {
    let url = Cluster::shared().database();
    let member = Arc::new(Member::join(&url, 1).await);
    let ask = |sql: &str| {
        let filter = format!(
            "FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'dormouse'",
            crate::database_of(&url)
        );
        let answer = Cluster::shared().psql("postgres", &sql.replace("$", &filter));
        answer.parse::<u32>().expect("a number")
    };
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let member = Arc::clone(&member);
        tasks.spawn(async move {
            let bytes = [number; 9_000];
            for _ in 0..20 {
                match number % 5 {
                    0 => drop(member.create(number % 2 == 0).await),
                    1 => drop(member.store.counts().await.expect("counts")),
                    2 => drop(member.store.heartbeat(member.node, at(1)).await.expect("lives")),
                    3 => {
                        let stored = member.store.put_component(Digest::of(&bytes), &bytes).await;
                        stored.expect("stores");
                    }
                    _ => drop(member.store.claim(member.claim(2)).await.expect("claims")),
                }
            }
        });
    }
    let mut most = 0;
    while !tasks.is_empty() {
        most = most.max(ask("SELECT count(*) $"));
        while let Some(done) = tasks.try_join_next() {
            done.expect("no panic");
        }
    }
    println!("{most} connections at most");
    assert!((3..=8).contains(&most), "{most}");
    // Those that there are have served all of it: none is younger than the work was.
    let left = ask("SELECT count(*) $");
    let calls = ask("SELECT count(*) $ AND backend_start > now() - interval '50 milliseconds'");
    assert!(
        (3..=8).contains(&left) && calls == 0,
        "{left} are left, {calls} of them new"
    );
}
