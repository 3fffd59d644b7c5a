//! The `dormouse` binary: parse, do, exit. What the commands are is said in `cli`, one file per noun or verb does them.
#![forbid(unsafe_code)]

use std::process::ExitCode;

// Allocation is a fifth of what a run costs, SQLite's included, and this allocator does it in half the time of the
// system's. Linked in, it takes the place of `malloc` itself, so everything is served by it, Rust's allocations too.
use mimalloc as _;

mod audit;
mod build;
mod cancellations;
mod cli;
mod client;
mod completions;
mod deploy;
mod doctor;
mod events;
mod failure;
mod functions;
mod invoke;
mod keys;
mod modules;
mod new;
mod nodes;
mod output;
mod project;
mod run;
mod runs;
mod schedules;
mod sse;
mod start;
mod terminal;
mod units;
mod wasm_target;
mod watch;

fn main() -> ExitCode {
    cli::main()
}
