//! Many versions of one function in one component: which one it is follows from its own digest, so a test makes as many as it
//! likes by adding a section that says nothing (the last byte of the digest, modulo 8, is the [`Kind`]).
//!
//! Each body tells a witness that it ran, if the configuration value `sink` says where, by a line
//! `<run id> <step> <attempt> <token>`; the token is new at each attempt and is the step's output. So whoever holds the lines
//! and the journal can tell whether a body ran again after its output was recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse::prelude::*;

/// What the event asks for.
#[derive(Deserialize)]
#[serde(default)]
struct Plan {
    /// How often it works and naps.
    laps: u32,
    /// How long each nap is.
    ms: u64,
    /// How many attempts of the first work fail.
    failing: u32,
    /// An event that it waits for at the end of each lap, until the time of a nap has passed.
    event: String,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            laps: 3,
            ms: 1_000,
            failing: 0,
            event: String::new(),
        }
    }
}

/// How a version differs from the first.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// Not at all.
    First,
    /// In what its bodies come to.
    Compatible,
    /// By a step after all others.
    Appending,
    /// By a step between work and nap.
    Inserting,
    /// It naps before it works.
    Reordering,
    /// Its naps are a millisecond longer.
    Argument,
    /// It panics before it has asked for anything.
    Trapping,
    /// It panics after the first lap.
    TrappingLater,
}

impl Kind {
    fn of(context: &Context) -> Kind {
        let version = context.version();
        let last = u8::from_str_radix(version.get(version.len() - 2..).unwrap_or("00"), 16);
        match last.unwrap_or(0) % 8 {
            0 => Kind::First,
            1 => Kind::Compatible,
            2 => Kind::Appending,
            3 => Kind::Inserting,
            4 => Kind::Reordering,
            5 => Kind::Argument,
            6 => Kind::Trapping,
            _ => Kind::TrappingLater,
        }
    }
}

/// The work of one step.
fn work(
    sink: Option<&str>,
    run_id: &str,
    step: &str,
    failing: u32,
    attempt: &Attempt,
    context: &Context,
) -> dormouse::Result<String> {
    let token: String = context
        .random::<8>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if let Some(sink) = sink {
        let line = format!("{run_id} {step} {} {token}\n", attempt.number());
        dormouse::http::post(sink).body(line).send()?.success()?;
    }
    if attempt.number() <= failing {
        return Err(Error::retryable("this attempt fails as asked"));
    }
    Ok(token)
}

/// Works and naps.
#[dormouse::function(
    id = "walk",
    on(event = "test/swaps.walk"),
    retries = 8,
    backoff(initial = "20ms", factor = 2, max = "300ms")
)]
async fn walk(event: Event<Plan>, step: Step, context: Context) -> dormouse::Result<Value> {
    let plan = &event.data;
    let kind = Kind::of(&context);
    if kind == Kind::Trapping {
        panic!("this version traps");
    }
    let sink: Option<String> = context.config("sink")?;
    let run_id = context.run_id();
    let told = |name: String, failing: u32| {
        let (sink, run_id, context, label) = (sink.as_deref(), &run_id, &context, name.clone());
        step.run_with(name, move |attempt| {
            work(sink, run_id, &label, failing, attempt, context)
        })
    };
    let longer = u64::from(kind == Kind::Argument);
    let nap = Duration::from_millis(plan.ms + longer);
    let mut tokens = Vec::new();
    for lap in 0..plan.laps {
        if kind == Kind::TrappingLater && lap == 1 {
            panic!("this version traps after its first lap");
        }
        let failing = if lap == 0 { plan.failing } else { 0 };
        if kind == Kind::Reordering {
            step.sleep(format!("nap-{lap}"), nap).await?;
        }
        tokens.push(told(format!("work-{lap}"), failing).await?);
        if kind == Kind::Inserting {
            tokens.push(told(format!("inserted-{lap}"), 0).await?);
        }
        if kind != Kind::Reordering {
            step.sleep(format!("nap-{lap}"), nap).await?;
        }
        if !plan.event.is_empty() {
            step.wait_for_event::<Value>(format!("event-{lap}"), plan.event.clone())
                .timeout(nap)
                .await?;
        }
    }
    if kind == Kind::Appending {
        tokens.push(told("appended".to_owned(), 0).await?);
    }
    Ok(json!({ "kind": kind, "tokens": tokens }))
}

/// Set by a body, which no body should do.
static LEFT_BEHIND: AtomicBool = AtomicBool::new(false);

/// The first version sleeps under another name when it is replayed than when its body was executed. Others are mended.
#[dormouse::function(id = "impure", on(event = "test/swaps.impure"))]
async fn impure(event: Event<Plan>, step: Step, context: Context) -> dormouse::Result<Value> {
    let kind = Kind::of(&context);
    step.run("work", || {
        LEFT_BEHIND.store(true, Ordering::Relaxed);
        Ok(())
    })
    .await?;
    let name = match kind == Kind::First && !LEFT_BEHIND.load(Ordering::Relaxed) {
        true => "replayed",
        false => "nap",
    };
    step.sleep(name, Duration::from_millis(event.data.ms)).await?;
    Ok(json!({ "kind": kind, "tokens": [] }))
}

dormouse::module!(walk, impure);
