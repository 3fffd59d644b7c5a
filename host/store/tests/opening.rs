//! What may go wrong when a data directory is opened, and what a full queue answers.

use std::sync::Arc;

use dormouse_core::Timestamp;
use dormouse_store::schedule::{Incarnation, NewNode};
use dormouse_store::sqlite::{Options, SqliteStore};
use dormouse_store::{Error, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

fn now() -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000)
}

async fn beside(dir: &std::path::Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(dir.join("dormouse.db"));
    options.connect().await.expect("opens")
}

#[tokio::test]
async fn a_second_store_on_the_same_directory_names_the_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = SqliteStore::open(Options::new(dir.path())).await.expect("opens");
    let second = SqliteStore::open(Options::new(dir.path())).await;
    let Err(Error::InUse { pid }) = second else {
        panic!("it was opened twice, or: {:?}", second.err())
    };
    assert_eq!(pid, std::process::id());
    first.probe(now()).await.expect("the first is none the worse");
    first.close().await;
    let third = SqliteStore::open(Options::new(dir.path()))
        .await
        .expect("a closed store lets go");
    third.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    SqliteStore::open(Options::new(dir.path()))
        .await
        .expect("opens")
        .close()
        .await;
    let mut conn = beside(dir.path()).await;
    let newest: i64 = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut conn)
        .await
        .expect("reads");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut conn)
    .await
    .expect("writes");
    conn.close().await.expect("closes");
    let opened = SqliteStore::open(Options::new(dir.path())).await;
    let Err(Error::NewerSchema { found, known }) = opened else {
        panic!("{:?}", opened.err())
    };
    assert_eq!((found, known), (9999, newest));
}

#[tokio::test]
async fn what_is_no_database_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("dormouse.db");
    let text = "these are somebody's notes\n".repeat(500);
    std::fs::write(&path, &text).expect("writes");
    let opened = SqliteStore::open(Options::new(dir.path())).await;
    assert!(
        matches!(&opened, Err(Error::Corrupt(message)) if message.contains("dormouse.db")),
        "{:?}",
        opened.err()
    );
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), text);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").expect("writes");
    let opened = SqliteStore::open(Options::new(file.join("data"))).await;
    assert!(
        matches!(&opened, Err(Error::Unavailable(message)) if message.contains("a-file")),
        "{:?}",
        opened.err()
    );
}

#[tokio::test]
async fn sqlite_is_new_enough_for_a_log_that_two_connections_reset() {
    let dir = tempfile::tempdir().expect("a directory");
    SqliteStore::open(Options::new(dir.path()))
        .await
        .expect("opens")
        .close()
        .await;
    let mut conn = beside(dir.path()).await;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&mut conn)
        .await
        .expect("answers");
    let parts: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    assert!(
        parts >= vec![3, 51, 3],
        "SQLite {version} may corrupt its log (sqlite.org/wal.html#walresetbug)"
    );
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut conn)
        .await
        .expect("answers");
    assert_eq!(mode, "wal");
    conn.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_busy_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        queue_capacity: 2,
        ..Options::new(dir.path())
    };
    let store = Arc::new(SqliteStore::open(options).await.expect("opens"));
    let incarnation = Incarnation([1; 16]);
    let node = NewNode {
        incarnation,
        name: "host:1".to_owned(),
        release: "0".to_owned(),
        url: String::new(),
    };
    store.join(node, now()).await.expect("joins");
    let mut calls = Vec::new();
    for _ in 0..2_000 {
        let store = Arc::clone(&store);
        calls.push(tokio::spawn(
            async move { store.heartbeat(incarnation, now()).await },
        ));
    }
    let (mut done, mut busy) = (0, 0);
    for call in calls {
        match call.await.expect("no panic") {
            Ok(_) => done += 1,
            Err(Error::Busy) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(done > 0 && busy > 0, "{done} done, {busy} busy");
    store
        .heartbeat(incarnation, now())
        .await
        .expect("there is room again");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_does_not_stop_its_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(SqliteStore::open(Options::new(dir.path())).await.expect("opens"));
    for number in 0..50_u64 {
        let later = now().after(std::time::Duration::from_millis(number));
        let mut call = Box::pin(store.put_config(dormouse_core::Json::trusted(number.to_string()), later));
        // Polled once: it is handed in, and then nobody waits for it.
        let handed_in =
            std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context).is_pending()));
        assert!(handed_in.await);
        drop(call);
    }
    // Writes are done in order, so after this one all of them are.
    store.probe(now()).await.expect("writes");
    for revision in 1..=50 {
        assert!(
            store.config(revision).await.expect("reads").is_some(),
            "{revision}"
        );
    }
    store.close().await;
}
