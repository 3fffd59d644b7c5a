//! Watching and waiting for runs, also across a server that goes away and comes back.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::stub::{Answer, Stub, on_a_terminal, text};
use serde_json::json;

fn run(status: &str, phase: Option<&str>, sleep: &str) -> String {
    let ended = status != "Running";
    json!({
        "run_id": "01R", "function_id": "m/f", "version": "sha256:ab", "event_id": "01E",
        "status": status, "phase": phase, "reason": null, "wake_at": null,
        "queued_at": "2026-01-01T10:00:00Z", "run_started_at": "2026-01-01T10:00:00Z",
        "ended_at": ended.then_some("2026-01-01T10:00:02Z"),
        "output": (status == "Completed").then(|| json!({"message": "hi"})),
        "error": (status == "Failed").then(|| json!({"code": "boom", "message": "it broke", "step": "rest"})),
        "steps": [{"seq": 0, "name": "rest", "kind": "sleep", "status": sleep, "wake_at": null,
                   "attempts": [{"attempt": 1, "started_at": "2026-01-01T10:00:00Z", "ended_at": "2026-01-01T10:00:01Z"}]}],
    })
    .to_string()
}

fn data(run: String) -> Answer {
    Answer::Json(200, format!(r#"{{"data":{run},"metadata":{{}}}}"#))
}

/// A server that dies in the middle of its first stream, is away for two requests, and then has the end.
fn restarting(end: &'static str) -> Stub {
    let streams = AtomicUsize::new(0);
    Stub::start(move |request| {
        if request.line.ends_with("/stream") {
            return match streams.fetch_add(1, Ordering::SeqCst) {
                0 => {
                    let log =
                        r#"{"number":0,"at":"","level":"info","step":null,"message":"hello from the guest"}"#;
                    Answer::BrokenStream(format!("event: log\ndata: {log}\n\n"))
                }
                1 | 2 => Answer::Json(503, r#"{"error":"starting","status":503}"#.to_owned()),
                _ => Answer::BrokenStream(format!("event: done\ndata: {}\n\n", run(end, None, "completed"))),
            };
        }
        match streams.load(Ordering::SeqCst) {
            0 | 1 => data(run("Running", Some("sleeping"), "sleeping")),
            _ => data(run("Running", Some("executing"), "completed")),
        }
    })
}

#[test]
fn a_watched_run_is_followed_across_a_restart() {
    let output = restarting("Completed").dormouse(&["runs", "get", "01R", "--watch"]);
    let talk = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{talk}");
    assert_eq!(
        text(&output.stdout),
        "{\"message\":\"hi\"}\n",
        "only the output is data"
    );
    let expected = [
        "◔ sleeping",
        "hello from the guest",
        "connection to the server is lost",
        "connected again",
        "✔ done",
        "Completed",
    ];
    let mut rest = talk.as_str();
    for word in expected {
        let Some(at) = rest.find(word) else {
            panic!("\"{word}\" is missing, or not in its place: {talk}")
        };
        rest = &rest[at + word.len()..];
    }
    assert_eq!(
        talk.matches("sleeping    rest").count(),
        1,
        "each change is told once: {talk}"
    );
    assert!(
        !talk.contains('\u{1b}'),
        "nothing is redrawn when nobody looks: {talk}"
    );
}

/// What is told once to a file is drawn, and drawn again, for somebody who looks.
#[test]
fn a_terminal_is_drawn_on() {
    let drawn = on_a_terminal(&restarting("Completed"), &["runs", "get", "01R", "--watch"]);
    assert!(drawn.contains('\u{1b}'), "{drawn:?}");
    for word in ["sleeping", "hello from the guest", "done", "Completed", "hi"] {
        assert!(drawn.contains(word), "\"{word}\" is missing: {drawn:?}");
    }

    let directory = tempfile::TempDir::new().expect("a directory");
    let file = directory.path().join("orders.wasm");
    std::fs::write(&file, [0; 200_000]).expect("written");
    let slow = Stub::start(|_| {
        // The bar is drawn every 100 ms.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let version = json!({"module": "orders", "version": "sha256:0123456789abcdef", "new": true, "functions": ["take"]});
        Answer::Json(201, json!({ "data": version }).to_string())
    });
    let file = file.to_str().expect("plain");
    let drawn = on_a_terminal(&slow, &["deploy", file]);
    for word in ["orders [", "/195.31 KiB", "checking and compiling", "is at"] {
        assert!(drawn.contains(word), "\"{word}\" is missing: {drawn:?}");
    }
}

#[test]
fn a_watched_run_that_fails_is_1_and_says_why() {
    let output = restarting("Failed").dormouse(&["runs", "get", "01R", "--watch"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(
        text(&output.stderr).contains("run 01R failed in step \"rest\": it broke (boom)"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_run_that_is_not_there_is_3_at_once() {
    let stub = Stub::start(|_| {
        Answer::Json(
            404,
            r#"{"error":"there is no run 01R","status":404,"code":"not-found"}"#.to_owned(),
        )
    });
    for arguments in [&["runs", "get", "01R", "--watch"][..], &["runs", "get", "01R"]] {
        let output = stub.dormouse(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
    }
}

#[test]
fn invoking_and_waiting_ends_with_the_output_or_after_the_timeout() {
    let ended = Stub::start(|request| match request.line.as_str() {
        "POST /invoke/m/f" => Answer::Json(202, r#"{"data":{"run_id":"01R","event_id":"01E"}}"#.to_owned()),
        _ => data(run("Completed", None, "completed")),
    });
    let output = ended.dormouse(&["invoke", "m/f", "--data", "[1]", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "{\"message\":\"hi\"}\n");
    assert_eq!(text(&ended.requests()[0].body), "[1]");
    let output = ended.dormouse(&["invoke", "m/f"]);
    assert_eq!(
        text(&output.stdout),
        "01R\n",
        "without --wait the run's id is the data"
    );

    let endless = Stub::start(|request| match request.line.as_str() {
        "POST /invoke/m/f" => Answer::Json(202, r#"{"data":{"run_id":"01R","event_id":"01E"}}"#.to_owned()),
        _ => data(run("Running", Some("sleeping"), "sleeping")),
    });
    let output = endless.dormouse(&["invoke", "m/f", "--wait", "--timeout", "300ms"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(
        text(&output.stderr).contains("dormouse runs get 01R --watch"),
        "{}",
        text(&output.stderr)
    );
}
