//! "Why did nothing happen?", asked of a whole server over HTTP: what is decided when an event comes, and what is known of a
//! run that started with several, or handles a failure.

mod support;

use serde_json::{Value, json};
use support::server::Server;
use support::{guest, until};

/// Sends an event. Answers with its id.
async fn send(server: &Server, name: &str, data: Value) -> String {
    let body = json!({ "name": name, "data": data }).to_string();
    let (status, answer) = server.send("POST", "/e/key", body).await;
    assert_eq!(status, 200, "{answer}");
    answer["ids"][0].as_str().expect("an id").to_owned()
}

/// What became of an event at a function's trigger.
async fn became(server: &Server, event: &str, function: &str) -> Value {
    let views = server
        .get(&format!("/v1/events/{event}/triggers"))
        .await
        .expect("answers");
    let views = views.as_array().expect("a list");
    let view = views.iter().find(|view| view["function_id"] == function);
    view.unwrap_or_else(|| panic!("{function} is not among {views:#?}"))
        .clone()
}

/// The one run of an event.
async fn run_of(server: &Server, event: &str) -> String {
    until("the event has a run", || async {
        let runs = server.get(&format!("/v1/events/{event}/runs")).await.ok()?;
        Some(runs[0]["run_id"].as_str()?.to_owned())
    })
    .await
}

/// A page, as a browser has it.
async fn page(server: &Server, path: &str) -> String {
    let answer = reqwest::get(server.url(path)).await.expect("answers");
    assert_eq!(answer.status().as_u16(), 200, "{path}");
    answer.text().await.expect("text")
}

/// The `metadata` of an answer.
async fn metadata(server: &Server, path: &str) -> Value {
    let (status, answer) = server.send("GET", path, "").await;
    assert_eq!(status, 200, "{answer}");
    answer["metadata"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_an_event_is_told_over_http() {
    let server = Server::start("", &[]).await;
    for module in ["windows", "alone", "ends"] {
        server.deploy(module, guest(module)).await;
    }

    // singleton
    let ann = || json!({"user": "ann"});
    let first = send(&server, "alone/skipping", ann()).await;
    let living = run_of(&server, &first).await;
    let skipped = send(&server, "alone/skipping", ann()).await;
    let view = became(&server, &skipped, "alone/skipping").await;
    assert_eq!(
        (&view["outcome"], &view["run_id"]),
        (&json!("skipped"), &json!(living)),
        "{view}"
    );
    let detail = view["detail"].as_str().expect("a text");
    assert!(
        detail.contains(&living) && detail.contains("has not ended"),
        "{detail}"
    );
    let (status, refused) = server
        .send("POST", "/invoke/alone/skipping", ann().to_string())
        .await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("already-running")),
        "{refused}"
    );
    assert_eq!(
        became(&server, &first, "alone/skipping").await["outcome"],
        "started"
    );

    // debounce
    let early = send(&server, "windows/debounced", ann()).await;
    let late = send(&server, "windows/debounced", ann()).await;
    let views = [
        became(&server, &early, "windows/debounced").await,
        became(&server, &late, "windows/debounced").await,
    ];
    assert!(
        views.iter().all(|view| view["outcome"] == "debounced"),
        "{views:#?}"
    );
    assert_eq!(views[0]["run_id"], views[1]["run_id"]);
    let details = views.map(|view| view["detail"].as_str().expect("a text").to_owned());
    assert!(details[0].contains(&format!("which is {late}")), "{details:?}");
    assert!(details[1].contains("which is this one"), "{details:?}");

    // batch_events
    let mut events = Vec::new();
    for n in 0..3 {
        events.push(send(&server, "windows/batched", json!({"shop": "a", "n": n})).await);
    }
    let batch = run_of(&server, &events[2]).await;
    for (place, event) in events.iter().enumerate() {
        let view = became(&server, event, "windows/batched").await;
        assert_eq!(
            (&view["outcome"], &view["run_id"]),
            (&json!("batched"), &json!(batch)),
            "{view}"
        );
        let detail = view["detail"].as_str().expect("a text");
        assert!(
            detail.starts_with(&format!("number {} of the events", place + 1)),
            "{detail}"
        );
    }
    let whole = server.ended(&batch).await;
    assert_eq!(whole["event_ids"], json!(events));
    let journal = format!("/v1/runs/{batch}/journal");
    assert_eq!(metadata(&server, &journal).await["event_ids"], json!(events));
    assert_eq!(
        metadata(&server, &format!("/v1/runs/{living}/journal")).await["event_ids"],
        Value::Null
    );
    let shown = page(&server, &format!("/runs/{batch}")).await;
    assert!(shown.contains("Events <span class=\"count\">3</span>"), "{shown}");
    for event in &events {
        assert!(
            shown.contains(&format!("/v1/events/{event}/triggers")),
            "{event}: {shown}"
        );
    }
    let single = page(&server, &format!("/runs/{living}")).await;
    assert!(single.contains("<h2 id=\"event\">Event</h2>"), "{single}");

    // cancel_on
    let begins = send(&server, "test/cancellable", json!({"id": 7})).await;
    let run = run_of(&server, &begins).await;
    let cancels = send(&server, "test/cancel", json!({"id": 7})).await;
    let view = until("the run is cancelled", || async {
        let views = server.get(&format!("/v1/events/{cancels}/triggers")).await.ok()?;
        let mut views = views.as_array()?.iter();
        views.find(|view| view["outcome"] == "cancelled").cloned()
    })
    .await;
    assert_eq!(
        (&view["function_id"], &view["run_id"]),
        (&json!("ends/cancellable"), &json!(run))
    );
    assert_eq!(view["detail"], "it has cancelled a run");

    // on_failure, and what hears of an end
    let order = send(&server, "shop/ordered", json!({"fails": true, "sleeps_ms": 0})).await;
    let failed = server.ended(&run_of(&server, &order).await).await;
    assert_eq!(failed["status"], "Failed");
    let id = failed["run_id"].as_str().expect("an id").to_owned();
    let handler = until("the failure is handled", || async {
        let run = server.get(&format!("/v1/runs/{id}")).await.ok()?;
        Some(run["on_failure_run_id"].as_str()?.to_owned())
    })
    .await;
    let handling = server.ended(&handler).await;
    assert_eq!(handling["failed_run_id"], json!(id));
    assert_eq!(
        metadata(&server, &format!("/v1/runs/{handler}/journal")).await["failed_run_id"],
        json!(id)
    );
    let shown = page(&server, &format!("/runs/{handler}")).await;
    assert!(
        shown.contains("Handles the failure of") && shown.contains(&format!("/runs/{id}")),
        "{shown}"
    );
    let shown = page(&server, &format!("/runs/{id}")).await;
    assert!(
        shown.contains("Failure handled by") && shown.contains(&format!("/runs/{handler}")),
        "{shown}"
    );

    // The end of what hears of ends starts nothing, and says so.
    let heard = until("somebody has heard of the end", || async {
        let heard = server
            .get("/v1/runs?function=ends/hears-finished&status=Completed")
            .await
            .ok()?;
        Some(heard[0]["run_id"].as_str()?.to_owned())
    })
    .await;
    let view = until("its own end is told to nobody", || async {
        let events = server
            .get("/v1/events?name=dormouse/function.finished&limit=50")
            .await
            .ok()?;
        let of_heard = events
            .as_array()?
            .iter()
            .find(|event| event["data"]["run_id"] == json!(heard));
        let event = of_heard?["internal_id"].as_str()?.to_owned();
        Some(became(&server, &event, "ends/hears-finished").await)
    })
    .await;
    assert_eq!(view["outcome"], "own-end", "{view}");
}
