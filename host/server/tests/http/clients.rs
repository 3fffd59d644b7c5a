//! Clients that are slow or vanish: they cost the server nothing, and what they began is whole or not there.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{TestServer, read};

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_stores_nothing() {
    let server = TestServer::start().await;
    let before = server.events().await;
    let mut stream = server.connect().await;
    let head = format!(
        "POST /e/k HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(br#"{"name":"a""#).await.expect("written");
    let begun = Instant::now();
    let answer = read(&mut stream).await;
    assert_eq!(answer.problem(), (408, "body-too-slow".to_owned()));
    assert!(
        begun.elapsed() >= Duration::from_secs(10),
        "a short pause is not held against anybody"
    );
    assert_eq!(server.events().await, before);
}

#[tokio::test]
async fn clients_that_vanish_in_the_middle_store_nothing_and_hold_nothing() {
    let server = TestServer::start().await;
    let before = server.events().await;
    for index in 0..200 {
        let mut stream = server.connect().await;
        let whole = format!(
            "POST /e/k HTTP/1.1\r\nhost: {}\r\ncontent-length: 40\r\n\r\n{{\"name\":\"half\"",
            server.address
        );
        let part = &whole.as_bytes()[..whole.len() - index % 60];
        stream.write_all(part).await.expect("written");
        if index % 2 == 0 {
            // A reset rather than an orderly end.
            stream.set_zero_linger().expect("set");
        }
        drop(stream);
    }
    let answer = server.post("/e/k", r#"{"name":"whole"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.events().await, before + 1);
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_its_answer_has_its_event_stored() {
    let server = TestServer::start().await;
    let before = server.events().await;
    for index in 0..50 {
        let mut stream = server.connect().await;
        let body = format!(r#"{{"name":"gone/{index:02}"}}"#);
        let request = format!(
            "POST /e/k HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        // An orderly end after the whole request: the server may see it while it works.
        stream.shutdown().await.expect("closed");
        drop(stream);
    }
    // A request that arrived whole is stored whole or not at all. That it is stored at all is promised to those only who
    // read the answer; here the last one does, and its answer comes after its own event is durable.
    let answer = server.post("/e/k", r#"{"name":"last"}"#).await;
    assert_eq!(answer.status, 200);
    let after = server.events().await;
    assert!((before + 1..=before + 51).contains(&after), "{before} {after}");
    let listed = server.get("/v1/events?limit=100").await.json();
    for event in listed["data"].as_array().expect("events") {
        assert!(event["data"].is_object(), "{event}");
    }
}

#[tokio::test]
async fn hundreds_of_idle_connections_and_streams_leave_room_for_work() {
    let server = TestServer::start().await;
    let mut held = Vec::new();
    for index in 0..300 {
        let mut stream = server.connect().await;
        if index % 3 == 0 {
            let id = server.runs.sleeping;
            let request = format!("GET /v1/runs/{id}/stream HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("an answer begins");
        } else if index % 3 == 1 {
            stream.write_all(b"GET /v1/ru").await.expect("written");
        }
        held.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(server.post("/e/k", r#"{"name":"a/b"}"#).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(held);
    assert_eq!(server.get("/health").await.status, 200);
}
