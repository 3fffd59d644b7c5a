//! Where everything durable is: the [`Store`] trait, its implementations on SQLite and Postgres, an in-memory
//! model of the same behaviour, and the conformance suite that holds all to it. All SQL of the project is here.
//!
//! | room | what it owns |
//! |---|---|
//! | [`contract`] | the trait: what may be asked and what each answer promises |
//! | [`ingest`] | events and the runs they start |
//! | [`schedule`] | claims, timers, leases, nodes |
//! | [`execute`] | appending to a journal and what follows the append |
//! | [`command`] | cancel, wake, unblock |
//! | [`cron`] | where the schedules of functions stand |
//! | [`ends`] | ends of runs that are told to whoever listens |
//! | [`cancellation`] | cancelling many runs with one command |
//! | [`registry`] | modules, versions, activation |
//! | [`swap`] | runs that go over to another version |
//! | [`read`] | what pages and the API show |
//! | [`model`] | the same behaviour in memory, to hold implementations against |
//! | [`conformance`] | what every implementation must do, as a suite of checks |
//! | `batch` | what the writers of all databases do the same way |
//! | [`sqlite`] | the implementation on SQLite |
//! | [`postgres`] | the implementation on Postgres, for many nodes |
//! | [`error`] | what can go wrong, and which of it is worth trying again |
//!
//! Absent on purpose: clocks and randomness (arguments), decisions (core's), and any knowledge of guests.
#![forbid(unsafe_code)]

mod batch;
pub mod cancellation;
pub mod command;
pub mod conformance;
pub mod contract;
pub mod cron;
pub mod ends;
pub mod error;
pub mod execute;
pub mod ingest;
pub mod model;
pub mod postgres;
pub mod read;
pub mod registry;
pub mod schedule;
pub mod sqlite;
pub mod swap;
pub mod wait;

pub use contract::Store;
pub use error::{Error, Result};
pub use model::MemoryStore;
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
