//! docs/other-peoples-bugs.md promises tests by name: each exists, and each row has one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of all functions in the sources below a directory, without what was built.
fn functions(directory: &Path, found: &mut HashSet<String>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                functions(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let after = text.split("fn ").skip(1);
            found.extend(after.filter_map(|text| Some(text.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    let mut tests = HashSet::new();
    for directory in ["host", "guest-sdk"] {
        functions(&root().join(directory), &mut tests);
    }
    let page = std::fs::read_to_string(root().join("docs/other-peoples-bugs.md")).expect("the page");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| what happened"))
        .collect();
    assert!(rows.len() > 25, "the page has lost its rows");
    for row in rows {
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named: {row}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}: {row}");
        }
    }
}
