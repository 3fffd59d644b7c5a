//! Taking over what nodes leave behind: by several at once, cut off in the middle, and never from a node that lives.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dormouse_core::RunId;
use dormouse_core::run::Phase;
use dormouse_store::Store;
use dormouse_store::execute::{Appended, Then};
use dormouse_store::postgres::{Options, PostgresStore};
use dormouse_testing_postgres::Cluster;

use crate::proxy::Proxy;
use crate::{Member, at, node, open, step, until};

/// A store whose idea of a lease is short, so that nobody has to wait for ten seconds.
async fn impatient(url: &str, lease: Duration) -> Arc<PostgresStore> {
    let options = Options {
        lease,
        ..Options::new(url)
    };
    Arc::new(PostgresStore::open(options).await.expect("opens"))
}

/// So many runs leased to a node.
async fn leased(member: &Member, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(member.create(true).await);
    }
    runs
}

/// Each run is ready once, at the epoch after the one it was leased under.
async fn assert_taken_once(store: &PostgresStore, runs: &[RunId]) {
    for glance in store.glance(runs).await.expect("reads") {
        assert_eq!(
            (glance.state.phase, glance.owner, glance.epoch),
            (Some(Phase::Queued), None, 2),
            "{glance:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_recover_at_once_take_each_run_once() {
    let url = Cluster::shared().database();
    let gone = Member::join(&url, 1).await;
    let runs = leased(&gone, 60).await;
    gone.store.leave(gone.node, at(0)).await.expect("leaves");
    let mut recovering = Vec::new();
    for _ in 0..4 {
        let store = open(&url).await;
        recovering.push(tokio::spawn(async move {
            let mut taken = 0;
            // What another has locked is passed over, so once with nothing is not the end.
            for _ in 0..40 {
                taken += store.take_over(7, at(10)).await.expect("takes over");
            }
            taken
        }));
    }
    let mut taken = 0;
    for recovery in recovering {
        taken += recovery.await.expect("no panic");
    }
    assert_eq!(taken as usize, runs.len());
    assert_taken_once(&gone.store, &runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_loses_its_connection_is_finished_by_the_next_look() {
    let cluster = Cluster::shared();
    let direct = cluster.database();
    let proxy = Proxy::to(cluster.port()).await;
    let gone = Member::join(&direct, 1).await;
    let runs = leased(&gone, 30).await;
    gone.store.leave(gone.node, at(0)).await.expect("leaves");
    let store = open(&proxy.url(&direct, cluster.port())).await;
    until("all are taken over", async || {
        let done = proxy.cut.done.load(Ordering::Acquire);
        // Now the way back is cut, now the way there.
        match done % 2 {
            0 => proxy.cut.answers.store(1, Ordering::Release),
            _ => proxy.cut.requests.store(1, Ordering::Release),
        }
        // An error says that nothing was done; the next look finds what is left.
        let _ = store.take_over(4, at(10)).await;
        let glances = gone.store.glance(&runs).await.expect("reads");
        glances.iter().all(|glance| glance.owner.is_none()).then_some(())
    })
    .await;
    assert!(
        proxy.cut.done.load(Ordering::Acquire) > 4,
        "hardly anything was cut"
    );
    assert_taken_once(&gone.store, &runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lives_keeps_its_runs_however_long_they_take() {
    let url = Cluster::shared().database();
    let lease = Duration::from_millis(1_000);
    let owner = Member::join_on(impatient(&url, lease).await, 1).await;
    let other = impatient(&url, lease).await;
    let runs = leased(&owner, 3).await;
    let began = Instant::now();
    // Three leases long, without an entry.
    while began.elapsed() < lease * 3 {
        let beaten = Instant::now();
        owner.store.heartbeat(owner.node, at(0)).await.expect("lives");
        let taken = other.take_over(9, at(10)).await.expect("looks");
        // Where the machine itself stood still for longer than the lease, the node was rightly given up.
        assert!(taken == 0 || beaten.elapsed() > lease, "{taken} were taken over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let append = owner.append(runs[0], 1, vec![step(0, "1")], Then::Continue);
    assert_eq!(owner.store.append(append).await.expect("appends"), Appended::Done);
}

/// As a pod that is replaced by one of its name: the old one's runs are not taken for the new one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_the_same_name_and_address_is_another() {
    let url = Cluster::shared().database();
    let lease = Duration::from_millis(300);
    let first = Member::join(&url, 1).await;
    let runs = leased(&first, 5).await;
    let second = impatient(&url, lease).await;
    let reborn = dormouse_store::schedule::NewNode {
        incarnation: node(2).incarnation,
        ..node(1)
    };
    let taken = until("the first one's runs are taken over", async || {
        // Anew each time: where the machine is slow, its own lease may have ended.
        second.join(reborn.clone(), at(0)).await.expect("joins");
        let taken = second.take_over(9, at(10)).await.expect("looks");
        (taken > 0).then_some(taken)
    })
    .await;
    assert_eq!(taken as usize, runs.len());
    let stale = first.append(runs[0], 1, vec![step(0, "1")], Then::Continue);
    let appended = first.store.append(stale).await.expect("answers");
    assert!(matches!(appended, Appended::Lost(_)), "{appended:?}");
}

/// However it came to be: no list of dead nodes has it, only the state of the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_owner_is_no_node_is_found() {
    let url = Cluster::shared().database();
    let member = Member::join(&url, 1).await;
    let runs = leased(&member, 5).await;
    let name = url
        .rsplit('/')
        .next()
        .and_then(|rest| rest.split('?').next())
        .expect("a name");
    Cluster::shared().psql(name, "UPDATE runs SET owner = gen_random_uuid()");
    let other = open(&url).await;
    assert_eq!(other.take_over(9, at(10)).await.expect("looks"), 5);
    assert_taken_once(&other, &runs).await;
}
