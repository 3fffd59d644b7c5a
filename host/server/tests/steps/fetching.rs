//! `fetch`: at least once, tried again when it is due, secrets out of sight, hosts as granted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::run::Phase;
use dormouse_store::read::Run;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::support::{Running, park_idle};
use super::{PARKING, START, output, start_with};

#[path = "../support/request.rs"]
mod request;

use request::request;

/// What a server answers to a request: its text, and how many such came before.
type Answer = fn(&str, usize) -> String;

/// A server that keeps the requests it is sent.
struct Site {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Site {
    async fn start(answer: Answer) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&seen)));
            }
        });
        Site { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/path", self.address)
    }

    fn config(&self) -> String {
        let grants = format!("http = [\"{}\"]", self.address);
        format!(
            "[modules.steps]\n{grants}\nsecrets.key = {{ file = \"key\" }}\nsecrets.gone = {{ file = \"gone\" }}\n"
        )
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<String>>>) {
    let Some(text) = request(&mut stream).await else {
        return;
    };
    let body = |text: &str| text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    let before = {
        let mut seen = seen.lock().expect("not poisoned");
        let before = seen.iter().filter(|other| body(other) == body(&text)).count();
        seen.push(text.clone());
        before
    };
    let answer = answer(&text, before);
    if answer.is_empty() {
        // Silence, for longer than any test waits.
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn respond(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
}

/// The value of a header in a request.
fn header<'r>(request: &'r str, name: &str) -> &'r str {
    request
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {request}"))
}

async fn backing_off(running: &Running, run: dormouse_core::RunId, due: u64) -> Run {
    running
        .until(run, "backing off", |run| {
            run.state.phase == Some(Phase::BackingOff)
                && run.wake_at.is_some_and(|at| at.as_millis_u64() >= due)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_tried_again_until_it_is_answered() {
    for park_idle in PARKING {
        let site = Site::start(|request, before| match before {
            0 => respond(503, "", "busy"),
            1 => respond(429, "Retry-After: 100\r\n", "slowly"),
            _ => respond(
                201,
                "x-more: 1\r\n",
                request.split_once("\r\n\r\n").expect("a body").1,
            ),
        })
        .await;
        let (running, clock) = start_with(&site.config(), park_idle).await;
        let data = json!({"url": site.url(), "body": "hello"});
        let run = running.invoke("steps/fetch", &data.to_string()).await;
        let found = backing_off(&running, run, START.as_millis_u64()).await;
        let wake_at = found.wake_at.expect("due");
        assert!(
            found
                .reason
                .expect("a reason")
                .contains("the next attempt of \"request\"")
        );
        clock.advance(wake_at.since(START));
        // As long as the server says.
        let found = backing_off(&running, run, wake_at.as_millis_u64() + 90_000).await;
        clock.advance(found.wake_at.expect("due").since(wake_at));
        let run = running.settled(run).await;
        assert_eq!(output(&run), json!({"status": 201, "bytes": 5, "body": "hello"}));
        let requests = site.requests();
        assert_eq!(requests.len(), 3);
        let key = header(&requests[0], "idempotency-key");
        assert!(key.starts_with(&run.id.to_string()), "{key}");
        assert!(
            requests
                .iter()
                .all(|request| header(request, "idempotency-key") == key)
        );
        assert!(requests[0].starts_with("POST /path HTTP/1.1"));
        let journal = running
            .server
            .app()
            .store()
            .journal(run.id, 0)
            .await
            .expect("reads");
        let kinds: Vec<u8> = journal.iter().map(|record| record.kind as u8).collect();
        assert_eq!(kinds, [3, 6, 6, 4], "started, tried twice, delivered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_succeeds_is_a_failure_as_data() {
    let site = Site::start(|request, _| match request {
        silent if silent.contains("silent") => String::new(),
        big if big.contains("big") => respond(200, "", &"x".repeat((2 << 20) + 1)),
        broken if broken.contains("broken") => "HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf".to_owned(),
        moved if moved.contains("moved") => respond(302, "location: http://127.0.0.1:1/\r\n", ""),
        full if full.contains("full") => respond(200, "", &"y".repeat(2 << 20)),
        _ => respond(500, "", "oh"),
    })
    .await;
    let (running, _clock) = start_with(&site.config(), park_idle()).await;
    let url = site.url();
    for (data, code, word) in [
        (json!({"url": url, "attempts": 1}), "http-failed", "status 500"),
        (
            json!({"url": url, "body": "silent", "attempts": 1, "timeout_ms": 100}),
            "http-timeout",
            "100 ms",
        ),
        (
            json!({"url": url, "body": "big"}),
            "http-response-too-large",
            "2097152",
        ),
        (
            json!({"url": url, "body": "broken", "attempts": 1}),
            "http-failed",
            "127.0.0.1",
        ),
        (
            json!({"url": "http://127.0.0.1:1/", "attempts": 3}),
            "http-denied",
            "127.0.0.1:1",
        ),
        (
            json!({"url": "http://example.com/"}),
            "http-denied",
            "example.com",
        ),
        (json!({"url": "/path"}), "invalid-request", "absolute"),
        (json!({"url": "no url"}), "invalid-request", "URL"),
        (
            json!({"url": url, "method": "NO METHOD"}),
            "invalid-request",
            "method",
        ),
        (
            json!({"url": url, "header": "content-length"}),
            "invalid-request",
            "header",
        ),
        (json!({"url": url, "header": "a b"}), "invalid-request", "header"),
        (json!({"url": url, "attempts": 0}), "invalid-options", "attempts"),
        (
            json!({"url": url, "secret": "gone", "attempts": 1}),
            "secret-unavailable",
            "gone",
        ),
    ] {
        let run = running.invoke("steps/fetch", &data.to_string()).await;
        let answer = output(&running.settled(run).await);
        assert_eq!(answer["code"], code, "{data}: {answer}");
        let message = answer["message"].as_str().expect("a text");
        assert!(message.contains(word), "{data}: {answer}");
    }
    // A redirect is an answer, and so is as much as may come.
    for (body, status, bytes) in [("moved", 302, 0), ("full", 200, 2 << 20)] {
        let data = json!({"url": url, "body": body});
        let run = running.invoke("steps/fetch", &data.to_string()).await;
        let answer = output(&running.settled(run).await);
        assert_eq!(
            (&answer["status"], &answer["bytes"]),
            (&json!(status), &json!(bytes))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_go_out_and_are_written_down_nowhere() {
    for park_idle in PARKING {
        let site = Site::start(|request, before| match before {
            0 => respond(503, "", request),
            _ => respond(200, "", request),
        })
        .await;
        let (running, clock) = start_with(&site.config(), park_idle).await;
        std::fs::write(running.dir.path().join("key"), "s3cr&t-value\n").expect("written");
        let data = json!({"url": site.url(), "body": "sent ", "secret": "key"});
        let run = running.invoke("steps/fetch", &data.to_string()).await;
        let found = backing_off(&running, run, START.as_millis_u64()).await;
        clock.advance(found.wake_at.expect("due").since(START));
        let run = running.settled(run).await;
        let answer = output(&run);
        assert_eq!(answer["status"], 200);
        let body = answer["body"].as_str().expect("a text");
        assert!(body.starts_with("POST /path?key=dormouse-secret-"), "{body}");
        for request in site.requests() {
            assert!(request.contains("?key=s3cr%26t-value"), "{request}");
            assert!(
                request.contains("authorization: Bearer s3cr&t-value"),
                "{request}"
            );
            assert!(request.ends_with("sent s3cr&t-value"), "{request}");
        }
        let journal = running
            .server
            .app()
            .store()
            .journal(run.id, 0)
            .await
            .expect("reads");
        let shown = format!("{run:?}{journal:?}");
        // In the journal the response is in base 64: what was sent back must not be there either.
        let hidden = ["s3cr", "czNjc"];
        assert!(hidden.iter().all(|part| !shown.contains(part)), "{shown}");
        assert!(shown.contains("dormouse-secret-"));
        let missing = json!({"url": site.url(), "secret": "other"});
        let run = running.invoke("steps/fetch", &missing.to_string()).await;
        assert_eq!(
            output(&running.settled(run).await),
            json!({"code": "grant-missing"})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_overlap_with_other_steps_and_are_given_up() {
    for park_idle in PARKING {
        let site = Site::start(|request, before| match (request.ends_with("b"), before) {
            (true, 0) => respond(500, "", ""),
            _ if request.ends_with("refused") => respond(500, "", ""),
            _ => respond(200, "", ""),
        })
        .await;
        let (running, clock) = start_with(&site.config(), park_idle).await;
        let data = json!({"url": site.url()}).to_string();
        let run = running.invoke("steps/fetch-beside", &data).await;
        let run = super::run_out(&running, &clock, run).await;
        assert_eq!(
            output(&run),
            json!({"statuses": [200, 200, 200], "attempts": 2, "won": "sleep"})
        );
        let of = |name: &str| {
            let requests = site.requests();
            requests.iter().filter(|request| request.ends_with(name)).count()
        };
        let seen: [usize; 3] = ["a", "b", "c"].map(|name| of(&format!("\n{name}")));
        assert_eq!(seen, [1, 2, 1]);
        assert!((2..=4).contains(&of("refused")), "{}", of("refused"));
        let _: Value = output(&run);
    }
}
