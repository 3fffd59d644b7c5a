//! Keys as people have them: the first one, the command line, what is written down of them, and a server that others reach.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::guest;
use support::server::Server;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command printed, which must have succeeded.
#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn run(mut command: Command) -> Output {
    command.output().expect("the binary runs")
}

/// A command at the server's data directory.
fn offline(server: &Server, arguments: &[&str]) -> Output {
    let mut command = server.command(arguments);
    command.arg("--data-dir").arg(server.data_dir());
    run(command)
}

fn with_key(server: &Server, key: &str, arguments: &[&str]) -> Output {
    let mut command = server.command(arguments);
    command.env("DORMOUSE_KEY", key);
    run(command)
}

const FIRST: [&str; 6] = ["keys", "create", "--name", "ada", "--role", "admin"];

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_keys_is_not_reached_from_other_machines() {
    let mut server = Server::start("", &[]).await;
    assert_eq!(server.terminate(), Some(0));
    let exposed = || {
        let mut command = server.start_command();
        command
            .args(["--listen", "0.0.0.0:0"])
            .stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        command
    };
    let refused = run(exposed());
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("dormouse keys create"),
        "{}",
        said(&refused)
    );
    let key = printed(&offline(&server, &FIRST));
    let mut open_to_all = server.start_command();
    open_to_all.args(["--listen", "0.0.0.0:0"]);
    server.boot_by(open_to_all).await;
    assert_eq!(server.get("/v1/runs").await, Err(401));
    let listed = with_key(&server, &key, &["keys", "list"]);
    assert!(printed(&listed).contains("ada"), "{}", said(&listed));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_and_revoked_at_the_server_and_at_its_database() {
    let mut server = Server::start("", &[]).await;
    let running = offline(&server, &FIRST);
    assert_eq!(running.status.code(), Some(5), "{}", said(&running));
    assert!(said(&running).contains("over its API"), "{}", said(&running));
    let refused = run(server.command(&["keys", "create", "--name", "web", "--event"]));
    assert_eq!(refused.status.code(), Some(6), "{}", said(&refused));
    assert!(said(&refused).contains("first-key"), "{}", said(&refused));
    let admin = printed(&run(server.command(&FIRST)));
    let without = run(server.command(&["runs", "list"]));
    assert_eq!(without.status.code(), Some(4), "{}", said(&without));
    assert!(said(&without).contains("unauthorized") && said(&without).contains("DORMOUSE_KEY"));
    let deployer = [
        "keys",
        "create",
        "--name",
        "ci",
        "--role",
        "deployer",
        "--module",
        "shop",
        "--expires",
        "90d",
        "-o",
        "json",
    ];
    let made: Value = serde_json::from_str(&printed(&with_key(&server, &admin, &deployer))).expect("JSON");
    let ci = made["key"].as_str().expect("the key");
    assert_eq!(made["modules"], serde_json::json!(["shop"]), "{made}");
    let refused = with_key(&server, ci, &["keys", "list"]);
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    assert!(said(&refused).contains("forbidden"), "{}", said(&refused));
    let web = printed(&with_key(
        &server,
        &admin,
        &["keys", "create", "--name", "web", "--event"],
    ));
    let sent = with_key(&server, &web, &["events", "send", "shop/order"]);
    assert_eq!(printed(&sent).len(), 26, "an id");
    let listed = printed(&with_key(&server, &admin, &["keys", "list"]));
    for word in ["ada", "ci", "web", "deployer", "shop", "active"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    let id = made["id"].as_str().expect("an id");
    let revoked = with_key(&server, &admin, &["keys", "revoke", id]);
    assert!(said(&revoked).contains("is revoked"), "{}", said(&revoked));
    let refused = with_key(&server, ci, &["runs", "list"]);
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    let audit = printed(&with_key(
        &server,
        &admin,
        &["audit", "list", "--action", "key.create"],
    ));
    assert_eq!(
        audit.lines().count(),
        5,
        "a heading, three, and what was refused: {audit}"
    );
    let audit = printed(&with_key(&server, &admin, &["audit", "list", "-o", "jsonl"]));
    assert!(audit.lines().any(|line| line.contains("key.revoke")), "{audit}");

    // The way in for an admin who has lost his key.
    server.terminate();
    let second = printed(&offline(
        &server,
        &["keys", "create", "--name", "ada-again", "--role", "admin"],
    ));
    let first_id = admin.split('_').nth(2).expect("an id");
    printed(&offline(&server, &["keys", "revoke", first_id]));
    let unknown = offline(&server, &["keys", "revoke", "000000000000"]);
    assert_eq!(unknown.status.code(), Some(3), "{}", said(&unknown));
    let listed = printed(&offline(&server, &["keys", "list"]));
    assert!(
        listed.contains("ada-again") && listed.contains("revoked"),
        "{listed}"
    );
    server.boot().await;
    let refused = with_key(&server, &admin, &["runs", "list"]);
    assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
    let audit = printed(&with_key(&server, &second, &["audit", "list", "-o", "jsonl"]));
    assert_eq!(
        audit.lines().filter(|line| line.contains("\"offline\"")).count(),
        3,
        "what was refused, too: {audit}"
    );
}

/// All files below a directory.
fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        match entry.path().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_in_a_file_a_log_or_a_list() {
    let mut server = Server::prepare("", &[]);
    let mut loud = server.start_command();
    loud.env("DORMOUSE_LOG", "trace");
    server.boot_by(loud).await;
    let admin = printed(&run(server.command(&FIRST)));
    let web = printed(&with_key(
        &server,
        &admin,
        &["keys", "create", "--name", "web", "--event"],
    ));
    let wrong = format!("{}0", &web[..web.len() - 1]);
    let bearer = |key: &str| format!("Bearer {key}");
    let http = reqwest::Client::new();
    let deployed = http
        .put(server.url("/v1/modules/bench"))
        .header("authorization", bearer(&admin))
        .body(guest("bench"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(deployed.status(), 201);
    let invoked = with_key(&server, &admin, &["invoke", "bench/one", "--wait"]);
    assert_eq!(invoked.status.code(), Some(0), "{}", said(&invoked));
    let mut answers = String::new();
    for key in [&web, &wrong, &admin] {
        for path in [format!("/e/{key}"), "/e/x".to_owned(), format!("/nothing/{key}")] {
            let request = http
                .post(server.url(&path))
                .header("authorization", bearer(key))
                .body(r#"{"name":"a/b"}"#);
            let answer = request.send().await.expect("an answer");
            // What asks for a path that is not there is told which.
            if !path.starts_with("/nothing") {
                answers += &answer.text().await.expect("text");
            }
        }
    }
    for list in [
        &["keys", "list", "-o", "json"][..],
        &["audit", "list", "-o", "json"],
    ] {
        answers += &printed(&with_key(&server, &admin, list));
    }
    server.terminate();
    let mut found = Vec::new();
    files(server.dir(), &mut found);
    assert!(
        found.iter().any(|path| path.ends_with("dormouse.db")),
        "{found:?}"
    );
    let log = server.log();
    assert!(log.contains("a key was refused"), "it was loud: {log}");
    for key in [&admin, &web, &wrong] {
        let secret = key.rsplit('_').next().expect("a secret");
        assert_eq!(secret.len(), 64);
        // Also the half of it, and as bytes.
        let half = &secret[..32];
        assert!(!answers.contains(half), "{answers}");
        let bytes: Vec<u8> = (0..16)
            .map(|index| u8::from_str_radix(&secret[2 * index..2 * index + 2], 16).expect("digits"))
            .collect();
        for path in &found {
            let content = std::fs::read(path).expect("a file");
            for sought in [half.as_bytes(), &bytes] {
                let there = content.windows(sought.len()).any(|window| window == sought);
                assert!(!there, "a key is in {}", path.display());
            }
        }
    }
}
