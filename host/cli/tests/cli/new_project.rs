//! `dormouse new`, `build` and `deploy`, outside the repository and without a network.

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::stub::{dormouse, text};

fn run(arguments: &[&str], directory: &Path) -> Output {
    let mut command = dormouse(arguments);
    // A project's own directory is where people expect its build; and cargo must not go on the network.
    command
        .current_dir(directory)
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR");
    command.output().expect("the binary runs")
}

/// A real server, until it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(data: &Path) -> Server {
        let data_dir = data.to_str().expect("a plain path");
        let mut command = dormouse(&["start", "--listen", "127.0.0.1:0", "--data-dir", data_dir]);
        let mut process = command.stderr(Stdio::null()).spawn().expect("the binary runs");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let written = fs::read_to_string(data.join("server.json")).unwrap_or_default();
            let written: serde_json::Value = serde_json::from_str(&written).unwrap_or_default();
            if let Some(url) = written["url"].as_str()
                && dormouse(&["nodes", "list", "--url", url])
                    .output()
                    .is_ok_and(|output| output.status.success())
            {
                return Server {
                    process,
                    url: url.to_owned(),
                };
            }
            assert!(
                process.try_wait().expect("our child").is_none(),
                "the server ended by itself"
            );
            assert!(Instant::now() < deadline, "the server does not answer");
            thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_new_project_builds_offline_to_a_component() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = run(&["new", "hello"], directory.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let project = directory.path().join("hello");
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "dormouse.toml",
        ".gitignore",
        "README.md",
        "src/lib.rs",
    ] {
        let contents = fs::read_to_string(project.join(file)).expect(file);
        assert!(
            !contents.contains("{{"),
            "{file} has a place that was not filled in"
        );
    }

    let versions = |lock: &str| -> Vec<String> {
        lock.split("[[package]]")
            .filter(|package| package.contains("checksum"))
            .map(str::to_owned)
            .collect()
    };
    let lock = versions(&fs::read_to_string(project.join("Cargo.lock")).expect("written"));
    let output = run(&["build", "-o", "json"], &project);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let built: serde_json::Value = serde_json::from_slice(&output.stdout).expect("stdout is data");
    let component = fs::read(built["path"].as_str().expect("a path")).expect("the component");
    assert_eq!(built["bytes"], component.len());
    assert_eq!(built["module"], "hello");
    assert_eq!(
        component[..8],
        *b"\0asm\x0d\0\x01\0",
        "a component, not a core module"
    );
    let after = versions(&fs::read_to_string(project.join("Cargo.lock")).expect("kept"));
    assert!(
        after.iter().all(|package| lock.contains(package)),
        "the build took other versions than were pinned"
    );

    // And it does what its first function says, on a server.
    let server = Server::start(&directory.path().join("data"));
    let output = run(&["deploy", "--url", &server.url], &project);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let invoke = [
        "invoke",
        "hello/hello",
        "--data",
        r#"{"name":"Ada"}"#,
        "--wait",
        "--url",
        &server.url,
    ];
    let output = run(&invoke, directory.path());
    assert_eq!(
        text(&output.stdout),
        "{\"message\":\"Hello Ada!\"}\n",
        "{}",
        text(&output.stderr)
    );

    // A mistake in the code is cargo's to explain, and exit code 1.
    fs::write(project.join("src/lib.rs"), "fn broken(").expect("writable");
    let output = run(&["build"], &project);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(
        text(&output.stderr).contains("building hello failed"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_is_there_is_not_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("mine"), "precious").expect("writable");
    let output = run(&["new", "."], directory.path());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1);
    let output = run(&["new", "Not-A-Name"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("choose another directory name"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_cannot_be_built_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = run(&["build"], directory.path());
    assert_eq!(output.status.code(), Some(3), "no project");
    fs::write(directory.path().join("dormouse.toml"), "[module]\nnane = \"x\"").expect("writable");
    let output = run(&["build"], directory.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nane") && text(&output.stderr).contains("dormouse.toml"));
    fs::write(directory.path().join("dormouse.toml"), "[module]\nname = \"x\"").expect("writable");
    let output = run(&["build"], directory.path());
    assert_eq!(output.status.code(), Some(3), "no Cargo.toml");
}
