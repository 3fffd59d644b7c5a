//! docs/other-peoples-bugs.md, docs/semantics.md and docs/security.md promise tests by name: each exists, and each row has one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all tests in the sources below a directory, without what was built.
fn tests_below(directory: &Path, found: &mut HashSet<String>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                tests_below(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            found.extend(tests_of(&text));
            if path.ends_with("conformance/mod.rs") {
                found.extend(checks_of(&text));
            }
        }
    }
}

/// The functions of a source that are marked as tests.
fn tests_of(source: &str) -> Vec<String> {
    let (mut names, mut marked) = (Vec::new(), false);
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if line.starts_with('#') || line.starts_with("//") || line.is_empty() {
            // It is between the mark and its function.
        } else if let Some((_, after)) = line.split_once("fn ") {
            let name = after.split(['(', '<']).next().unwrap_or_default();
            names.extend(std::mem::take(&mut marked).then(|| name.to_owned()));
        }
    }
    names
}

/// The checks that every store has to pass, of the file that lists them.
fn checks_of(source: &str) -> Vec<String> {
    let listed = source.lines().filter_map(|line| line.trim().strip_suffix(','));
    let names = listed.filter_map(|line| line.split_once("::").map(|(_, name)| name.to_owned()));
    names.filter(|name| !name.contains(['(', ':', ' '])).collect()
}

#[test]
fn only_what_is_run_as_a_test_counts_as_one() {
    let source = "/// Helps.\nfn helper() {}\n#[test]\nfn plain() {}\n#[tokio::test(flavor = \"multi_thread\")]\n\
         #[should_panic(expected = \"fn in a string\")]\nasync fn in_a_runtime() {}\nfn another() {}\n";
    assert_eq!(tests_of(source), ["plain", "in_a_runtime"]);
    assert_eq!(
        checks_of("    commands::a_check,\n    use std::sync::Arc;\n"),
        ["a_check"]
    );
}

/// What stands in backticks in the last column of a table's row.
fn named(row: &str) -> Vec<&str> {
    let cells = row.trim_end().trim_end_matches('|');
    let last = cells.rsplit('|').next().unwrap_or_default();
    last.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_last_column_names_the_tests() {
    assert_eq!(named("| `select!` waits | `one`, `two` |"), ["one", "two"]);
    assert_eq!(named("| `select!` waits | nothing |"), Vec::<&str>::new());
}

/// The rows of the tables that have these headings.
fn promised<'p>(page: &'p str, headings: &str) -> Vec<&'p str> {
    let (mut rows, mut within) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with(headings) {
            within = true;
        } else if !line.starts_with('|') {
            within = false;
        } else if within && !line.starts_with("|-") {
            rows.push(line);
        }
    }
    rows
}

#[test]
fn every_row_names_tests_that_exist() {
    let mut tests = HashSet::new();
    for directory in ["host", "guest-sdk"] {
        tests_below(&root().join(directory), &mut tests);
    }
    for (page, headings, least) in [
        ("docs/other-peoples-bugs.md", "| what happened", 25),
        ("docs/semantics.md", "", 70),
        ("docs/security.md", "| cannot", 25),
    ] {
        let text = std::fs::read_to_string(root().join(page)).expect("the page");
        let is_head = |row: &&str| row.contains("| named test |");
        let rows: Vec<&str> = match headings {
            "" => text
                .lines()
                .filter(|line| line.starts_with("| ") && !is_head(line))
                .collect(),
            headings => promised(&text, headings),
        };
        assert!(rows.len() > least, "{page} has lost its rows: {}", rows.len());
        for row in rows {
            let named = named(row);
            assert!(!named.is_empty(), "{page}: no test is named: {row}");
            for name in named {
                assert!(tests.contains(name), "{page}: there is no test {name}: {row}");
            }
        }
    }
}
