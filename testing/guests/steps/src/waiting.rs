//! Functions that wait for events.

use std::time::Duration;

use super::*;

/// One wait, as the data says; answers with the event's data, `null`, or the failure's code and message.
#[dormouse::function(id = "wait", on(event = "steps/wait"))]
pub(crate) async fn wait(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let data = &event.data;
    let name = data["event"].as_str().unwrap_or("steps/answer");
    let mut waited = step.wait_for_event::<Value>("answer", name);
    if let Some(millis) = data["timeout_ms"].as_u64() {
        waited = waited.timeout(Duration::from_millis(millis));
    }
    if let Some(millis) = data["lookback_ms"].as_u64() {
        waited = waited.lookback(Duration::from_millis(millis));
    }
    if let Some(path) = data["match"].as_str() {
        waited = waited.matching(path);
    }
    if let Some(expression) = data["if"].as_str() {
        waited = waited.when(expression);
    }
    Ok(match waited.await {
        Ok(Some(event)) => event.data,
        Ok(None) => Value::Null,
        Err(error) => json!({ "code": error.code(), "message": error.to_string() }),
    })
}

/// The first of three events, or a sleep.
#[dormouse::function(id = "any-of-three", on(event = "steps/any-of-three"))]
pub(crate) async fn any_of_three(step: Step) -> dormouse::Result<&'static str> {
    let wait = |name: &str| step.wait_for_event::<Value>("one of three", name);
    Ok(select! {
        _ = wait("steps/a") => "a",
        _ = wait("steps/b") => "b",
        _ = wait("steps/c") => "c",
        _ = step.sleep("give up", Duration::from_secs(60)) => "none",
    })
}

/// What was sent before the wait does not end it.
#[dormouse::function(id = "send-then-wait", on(event = "steps/send-then-wait"))]
pub(crate) async fn send_then_wait(step: Step) -> dormouse::Result<bool> {
    step.send_events("send", [json!({"name": "steps/own"})]).await?;
    let waited = step.wait_for_event::<Value>("own", "steps/own");
    Ok(waited.timeout(Duration::from_secs(60)).await?.is_some())
}

/// What is sent after the wait began ends it.
#[dormouse::function(id = "wait-then-send", on(event = "steps/wait-then-send"))]
pub(crate) async fn wait_then_send(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let own = json!({"name": "steps/own", "data": {"id": event.data["id"]}});
    let (waited, _) = try_join!(
        step.wait_for_event::<Value>("own", "steps/own")
            .matching("data.id"),
        step.send_events("send", [own]),
    )?;
    Ok(waited.map(|event| event.data).unwrap_or_default())
}

/// A wait beside a body that fails twice, and a nap.
#[dormouse::function(id = "beside-a-failing-body", on(event = "steps/beside"))]
pub(crate) async fn beside_a_failing_body(step: Step) -> dormouse::Result<Value> {
    let failing = step
        .run_with("failing", |attempt| match attempt.number() {
            3 => Ok(3),
            _ => Err(Error::retryable("not yet")),
        })
        .backoff(Backoff::constant(Duration::from_secs(10)));
    let (attempts, answer, ()) = try_join!(
        failing,
        step.wait_for_event::<Value>("answer", "steps/answer"),
        step.sleep("nap", Duration::from_secs(5)),
    )?;
    Ok(json!([attempts, answer.map(|event| event.data)]))
}

/// Gives a wait up, then sleeps.
#[dormouse::function(id = "lose-interest", on(event = "steps/lose-interest"))]
pub(crate) async fn lose_interest(step: Step) -> dormouse::Result<()> {
    select! {
        _ = step.wait_for_event::<Value>("answer", "steps/answer") => (),
        _ = step.sleep("not long", Duration::from_secs(1)) => (),
    }
    step.sleep("long", Duration::from_secs(60)).await?;
    Ok(())
}

/// Fifty answers, in whatever order they come.
#[dormouse::function(id = "all-answers", on(event = "steps/all-answers"))]
pub(crate) async fn all_answers(step: Step) -> dormouse::Result<Value> {
    let waits = (0..50).map(|number| {
        step.wait_for_event::<Value>("answer", "steps/answer")
            .when(format!("async.data.number == {number}"))
    });
    let answers = dormouse::try_join_all(waits).await?;
    Ok(answers
        .into_iter()
        .map(|answer| {
            answer
                .map(|event| event.data["number"].clone())
                .unwrap_or_default()
        })
        .collect())
}
