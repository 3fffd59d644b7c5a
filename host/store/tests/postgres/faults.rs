//! Connections that are cut and servers that stop: nobody is told anything that is not so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dormouse_core::run::Status;
use dormouse_core::{Json, RunId};
use dormouse_store::execute::{Appended, Then};
use dormouse_store::ingest::Created;
use dormouse_store::schedule::ClaimedRun;
use dormouse_store::{Error, Store};
use dormouse_testing_postgres::{Cluster, Stop};

use crate::load::Load;
use crate::proxy::Proxy;
use crate::{Member, at, step, until};

/// One after the other, with commits lost now on the way there, now on the way back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_told_truthfully_and_not_doubled() {
    let cluster = Cluster::shared();
    let proxy = Proxy::to(cluster.port()).await;
    let direct = cluster.database();
    let member = Member::join(&proxy.url(&direct, cluster.port()), 1).await;
    let run = member.create(true).await;
    for seq in 0..20 {
        if seq % 2 == 0 {
            proxy.cut.answers.store(1, Ordering::Release);
        } else {
            proxy.cut.requests.store(1, Ordering::Release);
        }
        let append = member.append(run, 1, vec![step(seq, "1")], Then::Continue);
        let appended = member.store.append(append).await.expect("appends");
        assert_eq!(appended, Appended::Done, "entry {seq}");
    }
    assert_eq!(proxy.cut.done.load(Ordering::Acquire), 20, "all twenty were cut");
    let journal = member.store.journal(run, 0).await.expect("reads");
    let seqs: Vec<u32> = journal.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (0..20).collect::<Vec<_>>());

    // Ingests: created once each, and told so.
    for number in 0..6 {
        let cut = if number % 2 == 0 {
            &proxy.cut.answers
        } else {
            &proxy.cut.requests
        };
        cut.store(1, Ordering::Release);
        let created = member
            .store
            .ingest(member.ingest(false, None))
            .await
            .expect("ingests");
        assert_eq!(created, [Created::New { leased: false }]);
    }
    // Claims: what was leased in a commit whose answer was lost is handed out, not left behind.
    proxy.cut.answers.store(1, Ordering::Release);
    let batch = member.store.claim(member.claim(3)).await.expect("claims");
    proxy.cut.requests.store(1, Ordering::Release);
    let rest = member.store.claim(member.claim(9)).await.expect("claims");
    let mut claimed: Vec<RunId> = batch
        .claimed
        .iter()
        .chain(&rest.claimed)
        .map(|run| run.id)
        .collect();
    assert_eq!(batch.claimed.len(), 3);
    assert!(
        batch
            .claimed
            .iter()
            .chain(&rest.claimed)
            .all(|run| run.epoch == 1)
    );
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(claimed.len(), 6);
    assert_eq!(proxy.cut.done.load(Ordering::Acquire), 28);
    let receipts = cluster.psql(
        direct
            .rsplit('/')
            .next()
            .and_then(|rest| rest.split('?').next())
            .expect("a name"),
        "SELECT count(*) FILTER (WHERE at_ms < 0) FROM receipts",
    );
    assert_eq!(receipts, "14", "those that did not get there can never get there");
}

/// Many at once share a commit, so they share its fate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_commit_that_is_cut_is_none_of_its_callers_loss() {
    let cluster = Cluster::shared();
    let proxy = Proxy::to(cluster.port()).await;
    let member = Arc::new(Member::join(&proxy.url(&cluster.database(), cluster.port()), 1).await);
    let mut runs = Vec::new();
    for _ in 0..40 {
        runs.push(member.create(true).await);
    }
    for seq in 0..10 {
        proxy.cut.answers.store(1, Ordering::Release);
        proxy.cut.requests.store(1, Ordering::Release);
        let mut calls = Vec::new();
        for run in runs.clone() {
            let member = Arc::clone(&member);
            calls.push(tokio::spawn(async move {
                let append = member.append(run, 1, vec![step(seq, "1")], Then::Continue);
                member.store.append(append).await
            }));
        }
        for call in calls {
            match call.await.expect("no panic") {
                Ok(appended) => assert_eq!(appended, Appended::Done),
                // Who comes while an outcome is being found out is sent away, with nothing written.
                Err(Error::Unavailable(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        // Whoever was sent away comes again; whoever was not finds the same entry there.
        for run in &runs {
            until("the entry is there", async || {
                let append = member.append(*run, 1, vec![step(seq, "1")], Then::Continue);
                match member.store.append(append).await {
                    Ok(Appended::Done) => Some(()),
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => None,
                }
            })
            .await;
        }
    }
    for run in runs {
        assert_eq!(member.store.journal(run, 0).await.expect("reads").len(), 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_found_again() {
    let cluster = Cluster::start();
    let member = Member::join(&cluster.database(), 1).await;
    let run = member.create(true).await;
    for (round, how) in [Stop::Fast, Stop::Immediate, Stop::Fast].into_iter().enumerate() {
        let seq = round as u32;
        let append = || member.append(run, 1, vec![step(seq, "1")], Then::Continue);
        assert_eq!(
            member.store.append(append()).await.expect("appends"),
            Appended::Done
        );
        cluster.stop(how);
        let error = member.store.probe(at(5)).await.expect_err("nobody is there");
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        let error = member.store.run(run).await.expect_err("nobody is there");
        assert!(matches!(error, Error::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "it says who: {error}");
        cluster.resume();
        let began = Instant::now();
        until("it serves again", async || member.store.probe(at(5)).await.ok()).await;
        member.store.heartbeat(member.node, at(5)).await.expect("lives");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(
            member.store.journal(run, 0).await.expect("reads").len(),
            round + 1
        );
    }
    let then = Then::Complete {
        output: Json::trusted("1"),
    };
    let append = member.append(run, 1, vec![], then);
    assert_eq!(
        member.store.append(append).await.expect("appends"),
        Appended::Done
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_under_load_loses_and_doubles_nothing() {
    let cluster = Cluster::start();
    let member = Arc::new(Member::join(&cluster.database(), 1).await);
    let load = Load::start(&member).await;
    let rounds = if std::env::var_os("DORMOUSE_TEST_LONG").is_some() {
        12
    } else {
        3
    };
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.stop(if round % 2 == 0 {
            Stop::Immediate
        } else {
            Stop::Fast
        });
        cluster.resume();
        until("it serves again", async || member.store.probe(at(5)).await.ok()).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end(&member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_answered_and_comes_back() {
    let cluster = Cluster::shared();
    let proxy = Proxy::to(cluster.port()).await;
    let member = Member::join(&proxy.url(&cluster.database(), cluster.port()), 1).await;
    let run = member.create(true).await;
    proxy.cut.closed.store(true, Ordering::Release);
    let error = member
        .store
        .ingest(member.ingest(true, None))
        .await
        .expect_err("is cut off");
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    let error = member
        .store
        .heartbeat(member.node, at(0))
        .await
        .expect_err("is cut off");
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    proxy.cut.closed.store(false, Ordering::Release);
    until("it serves again", async || member.store.probe(at(5)).await.ok()).await;
    let append = member.append(run, 1, vec![step(0, "1")], Then::Continue);
    assert_eq!(
        member.store.append(append).await.expect("appends"),
        Appended::Done
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_record_does_not_fail_its_neighbours() {
    let member = Arc::new(Member::join(&Cluster::shared().database(), 1).await);
    let mut runs = Vec::new();
    for _ in 0..30 {
        runs.push(member.create(true).await);
    }
    let mut calls = Vec::new();
    for (number, run) in runs.iter().copied().enumerate() {
        let member = Arc::clone(&member);
        calls.push(tokio::spawn(async move {
            let records = match number {
                // A number that does not follow on.
                7 => vec![step(3, "1")],
                // A name that Postgres cannot hold as it is.
                8 => {
                    let mut record = step(0, "1");
                    record.name = "a\0b\u{ffff}".to_owned();
                    vec![record]
                }
                _ => vec![step(0, "1")],
            };
            member
                .store
                .append(member.append(run, 1, records, Then::Continue))
                .await
        }));
    }
    for (number, call) in calls.into_iter().enumerate() {
        match (number, call.await.expect("no panic")) {
            (7, Err(Error::Corrupt(_))) => {}
            (7, other) => panic!("{other:?}"),
            (_, appended) => assert_eq!(appended.expect("appends"), Appended::Done, "{number}"),
        }
    }
    let name = member.store.journal(runs[8], 0).await.expect("reads")[0]
        .name
        .clone();
    assert_eq!(name, "a\0b\u{ffff}");
    let run = member.store.run(runs[7]).await.expect("reads").expect("is there");
    assert_eq!((run.journal_next, run.state.status), (0, Status::Running));
    let claimed: Vec<ClaimedRun> = member.store.claim(member.claim(9)).await.expect("claims").claimed;
    assert_eq!(claimed, []);
}
