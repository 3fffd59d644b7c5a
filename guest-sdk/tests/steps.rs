//! Steps as a function sees them: recorded once, tried again, handed back as JSON brings them back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use dormouse::http::Response;
use dormouse::prelude::*;
use dormouse::step::{Rows, Statement};
use dormouse::testing::{Ending, Harness, Operation, Reply};

thread_local!(static RUNS: Cell<u32> = const { Cell::new(0) });

/// Counts the calls of bodies on this thread: each test has its own.
fn count() -> u32 {
    RUNS.set(RUNS.get() + 1);
    RUNS.get()
}

#[dormouse::function(id = "two", on(event = "a"))]
async fn two(step: Step) -> dormouse::Result<u32> {
    let first = step.run("first", || Ok(count())).await?;
    step.sleep("pause", Duration::from_secs(60)).await?;
    let second = step.run("second", || Ok(count())).await?;
    Ok(first * 10 + second)
}

#[test]
fn a_body_runs_once_however_often_it_is_replayed() {
    let report = Harness::of::<two>().run();
    assert_eq!(report.output::<u32>(), 12);
    assert_eq!(RUNS.get(), 2);
    assert_eq!(report.elapsed, Duration::from_secs(60));
    // After each of two bodies and a wait, and once more at the end.
    assert_eq!(report.legs, 5);
}

#[test]
fn a_parked_function_does_the_same_with_one_leg_and_its_verification() {
    let report = Harness::of::<two>().parked().run();
    assert_eq!((report.output::<u32>(), RUNS.get(), report.legs), (12, 2, 2));
}

#[derive(Serialize, Deserialize)]
struct Lossy {
    kept: u8,
    #[serde(skip)]
    lost: u8,
}

#[dormouse::function(id = "lossy")]
async fn lossy(step: Step) -> dormouse::Result<Vec<u8>> {
    let lossy: Lossy = step.run("lossy", || Ok(Lossy { kept: 1, lost: 2 })).await?;
    Ok(vec![lossy.kept, lossy.lost])
}

#[test]
fn the_live_path_hands_back_what_replay_would() {
    assert_eq!(Harness::of::<lossy>().parked().run().output::<Vec<u8>>(), [1, 0]);
}

#[dormouse::function(id = "flaky", retries = 2, backoff(initial = "1s", factor = 3))]
async fn flaky(event: Event<u32>, step: Step) -> dormouse::Result<String> {
    let succeeds_at = event.data;
    let text = step
        .run_with("flaky", |attempt| {
            count();
            if attempt.number() < succeeds_at {
                return Err(Error::retryable("not yet").code("not-yet"));
            }
            Ok(attempt.idempotency_key())
        })
        .await?;
    Ok(text)
}

#[test]
fn a_failed_body_is_tried_again_after_its_back_off() {
    let report = Harness::of::<flaky>().event("a", 3).run();
    assert_eq!(report.steps[0].attempts, 3);
    assert_eq!(RUNS.get(), 3);
    assert_eq!(report.elapsed, Duration::from_secs(1 + 3));
    assert!(!report.output::<String>().is_empty());
}

#[test]
fn when_the_attempts_are_used_up_the_step_fails_with_its_code() {
    let report = Harness::of::<flaky>().event("a", 9).run();
    assert_eq!(RUNS.get(), 3);
    assert_eq!(report.error().message(), "step \"flaky\": not yet");
    assert_eq!(report.error().get_code(), Some("not-yet"));
}

#[dormouse::function(id = "options", retries = 9)]
async fn options(step: Step) -> dormouse::Result<Vec<String>> {
    let never = step
        .run::<(), _>("never", || Err(Error::non_retriable("for good")))
        .await;
    let after = step
        .run::<(), _>("after", || {
            Err(Error::retry_after(Duration::from_secs(100), "later"))
        })
        .attempts(2)
        .await;
    let constant = step
        .run::<(), _>("constant", || Err(Error::retryable("again")))
        .attempts(3)
        .backoff(Backoff::constant(Duration::from_secs(7)))
        .await;
    let foreign = step.run("foreign", || Ok("x".parse::<u8>()?)).attempts(1).await;
    let errors = [never.err(), after.err(), constant.err(), foreign.err()];
    Ok(errors
        .into_iter()
        .flatten()
        .map(|error| error.message().to_owned())
        .collect())
}

#[test]
fn errors_and_options_say_how_often_and_when() {
    let report = Harness::of::<options>().run();
    assert_eq!(
        report.output::<Vec<String>>(),
        ["for good", "later", "again", "invalid digit found in string"]
    );
    let attempts: Vec<u32> = report.steps.iter().map(|step| step.attempts).collect();
    assert_eq!(attempts, [1, 2, 3, 1]);
    assert_eq!(report.elapsed, Duration::from_secs(100 + 7 + 7));
}

#[derive(Debug, Deserialize, PartialEq)]
struct Guest {
    name: String,
}

#[dormouse::function(id = "database")]
async fn database(step: Step) -> dormouse::Result<Value> {
    let guest: Option<Guest> = step
        .sql("find", "app", "select name from guest where id = ?", params![7])
        .await?
        .first()?;
    let answers = step
        .transaction(
            "move",
            "app",
            [
                Statement::new("update room set guest = ? where id = ?", params!["Ada", 1]),
                Statement::new("delete from waiting", params![]),
            ],
        )
        .await?;
    let affected: Vec<u64> = answers.iter().map(Rows::rows_affected).collect();
    Ok(json!({"guest": guest.map(|guest| guest.name), "affected": affected}))
}

#[test]
fn sql_has_typed_rows_and_transactions() {
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let report = Harness::of::<database>()
        .sql(move |database, statements| {
            assert_eq!(database, "app");
            counted.set(counted.get() + 1);
            Ok(match statements {
                [one] => {
                    assert_eq!(one.params, [json!(7)]);
                    vec![Rows::of(vec![json!({"name": "Grace"})])]
                }
                many => many.iter().map(|_| Rows::affected(2)).collect(),
            })
        })
        .run();
    assert_eq!(
        report.output::<Value>(),
        json!({"guest": "Grace", "affected": [2, 2]})
    );
    assert_eq!(calls.get(), 2);
}

#[dormouse::function(id = "others")]
async fn others(step: Step) -> dormouse::Result<Value> {
    let event: Option<Event<u8>> = step
        .wait_for_event("paid", "order/paid")
        .matching("data.id")
        .timeout(Duration::from_secs(5))
        .await?;
    let signal: Option<u8> = step
        .wait_for_signal("go", "go")
        .timeout(Duration::from_secs(5))
        .await?;
    let sum: u8 = step.invoke("sum", "maths/sum", json!([1, 2])).await?;
    let sent = step
        .send_events("tell", [json!({"name": "a", "data": {}})])
        .await?;
    let page = step
        .fetch("page", dormouse::http::get("http://x.example/"))
        .attempts(2)
        .await?
        .success()?;
    Ok(json!({
        "event": event.map(|event| event.data), "signal": signal, "sum": sum, "sent": sent.ids, "page": page.text()?
    }))
}

#[test]
fn the_other_operations_are_answered_by_the_test() {
    let report = Harness::of::<others>()
        .answer(|name, operation| {
            Ok(match (name, operation) {
                ("paid", Operation::WaitForEvent { event }) => {
                    Reply::After(Duration::from_secs(1), json!({"name": event, "data": 9}))
                }
                ("go", _) => Reply::Never,
                ("sum", Operation::Invoke { data, .. }) => {
                    assert_eq!(data, &json!([1, 2]));
                    Reply::Now(json!(3))
                }
                ("tell", _) => Reply::Now(json!({"ids": ["e1"]})),
                other => panic!("{other:?}"),
            })
        })
        .http(|request| {
            Ok(Response::new(
                200,
                format!("{request:?}").len().min(1).to_string(),
            ))
        })
        .run();
    let output: Value = report.output();
    assert_eq!(
        output,
        json!({"event": 9, "signal": null, "sum": 3, "sent": ["e1"], "page": "1"})
    );
    assert_eq!(report.elapsed, Duration::from_secs(1 + 5));
}

#[test]
fn what_the_host_does_not_do_yet_is_a_failure_of_the_step() {
    let report = Harness::of::<others>()
        .answer(|_, _| Err(Error::non_retriable("later").code("not-supported")))
        .run();
    assert_eq!(report.error().get_code(), Some("not-supported"));
}

#[dormouse::function(id = "surroundings")]
async fn surroundings(context: Context, events: Events<u8>, step: Step) -> dormouse::Result<Value> {
    let before = context.now();
    step.sleep_until("until", "2026-01-01T00:00:10Z").await?;
    let slept = context.now().duration_since(before)?.as_secs();
    dormouse::info!(slept; "awake after {} s", slept);
    let (outside, again): ([u8; 4], [u8; 4]) = (context.random(), context.random());
    let inside = step.run("draw", || Ok(context.random::<4>())).await?;
    assert_ne!(outside, inside);
    assert_ne!(outside, again);
    Ok(json!({
        "run": context.run_id(), "function": context.function(), "slept": slept,
        "limit": context.config::<u8>("limit")?, "none": context.config::<u8>("nothing")?,
        "sum": events.iter().map(|event| event.data).sum::<u8>(), "secret": context.reveal_secret("key")?,
    }))
}

#[test]
fn the_context_is_the_same_on_replay_and_logs_are_written_once() {
    let report = Harness::of::<surroundings>()
        .event("a", 1)
        .and_event("a", 2)
        .config("limit", 7)
        .secret("key", "hush")
        .run();
    let output: Value = report.output();
    assert_eq!(
        (&output["slept"], &output["limit"], &output["none"]),
        (&json!(10), &json!(7), &json!(null))
    );
    assert_eq!((&output["sum"], &output["secret"]), (&json!(3), &json!("hush")));
    assert_eq!(output["function"], "test/surroundings");
    let lines: Vec<&str> = report.logs.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines, [r#"awake after 10 s {"slept":10}"#]);
}

#[dormouse::function(id = "bad-time")]
async fn bad_time(step: Step) -> dormouse::Result<()> {
    Ok(step.sleep_until("until", "tomorrow").await?)
}

#[test]
fn a_text_that_is_no_time_fails_the_step() {
    let report = Harness::of::<bad_time>().run();
    assert_eq!(report.error().get_code(), Some("invalid-time"));
    assert!(
        report.error().message().contains("\"tomorrow\""),
        "{:?}",
        report.error()
    );
}

#[dormouse::function(id = "counter")]
async fn counter(continued: Continued<u32>, step: Step) -> dormouse::Result<Continue<u32>> {
    let turn = continued.0.unwrap_or(0);
    step.run("turn", || Ok(())).await?;
    Ok(if turn < 3 {
        Continue::With(turn + 1)
    } else {
        Continue::Done(turn)
    })
}

#[test]
fn a_run_can_be_continued() {
    assert_eq!(
        Harness::of::<counter>().run().ending,
        Ending::ContinueWith(json!(1))
    );
    assert_eq!(
        Harness::of::<counter>().continued(3).run().ending,
        Ending::Done(json!(3))
    );
}

#[dormouse::function(id = "chained")]
async fn chained(step: Step) -> dormouse::Result<()> {
    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("reading the amount")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let read = || Ok("x".parse::<u8>().map_err(Outer)?);
    step.run("read", read)
        .attempts(1)
        .await
        .context("while booking")?;
    Ok(())
}

#[test]
fn the_whole_chain_of_an_error_is_in_its_message() {
    let message = Harness::of::<chained>().run().error().message().to_owned();
    assert_eq!(
        message,
        "while booking: step \"read\": reading the amount: invalid digit found in string"
    );
}

#[dormouse::function(id = "http-in-body")]
async fn http_in_body(step: Step) -> dormouse::Result<u32> {
    let ask = || {
        count();
        dormouse::http::post("http://x.example/")
            .json(&json!({"a": 1}))
            .send()?
            .success()?
            .json()
    };
    Ok(step.run("ask", ask).attempts(2).await?)
}

#[test]
fn a_body_may_make_requests() {
    let report = Harness::of::<http_in_body>()
        .http(|_| {
            Ok(if RUNS.get() == 1 {
                Response::new(503, "busy")
            } else {
                Response::new(200, "41")
            })
        })
        .run();
    assert_eq!((report.output::<u32>(), report.steps[0].attempts), (41, 2));
}

#[dormouse::function(id = "as-inngest", retries = 2, backoff = "inngest")]
async fn as_inngest(step: Step) -> dormouse::Result<()> {
    let failed = step
        .run::<(), _>("function's", || Err(Error::retryable("again")))
        .await;
    assert!(failed.is_err());
    step.run("step's", || Err(Error::retryable("again")))
        .attempts(2)
        .backoff(Backoff::inngest().factor(9.0).max(Duration::from_secs(1)))
        .await
        .or_else(|_| Ok(()))
}

#[test]
fn waits_may_grow_as_inngests_do() {
    let report = Harness::of::<as_inngest>().run();
    assert_eq!(report.elapsed, Duration::from_secs(15 + 30 + 15));
}
