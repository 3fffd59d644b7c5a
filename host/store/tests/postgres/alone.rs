//! Functions of which one run is there at a time, on several nodes of one database: however many start at once, one does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dormouse_core::flow::singleton::Mode;
use dormouse_core::flow::{Decision, Singleton};
use dormouse_core::run::Status;
use dormouse_core::{Json, RunId};
use dormouse_store::Store;
use dormouse_store::execute::{Appended, Then};
use dormouse_store::ingest::Created;
use dormouse_store::read::RunFilter;
use dormouse_testing_postgres::Cluster;

use crate::Member;

/// What became of one event.
struct Sent {
    run: RunId,
    key: u64,
    created: Created,
}

/// Sends events of a few keys as fast as it can, several at once, and ends what it is given.
async fn work(member: Arc<Member>, mode: Mode, seed: u64) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut random = seed;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..80 {
        let mut ingest = member.ingest(true, None);
        for _ in 0..next(4) {
            let more = member.ingest(true, None);
            ingest.events.extend(more.events);
            ingest.runs.extend(more.runs);
        }
        let mut asked = Vec::new();
        for run in &mut ingest.runs {
            let key = next(3);
            run.admission.singleton = Some(Singleton {
                mode,
                key: format!("{key}"),
            });
            asked.push((run.id, key));
        }
        let created = member.store.ingest(ingest).await.expect("ingests");
        for ((run, key), created) in asked.into_iter().zip(created) {
            sent.push(Sent { run, key, created });
            if created == (Created::New { leased: true }) && next(3) > 0 {
                let output = Json::trusted("1");
                let append = member.append(run, 1, Vec::new(), Then::Complete { output });
                let appended = member.store.append(append).await.expect("appends");
                assert!(
                    matches!(appended, Appended::Done | Appended::Lost(_)),
                    "{appended:?}"
                );
            }
        }
    }
    sent
}

/// Looks again and again at who lives, until it is told that it is enough.
async fn look(member: Arc<Member>, enough: Arc<AtomicBool>) -> Vec<Vec<RunId>> {
    let mut seen = Vec::new();
    while !enough.load(Ordering::Acquire) {
        let filter = RunFilter {
            status: vec![Status::Scheduled, Status::Running],
            limit: 100,
            ..RunFilter::default()
        };
        let living = member.store.runs(filter).await.expect("reads");
        seen.push(living.iter().map(|run| run.id).collect());
    }
    seen
}

async fn together(mode: Mode) -> (Vec<Arc<Member>>, HashMap<RunId, Sent>) {
    let url = Cluster::shared().database();
    let mut members = Vec::new();
    for number in 1..=3 {
        members.push(Arc::new(Member::join(&url, number).await));
    }
    let enough = Arc::new(AtomicBool::new(false));
    let looker = tokio::spawn(look(Arc::clone(&members[0]), Arc::clone(&enough)));
    let workers: Vec<_> = (0..6_usize)
        .map(|number| {
            tokio::spawn(work(
                Arc::clone(&members[number % 3]),
                mode,
                13 * number as u64 + 3,
            ))
        })
        .collect();
    let mut sent = HashMap::new();
    for worker in workers {
        for one in worker.await.expect("no panic") {
            sent.insert(one.run, one);
        }
    }
    enough.store(true, Ordering::Release);
    let looks = looker.await.expect("no panic");
    for living in &looks {
        let keys: HashSet<u64> = living.iter().map(|run| sent[run].key).collect();
        assert_eq!(
            keys.len(),
            living.len(),
            "two of one key lived at once: {living:?}"
        );
    }
    println!("{} events, {} looks", sent.len(), looks.len());
    (members, sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_two_of_a_key_live_whichever_nodes_take_the_events() {
    let (members, sent) = together(Mode::Skip).await;
    let (mut started, mut skipped) = (0, 0);
    for one in sent.values() {
        let found = members[1].store.run(one.run).await.expect("reads");
        match one.created {
            Created::New { leased: true } => {
                started += 1;
                let status = found.expect("it was created").state.status;
                assert!(
                    matches!(status, Status::Running | Status::Completed),
                    "{status:?}"
                );
            }
            Created::Dropped {
                decision: Decision::Skipped,
                run: Some(living),
                until: None,
            } => {
                skipped += 1;
                assert_eq!(found, None);
                assert_eq!(sent[&living].key, one.key);
                assert!(matches!(sent[&living].created, Created::New { .. }));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        started > 3 && skipped > 3,
        "{started} started, {skipped} were skipped"
    );
    for member in &members {
        member.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_of_a_key_is_left_whichever_nodes_take_the_events() {
    let (members, sent) = together(Mode::Cancel).await;
    let mut counts: HashMap<Status, u32> = HashMap::new();
    let mut living: HashMap<u64, u32> = HashMap::new();
    let mut displaced: HashSet<RunId> = HashSet::new();
    for one in sent.values() {
        assert!(matches!(one.created, Created::New { .. }), "{:?}", one.created);
        let found = members[1]
            .store
            .run(one.run)
            .await
            .expect("reads")
            .expect("there");
        *counts.entry(found.state.status).or_default() += 1;
        match found.state.status {
            Status::Cancelled => {
                let reason = found.reason.expect("a reason");
                let by = reason
                    .strip_prefix("cancelled by run ")
                    .and_then(|rest| rest.split(',').next());
                let by: RunId = by.and_then(|id| id.parse().ok()).expect(&reason);
                assert_eq!(sent[&by].key, one.key);
                assert!(displaced.insert(by), "one takes the place of one");
            }
            Status::Completed => {}
            _ => *living.entry(one.key).or_default() += 1,
        }
    }
    assert!(living.values().all(|count| *count == 1), "{living:?}");
    assert!(
        counts[&Status::Cancelled] > 3 && counts[&Status::Completed] > 3,
        "{counts:?}"
    );
    for member in &members {
        member.store.close().await;
    }
}
