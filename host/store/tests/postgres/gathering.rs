//! Events that start runs together, taken in by several nodes of one database: each is in one window, whose run begins once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dormouse_core::flow::Gathering;
use dormouse_core::flow::window::Kind;
use dormouse_core::{EventId, RunId};
use dormouse_store::Store;
use dormouse_store::ingest::Created;
use dormouse_store::schedule::FireTimers;
use dormouse_testing_postgres::Cluster;

use crate::{Member, at};

const BATCH: Kind = Kind::Batch {
    max_size: 4,
    timeout_ms: 1_000,
};
const DEBOUNCE: Kind = Kind::Debounce {
    period_ms: 1_000,
    timeout_ms: Some(3_000),
};

/// What a node has seen: the events that it sent, each with its key and its run, and the runs that it began, each with the
/// event that it began with.
#[derive(Default)]
struct Seen {
    sent: Vec<(EventId, u64, RunId)>,
    begun: Vec<(RunId, EventId)>,
}

/// Sends events of a few keys as fast as it can, some at once, and fires what is due, by a clock that runs.
async fn work(member: Arc<Member>, kind: Kind, seed: u64) -> Seen {
    let mut seen = Seen::default();
    let mut random = seed;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..80_i64 {
        let now = round * 60 + next(40) as i64;
        let mut ingest = member.ingest(false, None);
        for _ in 0..next(5) {
            let more = member.ingest(false, None);
            ingest.events.extend(more.events);
            ingest.runs.extend(more.runs);
        }
        ingest.now = at(now);
        let mut keys = Vec::new();
        for run in &mut ingest.runs {
            let key = next(3);
            let random = run.id.to_bytes()[6..].try_into().expect("ten bytes");
            run.id = RunId::from_parts(at(now), random);
            run.admission.gathering = Some(Gathering {
                kind,
                key: format!("{key}"),
            });
            keys.push((run.event_id, key));
        }
        let created = member.store.ingest(ingest).await.expect("ingests");
        for ((event, key), created) in keys.into_iter().zip(created) {
            let Created::Gathered { run, .. } = created else {
                panic!("{created:?}");
            };
            seen.sent.push((event, key, run));
        }
        fire(&member, now, &mut seen).await;
    }
    seen
}

async fn fire(member: &Member, now: i64, seen: &mut Seen) {
    let fire = FireTimers {
        node: member.node,
        now: at(now),
        limit: 100,
        claim_limit: 100,
        versions: None,
    };
    let fired = member.store.fire_timers(fire).await.expect("fires");
    let claimed = fired.claimed.iter().map(|run| (run.id, run.event_id));
    seen.begun.extend(claimed);
}

async fn together(kind: Kind) -> (Vec<Arc<Member>>, Seen) {
    let url = Cluster::shared().database();
    let mut members = Vec::new();
    for number in 1..=3 {
        members.push(Arc::new(Member::join(&url, number).await));
    }
    let each = members.iter().enumerate();
    let workers: Vec<_> = each
        .map(|(seed, member)| tokio::spawn(work(Arc::clone(member), kind, 11 * seed as u64 + 5)))
        .collect();
    let mut all = Seen::default();
    for worker in workers {
        let seen = worker.await.expect("no panic");
        all.sent.extend(seen.sent);
        all.begun.extend(seen.begun);
    }
    fire(&members[0], 60_000, &mut all).await;
    (members, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_event_is_in_one_batch_whichever_node_takes_it() {
    let (members, seen) = together(BATCH).await;
    let begun: HashSet<RunId> = seen.begun.iter().map(|(run, _)| *run).collect();
    assert_eq!(begun.len(), seen.begun.len(), "each begins once");
    let mut of: HashMap<RunId, (u64, HashSet<EventId>)> = HashMap::new();
    for (event, key, run) in &seen.sent {
        let (first, events) = of.entry(*run).or_insert((*key, HashSet::new()));
        assert_eq!(first, key, "a batch has one key");
        assert!(events.insert(*event));
    }
    assert_eq!(begun, of.keys().copied().collect());
    let mut full = 0;
    for (run, (_, events)) in &of {
        let stored = members[2].store.batch(*run).await.expect("reads");
        let ids: HashSet<EventId> = stored.iter().map(|event| event.id).collect();
        assert_eq!((stored.len(), &ids), (events.len(), events));
        assert!(events.len() <= 4);
        full += usize::from(events.len() == 4);
    }
    assert!(full * 2 > of.len(), "{full} of {} were full", of.len());
    for member in &members {
        member.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_debounce_begins_once_with_one_of_its_events_whichever_nodes_take_them() {
    let (members, seen) = together(DEBOUNCE).await;
    let mut of: HashMap<RunId, HashSet<EventId>> = HashMap::new();
    for (event, _, run) in &seen.sent {
        of.entry(*run).or_default().insert(*event);
    }
    let begun: HashMap<RunId, EventId> = seen.begun.iter().copied().collect();
    assert_eq!(begun.len(), seen.begun.len(), "each begins once");
    assert_eq!(begun.len(), of.len());
    for (run, event) in &begun {
        assert!(
            of[run].contains(event),
            "it begins with an event that came in its window"
        );
        let found = members[1].store.run(*run).await.expect("reads").expect("there");
        assert_eq!(found.event_id, *event, "none came after it had begun");
    }
    assert!(
        of.len() * 4 < seen.sent.len(),
        "{} runs of {} events",
        of.len(),
        seen.sent.len()
    );
    for member in &members {
        member.store.close().await;
    }
}
