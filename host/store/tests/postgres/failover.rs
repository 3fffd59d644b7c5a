//! Servers that follow others and take over from them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_store::execute::{Appended, Then};
use dormouse_store::postgres::{Options, PostgresStore};
use dormouse_store::{Error, Result, Store};
use dormouse_testing_postgres::{Cluster, Pooler, Stop};

use crate::load::Load;
use crate::proxy::Proxy;
use crate::{Member, PATIENCE, at, step, until};

/// When the cause of an outage is gone, the store serves again within this time.
const SERVES_AGAIN: Duration = Duration::from_secs(10);

fn refused<T: std::fmt::Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::Unavailable(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// Until an entry is stored, and no longer than it may take.
async fn serves_again(member: &Member, run: dormouse_core::RunId, seq: u32) {
    let began = Instant::now();
    until("an entry is stored", async || {
        let append = member.append(run, 1, vec![step(seq, "1")], Then::Continue);
        match member.store.append(append).await {
            Ok(appended) => {
                assert_eq!(appended, Appended::Done);
                Some(())
            }
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                None
            }
        }
    })
    .await;
    assert!(began.elapsed() < SERVES_AGAIN, "{:?}", began.elapsed());
}

/// As by a name that still points at the old primary, which is a standby of the new one now. It answers reads, but what
/// it knows may be old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_a_standby_now_is_left_for_the_primary() {
    let primary = Cluster::start();
    let standby = primary.standby();
    let proxy = Proxy::to(primary.port()).await;
    let direct = primary.database();
    let url = proxy.url(&direct, primary.port());
    let member = Member::join(&url, 1).await;
    let run = member.create(true).await;

    proxy.lead_to(standby.port());
    proxy.end();
    for _ in 0..3 {
        let append = member.append(run, 1, vec![step(0, "1")], Then::Continue);
        for message in [
            refused(member.store.append(append).await),
            refused(member.store.run(run).await),
            refused(member.store.heartbeat(member.node, at(0)).await),
        ] {
            assert!(message.contains("standby"), "{message}");
        }
    }
    let starting = PostgresStore::open(Options::new(&url)).await.map(|_| ());
    assert!(refused(starting).contains("standby"));

    // Nobody ends the connections that there are: they have to be left.
    proxy.lead_to(primary.port());
    serves_again(&member, run, 0).await;
    member.store.heartbeat(member.node, at(0)).await.expect("lives");
    let found = member.store.run(run).await.expect("reads").expect("is there");
    assert_eq!(found.journal_next, 1);
    // Hints, too, come from the primary again.
    let other = Member::join(&direct, 2).await;
    for member in [&member, &other] {
        member.store.heartbeat(member.node, at(0)).await.expect("lives");
    }
    let mut hints = member.store.hints();
    hints.mark_unchanged();
    tokio::time::timeout(PATIENCE, async {
        while !hints.has_changed().expect("lives") {
            other.create(false).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it hears of others");
    drop(standby);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_has_all_that_was_answered_and_nothing_twice() {
    let primary = Cluster::start();
    let standby = primary.standby();
    let proxy = Proxy::to(primary.port()).await;
    let url = proxy.url(&primary.database(), primary.port());
    let member = Arc::new(Member::join(&url, 1).await);
    let load = Load::start(&member).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    primary.stop(Stop::Immediate);
    standby.promote();
    proxy.lead_to(standby.port());
    let began = Instant::now();
    until("it serves again", async || member.store.probe(at(5)).await.ok()).await;
    assert!(began.elapsed() < SERVES_AGAIN, "{:?}", began.elapsed());
    member.store.heartbeat(member.node, at(5)).await.expect("lives");
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end(&member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_a_pooler_restarts_and_is_replaced() {
    let primary = Cluster::start();
    let standby = primary.standby();
    let proxy = Proxy::to(primary.port()).await;
    let pooler = Pooler::to(proxy.port, 4);
    let member = Arc::new(Member::join(&pooler.url(&primary.database()), 1).await);
    let run = member.create(true).await;
    let load = Load::start(&member).await;
    for (seq, how) in [(0, Stop::Fast), (1, Stop::Immediate)] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        primary.stop(how);
        primary.resume();
        serves_again(&member, run, seq).await;
    }
    primary.stop(Stop::Immediate);
    // The pooler connects to it while it is a standby still, and keeps that connection.
    proxy.lead_to(standby.port());
    refused(member.store.probe(at(5)).await);
    refused(member.store.run(run).await);
    standby.promote();
    serves_again(&member, run, 2).await;
    member.store.heartbeat(member.node, at(5)).await.expect("lives");
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end(&member).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_the_url_does_not_name_is_named_by_the_error() {
    let pooler = Pooler::start(Cluster::shared(), 2);
    let url = pooler.url(&Cluster::shared().database());
    let url = url.replace("&pgbouncer=true", "");
    let opened = PostgresStore::open(Options::new(&url)).await.map(|_| ());
    let message = refused(opened);
    assert!(message.contains("add pgbouncer=true"), "{message}");
}
