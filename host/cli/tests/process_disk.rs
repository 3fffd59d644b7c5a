//! A server and its disk. It runs full, and is emptied again: senders are told to come back, the process stays, and work
//! goes on by itself when there is room. It cannot be written, or fails: the server ends, and has lost nothing.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use dormouse_testing_disk::Shim;
use serde_json::json;
use support::server::Server;
use support::{guest, until};

/// The command that starts the server once `mount` has mounted something over its data directory, `$1`. The mount lives in a
/// namespace of the process, so that nothing is left behind.
fn mounted(server: &Server, mount: &str) -> Command {
    let start = server.start_command();
    let mut command = Command::new("unshare");
    // Without root, a user namespace gives the right to mount.
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|owner| std::os::unix::fs::MetadataExt::uid(&owner) == 0);
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    std::fs::create_dir_all(server.data_dir()).expect("a directory to mount on");
    command
        .args([
            "--mount",
            "sh",
            "-c",
            &format!("{mount} && shift && exec \"$@\""),
            "sh",
        ])
        .arg(server.data_dir())
        .arg(start.get_program())
        .args(start.get_args());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_answers_503_and_work_goes_on_when_there_is_room_again() {
    let mut server = Server::prepare("", &[]);
    let command = mounted(&server, "mount -t tmpfs -o size=24m tmpfs \"$1\"");
    server.boot_by(command).await;
    server.deploy("bench", guest("bench")).await;
    let sleeping = server.invoke("bench/sleeper", &json!({ "ms": 500 })).await;

    // The mount is seen through the process's own root.
    let inside: PathBuf = format!("/proc/{}/root{}", server.pid(), server.data_dir().display()).into();
    let filler = inside.join("filler");
    fill(&filler);

    let event = json!({ "name": "nobody/listens", "data": { "x": "x".repeat(200_000) } }).to_string();
    until("the disk is full for the store", || async {
        // What room is left in the log is used up first.
        let (status, body) = server.send("POST", "/e/key", event.clone()).await;
        assert!(matches!(status, 200 | 503), "{status} {body}");
        (status == 503).then(|| assert_eq!(body["code"], "disk-full", "{body}"))
    })
    .await;
    let answer = reqwest::Client::new()
        .post(server.url("/e/key"))
        .body(event.clone())
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 503);
    assert!(
        answer.headers().contains_key("retry-after"),
        "{:?}",
        answer.headers()
    );
    let (ready, body) = server.send("GET", "/ready", "").await;
    assert_eq!(ready, 503, "{body}");
    assert!(body.to_string().contains("disk"), "the reason is said: {body}");
    let (health, _) = server.send("GET", "/health", "").await;
    assert_eq!(health, 200);

    std::fs::remove_file(&filler).expect("room again");
    let emptied = Instant::now();
    until("the server serves again", || async {
        (server.send("GET", "/ready", "").await.0 == 200).then_some(())
    })
    .await;
    assert!(
        emptied.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        emptied.elapsed()
    );
    assert_eq!(server.ended(&sleeping).await["status"], "Completed");
    let run = server.invoke("bench/one", &json!({})).await;
    assert_eq!(server.ended(&run).await["status"], "Completed");
}

/// Takes all the room there is, on a file system that is known to be small.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    /// More than the small file system holds, so that a mistake in the set-up cannot fill a real disk.
    const BYTES_MAX: usize = 64 << 20;
    let mut file = std::fs::File::create(path).expect("the filler");
    let mut written = 0;
    for size in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![1u8; size]).is_ok() {
            written += size;
            assert!(
                written <= BYTES_MAX,
                "the server's directory is not on the small file system"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_directory_ends_with_5_and_is_named() {
    let mut server = Server::prepare("", &[]);
    // First an empty one, then one with a database that could be read.
    for round in 0..2 {
        let read_only = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1""#;
        let output = mounted(&server, read_only).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "round {round}: {said}");
        let directory = server.data_dir().display().to_string();
        assert!(
            said.contains(&directory),
            "round {round}: {directory} is named: {said}"
        );
        assert!(said.to_lowercase().contains("read-only"), "round {round}: {said}");
        server.boot().await;
        server.kill();
    }
}

/// What a failed fsync has written is not known: the server says so, ends, and reads what there is when it starts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_the_server_and_nothing_acknowledged_is_lost() {
    let mut server = Server::prepare("", &[]);
    std::fs::create_dir_all(server.data_dir()).expect("a directory");
    // The kernel names files by their real path, and so does the shim.
    let root = server.data_dir().canonicalize().expect("it is there");
    let fault = server.dir().join("fault");
    let mut command = server.start_command();
    let shim = Shim {
        root: &root,
        shadow: None,
        fault: Some(&fault),
    };
    shim.stand_before(&mut command);
    server.boot_by(command).await;
    server.deploy("bench", guest("bench")).await;
    let sleeping = server.invoke("bench/sleeper", &json!({ "ms": 2_000 })).await;
    server.in_phase(&sleeping, "sleeping").await;
    std::fs::write(&fault, "eio").expect("written");
    let event = json!({ "name": "bench/one", "id": "meanwhile", "data": {} }).to_string();
    let (status, body) = server.send("POST", "/e/key", event).await;
    assert_ne!(
        status, 200,
        "nothing is acknowledged that may not be there: {body}"
    );
    let code = until("the server ends", || {
        let ended = server.ended_by_itself();
        async move { ended }
    })
    .await;
    assert_eq!(code, 5, "{}", server.log());
    std::fs::remove_file(&fault).expect("the disk is well again");
    server.boot().await;
    assert_eq!(server.ended(&sleeping).await["status"], "Completed");
    // Sent again, as a client does that had no answer. The first may be there nevertheless: there is one run, whichever
    // event has started it.
    server.event("bench/one", "meanwhile", &json!({})).await;
    let runs = server
        .get("/v1/runs?function=bench/one")
        .await
        .expect("they are listed");
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs:#}");
    let run = runs[0]["run_id"].as_str().expect("an id");
    assert_eq!(server.ended(run).await["status"], "Completed");
}
