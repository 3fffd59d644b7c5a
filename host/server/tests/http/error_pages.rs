//! Every code that people are told has a page in docs/errors, and every page there is about one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What makes an error of a code, up to the code.
const MAKERS: [&str; 7] = [
    "code: ",
    "Failure::new(",
    "Failure::terminal(",
    "RunError::new(",
    "GuestTrap::new(",
    "GuestTrap::of_host(",
    "refuse(",
];

/// The same, where the engine reads traps: `Wasm::StackOverflow => ("stack-overflow", …)`.
const TRAP: &str = "=> (";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            // What only tests use makes codes of its own.
            if !matches!(name, "conformance" | "tests") {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.starts_with("tests") {
            found.push(path);
        }
    }
}

/// A word of lower-case letters, digits and hyphens between the quotes that a text begins with.
fn literal(text: &str) -> Option<&str> {
    let word = text.trim_start().strip_prefix('"')?.split_once('"')?.0;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (word.len() > 2 && word.as_bytes()[0].is_ascii_lowercase() && word.bytes().all(fits)).then_some(word)
}

fn codes_in(file: &Path, source: &str) -> BTreeSet<String> {
    // Unit tests stand at the end of a file.
    let code = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut found = BTreeSet::new();
    let traps = file.ends_with("engine/src/trap.rs").then_some(TRAP);
    for maker in MAKERS.into_iter().chain(traps) {
        for (place, _) in code.match_indices(maker) {
            found.extend(literal(&code[place + maker.len()..]).map(str::to_owned));
        }
    }
    // A status and its code: `404, "not-found"`.
    for (place, _) in code.match_indices(", ").chain(code.match_indices(",\n")) {
        let before = &code[..place];
        let digits: String = before.chars().rev().take_while(char::is_ascii_digit).collect();
        let status = digits
            .chars()
            .rev()
            .collect::<String>()
            .parse::<u16>()
            .unwrap_or_default();
        if digits.len() == 3 && (400..600).contains(&status) {
            found.extend(literal(&code[place + 1..]).map(str::to_owned));
        }
    }
    // A limit's own code, wherever it is passed; and the arms of a function that gives the codes.
    for (place, _) in code.match_indices('"') {
        found.extend(
            literal(&code[place..])
                .filter(|word| word.ends_with("-limit"))
                .map(str::to_owned),
        );
    }
    for (place, _) in code.match_indices("fn code(") {
        let body = code[place..].split("\n    }\n").next().unwrap_or_default();
        for (arm, _) in body.match_indices("=> ") {
            found.extend(literal(&body[arm + 3..]).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let root = root();
    let mut files = Vec::new();
    for part in [
        "host/core/src",
        "host/store/src",
        "host/engine/src",
        "host/server/src",
    ] {
        sources(&root.join(part), &mut files);
    }
    let mut used: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in files {
        let source = std::fs::read_to_string(&file).expect("a source file");
        for code in codes_in(&file, &source) {
            used.entry(code).or_insert_with(|| file.clone());
        }
    }
    assert!(used.len() > 50, "the codes are found: {used:?}");
    let mut pages = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("docs/errors"))
        .expect("docs/errors")
        .flatten()
    {
        let path = entry.path();
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        if name == "README" {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a page");
        assert!(
            text.starts_with(&format!("# {name}\n")),
            "{name} begins with its own name"
        );
        assert!(text.contains("## What to do"), "{name} says what to do");
        pages.insert(name);
    }
    let missing: Vec<_> = used.iter().filter(|(code, _)| !pages.contains(*code)).collect();
    assert!(
        missing.is_empty(),
        "codes without a page in docs/errors: {missing:#?}"
    );
    let stale: Vec<_> = pages.iter().filter(|page| !used.contains_key(*page)).collect();
    assert!(
        stale.is_empty(),
        "pages about codes that nothing gives: {stale:?}"
    );
}

#[test]
fn the_index_names_every_page() {
    let directory = root().join("docs/errors");
    let index = std::fs::read_to_string(directory.join("README.md")).expect("an index");
    for entry in std::fs::read_dir(directory).expect("docs/errors").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "the index lacks {name}"
        );
    }
}
