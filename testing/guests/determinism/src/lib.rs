//! Functions that misuse what differs from one execution to the next. Each is started by an event `test/<its id>`.
//!
//! Most of them name steps after what they got: when a replay gets something else, the names differ and the run diverges.
//! They sleep `{"ms": 5}` between, so that a host that keeps nothing in memory replays them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dormouse::prelude::*;

#[derive(Deserialize)]
#[serde(default)]
struct Pause {
    ms: u64,
}

impl Default for Pause {
    fn default() -> Pause {
        Pause { ms: 5 }
    }
}

impl Pause {
    fn duration(&self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

/// Steps named after the clocks of the standard library and the contract. The last output is a clock read inside a body.
#[dormouse::function(id = "clocks", on(event = "test/clocks"))]
async fn clocks(event: Event<Pause>, step: Step, context: Context) -> dormouse::Result<Value> {
    let begun = Instant::now();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let contract = context.now().duration_since(UNIX_EPOCH)?.as_millis();
        let name = format!("{wall} {} {contract}", begun.elapsed().as_nanos());
        step.run(name.clone(), || Ok(())).await?;
        seen.push(name);
        step.sleep("pause", event.data.duration()).await?;
    }
    let inside = step
        .run("inside", || {
            Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
        })
        .await?;
    Ok(json!({ "seen": seen, "inside": inside }))
}

/// Steps named after randomness of every source; and bytes drawn inside of bodies, which must differ between runs.
#[dormouse::function(id = "random", on(event = "test/random"))]
async fn random(event: Event<Pause>, step: Step, context: Context) -> dormouse::Result<Value> {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let name = format!(
            "{:?} {} {} {}",
            context.random::<4>(),
            RandomState::new().hash_one(7),
            wasip2::random::random::get_random_u64(),
            wasip2::random::insecure::get_insecure_random_u64(),
        );
        step.run(name.clone(), || Ok(())).await?;
        seen.push(name);
        step.sleep("pause", event.data.duration()).await?;
    }
    let inside = step
        .run("inside", || Ok(wasip2::random::random::get_random_u64()))
        .await?;
    Ok(json!({ "seen": seen, "inside": inside }))
}

fn map() -> HashMap<u32, ()> {
    (0..20).map(|number| (number, ())).collect()
}

/// Steps in the order of a standard hash map made outside of bodies.
#[dormouse::function(id = "map-order", on(event = "test/map-order"))]
async fn map_order(event: Event<Pause>, step: Step) -> dormouse::Result<Vec<u32>> {
    let mut order = Vec::new();
    for number in map().into_keys() {
        order.push(step.run(format!("key-{number}"), || Ok(number)).await?);
        if number % 7 == 0 {
            step.sleep("pause", event.data.duration()).await?;
        }
    }
    Ok(order)
}

/// Maps made inside of bodies advance the keys of those made later: without the SDK's care a replay would have others.
#[dormouse::function(id = "map-in-body", on(event = "test/map-in-body"))]
async fn map_in_body(event: Event<Pause>, step: Step) -> dormouse::Result<Vec<u32>> {
    let mut order = Vec::new();
    for round in 0..3 {
        step.run("make maps", || {
            Ok((0..=round).map(|_| map().len()).sum::<usize>())
        })
        .await?;
        for number in map().into_keys().take(5) {
            order.push(step.run(format!("key-{number}"), || Ok(number)).await?);
        }
        step.sleep("pause", event.data.duration()).await?;
    }
    Ok(order)
}

static SEED: AtomicU64 = AtomicU64::new(0);

fn next(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// A generator seeded by a body's output: all right, the seed is recorded.
#[dormouse::function(id = "seeded-by-output", on(event = "test/seeded-by-output"))]
async fn seeded_by_output(event: Event<Pause>, step: Step) -> dormouse::Result<u64> {
    let mut seed = step
        .run("seed", || Ok(wasip2::random::random::get_random_u64()))
        .await?;
    for _ in 0..3 {
        seed = next(seed);
        step.run(format!("draw-{seed}"), || Ok(())).await?;
        step.sleep("pause", event.data.duration()).await?;
    }
    Ok(seed)
}

/// A generator in a static, seeded inside of a body: a replay, which skips the body, draws from another. Diverges.
#[dormouse::function(id = "seeded-in-body", on(event = "test/seeded-in-body"))]
async fn seeded_in_body(event: Event<Pause>, step: Step) -> dormouse::Result<u64> {
    step.run("seed", || {
        SEED.store(wasip2::random::random::get_random_u64() | 1, Ordering::Relaxed);
        Ok(())
    })
    .await?;
    for _ in 0..3 {
        let seed = next(SEED.load(Ordering::Relaxed));
        SEED.store(seed, Ordering::Relaxed);
        step.run(format!("draw-{seed}"), || Ok(())).await?;
        step.sleep("pause", event.data.duration()).await?;
    }
    Ok(SEED.load(Ordering::Relaxed))
}

static VISITED: AtomicU64 = AtomicU64::new(0);

/// Deliberately impure: a body sets a static that decides the order of the steps after it. Diverges.
#[dormouse::function(id = "impure", on(event = "test/impure"))]
async fn impure(event: Event<Pause>, step: Step) -> dormouse::Result<()> {
    step.run("visit", || {
        VISITED.store(1, Ordering::Relaxed);
        Ok(())
    })
    .await?;
    after_visit(event.data.duration(), step).await
}

/// As `impure`, but the body says so: the host replaces the instance, so that it never sees the static set.
#[dormouse::function(id = "declared-impure", on(event = "test/declared-impure"))]
async fn declared_impure(event: Event<Pause>, step: Step) -> dormouse::Result<()> {
    step.run_with("visit", |attempt| {
        VISITED.store(1, Ordering::Relaxed);
        attempt.state_changed();
        Ok(())
    })
    .await?;
    after_visit(event.data.duration(), step).await
}

async fn after_visit(pause: Duration, step: Step) -> dormouse::Result<()> {
    let mut order = ["first", "second"];
    if VISITED.load(Ordering::Relaxed) == 1 {
        order.reverse();
    }
    for name in order {
        step.run(name, || Ok(())).await?;
    }
    step.sleep("pause", pause).await?;
    Ok(())
}

/// A request outside of any body, through the SDK, which refuses it.
#[dormouse::function(id = "http-outside", on(event = "test/http-outside"))]
async fn http_outside(step: Step) -> dormouse::Result<u16> {
    step.run("before", || Ok(())).await?;
    Ok(dormouse::http::get("http://127.0.0.1:9/").send()?.status())
}

/// A request outside of any body, around the SDK: the host has to refuse it.
#[dormouse::function(id = "raw-http-outside", on(event = "test/raw-http-outside"))]
async fn raw_http_outside(step: Step) -> dormouse::Result<String> {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

    step.run("before", || Ok(())).await?;
    let request = OutgoingRequest::new(Fields::new());
    let set =
        request.set_scheme(Some(&Scheme::Http)).is_ok() && request.set_authority(Some("127.0.0.1:9")).is_ok();
    if !set {
        return Err(Error::non_retriable("the host does not take the address"));
    }
    let answer = handle(request, None)?;
    answer.subscribe().block();
    Ok(format!("{:?}", answer.get().is_some()))
}

/// `std::thread::sleep` outside of bodies: a wait that is not durable.
#[dormouse::function(id = "sleep-outside", on(event = "test/sleep-outside"))]
async fn sleep_outside(event: Event<Pause>, step: Step) -> dormouse::Result<()> {
    step.run("before", || Ok(())).await?;
    std::thread::sleep(event.data.duration());
    Ok(())
}

/// `std::thread::sleep` inside of a body, which is allowed. The output is how long it took by the clock, in milliseconds.
#[dormouse::function(id = "sleep-inside", on(event = "test/sleep-inside"))]
async fn sleep_inside(event: Event<Pause>, step: Step) -> dormouse::Result<u64> {
    let took = step.run("sleep", || {
        let begun = Instant::now();
        std::thread::sleep(event.data.duration());
        Ok(begun.elapsed().as_millis() as u64)
    });
    Ok(took.await?)
}

/// What a machine could leak: environment, arguments, files, standard input, the sign of a NaN.
#[dormouse::function(id = "surroundings", on(event = "test/surroundings"))]
async fn surroundings(step: Step) -> dormouse::Result<Value> {
    let zero = std::hint::black_box(0.0f64);
    let mut line = String::new();
    let found = json!({
        "environment": std::env::vars().collect::<Vec<_>>(),
        "arguments": std::env::args().collect::<Vec<_>>(),
        "file": std::fs::read_to_string("/etc/hostname").ok(),
        "write": std::fs::write("/tmp/dormouse-guest", "x").is_ok(),
        "stdin": std::io::stdin().read_line(&mut line).ok(),
        "nan": format!("{:x}", (zero / std::hint::black_box(0.0)).to_bits()),
    });
    step.run(found.to_string(), || Ok(())).await?;
    Ok(found)
}

dormouse::module!(
    clocks,
    random,
    map_order,
    map_in_body,
    seeded_by_output,
    seeded_in_body,
    impure,
    declared_impure,
    http_outside,
    raw_http_outside,
    sleep_outside,
    sleep_inside,
    surroundings,
);
