//! Others who lock the same rows in another order, and callers who go away in the middle.

use std::sync::Arc;

use dormouse_core::RunId;
use dormouse_core::run::Status;
use dormouse_store::Store;
use dormouse_store::cancellation::{Examined, NewCancellation};
use dormouse_store::execute::{Appended, Then};
use dormouse_testing_postgres::{Cluster, Held, Pooler};

use crate::{Member, at, database_of, node, step, until};

/// Waits until a session of the database waits for a lock.
async fn somebody_waits(database: &str) {
    until("somebody waits for a lock", async || {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
        );
        (Cluster::shared().psql("postgres", &waiting) == "1").then_some(())
    })
    .await;
}

/// Waits until the server has ended so many deadlocks in the database.
async fn deadlocks(database: &str, expected: u32) {
    until("a deadlock is ended", async || {
        let ended = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{database}'");
        let ended: u32 = Cluster::shared()
            .psql("postgres", &ended)
            .parse()
            .expect("a number");
        (ended >= expected).then_some(())
    })
    .await;
}

/// Somebody with psql locks two runs, the later one first; a transaction of ours that locks both is the one that is ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_ends_a_deadlock_is_done_again() {
    let url = Cluster::shared().database();
    let database = database_of(&url);
    let member = Arc::new(Member::join(&url, 1).await);
    let (first, second) = (member.create(true).await, member.create(true).await);
    let cancellation = NewCancellation {
        id: member.ingest(false, None).events[0].id,
        function: "shop/order".parse().expect("a name"),
        started_after: None,
        started_before: None,
        condition: None,
        now: at(3),
    };
    let cancellation = member.store.put_cancellation(cancellation).await.expect("stores");
    let row = |run: RunId| {
        let id: String = run.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("SELECT 1 FROM runs WHERE id = '{id}' FOR UPDATE")
    };
    let mut held = Held::at(&url, &row(second));
    let cancelling = tokio::spawn({
        let member = Arc::clone(&member);
        async move {
            let examined = Examined {
                id: cancellation.id,
                runs: vec![first, second],
                last: None,
                now: at(4),
            };
            member.store.cancel_examined(examined).await
        }
    });
    somebody_waits(database).await;
    held.go_on(&row(first));
    // Whoever has waited longest finds it first. Then psql has both rows, and is in the way until it ends.
    deadlocks(database, 1).await;
    drop(held);
    let cancelled = cancelling.await.expect("no panic").expect("it is done again");
    assert_eq!(cancelled, [first, second]);
    for run in [first, second] {
        let run = member.store.run(run).await.expect("reads").expect("is there");
        assert_eq!(run.state.status, Status::Cancelled);
    }
}

/// A statement outside the writer's transactions, likewise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_statement_that_ends_a_deadlock_is_done_again() {
    let url = Cluster::shared().database();
    let database = database_of(&url);
    let member = Arc::new(Member::join(&url, 1).await);
    let own = member.node;
    Cluster::shared().psql(database, &format!("INSERT INTO graves VALUES ('{own}')"));
    let mut held = Held::at(
        &url,
        &format!("SELECT 1 FROM graves WHERE incarnation = '{own}' FOR UPDATE"),
    );
    let joining = tokio::spawn({
        let member = Arc::clone(&member);
        async move { member.store.join(node(1), at(0)).await }
    });
    somebody_waits(database).await;
    held.go_on(&format!(
        "UPDATE nodes SET name = 'other' WHERE incarnation = '{own}'"
    ));
    deadlocks(database, 1).await;
    drop(held);
    joining.await.expect("no panic").expect("it is done again");
    let nodes = member.store.nodes(at(0)).await.expect("reads");
    assert_eq!((nodes.len(), nodes[0].name.as_str()), (1, "host-1:1"));
    assert_eq!(
        Cluster::shared().psql(database, "SELECT count(*) FROM graves"),
        "0"
    );
}

/// Asks a future so many times whether it is ready, then drops it.
async fn given_up<F: Future>(times: usize, call: F) {
    let mut call = std::pin::pin!(call);
    for _ in 0..times {
        tokio::select! {
            biased;
            _ = &mut call => return,
            () = tokio::task::yield_now() => {}
        }
    }
}

/// A transaction whose beginning nobody waits for any more must not stay open, in whichever moment that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_leave_no_transaction_open() {
    let pooler = Pooler::start(Cluster::shared(), 4);
    for pooled in [false, true] {
        let direct = Cluster::shared().database();
        let database = database_of(&direct).to_owned();
        let url = if pooled {
            pooler.url(&direct)
        } else {
            direct.clone()
        };
        let member = Member::join(&url, 1).await;
        let run = member.create(true).await;
        for number in 0..300 {
            // Some at once, some after many a trip.
            let times = number % 25 * (number / 25 + 1);
            let store = &member.store;
            match number % 4 {
                0 => given_up(times, store.run(run)).await,
                1 => given_up(times, store.ingest(member.ingest(false, None))).await,
                2 => given_up(times, store.heartbeat(member.node, at(1))).await,
                _ => given_up(times, store.claim(member.claim(1))).await,
            }
        }
        let append = member.append(run, 1, vec![step(0, "1")], Then::Continue);
        assert_eq!(
            member.store.append(append).await.expect("appends"),
            Appended::Done
        );
        // A write that was left in an open transaction would be seen by nobody else.
        let other = Member::join(&direct, 2).await;
        let found = other.store.run(run).await.expect("reads").expect("is there");
        assert_eq!(found.journal_next, 1);
        until("no transaction is open", async || {
            let open = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state LIKE 'idle in transaction%'"
            );
            (Cluster::shared().psql("postgres", &open) == "0").then_some(())
        })
        .await;
    }
}
