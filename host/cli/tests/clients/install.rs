//! Installs the clients of `testing/clients` into the target directory, each once: what is pinned says where it goes, so
//! another pin is another directory.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the sources and the lock files are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/clients")
}

/// An `inngest` package from npm, by its directory's name. Answers with the directory that holds `node_modules`.
pub(crate) fn npm(name: &str) -> PathBuf {
    need("node", &["--version"], "Node.js 20 or newer");
    need("npm", &["--version"], "npm");
    let source = sources().join(name);
    once(name, &source.join("package-lock.json"), |into| {
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
            .args(["--legacy-peer-deps", "--omit=dev", "--omit=optional"])
            .current_dir(into);
        run(command);
    })
}

/// What a requirements file names, from PyPI, in an environment of its own. Answers with its interpreter.
pub(crate) fn pip(name: &str) -> PathBuf {
    need(
        "python3",
        &["-m", "venv", "--help"],
        "Python 3.10 or newer with its venv module",
    );
    let requirements = sources().join(name).join("requirements.txt");
    once(name, &requirements, |into| {
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

/// Makes a directory once for all tests, processes and runs: under a lock, and under its name only when it is whole.
fn once(name: &str, pin: &Path, make: impl FnOnce(&Path)) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    std::fs::create_dir_all(&root).expect("a directory");
    let mut hasher = DefaultHasher::new();
    std::fs::read(pin)
        .unwrap_or_else(|error| panic!("{}: {error}", pin.display()))
        .hash(&mut hasher);
    let whole = root.join(format!("{name}-{:016x}", hasher.finish()));
    let lock = std::fs::File::create(root.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("locked");
    if !whole.is_dir() {
        let part = root.join(format!("{name}.part"));
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part).expect("a directory");
        make(&part);
        std::fs::rename(&part, &whole).expect("renamed");
    }
    whole
}

fn need(program: &str, arguments: &[&str], what: &str) {
    let answer = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let works = answer.is_ok_and(|output| output.status.success());
    assert!(works, "{what} is missing: `make deps` installs it on Debian");
}

fn run(mut command: Command) {
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
