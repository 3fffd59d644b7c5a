//! The API's description: no route without one, and no answer that it does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use dormouse_testing_packages as packages;
use serde_json::{Value, json};

use super::server::TestServer;

/// The routes of the API as the source writes them, `/v1` before those that are nested there.
fn routes() -> BTreeSet<String> {
    let source = include_str!("../../src/api/mod.rs");
    let (v1, others) = source
        .split_once("let guarded =")
        .expect("the routes of /v1 come first");
    let named = |text: &'static str, before: &'static str| {
        text.split(".route(")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1))
            .map(move |path| format!("{before}{path}"))
    };
    named(v1, "/v1").chain(named(others, "")).collect()
}

/// On one server: each maps much memory, which a process has only so much of.
#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_every_route_and_every_answer() {
    let server = TestServer::start().await;
    every_route_is_described_with_all_its_methods_and_nothing_else_is(&server).await;
    no_request_gets_an_answer_that_is_not_described(&server).await;
}

async fn every_route_is_described_with_all_its_methods_and_nothing_else_is(server: &TestServer) {
    let document = server.get("/openapi.json").await.json();
    let described: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            (
                path.clone(),
                methods.map(|method| method.to_uppercase()).collect(),
            )
        })
        .collect();
    assert_eq!(
        described.keys().cloned().collect::<BTreeSet<_>>(),
        routes(),
        "described, and routed: src/api/openapi/ has a file for each room"
    );
    for (path, methods) in described {
        let concrete = path.replace(['{', '}'], "");
        let answer = server.send("PATCH", &concrete, &[], b"").await;
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
        let allowed: BTreeSet<String> = answer
            .header("allow")
            .unwrap_or_default()
            .split(',')
            .map(|method| method.trim().to_owned())
            // Whatever can be got has a head.
            .filter(|method| method != "HEAD")
            .collect();
        assert_eq!(methods, allowed, "{path}: described, and routed");
    }
}

/// An answer with a member that is not described is as wrong as one without a member that is.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Requests that the description allows, and some that it does not, made up by schemathesis: to a server with runs of every
/// kind and a module.
async fn no_request_gets_an_answer_that_is_not_described(server: &TestServer) {
    let mut document = server.get("/openapi.json").await.json();
    document["paths"]
        .as_object_mut()
        .expect("paths")
        .values_mut()
        .for_each(|item| {
            for operation in item.as_object_mut().expect("operations").values_mut() {
                close(&mut operation["responses"]);
            }
        });
    let schemas = document["components"]["schemas"]
        .as_object_mut()
        .expect("schemas");
    for (name, schema) in schemas {
        // What is sent may have more, what is answered may not.
        if !name.starts_with("New") {
            close(schema);
        }
    }
    // A stream goes on for as long as its run does, and a drain ends the server: both have tests of their own.
    let paths = document["paths"].as_object_mut().expect("paths");
    for path in ["/v1/runs/{id}/stream", "/v1/nodes/{node}/drain"] {
        paths.remove(path).expect("it is there");
    }
    // schemathesis knows how to write bytes under this name only.
    let upload = &mut document["paths"]["/v1/modules/{name}"]["put"]["requestBody"]["content"];
    let bytes = upload["application/wasm"].take();
    *upload = json!({ "application/octet-stream": bytes });
    // Half of what is asked for should be there.
    let runs = [
        server.runs.completed,
        server.runs.failed,
        server.runs.sleeping,
        server.runs.backing_off,
    ];
    let some_runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let sent = server
        .post(
            "/e/k",
            r#"[{"name":"a/b","user":{"id":1},"v":"1"},{"name":"shop/x","id":"mine"}]"#,
        )
        .await;
    let some_events = sent.json()["ids"].clone();
    let asked = server
        .post("/v1/cancellations", r#"{"function":"shop/nothing"}"#)
        .await;
    let some_cancellations = json!([asked.json()["data"]["id"]]);
    let parameters = &mut document["components"]["parameters"];
    for (name, ids) in [
        ("runId", json!(some_runs)),
        ("eventId", some_events),
        ("cancellationId", some_cancellations),
    ] {
        let ulid = parameters[name]["schema"].take();
        parameters[name]["schema"] = json!({ "anyOf": [{ "enum": ids }, ulid] });
    }

    // Keys are made and revoked among the rest: it goes on with one that is kept.
    let admin = super::keys::first(server).await;
    let directory = tempfile::tempdir().expect("a directory");
    let schema = directory.path().join("openapi.json");
    std::fs::write(&schema, document.to_string()).expect("written");
    // 501 is what a route answers that a later release brings; any other 5xx is a failure.
    std::fs::write(
        directory.path().join("schemathesis.toml"),
        "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"3xx\", \"4xx\", 501]\n",
    )
    .expect("written");
    let long = std::env::var("DORMOUSE_TEST_LONG").is_ok_and(|value| value == "1");
    let (examples, seconds) = if long { ("500", "300") } else { ("40", "60") };
    let mut command = Command::new(packages::pip("testing/fuzz-http"));
    command
        .args(["-m", "schemathesis.cli", "run"])
        .arg(&schema)
        .args(["--url", &format!("http://{}", server.address)])
        .args(["--header", &format!("Authorization: Bearer {admin}")])
        .args(["--phases", "examples,coverage,fuzzing", "--mode", "all"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ])
        .args([
            "--max-examples",
            examples,
            "--max-time",
            seconds,
            "--workers",
            "1",
        ])
        .args([
            "--request-timeout",
            "30",
            "--generation-database",
            "none",
            "--no-color",
        ])
        .current_dir(directory.path());
    if !long {
        // The same requests each time, as far as the time lets it come.
        command.args(["--seed", "1"]);
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("it ran")
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("passed"), "it tried nothing: {said}");
    println!("{said}");
    assert_eq!(server.get("/health").await.status, 200);
}
