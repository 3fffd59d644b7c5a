//! Good requests: what the routes answer.

use serde_json::json;

use super::server::TestServer;

#[tokio::test]
async fn an_event_is_durable_and_readable_under_the_id_that_was_answered() {
    let server = TestServer::start().await;
    let answer = server
        .post(
            "/e/any-key",
            r#"[{"name":"a/b","data":{"n":123456789012345678901234567890}},{"name":"a/c","id":"mine"}]"#,
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-inngest-server-kind"), Some("dev"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let json = answer.json();
    assert_eq!(json["status"], 200);
    assert!(json.get("error").is_none());
    let ids: Vec<&str> = json["ids"]
        .as_array()
        .expect("ids")
        .iter()
        .filter_map(|id| id.as_str())
        .collect();
    assert_eq!(ids.len(), 2);

    let first = server.get(&format!("/v1/events/{}", ids[0])).await;
    assert!(
        first.body.contains("123456789012345678901234567890"),
        "every digit is kept: {first:?}"
    );
    assert_eq!(first.json()["data"]["internal_id"], ids[0]);
    assert_eq!(
        first.json()["data"]["id"],
        ids[0],
        "without an id of its own, its id is ours"
    );
    let second = server.get(&format!("/v1/events/{}", ids[1])).await.json();
    assert_eq!(
        (&second["data"]["id"], &second["data"]["name"]),
        (&"mine".into(), &"a/c".into())
    );
    let runs = server.get(&format!("/v1/events/{}/runs", ids[0])).await.json();
    assert_eq!(runs["data"], serde_json::json!([]), "nothing listens to it");
}

#[tokio::test]
async fn one_object_a_form_and_curls_default_type_are_events_too() {
    let server = TestServer::start().await;
    let form = "application/x-www-form-urlencoded";
    for (media, body) in [
        ("application/json", r#" {"name":"a/b"} "#),
        ("text/plain;charset=UTF-8", r#"{"name":"a/b"}"#),
        (form, r#"{"name":"a/b","data":{"x":1}}"#),
        (form, "name=a%2Fb&x=1&x=2"),
    ] {
        let answer = server
            .send("POST", "/e/k", &[("content-type", media)], body.as_bytes())
            .await;
        assert_eq!(answer.status, 200, "{media} {body}: {answer:?}");
        let ids = answer.json()["ids"].clone();
        assert_eq!(ids.as_array().map(Vec::len), Some(1));
        if !body.starts_with([' ', '{']) {
            let id = ids[0].as_str().expect("an id");
            let event = server.get(&format!("/v1/events/{id}")).await.json();
            assert_eq!(event["data"]["data"], serde_json::json!({"x": ["1", "2"]}));
        }
    }
    let listed = server.get("/v1/events?name=a/b").await.json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn a_seed_gives_the_same_ids_again_and_a_bad_one_is_ignored() {
    let server = TestServer::start().await;
    let body = br#"[{"name":"a/b"},{"name":"a/b"}]"#;
    let seeded = [("x-inngest-event-id-seed", "1790000000000,AAECAwQFBgcICQ==")];
    let first = server.send("POST", "/e/k", &seeded, body).await.json();
    let again = server.send("POST", "/e/k", &seeded, body).await.json();
    assert_eq!(first["status"], 200, "{first}");
    assert_eq!(first, again);
    assert_ne!(first["ids"][0], first["ids"][1]);

    let bad = server
        .send("POST", "/e/k", &[("x-inngest-event-id-seed", "nonsense")], body)
        .await
        .json();
    assert_eq!(bad["status"], 200);
    assert_ne!(bad["ids"], first["ids"]);
}

#[tokio::test]
async fn browsers_may_send_events_from_anywhere_and_nothing_else() {
    let server = TestServer::start().await;
    let from = [
        ("origin", "https://shop.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    let preflight = [
        from[0],
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-a"),
    ];
    let answer = server.send("OPTIONS", "/e/k", &preflight, b"").await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("*")),
        "{answer:?}"
    );
    let answer = server.send("POST", "/e/k", &from, br#"{"name":"a/b"}"#).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("*")),
        "{answer:?}"
    );

    let id = server.runs.sleeping;
    for (method, path) in [
        ("DELETE", format!("/v1/runs/{id}")),
        ("POST", format!("/v1/runs/{id}/wake")),
        ("POST", format!("/runs/{id}/cancel")),
        ("PUT", "/v1/modules/evil".to_owned()),
        ("POST", "/invoke/shop/charge".to_owned()),
    ] {
        let answer = server.send(method, &path, &from, b"{}").await;
        assert_eq!(
            answer.problem(),
            (403, "cross-site".to_owned()),
            "{method} {path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let run = server.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!(run["data"]["phase"], "sleeping", "nothing has changed");
}

#[tokio::test]
async fn a_run_shows_its_steps_attempts_output_and_error() {
    let server = TestServer::start().await;
    let runs = server.runs;

    let completed = server.get(&format!("/v1/runs/{}", runs.completed)).await;
    assert!(
        completed.body.contains("123456789012345678901234567890"),
        "every digit is kept"
    );
    let json = completed.json();
    let run = &json["data"];
    assert!(json["metadata"]["fetched_at"].is_string());
    assert_eq!(
        (&run["status"], &run["phase"]),
        (&"Completed".into(), &serde_json::Value::Null)
    );
    assert_eq!(run["function_id"], "shop/charge");
    assert!(
        run["version"]
            .as_str()
            .is_some_and(|version| version.starts_with("sha256:") && version.len() == 71)
    );
    assert_eq!(run["queued_at"], "2026-09-21T14:13:20.000Z");
    let step = &run["steps"][0];
    assert_eq!(
        (&step["name"], &step["kind"], &step["status"], &step["output"]),
        (
            &"charge-card".into(),
            &"run".into(),
            &"completed".into(),
            &7.into()
        )
    );

    let failed = server.get(&format!("/v1/runs/{}", runs.failed)).await.json();
    let error = &failed["data"]["error"];
    assert_eq!(
        (&error["code"], &error["step"]),
        (&"guest-panic".into(), &"charge-card".into())
    );
    assert_eq!(error["frames"][0], "shop::charge (src/lib.rs:7)");

    let backing_off = server.get(&format!("/v1/runs/{}", runs.backing_off)).await.json();
    let run = &backing_off["data"];
    assert_eq!(
        (&run["phase"], &run["wake_at"]),
        (&"backing-off".into(), &"2099-12-31T00:00:00.000Z".into())
    );
    assert_eq!(run["steps"][0]["status"], "backing-off");
    assert_eq!(run["steps"][0]["attempts"][0]["error"]["code"], "card-declined");

    let journal = server
        .get(&format!("/v1/runs/{}/journal", runs.sleeping))
        .await
        .json();
    assert_eq!(journal["data"][1]["entry"], "started");
    assert_eq!(journal["data"][1]["kind"], "sleep");
    let rest = server
        .get(&format!("/v1/runs/{}/journal?from=1", runs.sleeping))
        .await
        .json();
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(1));
    let logs = server
        .get(&format!("/v1/runs/{}/logs", runs.sleeping))
        .await
        .json();
    assert_eq!(logs["data"][0]["message"], "the card is <nearly> expired");
    assert_eq!(logs["data"][0]["fields"]["days"], 3);
}

#[tokio::test]
async fn lists_are_narrowed_and_paged() {
    let server = TestServer::start().await;
    let ids = |json: &serde_json::Value| -> Vec<String> {
        json["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|run| run["run_id"].as_str().unwrap_or("").to_owned())
            .collect()
    };
    let all = ids(&server.get("/v1/runs").await.json());
    assert_eq!(all.len(), 4);
    assert!(all.is_sorted_by(|newer, older| newer > older), "newest first");

    let first = server.get("/v1/runs?limit=3").await.json();
    let cursor = first["metadata"]["cursor"]
        .as_str()
        .expect("there is more")
        .to_owned();
    let second = server
        .get(&format!("/v1/runs?limit=3&cursor={cursor}"))
        .await
        .json();
    assert_eq!(second["metadata"].get("cursor"), None, "that was the last page");
    assert_eq!([ids(&first), ids(&second)].concat(), all);

    for (query, count) in [
        ("status=Completed", 1),
        ("status=Completed,Failed", 2),
        ("status=Completed&status=failed", 2),
        ("phase=sleeping", 1),
        ("function=shop/charge", 4),
        ("module=shop", 4),
        ("module=other", 0),
        ("module=shop&function=charge&phase=backing-off", 1),
    ] {
        let answer = server.get(&format!("/v1/runs?{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(ids(&answer.json()).len(), count, "{query}");
    }
    let events = server
        .get("/v1/events?limit=1&received_before=2026-09-22T00:00:00Z")
        .await
        .json();
    assert_eq!(events["data"][0]["name"], "shop/order.placed");
    assert!(events["metadata"]["cursor"].is_string());
    let none = server
        .get("/v1/events?received_after=2026-09-22T00:00:00Z")
        .await
        .json();
    assert_eq!(none["data"], serde_json::json!([]));
}

#[tokio::test]
async fn waiting_for_a_run_ends_with_it_or_with_the_time() {
    let server = TestServer::start().await;
    let id = server.runs.sleeping;
    let early = server.get(&format!("/v1/runs/{id}?wait=50ms")).await.json();
    assert_eq!(early["data"]["phase"], "sleeping", "the time was over");

    let path = format!("/v1/runs/{id}?wait=30s");
    let begun = std::time::Instant::now();
    let (waited, cancelled) = tokio::join!(server.get(&path), async {
        // The wait may begin before or after; both must end it.
        server.send("DELETE", &format!("/v1/runs/{id}"), &[], b"").await
    });
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(waited.json()["data"]["status"], "Cancelled");
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(20),
        "the end was noticed, not timed out"
    );
    let steps = &waited.json()["data"]["steps"];
    assert_eq!(steps[1]["status"], "cancelled", "{steps}");
}

#[tokio::test]
async fn commands_say_what_they_did_and_refuse_what_is_over() {
    let server = TestServer::start().await;
    let runs = server.runs;
    let woken = server.post(&format!("/v1/runs/{}/wake", runs.sleeping), "").await;
    assert_eq!(woken.status, 200, "{woken:?}");
    assert_eq!(woken.json()["data"]["run_id"], runs.sleeping.to_string());

    let over = server
        .send("DELETE", &format!("/v1/runs/{}", runs.completed), &[], b"")
        .await;
    assert_eq!(over.problem(), (409, "already-ended".to_owned()));
    let over = server.post(&format!("/v1/runs/{}/wake", runs.failed), "").await;
    assert_eq!(over.problem(), (409, "already-ended".to_owned()));
}

/// On one server: each maps much memory, which a process has only so much of.
#[tokio::test]
async fn the_server_tells_of_itself_and_of_what_it_does_not_do() {
    let server = TestServer::start().await;
    the_server_tells_of_itself(&server).await;
    what_a_later_release_brings_is_told_apart_from_a_mistake(&server).await;
}

async fn the_server_tells_of_itself(server: &TestServer) {
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    assert_eq!(server.get("/ready").await.json()["status"], "ready");
    assert!(server.get("/dev").await.json()["functions"].is_array());
    let nodes = server.get("/v1/nodes").await.json();
    assert_eq!(nodes["data"].as_array().map(Vec::len), Some(1), "{nodes}");
    let metrics = server.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .is_some_and(|media| media.starts_with("text/plain"))
    );
    for name in [
        "dormouse_queue_depth",
        "dormouse_runs_blocked",
        "dormouse_queue_oldest_age_seconds",
    ] {
        assert!(
            metrics.body.contains(&format!("# TYPE {name} gauge")),
            "{name}\n{}",
            metrics.body
        );
    }
    for path in ["/v1/modules", "/v1/functions", "/v1/schedules"] {
        assert_eq!(
            server.get(path).await.json()["data"],
            serde_json::json!([]),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_signal_that_nobody_waits_for_or_that_is_none_is_refused() {
    let server = TestServer::start().await;
    let json = [("content-type", "application/json")];
    for (body, expected) in [
        (r#"{"signal":"go","data":1}"#.to_owned(), (404, "not-found")),
        (r#"{"signal":""}"#.to_owned(), (400, "invalid-name")),
        (
            format!(r#"{{"signal":"{}"}}"#, "x".repeat(513)),
            (400, "invalid-name"),
        ),
        (r#"{"data":1}"#.to_owned(), (400, "invalid-body")),
        (r#"{"signal":"go","date":1}"#.to_owned(), (400, "invalid-body")),
        ("[]".to_owned(), (400, "invalid-body")),
        (
            format!(r#"{{"signal":"go","data":"{}"}}"#, "x".repeat(4 << 20)),
            (400, "output-too-large"),
        ),
        (
            format!(
                r#"{{"signal":"go","data":{}{}}}"#,
                "[".repeat(128),
                "]".repeat(128)
            ),
            (400, "invalid-body"),
        ),
    ] {
        let answer = server.send("POST", "/v1/signals", &json, body.as_bytes()).await;
        assert_eq!(
            answer.problem(),
            (expected.0, expected.1.to_owned()),
            "{:.60}",
            body
        );
    }
}

/// On one server: each maps much memory, which a process has only so much of.
#[tokio::test]
async fn runs_are_paused_resumed_done_once_more_and_cancelled_in_bulk() {
    let server = TestServer::start().await;
    server.activate_shop().await;
    runs_and_functions_are_paused_and_resumed(&server).await;
    schedules_are_listed_with_where_they_stand(&server).await;
    a_run_is_done_once_more(&server).await;
    many_runs_are_cancelled_with_one_request(&server).await;
    a_preflight_refuses_what_an_upload_would_and_changes_nothing(&server).await;
}

async fn a_preflight_refuses_what_an_upload_would_and_changes_nothing(server: &TestServer) {
    let path = "/v1/modules/shop/preflight";
    let unknown = format!("{path}?version=sha256:{}", "0".repeat(64));
    for (path, body, problem) in [
        (path, &b"no component"[..], (422, "not-a-component")),
        (path, b"", (422, "not-a-component")),
        ("/v1/modules/Shop/preflight", b"", (400, "invalid-name")),
        (&unknown, b"", (404, "not-found")),
        (&unknown, b"and a body", (400, "invalid-body")),
        ("/v1/modules/shop/preflight?version=abc", b"", (400, "invalid-id")),
        ("/v1/modules/shop/preflight?sample=0", b"", (400, "invalid-query")),
        (
            "/v1/modules/shop/preflight?sample=100001",
            b"",
            (400, "invalid-query"),
        ),
        (
            "/v1/modules/shop/preflight?sample=many",
            b"",
            (400, "invalid-query"),
        ),
        (
            "/v1/modules/shop/preflight?policy=hope",
            b"",
            (400, "invalid-query"),
        ),
        ("/v1/modules/shop/preflight?force=1", b"", (400, "invalid-query")),
    ] {
        let answer = server.send("POST", path, &[], body).await;
        assert_eq!(
            answer.problem(),
            (problem.0, problem.1.to_owned()),
            "{path} {body:?}"
        );
    }
    let versions = server.get("/v1/modules/shop/versions").await.json();
    assert_eq!(versions["data"].as_array().map(Vec::len), Some(1));
}

async fn runs_and_functions_are_paused_and_resumed(server: &TestServer) {
    let id = server.runs.sleeping;
    let post = async |path: &str| server.send("POST", path, &[], b"").await;
    let paused = post(&format!("/v1/runs/{id}/pause")).await;
    assert_eq!(
        (paused.status, &paused.json()["data"]["phase"]),
        (200, &json!("paused"))
    );
    let listed = server.get("/v1/runs?phase=paused").await.json();
    assert_eq!(listed["data"][0]["run_id"], id.to_string());
    let resumed = post(&format!("/v1/runs/{id}/resume")).await;
    assert_eq!(
        (resumed.status, &resumed.json()["data"]["status"]),
        (200, &json!("Running"))
    );
    for (path, problem) in [
        (format!("/v1/runs/{id}/resume?x=1"), (400, "invalid-query")),
        ("/v1/runs/nonsense/pause".to_owned(), (400, "invalid-id")),
        (
            "/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/pause".to_owned(),
            (404, "not-found"),
        ),
        ("/v1/functions/shop/none/pause".to_owned(), (404, "not-found")),
        ("/v1/functions/shop/none/resume".to_owned(), (404, "not-found")),
        (
            "/v1/functions/Shop/charge/pause".to_owned(),
            (400, "invalid-name"),
        ),
    ] {
        assert_eq!(
            post(&path).await.problem(),
            (problem.0, problem.1.to_owned()),
            "{path}"
        );
    }
    for (verb, changed, paused) in [
        ("pause", true, true),
        ("pause", false, true),
        ("resume", true, false),
        ("resume", false, false),
    ] {
        let answer = post(&format!("/v1/functions/shop/charge/{verb}")).await;
        let expected = json!({"function_id": "shop/charge", "paused": paused, "changed": changed});
        assert_eq!((answer.status, &answer.json()["data"]), (200, &expected));
        let functions = server.get("/v1/functions").await.json();
        let charge = functions["data"].as_array().expect("a list").iter();
        let charge: Vec<_> = charge.filter(|function| function["id"] == "charge").collect();
        assert_eq!(charge[0]["paused"], paused);
    }
}

async fn schedules_are_listed_with_where_they_stand(server: &TestServer) {
    let listed = server.get("/v1/schedules?module=shop").await;
    let schedule = &listed.json()["data"][0];
    let next = schedule["next_at"].as_str().expect("a time").to_owned();
    // Midnight of a leap day in Paris, and up to half a minute.
    assert!(next.contains("-02-28T23:00:"), "{next}");
    let expected = |paused: bool| {
        json!({
            "function_id": "shop/leap-day", "cron": "TZ=Europe/Paris 0 0 29 2 *", "zone": "Europe/Paris",
            "jitter_ms": 30000, "overlap": "queue", "catch_up": "last", "paused": paused,
            "next_at": (!paused).then_some(&next), "waits_for": null, "last": null, "last_skipped": null,
        })
    };
    assert_eq!((listed.status, schedule), (200, &expected(false)));
    let functions = server.get("/v1/functions").await.json();
    assert_eq!(
        functions["data"][1]["triggers"],
        json!([{"cron": "TZ=Europe/Paris 0 0 29 2 *", "jitter_ms": 30000, "overlap": "queue"}])
    );
    for (verb, paused) in [("pause", true), ("resume", false)] {
        let path = format!("/v1/functions/shop/leap-day/{verb}");
        assert_eq!(server.send("POST", &path, &[], b"").await.status, 200);
        let listed = server.get("/v1/schedules").await.json();
        assert_eq!(listed["data"], json!([expected(paused)]));
    }
    let none = server.get("/v1/schedules?module=none").await.json();
    assert_eq!(none["data"], json!([]));
    for (path, code) in [
        ("/v1/schedules?function=x", "invalid-query"),
        ("/v1/schedules?module=No", "invalid-name"),
    ] {
        assert_eq!(server.get(path).await.problem(), (400, code.to_owned()), "{path}");
    }
}

async fn a_run_is_done_once_more(server: &TestServer) {
    let id = server.runs.sleeping;
    let path = format!("/v1/runs/{id}/rerun");
    for body in [
        "",
        "{}",
        r#"{"from_step":"charge-card"}"#,
        r#"{"from_step":0,"input":{"n":1}}"#,
    ] {
        let answer = server.post(&path, body).await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
        let data = &answer.json()["data"];
        assert_eq!(data["rerun_of"], id.to_string());
        let new = data["run_id"].as_str().expect("an id");
        assert_eq!(answer.header("location"), Some(&*format!("/v1/runs/{new}")));
        let run = server.get(&format!("/v1/runs/{new}")).await.json();
        assert_eq!(run["data"]["original_run_id"], id.to_string());
        assert_eq!(run["data"]["event_id"], data["event_id"]);
    }
    for (body, problem) in [
        (r#"{"from":1}"#, (400, "invalid-body")),
        (r#"{"from_step":-1}"#, (400, "invalid-body")),
        (r#"{"from_step":{}}"#, (400, "invalid-body")),
        (r#"{"from_step":"none"}"#, (404, "not-found")),
        (r#"{"input":7}"#, (400, "invalid-event")),
        ("[]", (400, "invalid-body")),
    ] {
        assert_eq!(
            server.post(&path, body).await.problem(),
            (problem.0, problem.1.to_owned()),
            "{body}"
        );
    }
    let unknown = server.post("/v1/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV/rerun", "").await;
    assert_eq!(unknown.problem(), (404, "not-found".to_owned()));
}

async fn many_runs_are_cancelled_with_one_request(server: &TestServer) {
    for body in [
        r#"{"function":"shop/charge","started_before":"2000-01-01T00:00:00Z"}"#,
        r#"{"function_id":"shop/charge","started_after":"2999-01-01T00:00:00Z"}"#,
        r#"{"app_id":"shop","function_id":"charge","if":"event.data.id == 1"}"#,
    ] {
        let answer = server.post("/v1/cancellations", body).await;
        assert_eq!(answer.status, 201, "{body}: {answer:?}");
        let data = &answer.json()["data"];
        assert_eq!(
            (&data["function_id"], &data["cancelled"]),
            (&json!("shop/charge"), &json!(0))
        );
        let listed = server.get("/v1/cancellations?limit=1").await.json();
        assert_eq!(listed["data"][0]["id"], data["id"]);
        let path = format!("/v1/cancellations/{}", data["id"].as_str().expect("an id"));
        assert_eq!(server.send("DELETE", &path, &[], b"").await.status, 200);
        let gone = server.send("DELETE", &path, &[], b"").await;
        assert_eq!(gone.problem(), (404, "not-found".to_owned()));
    }
    for (body, problem) in [
        ("{}", (400, "invalid-cancellation")),
        (
            r#"{"function":"shop/charge","app_id":"shop"}"#,
            (400, "invalid-cancellation"),
        ),
        (
            r#"{"function":"shop/charge","if":"event.data ="}"#,
            (400, "invalid-cancellation"),
        ),
        (r#"{"function":"charge"}"#, (400, "invalid-name")),
        (
            r#"{"function":"shop/charge","started_after":"soon"}"#,
            (400, "invalid-body"),
        ),
        (
            r#"{"function":"shop/charge","unless":"x"}"#,
            (400, "invalid-body"),
        ),
        (
            r#"{"function":"shop/charge","started_after":"2026-01-02T00:00:00Z","started_before":"2026-01-01T00:00:00Z"}"#,
            (400, "invalid-cancellation"),
        ),
    ] {
        let answer = server.post("/v1/cancellations", body).await;
        assert_eq!(answer.problem(), (problem.0, problem.1.to_owned()), "{body}");
    }
}

async fn what_a_later_release_brings_is_told_apart_from_a_mistake(server: &TestServer) {
    for (method, path) in [
        ("GET", "/v1/keys".to_owned()),
        ("GET", "/v1/grants".to_owned()),
        ("GET", "/v1/audit".to_owned()),
    ] {
        let answer = server.send(method, &path, &[], b"").await;
        assert_eq!(
            answer.problem(),
            (501, "not-supported".to_owned()),
            "{method} {path}"
        );
    }
}
