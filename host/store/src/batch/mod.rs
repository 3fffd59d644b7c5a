//! What every database's writer does the same way: how requests are queued and taken in batches, and what each of
//! them does to the rows that were read for it. A decision changes a [`runs::Work`] in memory; the implementation
//! reads before and writes after, in one transaction.
//!
//! | room | what it owns |
//! |---|---|
//! | `queue`, `request` | handing in a write, and its answer |
//! | `runs` | rows of runs in memory, and what has to be written for a change |
//! | `cron` | what ticks leave on schedules |
//! | `limits` | what flow control remembers, and what it decided |
//! | `throttles` | lines of runs that throttles hold back |
//! | `slots` | who takes a slot of a concurrency limit, and lines of runs that wait for one |
//! | `windows` | events that start runs together |
//! | `ingest`, `execute`, `schedule`, `command`, `pausing`, `waits`, `children` | the decisions |
//!
//! Absent on purpose: SQL, connections, clocks.

pub(crate) mod children;
pub(crate) mod command;
pub(crate) mod cron;
pub(crate) mod ending;
pub(crate) mod ends;
pub(crate) mod execute;
pub(crate) mod ingest;
pub(crate) mod limits;
pub(crate) mod pausing;
pub(crate) mod queue;
pub(crate) mod request;
pub(crate) mod runs;
pub(crate) mod schedule;
pub(crate) mod slots;
pub(crate) mod swaps;
pub(crate) mod throttles;
pub(crate) mod waits;
pub(crate) mod windows;
