//! The life of keys: the first, the last, revoked, expired, after a restart, on another node; and whoever shows wrong ones.

use std::time::{Duration, Instant};

use dormouse_core::Timestamp;
use dormouse_testing_postgres::Cluster;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::server::{Answer, TestServer};

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a request with a key.
pub(super) async fn with(server: &TestServer, key: &str, method: &str, path: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("content-type", "application/json"), ("authorization", &bearer)];
    server.send(method, path, &headers, body.as_bytes()).await
}

/// Makes a key and answers with its id and all of it.
pub(super) async fn make(server: &TestServer, by: &str, wanted: &Value) -> (String, String) {
    let made = with(server, by, "POST", "/v1/keys", &wanted.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = &made.json()["data"];
    let member = |name: &str| made[name].as_str().expect(name).to_owned();
    (member("id"), member("key"))
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_millis(since.expect("a time").as_millis() as i64)
}

/// The first key, made while the server is open.
pub(super) async fn first(server: &TestServer) -> String {
    make(server, "", &json!({"name": "Ada", "role": "admin"})).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_key_is_an_admin_s_and_closes_the_server_at_once() {
    let server = TestServer::start().await;
    for wanted in [
        json!({"name": "web", "kind": "event"}),
        json!({"name": "eve", "role": "viewer"}),
        json!({"name": "eve", "role": "admin", "expires_at": "2099-01-01T00:00:00Z"}),
    ] {
        let refused = server.post("/v1/keys", &wanted.to_string()).await;
        assert_eq!(refused.problem(), (409, "first-key".to_owned()), "{wanted}");
        assert_eq!(server.get("/v1/runs").await.status, 200, "it is open still");
    }
    let admin = first(&server).await;
    assert!(admin.starts_with("dormouse_api_"), "{admin}");
    assert_eq!(server.get("/v1/runs").await.problem().1, "unauthorized");
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.get("/dev").await.json()["functions"], json!([]));
    let sent = server.post("/e/any", r#"{"name":"a/b"}"#).await;
    assert_eq!(sent.problem(), (401, "unauthorized".to_owned()));
    let listed = with(&server, &admin, "GET", "/v1/keys", "").await;
    assert_eq!(listed.status, 200);
    assert!(!listed.body.contains(&admin), "it is shown once");
    let of_list = &listed.json()["data"][0];
    let prefix = of_list["prefix"].as_str().expect("a prefix");
    assert!(
        admin.starts_with(prefix) && admin.len() > prefix.len() + 60,
        "{prefix}"
    );
    assert_eq!(of_list["created_by"], "anonymous");
    // Whoever has the last admin key keeps it.
    let path = format!("/v1/keys/{}", of_list["id"].as_str().expect("an id"));
    let kept = with(&server, &admin, "DELETE", &path, "").await;
    assert_eq!(kept.problem(), (409, "last-admin-key".to_owned()));
    for (wanted, code) in [
        (json!({"name": "x", "role": "owner"}), "invalid-body"),
        (json!({"name": "", "role": "viewer"}), "invalid-key"),
        (
            json!({"name": "x", "role": "viewer", "modules": []}),
            "invalid-key",
        ),
        (
            json!({"name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}),
            "invalid-key",
        ),
    ] {
        let refused = with(&server, &admin, "POST", "/v1/keys", &wanted.to_string()).await;
        assert_eq!(refused.problem(), (400, code.to_owned()), "{wanted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_by_an_event_key_in_the_path_or_in_a_header() {
    let server = TestServer::start().await;
    let admin = first(&server).await;
    let (id, web) = make(&server, &admin, &json!({"name": "web", "kind": "event"})).await;
    let (_, operator) = make(&server, &admin, &json!({"name": "o", "role": "operator"})).await;
    let (_, viewer) = make(&server, &admin, &json!({"name": "v", "role": "viewer"})).await;
    let event = r#"{"name":"a/b"}"#;
    let before = server.events().await;
    for (path, header) in [
        (web.as_str(), None),
        ("anything", Some(&web)),
        (operator.as_str(), None),
        ("anything", Some(&admin)),
    ] {
        let path = format!("/e/{path}");
        let answer = match header {
            Some(key) => with(&server, key, "POST", &path, event).await,
            None => server.post(&path, event).await,
        };
        assert_eq!(answer.json()["status"], 200, "{answer:?}");
    }
    assert_eq!(server.events().await, before + 4);
    let refused = server.post(&format!("/e/{viewer}"), event).await;
    assert_eq!(refused.problem(), (403, "forbidden".to_owned()));
    // An answer in the clients' shape, also to whoever has written a lot.
    let long = format!(r#"{{"name":"a/b","data":{{"x":"{}"}}}}"#, "x".repeat(2 << 20));
    let refused = server.post("/e/dormouse_event_000000000000_00", &long).await;
    assert_eq!((refused.status, refused.json()["ids"].clone()), (401, json!([])));
    // What sends events does nothing else.
    for (method, path) in [
        ("GET", "/v1/events"),
        ("GET", "/v1/runs"),
        ("POST", "/invoke/a/b"),
    ] {
        let refused = with(&server, &web, method, path, "{}").await;
        assert_eq!(refused.problem(), (403, "forbidden".to_owned()), "{path}");
    }
    with(&server, &admin, "DELETE", &format!("/v1/keys/{id}"), "").await;
    let refused = server.post(&format!("/e/{web}"), event).await;
    assert_eq!(refused.problem(), (401, "unauthorized".to_owned()));
    assert_eq!(server.events().await, before + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_good_until_it_is_revoked_or_expires_and_a_restart_changes_nothing() {
    let server = TestServer::start().await;
    let admin = first(&server).await;
    let (id, viewer) = make(&server, &admin, &json!({"name": "v", "role": "viewer"})).await;
    let soon = now().after(Duration::from_millis(1_500));
    let short = json!({"name": "s", "role": "viewer", "expires_at": soon.to_string()});
    let (_, short) = make(&server, &admin, &short).await;
    for key in [&viewer, &short] {
        assert_eq!(with(&server, key, "GET", "/v1/runs", "").await.status, 200);
    }
    let server = server.restart().await;
    assert_eq!(server.get("/v1/runs").await.status, 401, "it stays closed");
    assert_eq!(with(&server, &viewer, "GET", "/v1/runs", "").await.status, 200);
    let path = format!("/v1/keys/{id}");
    let revoked = with(&server, &admin, "DELETE", &path, "").await;
    assert_eq!(revoked.json()["data"]["changed"], true, "{revoked:?}");
    let refused = with(&server, &viewer, "GET", "/v1/runs", "").await;
    assert_eq!(refused.problem(), (401, "unauthorized".to_owned()));
    let again = with(&server, &admin, "DELETE", &path, "").await;
    assert_eq!(again.json()["data"]["changed"], false, "{again:?}");
    let deadline = Instant::now() + PATIENCE;
    while with(&server, &short, "GET", "/v1/runs", "").await.status == 200 {
        assert!(Instant::now() < deadline, "it never expired");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let server = server.restart().await;
    for key in [&viewer, &short] {
        assert_eq!(with(&server, key, "GET", "/v1/runs", "").await.status, 401);
    }
    let listed = with(&server, &admin, "GET", "/v1/keys", "").await.json();
    let statuses = listed["data"].as_array().expect("keys").iter();
    let statuses: Vec<&str> = statuses.filter_map(|key| key["status"].as_str()).collect();
    assert_eq!(statuses, ["active", "revoked", "expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_key() {
    let server = TestServer::start().await;
    let admin = first(&server).await;
    let wanted = json!({"name": "v", "role": "viewer", "payloads": true});
    let (id, viewer) = make(&server, &admin, &wanted).await;
    let mut stream = server.connect().await;
    let request = format!(
        "GET /v1/runs/{}/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {viewer}\r\nconnection: close\r\n\r\n",
        server.runs.sleeping
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut seen = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains("a-long-nap") {
            let count = stream.read(&mut chunk).await.expect("read");
            assert!(count > 0, "it ended early");
            seen.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("its steps in time");
    with(&server, &admin, "DELETE", &format!("/v1/keys/{id}"), "").await;
    let rest = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
    rest.expect("it ends").expect("in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn inngest_s_form_of_a_signing_key_is_one_and_what_is_stored_is_not() {
    let server = TestServer::start().await;
    let admin = first(&server).await;
    let parts: Vec<&str> = admin.split('_').collect();
    let (id, secret) = (parts[2], parts[3]);
    let bytes: Vec<u8> = (0..32)
        .map(|index| u8::from_str_radix(&secret[2 * index..2 * index + 2], 16).expect("digits"))
        .collect();
    let once = dormouse_core::Digest::of(&bytes);
    let twice = dormouse_core::Digest::of(once.as_bytes());
    let status = async |key: String| with(&server, &key, "GET", "/v1/keys", "").await.status;
    assert_eq!(status(format!("signkey-{id}-{secret}")).await, 200);
    assert_eq!(status(format!("signkey-{id}-{}", once.hex())).await, 200);
    assert_eq!(status(format!("signkey-{id}-{}", twice.hex())).await, 401);
    let stored = server.store.keys(None).await.expect("reads").expect("keys");
    assert_eq!(stored.keys[0].verifier.as_bytes(), twice.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_keys_that_are_none_is_held_up_and_nobody_else() {
    let server = TestServer::start().await;
    let admin = first(&server).await;
    let mut statuses = Vec::new();
    for number in 0..30 {
        let answer = with(&server, &format!("guess-{number}"), "GET", "/v1/runs", "").await;
        if answer.status == 429 {
            assert_eq!(answer.problem().1, "too-many-failures");
            let seconds = answer
                .header("retry-after")
                .and_then(|text| text.parse::<u32>().ok());
            assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
        }
        statuses.push(answer.status);
    }
    assert_eq!((statuses[0], statuses[29]), (401, 429), "{statuses:?}");
    assert_eq!(with(&server, &admin, "GET", "/v1/runs", "").await.status, 200);
    assert_eq!(server.get("/v1/runs").await.status, 401, "no key is no guess");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_makes_and_revokes_holds_on_another_within_a_second() {
    let database = Cluster::shared().database();
    let one = TestServer::on_postgres(&database, async |_| {}).await;
    let two = one.second(&database).await;
    assert_eq!(two.get("/v1/runs").await.status, 200);
    let admin = first(&one).await;
    let closed = Instant::now();
    while two.get("/v1/runs").await.status != 401 {
        assert!(closed.elapsed() < Duration::from_secs(1), "it is open still");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (id, viewer) = make(&one, &admin, &json!({"name": "v", "role": "viewer"})).await;
    let made = Instant::now();
    while with(&two, &viewer, "GET", "/v1/runs", "").await.status != 200 {
        assert!(made.elapsed() < Duration::from_secs(1), "it is not known");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    with(&one, &admin, "DELETE", &format!("/v1/keys/{id}"), "").await;
    let revoked = Instant::now();
    assert_eq!(with(&one, &viewer, "GET", "/v1/runs", "").await.status, 401);
    while with(&two, &viewer, "GET", "/v1/runs", "").await.status == 200 {
        assert!(revoked.elapsed() < Duration::from_secs(1), "it is good still");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A form as a browser sends it from a page of this server.
async fn form(server: &TestServer, path: &str, cookie: &str, body: &str) -> Answer {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "text/html"),
        ("sec-fetch-site", "same-origin"),
        ("cookie", cookie),
    ];
    server.send("POST", path, &headers, body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_at_pages_signs_in_with_a_key_and_out_again() {
    let server = TestServer::start().await;
    let admin = first(&server).await;
    let wanted = json!({"name": "v", "role": "viewer"});
    let (id, viewer) = make(&server, &admin, &wanted).await;
    let (_, web) = make(&server, &admin, &json!({"name": "web", "kind": "event"})).await;
    let look = async |path: &str, cookie: &str| {
        let headers = [("accept", "text/html"), ("cookie", cookie)];
        server.send("GET", path, &headers, b"").await
    };
    let page = look("/runs?status=Failed", "").await;
    let place = page.header("location").unwrap_or_default().to_owned();
    assert_eq!(
        (page.status, place.as_str()),
        (303, "/sign-in?to=%2Fruns%3Fstatus%3DFailed")
    );
    let asked = look(&place, "").await;
    assert!(asked.body.contains(r#"value="/runs?status=Failed""#), "{asked:?}");
    for (key, status) in [("nonsense", 401), (web.as_str(), 403), ("", 401)] {
        let refused = form(&server, "/sign-in", "", &format!("key={key}&to=/runs")).await;
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(refused.header("set-cookie").is_none() && refused.body.contains("role=\"alert\""));
    }
    let signed = form(
        &server,
        "/sign-in",
        "",
        &format!("to=%2F%2Fevil.example&key={viewer}"),
    )
    .await;
    assert_eq!(
        (signed.status, signed.header("location")),
        (303, Some("/")),
        "{signed:?}"
    );
    let cookie = signed.header("set-cookie").expect("a cookie").to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "it came by http: {cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let page = look("/runs", cookie).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("Sign out"), "{page:?}");
    let data = server.send("GET", "/v1/runs", &[("cookie", cookie)], b"").await;
    assert_eq!(data.status, 200, "what pages link to is seen, too");
    // What a viewer may not do has no button, and is refused all the same.
    let run = format!("/runs/{}", server.runs.sleeping);
    let page = look(&run, cookie).await;
    assert!(!page.body.contains("Cancel run"), "{page:?}");
    assert_eq!(
        form(&server, &format!("{run}/cancel"), cookie, "").await.status,
        403
    );
    // Nor does another site do anything with it.
    let admins = form(&server, "/sign-in", "", &format!("key={admin}")).await;
    let admins = admins
        .header("set-cookie")
        .and_then(|cookie| cookie.split(';').next());
    let admins = admins.expect("a cookie").to_owned();
    let elsewhere = [("cookie", admins.as_str()), ("sec-fetch-site", "cross-site")];
    let forged = server
        .send("POST", &format!("{run}/cancel"), &elsewhere, b"")
        .await;
    assert_eq!(forged.problem(), (403, "cross-site".to_owned()));
    let forged = server.send("POST", "/sign-in", &elsewhere[1..], b"key=x").await;
    assert_eq!(forged.problem(), (403, "cross-site".to_owned()));
    let out = form(&server, "/sign-out", cookie, "").await;
    assert!(
        out.header("set-cookie")
            .is_some_and(|cookie| cookie.contains("Max-Age=0")),
        "{out:?}"
    );
    with(&server, &admin, "DELETE", &format!("/v1/keys/{id}"), "").await;
    assert_eq!(look("/runs", cookie).await.status, 303, "it was revoked");
    assert_eq!(
        form(&server, &format!("{run}/cancel"), &admins, "").await.status,
        303
    );
}
