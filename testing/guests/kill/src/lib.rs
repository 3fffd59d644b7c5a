//! For the kill test: every body tells an outside witness that it ran, by a POST of the line
//! `<run id> <step> <attempt> <token>` to the URL in the configuration value `sink`. The token is new at each attempt and is
//! the step's output; the run's output lists those it was given. So whoever holds the lines, the journal and the output can
//! tell whether a body ran again after its output was durable, and whether a run used another output than the journal's.

use std::time::Duration;

use dormouse::prelude::*;

/// What the event asks for; a part that is left out is left out of the run.
#[derive(Deserialize)]
#[serde(default)]
struct Plan {
    /// Plain steps `step-0`, `step-1`, … one after the other.
    steps: u32,
    /// A step `failing` whose first attempts fail.
    failing_attempts: u32,
    /// Steps `sql-0`, … that each add 1 to `counter.n` of the run.
    sql: u32,
    /// Branches of `join_all`, each a step, a sleep and a step.
    branches: u32,
    /// Steps `send-0`, … that each send an event `test/kill.sent`, which starts `sent`.
    sends: u32,
    /// Steps `answer-0`, … that each wait for the event `test/kill.answer` which answers an event that they send.
    answers: u32,
    /// Steps `invoke-0`, … that each invoke `invoked`.
    invokes: u32,
    /// Steps `fetch-0`, … that each have the host tell the witness.
    fetches: u32,
    /// Whether it invokes `signaller`, and waits for its signal.
    signal: bool,
    /// What no other run has, for its answers.
    key: String,
    /// Whether a step that always fails races a sleep.
    race: bool,
    /// How long the sleeps and back-offs are.
    sleep_ms: u64,
    /// The database for the sql steps: with a table `counter (run_id text primary key, n integer not null)`.
    database: String,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            steps: 3,
            failing_attempts: 0,
            sql: 0,
            branches: 0,
            sends: 0,
            answers: 0,
            invokes: 0,
            fetches: 0,
            signal: false,
            key: String::new(),
            race: false,
            sleep_ms: 5,
            database: "app".to_owned(),
        }
    }
}

/// The work of one step: tell the witness, then answer with the token.
fn witness(
    sink: &str,
    run_id: &str,
    step: &str,
    attempt: &Attempt,
    context: &Context,
) -> dormouse::Result<String> {
    let token: String = context
        .random::<8>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line = format!("{run_id} {step} {} {token}\n", attempt.number());
    dormouse::http::post(sink).body(line).send()?.success()?;
    Ok(token)
}

/// Steps of every kind, as the event asks for.
#[dormouse::function(
    id = "kill",
    on(event = "test/kill"),
    retries = 8,
    backoff(initial = "5ms", factor = 2, max = "50ms")
)]
async fn kill(event: Event<Plan>, step: Step, context: Context) -> dormouse::Result<Value> {
    let plan = &event.data;
    let sink: String = context
        .config("sink")?
        .ok_or_else(|| Error::non_retriable("the configuration value `sink` is not set"))?;
    let run_id = context.run_id();
    let nap = Duration::from_millis(plan.sleep_ms);
    let mut tokens = Vec::new();
    let told = |name: String| {
        let (sink, run_id, context, label) = (&sink, &run_id, &context, name.clone());
        step.run_with(name, move |attempt| {
            witness(sink, run_id, &label, attempt, context)
        })
    };

    for number in 0..plan.steps {
        tokens.push(told(format!("step-{number}")).await?);
        step.sleep("nap", nap).await?;
    }

    if plan.failing_attempts > 0 {
        let failing = step.run_with("failing", |attempt| {
            let token = witness(&sink, &run_id, "failing", attempt, &context)?;
            if attempt.number() <= plan.failing_attempts {
                return Err(Error::retryable(format!(
                    "attempt {} fails as asked",
                    attempt.number()
                )));
            }
            Ok(token)
        });
        tokens.push(failing.attempts(plan.failing_attempts + 1).await?);
    }

    for number in 0..plan.sql {
        let sql =
            "insert into counter (run_id, n) values (?, 1) on conflict (run_id) do update set n = n + 1";
        step.sql(format!("sql-{number}"), &plan.database, sql, params![run_id])
            .await?;
    }

    let mut sent = Vec::new();
    for number in 0..plan.sends {
        let events = [json!({"name": "test/kill.sent", "data": {"by": run_id, "number": number}})];
        sent.extend(step.send_events(format!("send-{number}"), events).await?.ids);
    }

    for number in 0..plan.answers {
        let ask = [json!({"name": "test/kill.ask", "data": {"key": plan.key, "number": number}})];
        let (answer, _) = try_join!(
            step.wait_for_event::<Value>(format!("answer-{number}"), "test/kill.answer")
                .matching("data.key")
                .when(format!("async.data.number == {number}")),
            step.send_events("ask", ask),
        )?;
        if answer.is_none() {
            return Err(Error::non_retriable("there is no timeout, and yet no answer"));
        }
    }

    let mut invoked = Vec::new();
    for number in 0..plan.invokes {
        let data = Invoked {
            by: run_id.clone(),
            number,
        };
        invoked.push(
            step.call::<self::invoked>(format!("invoke-{number}"), data)
                .await?,
        );
    }
    if plan.invokes > 0 {
        // Given up, and with that cancelled, unless it is quicker.
        let number = plan.invokes;
        let data = Invoked {
            by: run_id.clone(),
            number,
        };
        select! {
            _ = step.call::<self::invoked>("given-up", data) => (),
            _ = step.sleep("impatient", nap) => (),
        }
    }

    for number in 0..plan.fetches {
        let line = format!("{run_id} fetch-{number} 0 fetched\n");
        let fetched = step.fetch(format!("fetch-{number}"), dormouse::http::post(&sink).body(line));
        fetched.await?.success()?;
    }

    if plan.signal {
        let (signalled, told) = try_join!(
            step.wait_for_signal::<u32>("signal", &run_id),
            step.call::<signaller>("signaller", run_id.clone().into()),
        )?;
        if signalled != Some(7) || told.as_ref() != Some(&run_id) {
            return Err(Error::non_retriable(format!(
                "signalled {signalled:?}, told {told:?}"
            )));
        }
    }

    let branches = (0..plan.branches).map(|number| {
        let (first, second) = (
            told(format!("branch-{number}-a")),
            told(format!("branch-{number}-b")),
        );
        async move {
            let first = first.await?;
            step.sleep(format!("branch-{number}-nap"), nap).await?;
            dormouse::Ok([first, second.await?])
        }
    });
    for branch in dormouse::try_join_all(branches).await? {
        tokens.extend(branch);
    }

    let mut winner = None;
    if plan.race {
        let failing = step
            .run_with("race-body", |attempt| {
                witness(&sink, &run_id, "race-body", attempt, &context)?;
                dormouse::Result::<()>::Err(Error::retryable("always fails"))
            })
            .attempts(21)
            .backoff(Backoff::constant(nap));
        winner = Some(select! {
            _ = failing => "body",
            _ = step.sleep("race-sleep", nap * 3) => "sleep",
        });
    }
    Ok(json!({ "tokens": tokens, "sent": sent, "invoked": invoked, "winner": winner }))
}

/// A signal's name.
#[derive(Serialize, Deserialize)]
struct Signal {
    signal: String,
}

impl From<String> for Signal {
    fn from(signal: String) -> Signal {
        Signal { signal }
    }
}

/// Sends a signal, and answers with who had it.
#[dormouse::function(id = "signaller", on(event = "test/kill.signaller"))]
async fn signaller(event: Event<Signal>, step: Step) -> dormouse::Result<Option<String>> {
    step.sleep("nap", Duration::from_millis(5)).await?;
    Ok(step.send_signal("signal", &event.data.signal, 7).await?)
}

/// Who invokes, and which of its invokes it is.
#[derive(Serialize, Deserialize)]
struct Invoked {
    by: String,
    number: u32,
}

/// Answers with its number.
#[dormouse::function(id = "invoked", on(event = "test/kill.invoked"))]
async fn invoked(event: Event<Invoked>, step: Step) -> dormouse::Result<u32> {
    step.sleep("nap", Duration::from_millis(20)).await?;
    step.run("number", || Ok(event.data.number))
        .await
        .map_err(Error::from)
}

/// Answers with who sent its event.
#[dormouse::function(id = "sent", on(event = "test/kill.sent"))]
async fn sent(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    step.sleep("nap", Duration::from_millis(5)).await?;
    Ok(event.data)
}

/// Answers an event with one of the same data.
#[dormouse::function(id = "answer", on(event = "test/kill.ask"))]
async fn answer(event: Event<Value>, step: Step) -> dormouse::Result<()> {
    step.sleep("nap", Duration::from_millis(5)).await?;
    step.send_events(
        "answer",
        [json!({"name": "test/kill.answer", "data": event.data})],
    )
    .await?;
    Ok(())
}

dormouse::module!(kill, sent, answer, invoked, signaller);
