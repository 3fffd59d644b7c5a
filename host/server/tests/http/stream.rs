//! One run, live: what a stream says, at once and in the end.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::TestServer;

/// Reads a stream's events as they come.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn open(server: &TestServer, path: &str) -> Events {
        let mut stream = server.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            server.address
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut events = Events {
            stream,
            text: String::new(),
        };
        let head = events.until("\r\n\r\n").await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.to_lowercase().contains("content-type: text/event-stream"),
            "{head}"
        );
        events
    }

    /// The next event; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            // Each event is one chunk of the body, with its length in a line before it.
            let block = self.until("\n\n").await?;
            let field = |name: &str| {
                let start = format!("{name}: ");
                block
                    .lines()
                    .find_map(|line| line.strip_prefix(&start).map(str::to_owned))
            };
            if let (Some(event), Some(data)) = (field("event"), field("data")) {
                return Some((event, serde_json::from_str(&data).expect("JSON")));
            }
        }
    }

    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(place) = self.text.find(end) {
                let rest = self.text.split_off(place + end.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let mut chunk = [0; 4096];
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), self.stream.read(&mut chunk));
            match read.await.expect("the stream says something in time") {
                Ok(count @ 1..) => self
                    .text
                    .push_str(std::str::from_utf8(&chunk[..count]).expect("text")),
                _ => return None,
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_has_ended_is_told_at_once_and_the_stream_ends() {
    let server = TestServer::start().await;
    let mut events = Events::open(&server, &format!("/v1/runs/{}/stream", server.runs.completed)).await;
    let mut seen = Vec::new();
    while let Some((event, data)) = events.next().await {
        if event == "done" {
            assert_eq!(data["status"], "Completed");
            assert_eq!(data["steps"][0]["name"], "charge-card");
        }
        seen.push(event);
    }
    assert_eq!(seen, ["run", "step", "log", "done"]);
}

#[tokio::test]
async fn a_live_run_is_told_as_it_is_and_then_as_it_changes() {
    let server = TestServer::start().await;
    let id = server.runs.sleeping;
    let mut events = Events::open(&server, &format!("/v1/runs/{id}/stream")).await;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(events.next().await.expect("its state"));
    }
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["run", "step", "step", "log"]);
    assert_eq!(first[0].1["phase"], "sleeping");
    assert_eq!(first[2].1["status"], "sleeping");

    let cancelled = server.send("DELETE", &format!("/v1/runs/{id}"), &[], b"").await;
    assert_eq!(cancelled.status, 200);
    let (name, run) = events.next().await.expect("a change");
    assert_eq!((name.as_str(), &run["status"]), ("run", &"Cancelled".into()));
    let (name, step) = events.next().await.expect("what was open is closed");
    assert_eq!((name.as_str(), &step["status"]), ("step", &"cancelled".into()));
    let (name, run) = events.next().await.expect("the end");
    assert_eq!((name.as_str(), &run["status"]), ("done", &"Cancelled".into()));
    assert!(events.next().await.is_none(), "nothing follows the end");
}

#[tokio::test]
async fn the_overviews_stream_says_that_something_changed() {
    let server = TestServer::start().await;
    let mut events = Events::open(&server, "/overview/stream").await;
    assert_eq!(events.next().await.expect("at once").0, "change");
    let cancelled = server
        .send("DELETE", &format!("/v1/runs/{}", server.runs.sleeping), &[], b"")
        .await;
    assert_eq!(cancelled.status, 200);
    assert_eq!(events.next().await.expect("after a change").0, "change");
}
