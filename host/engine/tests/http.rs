//! HTTP from bodies: to granted hosts, addresses checked, within the body's time.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dormouse_core::Json;
use dormouse_engine::{Engine, HttpPolicy, LegEnd, Module};
use support::{Host, engine, leg, module, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that keeps requests and answers each with the given bytes; with none it says nothing.
async fn server(answer: Option<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            seen.lock()
                .expect("not poisoned")
                .push(String::from_utf8_lossy(&request).into_owned());
            match answer {
                Some(answer) => {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                None => silent.push(stream),
            }
        }
    });
    (address, requests)
}

/// Whether head and body are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().expect("a length"))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

async fn post(
    engine: &Engine,
    kill: &Module,
    sink: &str,
    grants: &[&str],
    timeout_ms: u32,
) -> (LegEnd, Host) {
    let mut leg = leg(kill, "kill", "{\"steps\":1,\"sleep_ms\":1}");
    leg.http = HttpPolicy::parse(grants).expect("valid grants");
    leg.limits.body_ms = u64::from(timeout_ms);
    let mut host = Host::new(false);
    host.body_timeout_ms = u64::from(timeout_ms);
    host.config
        .insert("sink".to_owned(), Json::from_value(sink).expect("a text"));
    let (end, host, _) = run(engine, &leg, host).await;
    (end, host)
}

#[tokio::test]
async fn a_granted_host_is_reached() {
    let (engine, _directory) = engine();
    let kill = module(&engine, "kill").await;
    let (address, requests) = server(Some(OK)).await;
    let sink = format!("http://{address}/told?x=1");
    let (end, host) = post(&engine, &kill, &sink, &[&address.to_string()], 10_000).await;
    assert!(matches!(end, LegEnd::Done(_)), "{end:?}");
    assert_eq!(host.bodies, 1);
    let requests = requests.lock().expect("not poisoned");
    assert_eq!(requests.len(), 1);
    let head = requests[0].to_ascii_lowercase();
    assert!(head.starts_with("post /told?x=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains("step-0 1 "), "{head}");
}

#[tokio::test]
async fn what_is_not_granted_is_not_reached() {
    let (engine, _directory) = engine();
    let kill = module(&engine, "kill").await;
    let (address, requests) = server(Some(OK)).await;
    let port = address.port();
    for (sink, grants, word) in [
        (format!("http://{address}/"), vec![], "http-denied"),
        (
            format!("http://{address}/"),
            vec!["127.0.0.1".to_owned()],
            "http-denied",
        ),
        (
            format!("http://localhost:{port}/"),
            vec![format!("127.0.0.1:{port}")],
            "http-denied",
        ),
        // A wildcard reaches public addresses only, whatever its names resolve to.
        (
            format!("http://x.localhost.test:{port}/"),
            vec![format!("*.localhost.test:{port}")],
            "",
        ),
        (
            format!("https://{address}/"),
            vec![format!("http://{address}")],
            "http-denied",
        ),
        (
            format!("http://127.0.0.1:{port}@example.com/"),
            vec![format!("127.0.0.1:{port}")],
            "",
        ),
    ] {
        let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
        let (end, _) = post(&engine, &kill, &sink, &grants, 10_000).await;
        let LegEnd::Failed(failure) = end else {
            panic!("{sink}: {end:?}")
        };
        assert!(
            word.is_empty() || failure.code.as_deref() == Some(word),
            "{sink}: {failure:?}"
        );
    }
    assert!(requests.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (engine, _directory) = engine();
    let kill = module(&engine, "kill").await;
    let (target, reached) = server(Some(OK)).await;
    let answer = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (address, _) = server(Some(answer.leak())).await;
    let grants = [address.to_string()];
    let (end, _) = post(
        &engine,
        &kill,
        &format!("http://{address}/"),
        &[&grants[0]],
        10_000,
    )
    .await;
    assert!(matches!(end, LegEnd::Failed(_)), "{end:?}");
    assert!(reached.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_silent_server_costs_the_body_its_time_and_no_more() {
    let (engine, _directory) = engine();
    let kill = module(&engine, "kill").await;
    let (address, requests) = server(None).await;
    let grants = [address.to_string()];
    let (end, host) = post(&engine, &kill, &format!("http://{address}/"), &[&grants[0]], 300).await;
    let timeout = support::trap(end);
    assert_eq!(
        (timeout.code, timeout.step.as_deref()),
        ("step-timeout", Some("step-0")),
        "{timeout:?}"
    );
    assert_eq!(requests.lock().expect("not poisoned").len(), 1);
    assert_eq!(host.bodies, 1);
    assert_eq!(engine.instances().live, 0);
}

#[tokio::test]
async fn broken_answers_are_failures() {
    let (engine, _directory) = engine();
    let kill = module(&engine, "kill").await;
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "",
    ] {
        let (address, _) = server(Some(answer)).await;
        let grants = [address.to_string()];
        let (end, _) = post(
            &engine,
            &kill,
            &format!("http://{address}/"),
            &[&grants[0]],
            10_000,
        )
        .await;
        assert!(matches!(end, LegEnd::Failed(_)), "{answer:?}: {end:?}");
    }
}
