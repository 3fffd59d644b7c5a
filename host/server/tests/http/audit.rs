//! The audit log: what was asked for, by whom, and what came of it.

use std::time::{Duration, Instant};

use dormouse_store::cancellation::CancellationFilter;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::keys::{first, make, with};
use super::server::TestServer;

async fn records(server: &TestServer, key: &str, query: &str) -> Vec<Value> {
    let answer = with(server, key, "GET", &format!("/v1/audit{query}"), "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["data"].as_array().cloned().expect("records")
}

fn summary(records: &[Value]) -> Vec<[&str; 4]> {
    let members = ["who", "action", "target", "result"];
    let rows = records.iter();
    rows.map(|record| members.map(|name| record[name].as_str().unwrap_or("")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_recorded_whoever_gives_it_and_what_is_refused_too() {
    let server = TestServer::start().await;
    let (sleeping, failed) = (server.runs.sleeping.to_string(), server.runs.failed.to_string());
    // While it is open.
    server.post(&format!("/v1/runs/{sleeping}/pause"), "").await;
    let admin = first(&server).await;
    let wanted = json!({"name": "eve", "role": "viewer"});
    let (eve_id, eve) = make(&server, &admin, &wanted).await;
    let wanted = json!({"name": "olga", "role": "operator"});
    let (olga_id, olga) = make(&server, &admin, &wanted).await;
    with(&server, &eve, "DELETE", &format!("/v1/runs/{sleeping}"), "").await;
    with(&server, &olga, "DELETE", &format!("/v1/runs/{failed}"), "").await;
    with(&server, &olga, "POST", &format!("/runs/{sleeping}/cancel"), "").await;
    let bulk = r#"{"function":"shop/nothing","if":"event.data.card == \"4111\""}"#;
    with(&server, &olga, "POST", "/v1/cancellations", bulk).await;
    with(&server, &admin, "PUT", "/v1/modules/shop", "no component").await;
    with(&server, &admin, "DELETE", &format!("/v1/keys/{eve_id}"), "").await;
    // Not commands.
    with(&server, &eve, "DELETE", &format!("/v1/runs/{sleeping}"), "").await;
    with(&server, &olga, "GET", "/v1/runs", "").await;
    server.post("/e/any", "{}").await;

    let all = records(&server, &admin, "").await;
    let admin_id = all[0]["key_id"].as_str().expect("a key").to_owned();
    let first_id = all.iter().rev().nth(1).expect("the first key")["target"].clone();
    assert_eq!(first_id, json!(admin_id), "what was made is what is shown now");
    assert_eq!(
        summary(&all),
        [
            ["Ada", "key.revoke", &eve_id, "done"],
            ["Ada", "module.deploy", "shop", "not-a-component"],
            ["olga", "cancellation.create", "shop/nothing", "done"],
            ["olga", "run.cancel", &sleeping, "done"],
            ["olga", "run.cancel", &failed, "already-ended"],
            ["eve", "run.cancel", &sleeping, "forbidden"],
            ["Ada", "key.create", &olga_id, "done"],
            ["Ada", "key.create", &eve_id, "done"],
            ["open", "key.create", &admin_id, "done"],
            ["open", "run.pause", &sleeping, "done"],
        ]
    );
    assert!(all.iter().all(|record| record["from"] == "127.0.0.1"), "{all:?}");
    let text = format!("{all:?}");
    for secret in [&admin, &eve, &olga] {
        assert!(
            !text.contains(secret.rsplit('_').next().expect("a secret")),
            "{text}"
        );
    }
    assert!(!text.contains("4111"), "data stand in it: {text}");

    // Pages and filters.
    let by = |query: &str| format!("?{query}");
    let of_olga = records(&server, &admin, &by(&format!("key={olga_id}"))).await;
    assert_eq!(of_olga.len(), 3);
    let cancels = records(
        &server,
        &admin,
        &by(&format!("action=run.cancel&target={sleeping}")),
    )
    .await;
    assert_eq!(summary(&cancels).len(), 2);
    let page = with(&server, &admin, "GET", "/v1/audit?limit=4", "").await.json();
    let cursor = page["metadata"]["cursor"].as_str().expect("there are more");
    let rest = records(&server, &admin, &by(&format!("cursor={cursor}"))).await;
    assert_eq!((page["data"].as_array().map(Vec::len), rest.len()), (Some(4), 6));
    let at = all[4]["at"].as_str().expect("a time");
    let later = records(&server, &admin, &by(&format!("after={at}"))).await;
    let earlier = records(&server, &admin, &by(&format!("before={at}"))).await;
    assert_eq!(later.len() + earlier.len(), 10);
    for wrong in ["?key=x", "?after=x", "?by=x", "?limit=0"] {
        let answer = with(&server, &admin, "GET", &format!("/v1/audit{wrong}"), "").await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_recorded_though_whoever_gives_it_goes_away() {
    let server = TestServer::start().await;
    let body = r#"{"function":"shop/nothing"}"#;
    for round in 0..60 {
        let mut stream = server.connect().await;
        let request = format!(
            "POST /v1/cancellations HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        // Before the server has begun, or has answered, or after.
        tokio::time::sleep(Duration::from_micros(100 * round)).await;
        drop(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let filter = CancellationFilter::newest(100);
        let done = server.store.cancellations(filter).await.expect("reads").len();
        let found = records(&server, "", "?action=cancellation.create&limit=100")
            .await
            .len();
        if done > 0 && done == found {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{done} were done, {found} are recorded"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invocations_are_recorded_from_the_first_key_on() {
    let server = TestServer::start().await;
    server.post("/invoke/shop/nothing", "{}").await;
    let admin = first(&server).await;
    with(
        &server,
        &admin,
        "POST",
        "/invoke/shop/nothing",
        r#"{"card":"4111"}"#,
    )
    .await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = records(&server, &admin, "?action=function.invoke").await;
        if let [record] = &found[..] {
            assert_eq!(
                summary(&found),
                [["Ada", "function.invoke", "shop/nothing", "not-found"]]
            );
            assert!(!record.to_string().contains("4111"));
            return;
        }
        assert!(found.is_empty() && Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
