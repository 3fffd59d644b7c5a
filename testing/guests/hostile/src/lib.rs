//! Functions that harm, each in one way. Each is started by an event `test/<its id>`.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context as Poller, Waker};
use std::time::Duration;

use dormouse::prelude::*;

fn endless() -> u64 {
    let mut number = 0u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}

fn allocate() -> usize {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1u8; 1 << 20]));
        if held.len() == usize::MAX {
            return held.len();
        }
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    recurse(depth + 1) + here[0]
}

#[dormouse::function(id = "loop-outside", on(event = "test/loop-outside"))]
async fn loop_outside() -> dormouse::Result<u64> {
    Ok(endless())
}

#[dormouse::function(
    id = "loop-inside",
    on(event = "test/loop-inside"),
    retries = 0,
    timeout = "500ms"
)]
async fn loop_inside(step: Step) -> dormouse::Result<u64> {
    Ok(step.run("loop", || Ok(endless())).await?)
}

/// As `loop-inside`, for those who want to end it themselves.
#[dormouse::function(id = "loop-long", on(event = "test/loop-long"), retries = 0, timeout = "10m")]
async fn loop_long(step: Step) -> dormouse::Result<u64> {
    Ok(step.run("loop", || Ok(endless())).await?)
}

#[dormouse::function(id = "allocate-outside", on(event = "test/allocate-outside"))]
async fn allocate_outside() -> dormouse::Result<usize> {
    Ok(allocate())
}

#[dormouse::function(id = "allocate-inside", on(event = "test/allocate-inside"), retries = 0)]
async fn allocate_inside(step: Step) -> dormouse::Result<usize> {
    Ok(step.run("allocate", || Ok(allocate())).await?)
}

#[dormouse::function(id = "recurse-outside", on(event = "test/recurse-outside"))]
async fn recurse_outside() -> dormouse::Result<u64> {
    Ok(recurse(0))
}

#[dormouse::function(id = "recurse-inside", on(event = "test/recurse-inside"), retries = 0)]
async fn recurse_inside(step: Step) -> dormouse::Result<u64> {
    Ok(step.run("recurse", || Ok(recurse(0))).await?)
}

/// 16 MB, as the function's own output.
#[dormouse::function(id = "huge-output", on(event = "test/huge-output"))]
async fn huge_output() -> dormouse::Result<String> {
    Ok("x".repeat(16 << 20))
}

/// 16 MB, as a step's.
#[dormouse::function(id = "huge-step-output", on(event = "test/huge-step-output"), retries = 0)]
async fn huge_step_output(step: Step) -> dormouse::Result<usize> {
    let output: String = step.run("huge", || Ok("x".repeat(16 << 20))).await?;
    Ok(output.len())
}

/// Outputs that are 80 MB together.
#[dormouse::function(id = "huge-journal", on(event = "test/huge-journal"))]
async fn huge_journal(step: Step) -> dormouse::Result<()> {
    for _ in 0..27 {
        let _output: String = step.run("large", || Ok("x".repeat(3 << 20))).await?;
    }
    Ok(())
}

/// A line of 16 MB, then 50,000 short ones.
#[dormouse::function(id = "huge-log", on(event = "test/huge-log"))]
async fn huge_log() -> dormouse::Result<()> {
    dormouse::info!("{}", "x".repeat(16 << 20));
    for number in 0..50_000 {
        dormouse::info!(number; "a line");
    }
    Ok(())
}

/// 100 MB on standard output, in and out of a body.
#[dormouse::function(id = "huge-stdout", on(event = "test/huge-stdout"), retries = 0)]
async fn huge_stdout(step: Step) -> dormouse::Result<()> {
    let line = "x".repeat(1 << 20);
    let print = || (0..50).for_each(|_| println!("{line}"));
    print();
    step.run("print", || {
        print();
        Ok(())
    })
    .await?;
    Ok(())
}

#[dormouse::function(id = "many-steps", on(event = "test/many-steps"))]
async fn many_steps(step: Step) -> dormouse::Result<u32> {
    for number in 0..20_000 {
        step.run("step", || Ok(number)).await?;
    }
    Ok(20_000)
}

/// 5,000 sleeps at once.
#[dormouse::function(id = "many-operations", on(event = "test/many-operations"))]
async fn many_operations(step: Step) -> dormouse::Result<usize> {
    let sleeps = (0..5_000).map(|_| step.sleep("sleep", Duration::from_secs(1)));
    Ok(join_all(sleeps).await.len())
}

/// A step's name of 1 MB.
#[dormouse::function(id = "huge-name", on(event = "test/huge-name"))]
async fn huge_name(step: Step) -> dormouse::Result<()> {
    Ok(step.run("x".repeat(1 << 20), || Ok(())).await?)
}

/// A step in a step's body, which takes some doing: the compiler refuses the plain way.
#[dormouse::function(id = "nested", on(event = "test/nested"))]
async fn nested(step: Step) -> dormouse::Result<()> {
    thread_local!(static SMUGGLED: Cell<Option<Step>> = const { Cell::new(None) });
    SMUGGLED.set(Some(step));
    step.run("outer", || {
        if let Some(step) = SMUGGLED.get() {
            let inner = pin!(step.run("inner", || Ok(())));
            let _ = inner.poll(&mut Poller::from_waker(Waker::noop()));
        }
        Ok(())
    })
    .await?;
    Ok(())
}

#[dormouse::function(id = "panic-outside", on(event = "test/panic-outside"))]
async fn panic_outside() -> dormouse::Result<()> {
    panic!("as asked, outside of a body")
}

/// Each attempt panics: `{"attempts": n}` of them.
#[dormouse::function(
    id = "panic-inside",
    on(event = "test/panic-inside"),
    retries = 1,
    backoff(initial = "5ms")
)]
async fn panic_inside(step: Step) -> dormouse::Result<()> {
    step.run::<(), _>("panic", || panic!("as asked, inside of a body"))
        .await?;
    Ok(())
}

#[dormouse::function(id = "out-of-bounds", on(event = "test/out-of-bounds"))]
async fn out_of_bounds() -> dormouse::Result<u8> {
    let bytes = black_box(vec![1u8, 2, 3]);
    Ok(bytes[black_box(7)])
}

/// Awaits what never comes.
#[dormouse::function(id = "await-nothing", on(event = "test/await-nothing"))]
async fn await_nothing() -> dormouse::Result<()> {
    std::future::pending::<()>().await;
    Ok(())
}

/// Handles on the host's side that are never dropped.
#[dormouse::function(id = "hoard", on(event = "test/hoard"))]
async fn hoard() -> dormouse::Result<()> {
    loop {
        std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(black_box(0)));
    }
}

dormouse::module!(
    loop_outside,
    loop_inside,
    loop_long,
    allocate_outside,
    allocate_inside,
    recurse_outside,
    recurse_inside,
    huge_output,
    huge_step_output,
    huge_journal,
    huge_log,
    huge_stdout,
    many_steps,
    many_operations,
    huge_name,
    nested,
    panic_outside,
    panic_inside,
    out_of_bounds,
    await_nothing,
    hoard,
);
