//! Embeds the SDK, and the versions of what it needs, so that `dormouse new` works anywhere and offline.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What of the SDK a project does not need.
const LEFT_OUT: [&str; 4] = ["target", "tests", "benches", "Cargo.lock"];
/// The example that a new project is like: its lock file becomes the project's.
const MODEL: &str = "hello-world";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../..");
    let root = root.canonicalize().expect("the repository's root");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));

    let mut files = Vec::new();
    walk(&root.join("guest-sdk"), &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file
            .strip_prefix(root.join("guest-sdk"))
            .expect("walked from there");
        writeln!(table, "    ({name:?}, include_str!({file:?})),").expect("a string takes everything");
    }
    table.push(']');
    fs::write(out.join("sdk.rs"), table).expect("OUT_DIR is writable");

    let lock = root.join("examples/Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(&lock).expect("examples/Cargo.lock pins what new projects use");
    fs::write(out.join("template.lock"), project_lock(&text)).expect("OUT_DIR is writable");
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    // A directory's own time changes when a file comes or goes.
    println!("cargo::rerun-if-changed={}", directory.display());
    for entry in fs::read_dir(directory).expect("a directory of the SDK") {
        let path = entry.expect("an entry of the SDK").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("an SDK file has a plain name");
        if LEFT_OUT.contains(&name) || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, files);
        } else {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
}

/// The examples' lock file with one local package: the project, whose name `dormouse new` puts in.
fn project_lock(text: &str) -> String {
    let local = |package: &str| !package.contains("\nsource = ");
    let name = |package: &str| package.split('"').nth(1).unwrap_or_default().to_owned();
    let mut sections = text.split("[[package]]");
    let mut lock = sections.next().unwrap_or_default().to_owned();
    let mut found = false;
    for package in sections {
        match name(package).as_str() {
            MODEL => {
                found = true;
                lock += &format!("[[package]]{}", package.replacen(MODEL, "{{name}}", 1));
            }
            "dormouse" | "dormouse-macros" => lock += &format!("[[package]]{package}"),
            _ if local(package) => {}
            _ => lock += &format!("[[package]]{package}"),
        }
    }
    assert!(found, "examples/Cargo.lock names no package {MODEL}");
    lock
}
