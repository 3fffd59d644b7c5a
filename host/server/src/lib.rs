//! The server: one process that takes events, drives runs, and shows what happens.
//!
//! | room | what it owns |
//! |---|---|
//! | [`serve`] | the life of a process: start, recover, listen, drain |
//! | [`app`] | the commands, whichever door they come through |
//! | [`access`] | who may do what: keys, roles, the audit log |
//! | [`api`], [`ui`] | the doors: JSON over HTTP, and pages |
//! | [`router`] | from event to runs |
//! | [`scheduler`] | slots, the ready queue, timers |
//! | [`worker`] | driving runs, leg by leg |
//! | [`registry`] | modules and versions |
//! | [`preflight`] | what a new version would do to runs in flight |
//! | [`sql`] | application databases that `sql` steps are granted |
//! | [`offline`] | keys, at the database itself, without a server |
//! | [`config`], [`options`] | what the operator says |
//! | [`clock`], [`feed`], [`telemetry`], [`problem`], [`listen`] | time, changes, logs and metrics, errors, connections |
//!
//! Absent on purpose: SQL of the store's own, decisions that `dormouse-core` makes, and wasmtime.
#![forbid(unsafe_code)]

mod access;
pub mod api;
pub mod app;
pub mod clock;
pub mod config;
pub mod feed;
mod listen;
pub mod offline;
pub mod options;
pub mod preflight;
pub mod problem;
pub mod registry;
mod router;
mod scheduler;
mod secret;
pub mod serve;
mod sql;
pub mod telemetry;
pub mod ui;
mod worker;

pub use app::App;
pub use options::{Options, StartError};
pub use problem::Problem;
pub use serve::{Server, Tuning, serve};
pub use telemetry::{LogFormat, init_logging};
