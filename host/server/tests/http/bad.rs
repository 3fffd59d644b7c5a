//! Bad requests: each is refused for what is wrong with it, and changes nothing.

use super::server::TestServer;

#[tokio::test]
async fn bad_events_are_refused_for_what_is_wrong_and_store_nothing() {
    let server = TestServer::start().await;
    let before = server.events().await;
    let big = format!(r#"{{"name":"a","data":{{"x":"{}"}}}}"#, "x".repeat(3 << 20));
    let many = format!("[{}]", vec![r#"{"name":"a"}"#; 5_001].join(","));
    for (body, code, word) in [
        ("", "invalid-body", "empty"),
        ("   ", "invalid-body", "empty"),
        ("{", "invalid-body", "line 1"),
        ("[{\"name\":\"a\"}", "invalid-body", "line 1"),
        (r#"{"name":"a"} {"name":"b"}"#, "invalid-body", "trailing"),
        ("nonsense", "invalid-body", "line 1"),
        ("7", "invalid-event", "object"),
        ("null", "invalid-event", "object"),
        (r#"["a"]"#, "invalid-event", "object"),
        (r#"[[{"name":"a"}]]"#, "invalid-event", "object"),
        ("{}", "invalid-event", "name is empty"),
        (r#"{"name":""}"#, "invalid-event", "name is empty"),
        (r#"{"name":7}"#, "invalid-event", "string"),
        (r#"{"name":null}"#, "invalid-event", "string"),
        (r#"{"name":"inngest/x"}"#, "invalid-event", "reserved"),
        (r#"{"name":"DORMOUSE/x"}"#, "invalid-event", "reserved"),
        (
            r#"{"name":"a","data":[1]}"#,
            "invalid-event",
            "data must be an object",
        ),
        (
            r#"{"name":"a","data":"x"}"#,
            "invalid-event",
            "data must be an object",
        ),
        (r#"{"name":"a","id":7}"#, "invalid-event", "string"),
        (r#"{"name":"a","ts":"now"}"#, "invalid-event", "i64"),
        (r#"{"name":"a","ts":1}"#, "invalid-event", "1980"),
        (
            r#"[{"name":"a"},{"name":"b"},{"name":""}]"#,
            "invalid-event",
            "event 2",
        ),
        (many.as_str(), "too-many-events", "5001"),
        (big.as_str(), "event-too-big", "more than the limit"),
    ] {
        let answer = server.post("/e/k", body).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.problem(), (400, code.to_owned()), "{shown}");
        let json = answer.json();
        assert_eq!(json["ids"], serde_json::json!([]), "{shown}");
        assert!(
            json["error"].as_str().is_some_and(|error| error.contains(word)),
            "{shown}: {json}"
        );
    }
    let answer = server.send("POST", "/e/k", &[], b"{\"name\":\"\xff\"}").await;
    assert_eq!(answer.problem(), (400, "invalid-body".to_owned()));
    assert_eq!(server.events().await, before, "nothing was stored");
}

#[tokio::test]
async fn requests_that_are_too_big_are_told_so_whether_or_not_they_say_how_big() {
    let server = TestServer::start().await;
    let before = server.events().await;
    let body = vec![b' '; (16 << 20) + 1];
    let answer = server.send("POST", "/e/k", &[], &body).await;
    assert_eq!(answer.problem(), (413, "request-too-large".to_owned()));

    let mut chunked = format!(
        "POST /e/k HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        server.address
    )
    .into_bytes();
    chunked.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(
        server.raw(&chunked).await.problem(),
        (413, "request-too-large".to_owned())
    );

    let component = vec![0; (64 << 20) + 1];
    let answer = server.send("PUT", "/v1/modules/shop", &[], &component).await;
    assert_eq!(answer.problem(), (413, "component-too-large".to_owned()));

    // Whoever asks first sends nothing at all.
    let head = format!(
        "PUT /v1/modules/shop HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n",
        server.address
    );
    assert_eq!(
        server.raw(head.as_bytes()).await.problem(),
        (413, "component-too-large".to_owned())
    );
    assert_eq!(server.events().await, before);
    assert_eq!(
        server.get("/v1/modules").await.json()["data"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn uploads_that_are_no_components_are_refused_and_leave_nothing() {
    let server = TestServer::start().await;
    let zeros = vec![0; 1 << 20];
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("text", b"hello"),
        ("zeros", zeros.as_slice()),
        ("a core module", b"\0asm\x01\0\0\0"),
        ("a component that is cut off", b"\0asm\x0d\0\x01\0\x07\x20"),
        ("an empty component", b"\0asm\x0d\0\x01\0"),
    ] {
        let answer = server.send("PUT", "/v1/modules/upload", &[], bytes).await;
        assert_eq!(answer.problem().0, 422, "{what}: {answer:?}");
    }
    let answer = server.send("PUT", "/v1/modules/Shop", &[], b"x").await;
    assert_eq!(answer.problem(), (400, "invalid-name".to_owned()));
    let answer = server
        .send("PUT", "/v1/modules/upload?policy=soon", &[], b"x")
        .await;
    assert_eq!(answer.problem(), (400, "invalid-query".to_owned()));
    let message = "x".repeat(5_000);
    let answer = server
        .send(
            "PUT",
            "/v1/modules/upload",
            &[("x-dormouse-message", &message)],
            b"x",
        )
        .await;
    assert_eq!(answer.problem(), (400, "invalid-message".to_owned()));
    assert_eq!(
        server.get("/v1/modules").await.json()["data"],
        serde_json::json!([])
    );
    assert_eq!(
        server.get("/v1/modules/upload/versions").await.problem(),
        (404, "not-found".to_owned())
    );
}

/// On one server: each maps much memory, which a process has only so much of.
#[tokio::test]
async fn what_there_is_not_is_said_in_json() {
    let server = TestServer::start().await;
    unknown_and_malformed_ids_are_told_apart(&server).await;
    wrong_methods_and_addresses_are_json_and_name_what_there_is(&server).await;
}

async fn unknown_and_malformed_ids_are_told_apart(server: &TestServer) {
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let digest = format!("sha256:{}", "0".repeat(64));
    for (method, path) in [
        ("GET", format!("/v1/runs/{unknown}")),
        ("GET", format!("/v1/runs/{unknown}?wait=1s")),
        ("GET", format!("/v1/runs/{unknown}/journal")),
        ("GET", format!("/v1/runs/{unknown}/logs")),
        ("GET", format!("/v1/runs/{unknown}/stream")),
        ("DELETE", format!("/v1/runs/{unknown}")),
        ("POST", format!("/v1/runs/{unknown}/wake")),
        ("GET", format!("/v1/events/{unknown}")),
        ("GET", format!("/v1/events/{unknown}/runs")),
        ("GET", "/v1/modules/none/versions".to_owned()),
        ("DELETE", format!("/v1/modules/none/versions/{digest}")),
        ("POST", "/invoke/none/such".to_owned()),
    ] {
        let answer = server.send(method, &path, &[], b"").await;
        assert_eq!(answer.problem(), (404, "not-found".to_owned()), "{method} {path}");
    }
    let answer = server
        .post(
            "/v1/modules/none/activate",
            &format!(r#"{{"version":"{digest}"}}"#),
        )
        .await;
    assert_eq!(answer.problem(), (404, "not-found".to_owned()));

    for (method, path, code) in [
        ("GET", "/v1/runs/x", "invalid-id"),
        ("DELETE", "/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FA", "invalid-id"),
        ("GET", "/v1/runs/8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "invalid-id"),
        ("GET", "/v1/runs/%00/stream", "invalid-id"),
        ("GET", "/v1/events/%F0%9F%90%BF", "invalid-id"),
        ("DELETE", "/v1/modules/a/versions/latest", "invalid-id"),
        ("GET", "/v1/modules/UPPER/versions", "invalid-name"),
        ("POST", "/invoke/a/B", "invalid-name"),
        ("GET", "/v1/runs?limit=0", "invalid-query"),
        ("GET", "/v1/runs?limit=many", "invalid-query"),
        ("GET", "/v1/runs?status=Done", "invalid-query"),
        ("GET", "/v1/runs?phase=Sleeping", "invalid-query"),
        ("GET", "/v1/runs?cursor=x", "invalid-query"),
        ("GET", "/v1/runs?stats=Failed", "invalid-query"),
        ("GET", "/v1/runs?function=charge", "invalid-query"),
        ("GET", "/v1/events?received_after=yesterday", "invalid-query"),
        (
            "GET",
            "/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV?wait=long",
            "invalid-query",
        ),
    ] {
        let answer = server.send(method, path, &[], b"").await;
        assert_eq!(answer.problem(), (400, code.to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn bodies_of_commands_are_read_strictly() {
    let server = TestServer::start().await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"version":7}"#,
        r#"{"version":"sha256:0","policy":"pin","force":true}"#,
    ] {
        let answer = server.post("/v1/modules/shop/activate", body).await;
        assert_eq!(answer.problem(), (400, "invalid-body".to_owned()), "{body}");
    }
    let answer = server
        .post("/v1/modules/shop/activate", r#"{"version":"newest"}"#)
        .await;
    assert_eq!(answer.problem(), (400, "invalid-id".to_owned()));
    for body in ["[]", "7", "{", "\"x\"", "{} {}"] {
        let answer = server.post("/invoke/shop/charge", body).await;
        assert_eq!(answer.problem(), (400, "invalid-body".to_owned()), "{body}");
    }
}

async fn wrong_methods_and_addresses_are_json_and_name_what_there_is(server: &TestServer) {
    for (method, path, allow) in [
        ("GET", "/e/k", "POST"),
        ("PUT", "/e/k", "POST"),
        ("POST", "/v1/runs", "GET"),
        ("PATCH", "/v1/runs/x", "DELETE"),
        ("GET", "/v1/runs/x/wake", "POST"),
        ("GET", "/v1/modules/x", "PUT"),
        ("DELETE", "/health", "GET"),
        ("DELETE", "/runs", "GET"),
        ("GET", "/runs/x/cancel", "POST"),
    ] {
        let answer = server.send(method, path, &[], b"").await;
        assert_eq!(
            answer.problem(),
            (405, "wrong-method".to_owned()),
            "{method} {path}"
        );
        assert!(
            answer.header("allow").is_some_and(|named| named.contains(allow)),
            "{method} {path}: {answer:?}"
        );
    }
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/e",
        "/e/",
        "/e/a/b",
        "/v2/runs",
        "/favicon.ico",
        "/assets/x",
        "//",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    assert_eq!(
        server.get("/v1/nothing").await.problem(),
        (404, "no-route".to_owned())
    );
    let head = server.send("HEAD", "/health", &[], b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn what_is_not_http_is_answered_or_closed_and_the_server_goes_on() {
    let server = TestServer::start().await;
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"POST /e/k HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /e/k HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /e/k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n",
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.expect("written");
        stream.shutdown().await.expect("closed for writing");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let names: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let answer = server.send("GET", "/health", &many, b"").await;
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(server.get("/health").await.status, 200);
}
