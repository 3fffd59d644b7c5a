//! Habits as code: who may use whom, how long a file may be, what a module says of itself, and that the stack's
//! packages are really what does the work.

use std::path::{Path, PathBuf};

/// The hardest limit on a file's lines; most are far below.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below some directories with an ending, without build output.
fn files(directories: &[&str], ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = directories
        .iter()
        .map(|directory| root().join(directory))
        .collect();
    while let Some(directory) = open.pop() {
        let entries =
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no .{ending} below {directories:?}");
    found.sort();
    found
}

/// The names in a manifest's `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = toml::from_str(&read(&root().join(manifest))).expect("a manifest");
    manifest["dependencies"]
        .as_table()
        .expect("dependencies")
        .keys()
        .cloned()
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let ours = |manifest: &str| -> Vec<String> {
        let mut ours = dependencies(manifest);
        ours.retain(|name| name.starts_with("dormouse"));
        ours
    };
    assert_eq!(ours("host/core/Cargo.toml"), Vec::<String>::new());
    assert_eq!(ours("host/store/Cargo.toml"), ["dormouse-core"]);
    assert_eq!(ours("host/engine/Cargo.toml"), ["dormouse-core"]);
    assert_eq!(
        ours("host/server/Cargo.toml"),
        ["dormouse-core", "dormouse-engine", "dormouse-store"]
    );
    assert_eq!(ours("host/cli/Cargo.toml"), ["dormouse-core", "dormouse-server"]);
    assert_eq!(ours("guest-sdk/Cargo.toml"), ["dormouse-macros"]);
}

#[test]
fn the_core_is_pure() {
    let impure = [
        "tokio",
        "sqlx",
        "wasmtime",
        "rand",
        "getrandom",
        "reqwest",
        "async-trait",
        "futures",
    ];
    for name in dependencies("host/core/Cargo.toml") {
        assert!(!impure.contains(&name.as_str()), "host/core depends on {name}");
    }
    for path in files(&["host/core/src"], "rs") {
        let text = read(&path);
        for word in [
            "SystemTime",
            "Instant::now",
            "std::fs",
            "std::net",
            "std::env",
            "thread::spawn",
        ] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn sql_of_the_store_is_in_the_store() {
    for path in files(
        &[
            "host/core/src",
            "host/engine/src",
            "host/server/src",
            "host/cli/src",
        ],
        "rs",
    ) {
        let name = path.to_string_lossy().into_owned();
        let text = read(&path);
        // Applications have databases of their own, and the SQL steps that go to them.
        if !name.contains("/sql/") {
            assert!(!text.contains("sqlx::"), "{name} queries a database");
            assert!(!text.contains("rusqlite"), "{name} queries a database");
        }
    }
}

#[test]
fn a_file_is_a_room_and_says_what_it_is() {
    for path in files(&["host", "guest-sdk", "examples", "testing"], "rs") {
        let text = read(&path);
        let name = path.display();
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{name} has {lines} lines, more than {LINES_MAX}"
        );
        let in_src = path.components().any(|part| part.as_os_str() == "src");
        if in_src {
            assert!(
                text.starts_with("//!") || text.starts_with("#!["),
                "{name} does not say what it is (//!)"
            );
        }
        for bad in ["utils.rs", "common.rs", "helpers.rs", "types.rs", "util.rs"] {
            assert!(!path.ends_with(bad), "{name}: name it after what it owns");
        }
        for bad in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"] {
            // This file names them.
            assert!(
                path.ends_with("tidy.rs") || !text.contains(bad),
                "{name} has {bad}"
            );
        }
    }
}

#[test]
fn a_table_of_contents_has_no_code() {
    for lib in ["core", "store", "engine", "server"] {
        let text = read(&root().join(format!("host/{lib}/src/lib.rs")));
        assert!(
            text.lines().count() < 150,
            "host/{lib}/src/lib.rs is more than a table of contents"
        );
        assert!(!text.contains("fn "), "host/{lib}/src/lib.rs has code");
    }
}

#[test]
fn the_stack_does_the_work() {
    let used = |directory: &str, word: &str| {
        files(&[directory], "rs")
            .iter()
            .any(|path| read(path).contains(word))
    };
    for (directory, word) in [
        ("host/engine/src", "wasmtime::"),
        ("host/engine/src", "wasmtime_wasi"),
        ("host/server/src", "axum::"),
        ("host/server/src", "tokio::"),
        ("host/store/src", "sqlx::"),
        ("host/core/src", "serde::"),
        ("guest-sdk/src", "wit_bindgen::generate!"),
    ] {
        assert!(used(directory, word), "nothing in {directory} uses {word}");
    }
    let workspace: toml::Table = toml::from_str(&read(&root().join("Cargo.toml"))).expect("a manifest");
    for package in ["wasmtime", "wasmtime-wasi"] {
        let version = &workspace["workspace"]["dependencies"][package]["version"];
        assert_eq!(
            version.as_str(),
            Some("48"),
            "{package} is pinned to the LTS line"
        );
    }
}

#[test]
fn unsafe_code_is_in_one_place() {
    // The one place of the host; what wit-bindgen writes into guests; a guest that is not written with the SDK on purpose.
    let places = [
        "guest-sdk/src/host/wasm.rs",
        "host/engine/src/mapped.rs",
        "testing/guests/missing-exports/src/lib.rs",
    ];
    let marks = [
        "allow(unsafe_code",
        "expect(unsafe_code",
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe(",
        "unsafe extern",
    ];
    let found: Vec<String> = files(&["examples", "guest-sdk", "host", "testing"], "rs")
        .into_iter()
        .filter(|path| !path.ends_with("tidy.rs") && marks.iter().any(|mark| read(path).contains(mark)))
        .map(|path| {
            path.strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(found, places, "unsafe code is elsewhere");
    for package in [
        "host/core/src/lib.rs",
        "host/store/src/lib.rs",
        "host/server/src/lib.rs",
        "host/cli/src/main.rs",
    ] {
        assert!(
            read(&root().join(package)).contains("#![forbid(unsafe_code)]"),
            "{package}"
        );
    }
}

/// Whether an older node, which does not know of a change of the schema, can work on after it. `new` are the tables that the
/// same migration has made.
fn only_adds(statement: &str, new: &mut Vec<String>) -> bool {
    let words: Vec<&str> = statement.split_whitespace().collect();
    match words.as_slice() {
        ["CREATE", "TABLE", table, ..] => {
            new.push((*table).to_owned());
            true
        }
        ["CREATE", "INDEX", ..] => true,
        ["INSERT", "INTO", table, ..] => new.iter().any(|made| made == table),
        ["ALTER", "TABLE", _, "ADD", "COLUMN", rest @ ..] => {
            let has = |word| rest.contains(&word);
            // An older node writes rows without it.
            (!has("NOT") || has("DEFAULT"))
                && !["REFERENCES", "CHECK", "UNIQUE", "PRIMARY", "GENERATED"]
                    .iter()
                    .any(|word| rest.iter().any(|other| other.starts_with(word)))
        }
        // How a table is stored, not what is in it.
        ["ALTER", "TABLE", _, "SET", parameters, ..] => parameters.starts_with('('),
        _ => false,
    }
}

#[test]
fn migrations_of_postgres_only_add() {
    for path in files(&["migrations/postgres"], "sql") {
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.get(..4)?.parse().ok());
        let number: u32 = number.unwrap_or_else(|| panic!("{}: it has no number", path.display()));
        if number == 1 {
            continue;
        }
        let text = read(&path);
        let code: Vec<&str> = text
            .lines()
            .map(|line| line.split_once("--").map_or(line, |(code, _)| code))
            .collect();
        let code = code.join("\n");
        let mut new = Vec::new();
        for statement in code.split(';').filter(|statement| !statement.trim().is_empty()) {
            assert!(
                only_adds(statement, &mut new),
                "{}: an older node may not be able to work on after this:{statement}",
                path.display()
            );
        }
    }
    for (statement, adds) in [
        ("CREATE TABLE made (id bigint)", true),
        ("INSERT INTO made VALUES (1)", true),
        ("INSERT INTO runs VALUES (1)", false),
        ("ALTER TABLE runs ADD COLUMN more bigint", true),
        ("ALTER TABLE runs ADD COLUMN more bigint NOT NULL DEFAULT 0", true),
        ("ALTER TABLE runs ADD COLUMN more bigint NOT NULL", false),
        ("ALTER TABLE runs ADD COLUMN more bigint CHECK (more > 0)", false),
        ("ALTER TABLE runs SET (fillfactor = 50)", true),
        ("ALTER TABLE runs ALTER COLUMN reason SET NOT NULL", false),
        ("ALTER TABLE runs ALTER COLUMN reason TYPE bigint", false),
        ("ALTER TABLE runs RENAME COLUMN reason TO why", false),
        ("ALTER TABLE runs DROP COLUMN reason", false),
        ("CREATE UNIQUE INDEX runs_once ON runs (event_id)", false),
        ("DROP TABLE runs", false),
        ("DROP INDEX runs_live", false),
        ("UPDATE runs SET reason = 'new'", false),
    ] {
        assert_eq!(
            only_adds(statement, &mut vec!["made".to_owned()]),
            adds,
            "{statement}"
        );
    }
}
