//! Limits on several nodes of one database: none is exceeded, and what becomes of each event is known.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dormouse_core::flow::{Admission, Decision, Limited, Rate};
use dormouse_core::run::Phase;
use dormouse_core::{EventId, RunId};
use dormouse_store::Store;
use dormouse_store::command::Commanded;
use dormouse_store::ingest::Created;
use dormouse_store::read::RunFilter;
use dormouse_store::schedule::FireTimers;
use dormouse_testing_postgres::Cluster;

use crate::{Member, at};

const RATE: Rate = Rate {
    limit: 5,
    period_ms: 1_000,
    burst: 3,
};

/// A small generator, so that a failure can be repeated.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// What one event of a key was answered with, and when it was sent.
struct Sent {
    event: EventId,
    rate_key: u64,
    once_key: u64,
    at: i64,
    created: Created,
}

/// Three nodes whose clocks differ take in events with mixed limits, several in a request, as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_limit_is_exceeded_whichever_nodes_take_the_events() {
    let url = Cluster::shared().database();
    let mut members = Vec::new();
    for number in 1..=3 {
        members.push(Arc::new(Member::join(&url, number).await));
    }
    let mut senders = Vec::new();
    for (node, member) in members.iter().enumerate() {
        for sender in 0..2_u64 {
            let member = Arc::clone(member);
            senders.push(tokio::spawn(async move {
                let mut random = 7 * node as u64 + sender;
                let mut sent = Vec::new();
                for round in 0..60_i64 {
                    let now = round * 40 + next(&mut random) as i64 % 60;
                    let mut ingest = member.ingest(false, None);
                    for _ in 0..next(&mut random) % 5 {
                        let more = member.ingest(false, None);
                        ingest.events.extend(more.events);
                        ingest.runs.extend(more.runs);
                    }
                    ingest.now = at(now);
                    let mut keys = Vec::new();
                    for run in &mut ingest.runs {
                        let (rate_key, once_key) = (next(&mut random) % 6, next(&mut random) % 400);
                        keys.push((run.event_id, rate_key, once_key));
                        run.admission = Admission {
                            idempotency: Some(format!("{once_key}")),
                            rate_limit: Some(Limited {
                                rate: RATE,
                                key: format!("{rate_key}"),
                            }),
                            ..Admission::default()
                        };
                    }
                    let answers = member.store.ingest(ingest).await.expect("ingests");
                    for ((event, rate_key, once_key), created) in keys.into_iter().zip(answers) {
                        sent.push(Sent {
                            event,
                            rate_key,
                            once_key,
                            at: now,
                            created,
                        });
                    }
                }
                sent
            }));
        }
    }
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.expect("no panic"));
    }
    let store = &members[0].store;
    let (mut by_rate, mut by_once) = (HashMap::<u64, Vec<i64>>::new(), HashMap::<u64, u32>::new());
    let mut dropped = HashMap::new();
    for sent in &sent {
        let kept = store.decisions(sent.event).await.expect("reads");
        match sent.created {
            Created::New { .. } => {
                by_rate.entry(sent.rate_key).or_default().push(sent.at);
                *by_once.entry(sent.once_key).or_default() += 1;
                assert_eq!(kept, [], "it has started a run");
            }
            Created::Dropped { decision, .. } => {
                *dropped.entry(decision).or_insert(0) += 1;
                assert_eq!(kept.len(), 1);
                assert_eq!(kept[0].decision, decision);
            }
            Created::Held { .. } | Created::Gathered { .. } => panic!("nothing is throttled or gathered"),
            Created::Duplicate(run) => panic!("no event has an id of its own: {run}"),
        }
    }
    for (key, mut times) in by_rate {
        times.sort_unstable();
        for (index, start) in times.iter().enumerate() {
            let within = times[index..]
                .iter()
                .filter(|time| **time < start + 1_000)
                .count();
            assert!(within <= 7, "key {key}: {within} from {start} on: {times:?}");
        }
    }
    assert!(by_once.values().all(|count| *count == 1), "{by_once:?}");
    for decision in [Decision::Idempotent, Decision::RateLimited] {
        assert!(dropped.contains_key(&decision), "{dropped:?}");
    }
}

/// Three nodes take in events of throttled functions, fire timers, cancel, pause and resume at once: every run begins, once,
/// or is cancelled, and no faster than the throttle says, also those that were meant for the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_throttle_is_exceeded_whichever_nodes_begin_the_runs() {
    let url = Cluster::shared().database();
    let clock = Arc::new(AtomicI64::new(0));
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let member = Arc::new(Member::join(&url, number).await);
        let clock = Arc::clone(&clock);
        nodes.push(tokio::spawn(async move {
            let mut random = u64::from(number);
            let mut keys = HashMap::<RunId, u64>::new();
            let mut begun = Vec::<(RunId, i64)>::new();
            let mut cancelled = Vec::<RunId>::new();
            for round in 0.. {
                let now = clock.fetch_add(33, Ordering::Relaxed);
                if round >= 40 && now > 15_000 {
                    break;
                }
                if round < 40 {
                    let mut ingest = member.ingest(true, None);
                    ingest.now = at(now);
                    let run = &mut ingest.runs[0];
                    let key = next(&mut random) % 3;
                    keys.insert(run.id, key);
                    run.start_at = match next(&mut random) % 4 {
                        0 => at(2_000),
                        _ => at(0),
                    };
                    run.admission.throttle = Some(Limited {
                        rate: RATE,
                        key: format!("{key}"),
                    });
                    let run = run.id;
                    let created = member.store.ingest(ingest).await.expect("ingests");
                    match created[0] {
                        Created::New { .. } => begun.push((run, now)),
                        Created::Held { until } => assert!(until > at(now)),
                        other => panic!("a throttle drops nothing: {other:?}"),
                    }
                }
                // Whatever waits, of whichever node.
                let waiting = RunFilter {
                    phase: Some(Phase::Limited),
                    limit: 20,
                    ..RunFilter::default()
                };
                let found = member.store.runs(waiting).await.expect("lists");
                if next(&mut random).is_multiple_of(3) && !found.is_empty() {
                    let run = found[next(&mut random) as usize % found.len()].id;
                    if next(&mut random).is_multiple_of(2) {
                        let done = member.store.cancel(run, at(now)).await.expect("answers");
                        if let Commanded::Done(_) = done {
                            cancelled.push(run);
                        }
                    } else {
                        member.store.pause(run).await.expect("answers");
                    }
                }
                let paused = RunFilter {
                    phase: Some(Phase::Paused),
                    limit: 3,
                    ..RunFilter::default()
                };
                for run in member.store.runs(paused).await.expect("lists") {
                    member.store.resume(run.id, at(now)).await.expect("answers");
                }
                let fire = FireTimers {
                    node: member.node,
                    now: at(now),
                    limit: 5,
                    claim_limit: 5,
                    versions: None,
                };
                let fired = member.store.fire_timers(fire).await.expect("fires");
                begun.extend(fired.claimed.iter().map(|run| (run.id, now)));
            }
            (member, keys, begun, cancelled)
        }));
    }
    let (mut keys, mut begun, mut members) = (HashMap::new(), Vec::new(), Vec::new());
    let mut cancelled = Vec::new();
    for node in nodes {
        let (member, its_keys, its_begun, its_cancelled) = node.await.expect("no panic");
        members.push(member);
        keys.extend(its_keys);
        begun.extend(its_begun);
        cancelled.extend(its_cancelled);
    }
    // What the nodes have left.
    let end = clock.load(Ordering::Relaxed);
    let paused = RunFilter {
        phase: Some(Phase::Paused),
        limit: 200,
        ..RunFilter::default()
    };
    for run in members[0].store.runs(paused).await.expect("lists") {
        members[0].store.resume(run.id, at(end)).await.expect("answers");
    }
    for now in (end..end + 40_000).step_by(100) {
        let fire = FireTimers {
            node: members[0].node,
            now: at(now),
            limit: 100,
            claim_limit: 100,
            versions: None,
        };
        let fired = members[0].store.fire_timers(fire).await.expect("fires");
        begun.extend(fired.claimed.iter().map(|run| (run.id, now)));
    }
    assert_eq!(keys.len(), 120);
    assert!(!cancelled.is_empty());
    // One that was found in line may have begun before it was cancelled.
    let ended: HashSet<RunId> = begun.iter().map(|(run, _)| *run).chain(cancelled).collect();
    assert_eq!(ended.len(), 120, "every run begins or is cancelled");
    let mut times = HashMap::<u64, Vec<i64>>::new();
    for (run, at) in begun {
        times
            .entry(keys.remove(&run).expect("each once"))
            .or_default()
            .push(at);
    }
    for (key, mut times) in times {
        times.sort_unstable();
        for (index, start) in times.iter().enumerate() {
            let within = times[index..]
                .iter()
                .filter(|time| **time < start + 1_000)
                .count();
            // A turn may be taken up to a second late.
            assert!(within <= 7 + 5, "key {key}: {within} from {start} on: {times:?}");
        }
    }
}
