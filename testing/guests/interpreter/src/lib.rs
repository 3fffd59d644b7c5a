//! For the interpreter test: runs the program that its event brings, and answers with what each part of it came to.
//!
//! Every body tells an outside witness that it ran, by a POST of the line `<run id> <step> <attempt> <build> <token>` to the
//! URL in the configuration value `sink`, words apart by tabs. The token is new at each attempt; it is what the body gives
//! or fails with, and stands in the run's output. So whoever holds lines and output can tell whether a body ran again after
//! its outcome was durable. Sql steps add to `counter (id, n)` and note it in `ledger`, of the database `app`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use dormouse::prelude::*;
use dormouse::step::{OnCancel, Statement};

use crate::program::{Loser, Program, Task, Wait};

mod program;

/// Which of the components of this source it is.
const BUILD: &str = env!("CARGO_PKG_NAME");

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(3_600);

/// More attempts than a program asks for: the witness may not be heard at one.
const SPARE_ATTEMPTS: u32 = 6;

type Outcome<'a> = Pin<Box<dyn Future<Output = dormouse::Result<Value>> + 'a>>;

/// What a body gives.
#[derive(Serialize, Deserialize)]
struct Told {
    token: String,
    pad: String,
}

struct Interpreter {
    step: Step,
    context: Context,
    run_id: String,
    sink: String,
}

impl Interpreter {
    fn perform<'a>(&'a self, program: &'a Program, path: String) -> Outcome<'a> {
        Box::pin(async move {
            let name = program.step(&path);
            match program {
                Program::Sleep { ms } => {
                    self.step.sleep(name, Duration::from_millis(*ms)).await?;
                    Ok(Value::Null)
                }
                Program::Run { fails, pad } => self.run(name, *fails, *pad).await,
                Program::Fail { attempts } => self.fail(name, *attempts).await,
                Program::Sql { counter, by } => {
                    let rows = self
                        .step
                        .transaction(name.clone(), "app", self.adding(&name, *counter, *by));
                    let affected = rows
                        .await?
                        .iter()
                        .map(dormouse::step::Rows::rows_affected)
                        .sum::<u64>();
                    Ok(json!({ "rows": affected }))
                }
                Program::Refused { counter } => {
                    let mut statements = self.adding(&name, *counter, 1);
                    statements.push(Statement::new(
                        "update counter set n = -1 where id = $1",
                        params![counter],
                    ));
                    match self.step.transaction(name, "app", statements).await {
                        Ok(_) => Err(Error::non_retriable("the database took what its table forbids")),
                        Err(error) => Ok(json!({ "refused": error.code() })),
                    }
                }
                Program::Send { tasks } => {
                    let ids = self.send(name, tasks).await?;
                    Ok(json!({ "sent": ids }))
                }
                Program::Call { task, how } => self.call(name, task, *how).await,
                Program::Invoke { task } => {
                    let output = self.step.call::<interpret>(name, (**task).clone()).await?;
                    Ok(json!({ "invoked": output }))
                }
                Program::Lonely { ms } => {
                    let waited = self.step.wait_for_event::<Value>(name, program::NEVER);
                    let waited = waited.timeout(Duration::from_millis(*ms)).await?;
                    Ok(json!({ "came": waited.map(|event| event.id) }))
                }
                Program::Join(programs) => {
                    let branches = programs
                        .iter()
                        .enumerate()
                        .map(|(number, program)| self.perform(program, Program::part(&path, number)));
                    dormouse::try_join_all(branches).await.map(Value::Array)
                }
                Program::Race {
                    winner,
                    loser,
                    loser_first,
                } => {
                    let winner = self.perform(winner, Program::part(&path, 0));
                    let loser = self.lose(loser, Program::part(&path, 1));
                    let won = match loser_first {
                        true => select! { lost = loser => lost, won = winner => won },
                        false => select! { won = winner => won, lost = loser => lost },
                    };
                    Ok(json!({ "won": won? }))
                }
                Program::Sequence(programs) => {
                    let mut values = Vec::new();
                    for (number, program) in programs.iter().enumerate() {
                        values.push(self.perform(program, Program::part(&path, number)).await?);
                    }
                    Ok(Value::Array(values))
                }
            }
        })
    }

    async fn run(&self, name: String, fails: u32, pad: u32) -> dormouse::Result<Value> {
        let (context, run_id, sink, step) = (&self.context, &self.run_id, &self.sink, name.clone());
        let told = self.step.run_with(name, move |attempt| {
            let token = tell(sink, run_id, &step, attempt, context)?;
            if attempt.number() <= fails {
                return Err(Error::retryable(token));
            }
            let pad = "x".repeat(pad as usize);
            Ok(Told { token, pad })
        });
        let told = told.attempts((fails + SPARE_ATTEMPTS).min(21)).await?;
        Ok(json!({ "token": told.token, "pad": told.pad.len() }))
    }

    async fn fail(&self, name: String, attempts: u32) -> dormouse::Result<Value> {
        let (context, run_id, sink, step) = (&self.context, &self.run_id, &self.sink, name.clone());
        let failed = self.step.run_with(name, move |attempt| {
            let token = tell(sink, run_id, &step, attempt, context)?;
            dormouse::Result::<()>::Err(match attempt.number() < attempts {
                true => Error::retryable(token),
                false => Error::non_retriable(token),
            })
        });
        match failed.attempts((attempts + SPARE_ATTEMPTS).min(21)).await {
            Ok(()) => Err(Error::non_retriable("a body that only fails has succeeded")),
            Err(error) => Ok(json!({ "failed": error.message() })),
        }
    }

    /// The statements that add to a counter, and say who did.
    fn adding(&self, step: &str, counter: u32, by: i64) -> Vec<Statement> {
        vec![
            Statement::new(
                "insert into ledger (run_id, step, counter, amount) values ($1, $2, $3, $4)",
                params![self.run_id, step, counter, by],
            ),
            Statement::new(
                "insert into counter (id, n) values ($1, $2) on conflict (id) do update set n = counter.n + excluded.n",
                params![counter, by],
            ),
        ]
    }

    async fn send(&self, name: String, tasks: &[Task]) -> dormouse::Result<Vec<String>> {
        let events = tasks
            .iter()
            .map(|task| json!({ "name": program::EVENT, "data": task }));
        Ok(self.step.send_events(name, events).await?.ids)
    }

    async fn call(&self, name: String, task: &Task, how: Wait) -> dormouse::Result<Value> {
        let fits = format!("async.data.child == {}", task.tag);
        let wait = self
            .step
            .wait_for_event::<Value>(name.clone(), program::DONE)
            .when(fits)
            .timeout(NEVER);
        let wait = match how {
            Wait::Look => wait,
            Wait::Match => wait.matching("data.tag"),
            Wait::Back => wait.lookback(NEVER),
        };
        let tasks = std::slice::from_ref(task);
        let (answer, ids) = match how {
            // A sleep's length later the answer may be there.
            Wait::Back => {
                let ids = self.send(name.clone(), tasks).await?;
                self.step.sleep(name, Duration::from_millis(20)).await?;
                (wait.await?, ids)
            }
            Wait::Look | Wait::Match => {
                let send = async { self.send(name, tasks).await };
                try_join!(async { wait.await.map_err(Error::from) }, send)?
            }
        };
        Ok(json!({ "sent": ids, "answer": answer.map(|event| event.data["child"].clone()) }))
    }

    /// Ends only with an error: it is not meant to end.
    fn lose<'a>(&'a self, loser: &'a Loser, path: String) -> Outcome<'a> {
        Box::pin(async move {
            let name = loser.step(&path);
            match loser {
                Loser::Sleep => self.step.sleep(name, NEVER).await?,
                Loser::Body => {
                    let (context, run_id, sink, step) =
                        (&self.context, &self.run_id, &self.sink, name.clone());
                    let body = self.step.run_with(name, move |attempt| {
                        let token = tell(sink, run_id, &step, attempt, context)?;
                        dormouse::Result::<()>::Err(Error::retryable(token))
                    });
                    body.attempts(21).backoff(Backoff::constant(NEVER)).await?;
                }
                Loser::Wait => {
                    self.step.wait_for_event::<Value>(name, program::NEVER).await?;
                }
                Loser::Send { tasks } => {
                    self.send(name.clone(), tasks).await?;
                    self.step.sleep(name, NEVER).await?;
                }
                Loser::Invoke { task } => {
                    self.step.call::<interpret>(name, task.clone()).await?;
                }
                // Its task may end before the winner does.
                Loser::Abandon { task } => {
                    let invoked = self.step.call::<interpret>(name.clone(), task.clone());
                    invoked.on_cancel(OnCancel::Abandon).await?;
                    self.step.sleep(name, NEVER).await?;
                }
            }
            Err(Error::non_retriable("what never ends has won a race"))
        })
    }
}

/// The work of every body: tell the witness. The token.
fn tell(
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
    let line = format!("{run_id}\t{step}\t{}\t{BUILD}\t{token}\n", attempt.number());
    dormouse::http::post(sink).body(line).send()?.success()?;
    Ok(token)
}

/// Performs the chapters of its task, each in a journal of its own.
#[dormouse::function(
    id = "interpret",
    on(event = "test/program"),
    retries = 8,
    backoff(initial = "5ms", factor = 2, max = "50ms")
)]
async fn interpret(
    event: Event<Task>,
    before: Continued<Vec<Value>>,
    step: Step,
    context: Context,
) -> dormouse::Result<Continue<Value>> {
    let sink = context
        .config("sink")?
        .ok_or_else(|| Error::non_retriable("the configuration value `sink` is not set"))?;
    let interpreter = Interpreter {
        step,
        run_id: context.run_id(),
        sink,
        context,
    };
    let mut done = before.0.unwrap_or_default();
    let chapters = &event.data.chapters;
    if let Some(chapter) = chapters.get(done.len()) {
        done.push(interpreter.perform(chapter, Task::path(done.len())).await?);
    }
    if let Some(tag) = event.data.tells.filter(|_| done.len() == chapters.len()) {
        let done = json!({ "name": program::DONE, "data": { "tag": tag, "child": event.data.tag } });
        interpreter.step.send_events("tell", [done]).await?;
    }
    Ok(match done.len() < chapters.len() {
        true => Continue::With(Value::Array(done)),
        false => Continue::Done(json!({ "build": BUILD, "chapters": done })),
    })
}

dormouse::module!(interpret);
