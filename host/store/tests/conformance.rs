//! Every check on every store, and the SQLite store held against the model.

use std::sync::Arc;

use dormouse_store::conformance::{CHECKS, differential};
use dormouse_store::sqlite::{Options, SqliteStore};
use dormouse_store::{MemoryStore, Store};

#[tokio::test]
async fn the_model_conforms() {
    for check in CHECKS {
        println!("{}", check.name);
        (check.run)(Arc::new(MemoryStore::new())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    for check in CHECKS {
        println!("{}", check.name);
        let dir = tempfile::tempdir().expect("a directory");
        let store = Arc::new(SqliteStore::open(Options::new(dir.path())).await.expect("opens"));
        (check.run)(Arc::clone(&store) as Arc<dyn Store>).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_behaves_as_the_model() {
    let seeds = if std::env::var_os("DORMOUSE_TEST_LONG").is_some() {
        24
    } else {
        3
    };
    for default in 1..=seeds {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Arc::new(SqliteStore::open(Options::new(dir.path())).await.expect("opens"));
        let seed = differential::seed(default);
        differential::run(
            seed,
            Arc::new(MemoryStore::new()),
            Arc::clone(&store) as Arc<dyn Store>,
        )
        .await;
        store.close().await;
    }
}
