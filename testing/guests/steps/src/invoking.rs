//! Functions that invoke others.

use std::time::Duration;

use dormouse::step::OnCancel;

use super::*;

/// One invoke, as the data says; answers with what came of it.
#[dormouse::function(id = "invoke", on(event = "steps/invoke"))]
pub(crate) async fn invoke(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let data = &event.data;
    let function = data["function"].as_str().unwrap_or("child");
    let mut invoked = step.invoke::<Value>("other", function, &data["data"]);
    if let Some(millis) = data["timeout_ms"].as_u64() {
        invoked = invoked.timeout(Duration::from_millis(millis));
    }
    if data["abandon"] == true {
        invoked = invoked.on_cancel(OnCancel::Abandon);
    }
    let answer = match invoked.await {
        Ok(output) => json!({ "output": output }),
        Err(error) => json!({
            "code": error.code(), "message": error.message(), "details": error.details(),
        }),
    };
    if data["fail_after"] == true {
        return Err(Error::non_retriable("fails as asked").code("as-asked"));
    }
    Ok(answer)
}

/// Sleeps, then answers with its data or fails, as that says.
#[dormouse::function(id = "child", on(event = "steps/child"))]
pub(crate) async fn child(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    if let Some(millis) = event.data["sleep_ms"].as_u64() {
        step.sleep("nap", Duration::from_millis(millis)).await?;
    }
    match event.data["fail"].as_str() {
        Some(code) => Err(Error::non_retriable("declined").code(code).details(&event.data)),
        None => Ok(event.data),
    }
}

/// How far down.
#[derive(Serialize, Deserialize)]
pub(crate) struct Depth {
    left: u32,
    sleep_ms: u64,
}

/// Invokes itself until nothing is left, and answers with how deep that was.
#[dormouse::function(id = "descend", on(event = "steps/descend"))]
pub(crate) async fn descend(event: Event<Depth>, step: Step) -> dormouse::Result<u32> {
    let Depth { left, sleep_ms } = event.data;
    if left == 0 {
        step.sleep("nap", Duration::from_millis(sleep_ms)).await?;
        return Ok(0);
    }
    let left = left - 1;
    let below = step.call::<descend>("down", Depth { left, sleep_ms }).await?;
    Ok(below + 1)
}

/// Loses interest after a second, or goes on to its end with the invoke open.
#[dormouse::function(id = "race-invoke", on(event = "steps/race-invoke"))]
pub(crate) async fn race_invoke(event: Event<Value>, step: Step) -> dormouse::Result<&'static str> {
    let on_cancel = match event.data["abandon"] == true {
        true => OnCancel::Abandon,
        false => OnCancel::Cancel,
    };
    let slow = json!({ "sleep_ms": 3_600_000 });
    let winner = select! {
        _ = step.invoke::<Value>("slow", "steps/child", slow).on_cancel(on_cancel) => "child",
        _ = step.sleep("a second", Duration::from_secs(1)) => "sleep",
    };
    step.sleep("on", Duration::from_secs(60)).await?;
    Ok(winner)
}

/// Every kind of step at once, some of which fail.
#[dormouse::function(id = "all-kinds", on(event = "steps/all-kinds"))]
pub(crate) async fn all_kinds(step: Step) -> dormouse::Result<Value> {
    let children = (0..10).map(|number| {
        step.invoke::<Value>(
            "child",
            "child",
            json!({"number": number, "sleep_ms": 1_000 * number}),
        )
    });
    let failing = step
        .run_with("failing", |attempt| match attempt.number() {
            3 => Ok(3),
            _ => Err(Error::retryable("not yet")),
        })
        .backoff(Backoff::constant(Duration::from_secs(2)));
    let declined = async {
        let declined = step
            .invoke::<Value>("declined", "child", json!({"fail": "declined"}))
            .await;
        let code = declined.err().and_then(|error| error.code().map(str::to_owned));
        Result::<Option<String>, dormouse::StepError>::Ok(code)
    };
    let (children, attempts, declined, (), sent) = try_join!(
        dormouse::try_join_all(children),
        failing,
        declined,
        step.sleep("nap", Duration::from_secs(3)),
        step.send_events("send", [json!({"name": "steps/echo", "data": {"n": 1}})]),
    )?;
    let first = select! {
        _ = step.invoke::<Value>("slow", "child", json!({"sleep_ms": 90_000})) => "slow",
        _ = step.invoke::<Value>("quick", "child", json!({"sleep_ms": 30_000})) => "quick",
        _ = step.wait_for_event::<Value>("never", "steps/never") => "event",
        _ = step.wait_for_signal::<Value>("nobody", "all-kinds") => "signal",
    };
    let numbers: Vec<&Value> = children.iter().map(|child| &child["number"]).collect();
    Ok(json!({
        "numbers": numbers, "attempts": attempts, "declined": declined,
        "sent": sent.ids.len(), "first": first,
    }))
}

/// A step that has used up its attempts is an error that is caught, and what was done before is undone.
#[dormouse::function(id = "compensate", on(event = "steps/compensate"))]
pub(crate) async fn compensate(step: Step) -> dormouse::Result<Value> {
    let booked: u32 = step.run("book", || Ok(7)).await?;
    let charged = step
        .run("charge", || {
            dormouse::Result::<()>::Err(
                Error::retryable("the card is declined")
                    .code("card-declined")
                    .details(json!({"left": 3})),
            )
        })
        .attempts(3)
        .backoff(Backoff::constant(Duration::from_secs(1)))
        .await;
    let Err(error) = charged else {
        return Err(Error::non_retriable("it cannot have worked"));
    };
    let undone = step.run("cancel booking", move || Ok(booked)).await?;
    Ok(json!({
        "step": error.step(), "code": error.code(), "message": error.message(),
        "details": error.details(), "undone": undone,
    }))
}
