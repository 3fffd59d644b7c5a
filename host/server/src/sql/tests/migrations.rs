//! Migrations, on every database.

use dormouse_testing_postgres::Cluster;

use super::{Place, System, on_both};

on_both!(
    are_applied_once_in_the_order_of_their_numbers,
    that_fail_leave_nothing_and_are_named,
    that_were_changed_are_an_error_that_names_them,
    that_cannot_be_read_are_an_error_that_names_them,
    are_applied_by_one_node_of_many,
);

impl Place {
    fn with_migrations(system: System, files: &[(&str, &str)]) -> Place {
        let mut place = Place::on(system);
        let directory = place.directory.path().join("migrations");
        std::fs::create_dir(&directory).expect("created");
        place.database.migrations = Some(directory);
        for (name, sql) in files {
            place.write(name, sql);
        }
        place
    }

    fn write(&self, name: &str, sql: &str) {
        let directory = self.database.migrations.as_ref().expect("a directory");
        std::fs::write(directory.join(name), sql).expect("written");
    }
}

async fn are_applied_once_in_the_order_of_their_numbers(system: System) {
    let create = match system {
        System::Sqlite => {
            "CREATE TABLE a (x integer); -- it's \"a\"\nCREATE TRIGGER g AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;"
        }
        System::Postgres => {
            "CREATE TABLE a (x integer); -- it's \"a\"\nSET search_path = pg_temp; DO $$ BEGIN PERFORM 1; END $$;"
        }
    };
    let place = Place::with_migrations(
        system,
        &[
            (
                "0002_fill.sql",
                "INSERT INTO a VALUES (1); INSERT INTO a VALUES (2);",
            ),
            ("0001_create.sql", create),
            ("10000_last.sql", "DELETE FROM a WHERE x = 3;"),
            ("9999_more.sql", "INSERT INTO a VALUES (3);"),
            ("README.md", "not one"),
        ],
    );
    place.migrate().await.expect("applied");
    place.migrate().await.expect("nothing to do");
    assert_eq!(place.count("a"), 2);
    place.write("0003_later.sql", "INSERT INTO a VALUES (4)");
    place.migrate().await.expect("applied");
    assert_eq!((place.count("a"), place.count("_dormouse_migrations")), (3, 5));
}

async fn that_fail_leave_nothing_and_are_named(system: System) {
    let place = Place::with_migrations(
        system,
        &[
            ("0001_create.sql", "CREATE TABLE a (x integer);"),
            (
                "0002_wrong.sql",
                "INSERT INTO a VALUES (1);\nCREATE TABLE b (x integer);\nINSERT INTO missing VALUES (1);",
            ),
        ],
    );
    let error = place.migrate().await.expect_err("fails");
    let words = match system {
        System::Sqlite => "app.db: migration 0002_wrong.sql: no such table: missing".to_owned(),
        System::Postgres => format!(
            "127.0.0.1:{}/{}: migration 0002_wrong.sql: line 3: relation \"missing\" does not exist",
            Cluster::shared().port(),
            place.name()
        ),
    };
    assert!(error.contains(&words), "{error}");
    assert!(!error.contains("secret"), "{error}");
    assert_eq!((place.count("a"), place.count("_dormouse_migrations")), (0, 1));
    place.write("0002_wrong.sql", "INSERT INTO a VALUES (1);");
    place.migrate().await.expect("mended");
    assert_eq!(place.count("a"), 1);
}

async fn that_were_changed_are_an_error_that_names_them(system: System) {
    let place = Place::with_migrations(system, &[("0001_create.sql", "CREATE TABLE a (x integer);")]);
    place.migrate().await.expect("applied");
    place.write("0001_create.sql", "CREATE TABLE a (x integer, y integer);");
    let error = place.migrate().await.expect_err("changed");
    assert!(error.contains("0001_create.sql: it has been changed"), "{error}");
}

async fn that_cannot_be_read_are_an_error_that_names_them(system: System) {
    for (name, words) in [
        ("create.sql", "create.sql must be named like"),
        ("01_x.sql", "01_x.sql"),
        ("0001_.sql", "0001_.sql"),
    ] {
        let place = Place::with_migrations(system, &[(name, "SELECT 1")]);
        let error = place.migrate().await.expect_err(name);
        assert!(error.contains(words), "{error}");
    }
    let place = Place::with_migrations(system, &[("0001_a.sql", "SELECT 1"), ("00001_b.sql", "SELECT 1")]);
    let error = place.migrate().await.expect_err("twice");
    assert!(error.contains("have the same number"), "{error}");
    let mut place = Place::with_migrations(system, &[]);
    place.database.migrations = Some(place.directory.path().join("missing"));
    let error = place.migrate().await.expect_err("missing");
    assert!(error.contains("missing cannot be read"), "{error}");
    place.database.migrations = None;
    place.migrate().await.expect("nothing to do");
    assert!(
        !place.directory.path().join("app.db").exists(),
        "nothing was asked of the database"
    );
}

async fn are_applied_by_one_node_of_many(system: System) {
    let place = Place::with_migrations(
        system,
        &[
            ("0001_create.sql", "CREATE TABLE a (x integer);"),
            ("0002_fill.sql", "INSERT INTO a VALUES (1);"),
        ],
    );
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let node = super::Databases::with_busy_timeout(super::AMPLE);
        let database = place.database.clone();
        nodes.spawn(async move { node.migrate(&database).await });
    }
    while let Some(migrated) = nodes.join_next().await {
        migrated.expect("no panic").expect("applied, or was already");
    }
    assert_eq!((place.count("a"), place.count("_dormouse_migrations")), (1, 2));
}

#[tokio::test]
async fn cannot_end_their_transaction_on_postgres() {
    for (sql, words) in [
        (
            "CREATE TABLE a (x int); COMMIT; CREATE TABLE b (x int);",
            "COMMIT is not allowed",
        ),
        (
            "CREATE TABLE a (x int); DO $$ BEGIN COMMIT; END $$;",
            "transaction",
        ),
        (
            "CREATE TABLE a (x int); DELETE FROM _dormouse_migrations;",
            "belongs to the host",
        ),
        ("CREATE TABLE a (x int); COPY a FROM STDIN;", "COPY"),
        // Not seen in the text, but noticed: what it did before stays.
        (
            "SELECT 1 AS x, begin atomic FROM (SELECT 1 AS begin) s; COMMIT; BEGIN; SELECT 1",
            "ended its own transaction",
        ),
    ] {
        let place = Place::with_migrations(System::Postgres, &[("0001_x.sql", sql)]);
        let error = place.migrate().await.expect_err(sql);
        assert!(error.contains(words), "{sql}: {error}");
        assert!(error.contains("0001_x.sql"), "{sql}: {error}");
        let there = place.outside("SELECT count(*) FROM pg_tables WHERE tablename IN ('a', 'b')");
        assert_eq!(there, "0", "{sql}");
        // What is refused by its text alone is refused before the host's own table is made.
        if place.outside("SELECT to_regclass('_dormouse_migrations') IS NOT NULL") == "t" {
            assert_eq!(place.count("_dormouse_migrations"), 0, "{sql}");
        }
    }
}
