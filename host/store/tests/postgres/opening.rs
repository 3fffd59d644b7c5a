//! What may go wrong when a database is opened.

use std::time::Duration;

use dormouse_store::Error;
use dormouse_store::postgres::{Options, PostgresStore};
use dormouse_testing_postgres::{Cluster, Held, PASSWORD, USER};

use crate::database_of;

async fn refused(url: &str) -> Error {
    match PostgresStore::open(Options::new(url)).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => {
            assert!(
                !error.to_string().contains(PASSWORD),
                "the password is shown: {error}"
            );
            error
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_and_left_alone() {
    let url = Cluster::shared().database();
    super::open(&url).await;
    let name = database_of(&url);
    Cluster::shared().psql(
        name,
        "INSERT INTO dormouse_migrations VALUES (9999, 'from the future', now())",
    );
    let Error::NewerSchema { found, known } = refused(&url).await else {
        panic!("it was refused for another reason")
    };
    assert_eq!(found, 9999);
    assert!((1..9999).contains(&known), "{known}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_may_open_an_empty_database_at_once() {
    let url = Cluster::shared().database();
    let mut opening = Vec::new();
    for _ in 0..8 {
        let url = url.clone();
        opening.push(tokio::spawn(async move {
            PostgresStore::open(Options::new(url)).await
        }));
    }
    for opened in opening {
        opened.await.expect("no panic").expect("opens");
    }
    let name = database_of(&url);
    assert_eq!(
        Cluster::shared().psql(name, "SELECT max(version) = count(*) FROM dormouse_migrations"),
        "t"
    );
}

/// The lock under which one node brings the schema forward.
const MIGRATION_LOCK: i64 = 0x646f_726d_6f75_7301;

/// An index on a large table takes longer to build than any statement of a node may take otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_may_take_as_long_as_it_needs_but_not_wait_for_a_table() {
    let url = Cluster::shared().database();
    let asserted = "DO $$ BEGIN \
         ASSERT current_setting('statement_timeout') = '0', 'statements end'; \
         ASSERT current_setting('lock_timeout') = '5s', 'it waits for ever'; END $$";
    let options = Options {
        later: vec![(1_000_000, "of the next release", asserted)],
        ..Options::new(&url)
    };
    PostgresStore::open(options).await.expect("it opens");
}

/// Who comes second does not go by how long a lock may be waited for otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_waits_for_another_that_brings_the_schema_forward() {
    let url = Cluster::shared().database();
    let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    let held = Held::at(&url, &lock);
    let opening = tokio::spawn({
        let url = url.clone();
        async move { PostgresStore::open(Options::new(url)).await }
    });
    // Longer than a lock is waited for otherwise.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!opening.is_finished(), "it did not wait");
    drop(held);
    opening.await.expect("no panic").expect("it opens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let port = cluster.port();
    for (url, words) in [
        (
            url.replace(PASSWORD, "guessed"),
            vec!["password authentication failed", USER],
        ),
        (
            url.replace("127.0.0.1", "no-such-host.invalid"),
            vec!["no-such-host.invalid", "lookup"],
        ),
        (
            url.replace(&port.to_string(), "1"),
            vec!["127.0.0.1:1", "refused"],
        ),
        (
            url.replace(database_of(&url), "nowhere"),
            vec!["nowhere", "does not exist"],
        ),
        (url.replace("sslmode=disable", "sslmode=require"), vec!["TLS"]),
    ] {
        let Error::Unavailable(message) = refused(&url).await else {
            panic!("{url} was refused for another reason")
        };
        for word in words {
            assert!(message.contains(word), "{url}: {message}");
        }
    }
    for url in ["mysql://localhost/app", "postgres://u@h/app?pgbouncer=perhaps"] {
        let error = refused(url).await;
        assert!(matches!(error, Error::BadUrl(_)), "{url}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_create_tables_opens_a_schema_that_is_there() {
    let cluster = Cluster::shared();
    let url = cluster.database();
    let name = database_of(&url);
    let role = format!("limited_{name}");
    cluster.psql(
        name,
        &format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        ),
    );
    let limited = url.replace(&format!("{USER}:"), &format!("{role}:"));
    let error = refused(&limited).await;
    assert!(error.to_string().contains("permission denied"), "{error}");
    super::open(&url).await;
    cluster.psql(
        name,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"),
    );
    let member = super::Member::join(&limited, 1).await;
    member.create(true).await;
}
