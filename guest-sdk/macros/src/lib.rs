//! The macros of the Dormouse SDK. Use them through the crate `dormouse`, which documents them where they belong.
#![forbid(unsafe_code)]

mod ends;
mod flow;
mod function;
mod join;
mod module;
mod select;
mod trigger;
mod window;

use proc_macro::TokenStream;

/// Makes an `async fn` a durable function.
///
/// ```ignore
/// #[dormouse::function(id = "create-workflow", on(event = "test/hello.world"), retries = 5)]
/// async fn create_workflow(event: Event<Hello>, step: Step) -> dormouse::Result<Greeting> { … }
/// ```
///
/// Its arguments are any of `Event<T>`, `Events<T>`, `Step`, `Context` and `Continued<T>`, in any order. Next to the
/// function, which stays as it is, a type of the same name appears for `dormouse::module!` and for tests.
///
/// | option | |
/// |---|---|
/// | `id = "…"` | its name in its module: `[a-z][a-z0-9-]{0,62}`. Required |
/// | `on(event = "…")` | the name of events that start it, or a pattern that ends in `/*` or `.*`. At most ten; with none, only `step.invoke` does |
/// | `on(event = "…", if = "…")` | the same, where a CEL expression over `event` holds |
/// | `on(cron = "TZ=Europe/Paris 0 9 * * *")` | the clock: five fields, and a time zone before them where it is not UTC. Its event is an `Event<ScheduledTimer>` |
/// | `on(cron = "…", jitter = "30s", overlap = "skip", catch_up = "last")` | by how much ticks are put off at most (1 s to 5 min); what becomes of a tick while the run of the tick before goes on (`skip`, `queue`, `allow`); which missed ticks are done afterwards (`none`, `last`, `all`) |
/// | `retries = 4` | how often a failed step is tried again: 0 to 20 |
/// | `backoff(initial = "1s", factor = 2, max = "1h")` | how the waits between tries grow; each may be left out |
/// | `backoff = "inngest"` | Inngest's table of waits: 15 s, 30 s, 1 min, … 2 h |
/// | `timeout = "5m"` | wall time of one try of a step's body |
/// | `idempotency = "event.data.id"` | no second run for the same value of a CEL expression within 24 hours |
/// | `throttle(limit = 10, period = "1m", burst = 2, key = "event.data.user")` | how many runs may start in what time; those beyond wait for their turn |
/// | `concurrency = 5`, `concurrency(limit = 5, key = "event.data.user", scope = "account")` | how many runs may execute at once; those beyond wait for a slot. At most two; `scope` is `fn` or `account` |
/// | `priority = "event.data.vip ? 60 : 0"` | by how many seconds a run that waits to begin goes before others: -600 to 600 |
/// | `rate_limit(limit = 10, period = "1m", burst = 2, key = "event.data.user")` | how many runs may start in what time; events beyond start none. `burst` and `key` may be left out |
/// | `singleton(key = "event.data.user", mode = "skip")` | one run at a time, from its creation to its end: an event that comes meanwhile starts none (`"skip"`), or that run is cancelled for it (`"cancel"`). `key` may be left out |
/// | `debounce(period = "10s", timeout = "1m", key = "event.data.user")` | a run starts with the last event when no other has come for the period, or the timeout after the first. `timeout` and `key` may be left out |
/// | `batch_events(max_size = 50, timeout = "5s", key = "event.data.shop", if = "event.data.bulk")` | a run starts with all events, an argument of type `Events<T>`, when there are so many or the timeout after the first. `key` and `if` may be left out |
/// | `on_failure = handler` | another function of the module, which is started once when a run has failed, with an `Event<RunEnded>` |
/// | `cancel_on(event = "…", match = "data.id", if = "…", timeout = "1h")` | events of this name cancel a run: where the field is the same as in the event that started it, where a CEL expression over `event` and `async` holds, for so long after the run was created. At most five times |
/// | `timeouts(start = "10m", finish = "1d")` | a run is cancelled that has not begun, or not ended, in time |
///
/// Durations are whole numbers with `ms`, `s`, `m`, `h` or `d`.
#[proc_macro_attribute]
pub fn function(options: TokenStream, item: TokenStream) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    let expanded = function::expand(options.into(), item.clone()).unwrap_or_else(|error| {
        // With the function itself, so that the one mistake does not draw others after it.
        let error = error.into_compile_error();
        quote::quote!(#error #item)
    });
    expanded.into()
}

/// Makes the crate a component with these functions: `dormouse::module!(create_workflow, orders::ship);`.
///
/// Once in a crate, whose `crate-type` is `["cdylib"]`. Natively it only checks.
#[proc_macro]
pub fn module(functions: TokenStream) -> TokenStream {
    module::expand(functions.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Waits for all of several futures: `let (a, b) = join!(fetch_a, fetch_b);`.
///
/// They are polled in the order they are written, so bodies of steps run one after the other in it; what overlaps is
/// operations.
#[proc_macro]
pub fn join(futures: TokenStream) -> TokenStream {
    join::expand(futures.into(), false)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Waits for all of several futures, or for the first that fails: `let (a, b) = try_join!(fetch_a, fetch_b)?;`. When one
/// fails, the others are dropped, which cancels their operations.
#[proc_macro]
pub fn try_join(futures: TokenStream) -> TokenStream {
    join::expand(futures.into(), true)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Waits for the first of several futures and drops the others, which cancels their operations.
///
/// ```ignore
/// let outcome = select! {
///     charged = step.run("charge", || charge()) => Some(charged?),
///     _ = step.sleep("give up", Duration::from_secs(60)) => None,
/// };
/// ```
///
/// They are polled in the order they are written: of several that are ready, the first wins.
#[proc_macro]
pub fn select(branches: TokenStream) -> TokenStream {
    select::expand(branches.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
