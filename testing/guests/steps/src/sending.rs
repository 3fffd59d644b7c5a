//! Events that functions send.

use std::time::Duration;

use super::*;

/// Sends the events of its data, and answers with the ids or with the failure's code and message.
#[dormouse::function(id = "send", on(event = "steps/send"))]
pub(crate) async fn send(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let events = event.data["events"].as_array().cloned().unwrap_or_default();
    Ok(match step.send_events("send", events).await {
        Ok(sent) => json!({ "ids": sent.ids }),
        Err(error) => json!({ "code": error.code(), "message": error.to_string() }),
    })
}

/// Sends before, beside and after a body and a sleep.
#[dormouse::function(id = "send-between", on(event = "steps/send-between"))]
pub(crate) async fn send_between(step: Step) -> dormouse::Result<Value> {
    let echo = |n: u32| [json!({"name": "steps/echo", "data": {"n": n}})];
    let first = step.send_events("send", echo(1)).await?;
    let (second, (), third) = try_join!(
        step.send_events("send", echo(2)),
        step.sleep("nap", Duration::from_secs(3600)),
        step.run("body", || Ok(3)),
    )?;
    let last = step.send_events("send", echo(third + 1)).await?;
    Ok(json!([first.ids, second.ids, last.ids]))
}

/// Loses interest in what it sends at once: it is sent all the same.
#[dormouse::function(id = "give-up-sending", on(event = "steps/give-up-sending"))]
pub(crate) async fn give_up_sending(step: Step) -> dormouse::Result<&'static str> {
    let events = [json!({"name": "steps/echo", "data": {"n": 7}})];
    Ok(select! {
        _ = step.send_events("send", events) => "send",
        _ = step.run("body", || Ok(())) => "body",
    })
}

/// Answers with its data.
#[dormouse::function(id = "echo", on(event = "steps/echo"))]
pub(crate) async fn echo(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}
