//! What an instance costs, in processor time of the thread: the machine's load does not count.
//!
//! - `fresh/one`: an instance, a leg with one trivial step, and its end.
//! - `fresh/instance`: the same with a call that goes nowhere.
//! - `replay/N`: a leg that is answered N recorded steps.

#[path = "../tests/support/mod.rs"]
mod support;

use async_trait::async_trait;
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dormouse_core::{Failure, Json, Outcome, Seq, Timestamp};
use dormouse_engine::{AttemptTicket, Engine, Leg, LegEnd, LogLevel, RunHost, RunStart, StartCall, Stop};
use rustix::time::{ClockId, clock_gettime};

/// Processor time of this thread, in nanoseconds.
struct ThreadCpu;

impl Measurement for ThreadCpu {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn end(&self, begun: u64) -> u64 {
        self.start() - begun
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Nanoseconds
    }
}

struct Nanoseconds;

impl ValueFormatter for Nanoseconds {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (factor, unit) = match typical {
            t if t < 1e3 => (1.0, "ns"),
            t if t < 1e6 => (1e-3, "µs"),
            _ => (1e-6, "ms"),
        };
        values.iter_mut().for_each(|value| *value *= factor);
        unit
    }

    fn scale_throughputs(&self, _: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        if let Throughput::Elements(elements) = throughput {
            values.iter_mut().for_each(|value| *value /= *elements as f64);
        }
        "ns/step"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ns"
    }
}

/// Answers every step as recorded, or executes every body.
struct Canned {
    recorded: Option<Json>,
}

#[async_trait]
impl RunHost for Canned {
    async fn begin_run(&mut self, name: String, _: Option<Json>) -> Result<RunStart, Stop> {
        Ok(match &self.recorded {
            Some(output) => RunStart::Recorded(Ok(output.clone())),
            None => RunStart::Execute(AttemptTicket {
                step: name,
                number: 1,
                deadline: Timestamp::MAX,
                started_at: support::START,
                idempotency_key: String::new(),
            }),
        })
    }

    async fn finish_run(&mut self, _: Outcome, _: bool) -> Result<Result<(), Failure>, Stop> {
        Ok(Ok(()))
    }

    async fn start(&mut self, _: StartCall) -> Result<Seq, Stop> {
        Ok(0)
    }

    async fn await_any(&mut self, _: &[Seq]) -> Result<u32, Stop> {
        Ok(0)
    }

    fn outcome(&mut self, _: Seq) -> Option<Outcome> {
        Some(Ok(Json::null()))
    }

    async fn cancel(&mut self, _: Seq) -> Result<(), Stop> {
        Ok(())
    }

    fn now(&self) -> Timestamp {
        support::START
    }

    fn log(&mut self, _: LogLevel, _: String, _: Option<Json>, _: bool) {}

    fn placeholder(&self, name: &str) -> Result<String, Failure> {
        Err(Failure::terminal(
            "grant-missing",
            format!("there is no secret \"{name}\""),
        ))
    }

    fn config(&self, _: &str) -> Option<Json> {
        None
    }
}

async fn one(engine: &Engine, leg: &Leg, recorded: Option<Json>) {
    let (end, ..) = engine.run_leg(leg.clone(), Canned { recorded }).await;
    assert!(matches!(end, LegEnd::Done(_) | LegEnd::Failed(_)), "{end:?}");
}

fn benches(criterion: &mut Criterion<ThreadCpu>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = support::engine_in(&directory, |options| options.instances_max = 100);
    let module = runtime.block_on(support::module(&engine, "bench"));

    let mut fresh = criterion.benchmark_group("fresh");
    let step = support::leg(&module, "one", "{}");
    fresh.bench_function("one", |bencher| {
        bencher.iter(|| runtime.block_on(one(&engine, &step, None)))
    });
    let nowhere = support::leg(&module, "nowhere", "{}");
    fresh.bench_function("instance", |bencher| {
        bencher.iter(|| runtime.block_on(one(&engine, &nowhere, None)))
    });
    fresh.finish();

    let mut replay = criterion.benchmark_group("replay");
    for steps in [1_000u32, 10_000] {
        let leg = support::leg(&module, "steps", &format!("{{\"n\":{steps}}}"));
        replay.throughput(Throughput::Elements(u64::from(steps)));
        replay.bench_function(steps.to_string(), |bencher| {
            bencher.iter(|| runtime.block_on(one(&engine, &leg, Some(Json::trusted("7")))));
        });
    }
    replay.finish();
}

criterion_group! {
    name = instance;
    config = Criterion::default().with_measurement(ThreadCpu);
    targets = benches
}
criterion_main!(instance);
