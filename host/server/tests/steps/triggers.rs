//! Which events start which functions: wildcards and conditions.

use serde_json::json;

use super::{output, runs_of, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_function_starts_where_its_condition_holds_and_once_per_event() {
    let (running, _clock) = start(super::support::park_idle()).await;
    let events = [
        json!({"name": "steps/paid", "data": {"amount": 100}}),
        json!({"name": "steps/paid", "data": {"amount": 101, "kind": "gold"}}),
        json!({"name": "steps/paid", "data": {"amount": "500"}}),
        json!({"name": "steps/paid", "data": {"kind": "gold"}}),
        json!({"name": "steps/paid"}),
        json!({"name": "steps/paid.not", "data": {"amount": 500}}),
    ]
    .map(|event| event.to_string());
    let texts: Vec<&str> = events.iter().map(String::as_str).collect();
    let sent = running
        .server
        .app()
        .send_events(&texts, None)
        .await
        .expect("sent");
    assert_eq!(sent.runs.len(), 2, "the second and the fourth");
    let mut seen = Vec::new();
    for run in runs_of(&running, "large").await {
        seen.push((run.event_id, output(&running.settled(run.id).await)));
    }
    seen.sort_by_key(|(id, _)| sent.ids.iter().position(|sent| sent == id));
    let expected = [
        (sent.ids[1], json!({"amount": 101, "kind": "gold"})),
        (sent.ids[3], json!({"kind": "gold"})),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_take_what_goes_on_after_them() {
    let (running, _clock) = start(super::support::park_idle()).await;
    for (name, starts) in [
        ("steps/family/a", true),
        ("steps/family/a/b.c", true),
        ("steps/family", false),
        ("steps/family/", false),
        ("steps/kind.a", true),
        ("steps/kind.no", false),
        ("steps/kindred", false),
    ] {
        let event = json!({ "name": name }).to_string();
        let sent = running
            .server
            .app()
            .send_events(&[&event], None)
            .await
            .expect("sent");
        assert_eq!(sent.runs.len(), usize::from(starts), "{name}");
        for run in sent.runs {
            assert_eq!(output(&running.settled(run).await), name);
        }
    }
}
