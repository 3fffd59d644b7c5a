//! Every check on Postgres, directly and through a pooler, and the store held against the model.

use std::sync::Arc;
use std::time::Duration;

use dormouse_store::conformance::{CHECKS, differential};
use dormouse_store::postgres::{Options, PostgresStore};
use dormouse_store::{MemoryStore, Store};
use dormouse_testing_postgres::{Cluster, Pooler};

async fn conforms(url: impl Fn(&str) -> String) {
    for check in CHECKS {
        println!("{}", check.name);
        let url = url(&Cluster::shared().database());
        let store = super::open(&url).await;
        (check.run)(Arc::clone(&store) as Arc<dyn Store>).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms() {
    conforms(str::to_owned).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms_behind_a_pooler_in_transaction_mode() {
    // Two connections to the server for all of the store's: it would notice anything that is left in a session.
    let pooler = Pooler::start(Cluster::shared(), 2);
    conforms(|direct| pooler.url(direct)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_is_used_directly() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let name = url
        .rsplit('/')
        .next()
        .and_then(|rest| rest.split('?').next())
        .expect("a name");
    let url = format!(
        "postgres:///{name}?host={}&port={}&user={}&password={}",
        cluster.dir().display(),
        cluster.port(),
        dormouse_testing_postgres::USER,
        dormouse_testing_postgres::PASSWORD
    );
    let store = super::open(&url).await;
    store.probe(super::at(0)).await.expect("writes");
    store.close().await;
}

async fn behaves_as_the_model(seed: u64, url: &str) {
    let options = Options {
        // Nodes do not expire in the model.
        lease: Duration::from_secs(24 * 3600),
        ..Options::new(url)
    };
    let store = Arc::new(PostgresStore::open(options).await.expect("opens"));
    differential::run(
        differential::seed(seed),
        Arc::new(MemoryStore::shared()),
        Arc::clone(&store) as Arc<dyn Store>,
    )
    .await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_behaves_as_the_model() {
    let seeds = if std::env::var_os("DORMOUSE_TEST_LONG").is_some() {
        8
    } else {
        1
    };
    for seed in 1..=seeds {
        behaves_as_the_model(seed, &Cluster::shared().database()).await;
    }
}
