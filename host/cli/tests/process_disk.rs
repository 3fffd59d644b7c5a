//! A disk that runs full under a live server, and is emptied again: senders are told to come back, the process stays,
//! and work goes on by itself when there is room.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use support::server::Server;
use support::{guest, until};

/// The command that starts the server with a small file system of its own under the data directory. The mount lives in
/// a namespace of the process, so that nothing is left behind.
fn on_a_small_disk(server: &Server) -> Command {
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
            "mount -t tmpfs -o size=24m tmpfs \"$1\" && shift && exec \"$@\"",
            "sh",
        ])
        .arg(server.data_dir())
        .arg(start.get_program())
        .args(start.get_args());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_answers_503_and_work_goes_on_when_there_is_room_again() {
    let mut server = Server::prepare("", &["--park-idle", "0"]);
    let command = on_a_small_disk(&server);
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
