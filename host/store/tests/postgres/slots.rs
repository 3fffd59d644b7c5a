//! Slots of concurrency limits on several nodes of one database: what is leased at once, counted outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dormouse_core::flow::Need;
use dormouse_core::flow::concurrency::Scope;
use dormouse_core::run::{Status, Wait};
use dormouse_core::{Json, RunId};
use dormouse_store::Store;
use dormouse_store::execute::{Appended, Then};
use dormouse_testing_postgres::Cluster;

use crate::{Member, at};

/// Runs, their keys and how often they have been leased.
const RUNS: usize = 300;
const KEYS: usize = 6;
const ALL_MAX: u32 = 7;

fn needs(number: usize) -> Vec<Need> {
    let need = |scope, name: String, limit| Need {
        scope,
        source: Some("event.data.key".to_owned()),
        name,
        limit,
    };
    vec![
        need(
            Scope::Function,
            format!("key {}", number % KEYS),
            1 + (number % KEYS % 3) as u32,
        ),
        need(Scope::Account, "all".to_owned(), ALL_MAX),
    ]
}

/// What is leased now, by name, and the limits.
#[derive(Default)]
struct Ledger {
    leased: HashMap<String, u32>,
    most: HashMap<String, u32>,
}

impl Ledger {
    fn take(&mut self, needs: &[Need]) {
        for need in needs {
            let leased = self.leased.entry(need.name.clone()).or_default();
            *leased += 1;
            assert!(*leased <= need.limit, "{}: {leased} of {}", need.name, need.limit);
            let most = self.most.entry(need.name.clone()).or_default();
            *most = (*most).max(*leased);
        }
    }

    fn give_back(&mut self, needs: &[Need]) {
        for need in needs {
            *self.leased.entry(need.name.clone()).or_default() -= 1;
        }
    }
}

/// Three nodes lease, suspend and end runs as fast as they can. A run counts from when its node knows that it is leased until just
/// before it gives the lease back: so the ledger never counts more than is leased.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_are_leased_than_the_limit_says_whichever_nodes_claim() {
    let url = Cluster::shared().database();
    let mut members = Vec::new();
    for number in 1..=3 {
        members.push(Arc::new(Member::join(&url, number).await));
    }
    let mut all: HashMap<RunId, Vec<Need>> = HashMap::new();
    for number in 0..RUNS {
        let member = &members[number % 3];
        let mut ingest = member.ingest(false, None);
        ingest.runs[0].admission.concurrency = needs(number);
        all.insert(ingest.runs[0].id, needs(number));
        member.store.ingest(ingest).await.expect("ingests");
    }
    let all = Arc::new(all);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let ended = Arc::new(Mutex::new(HashMap::<RunId, u32>::new()));
    let deadline = Instant::now() + Duration::from_secs(120);
    let workers = members.iter().map(|member| {
        let (member, all) = (Arc::clone(member), Arc::clone(&all));
        let (ledger, ended) = (Arc::clone(&ledger), Arc::clone(&ended));
        tokio::spawn(async move {
            while ended.lock().expect("no panic").len() < RUNS {
                assert!(
                    Instant::now() < deadline,
                    "{} ended",
                    ended.lock().expect("no panic").len()
                );
                let batch = member.store.claim(member.claim(20)).await.expect("claims");
                if batch.claimed.is_empty() {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                for run in &batch.claimed {
                    ledger.lock().expect("no panic").take(&all[&run.id]);
                }
                for run in batch.claimed {
                    // Once it waits for something, which comes at once.
                    let waits = run.epoch == 1;
                    let then = match waits {
                        true => Then::Suspend {
                            wait: Wait::External,
                            reason: "waits".to_owned(),
                            wake_at: None,
                            known: Vec::new(),
                        },
                        false => Then::Complete { output: Json::null() },
                    };
                    ledger.lock().expect("no panic").give_back(&all[&run.id]);
                    let append = member.append(run.id, run.epoch, Vec::new(), then);
                    let appended = member.store.append(append).await.expect("appends");
                    assert_eq!(appended, Appended::Done);
                    match waits {
                        true => {
                            member.store.wake(run.id, None, at(3)).await.expect("wakes");
                        }
                        false => *ended.lock().expect("no panic").entry(run.id).or_default() += 1,
                    }
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
    assert!(ended.lock().expect("no panic").values().all(|times| *times == 1));
    for run in all.keys() {
        let found = members[0].store.run(*run).await.expect("reads").expect("there");
        assert_eq!(found.state.status, Status::Completed);
    }
    println!("the most at once: {:?}", ledger.lock().expect("no panic").most);
}
