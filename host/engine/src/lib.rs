//! Dormouse's engine: compiles, caches, instantiates and bounds WebAssembly components.
//!
//! It turns a component's bytes into a [`Module`] and a [`Leg`] into a [`LegEnd`]. What a guest's calls are answered
//! with is decided by a [`RunHost`]; journals, stores and runs as such are deliberately absent.
//!
//! | room | what it owns |
//! |---|---|
//! | [`host`] | the seam: what the engine asks of whoever drives a run |
//! | `engine` | the wasmtime engine, its configuration, the gate in front of its instances |
//! | `leg`, `drive` | one instantiation from call to end, and the future that bounds it |
//! | `load`, `import`, `compile`, `cache`, `mapped`, `module` | from bytes to a module |
//! | `limiter`, `shared`, `ticker`, `interrupt` | memory, CPU and wall time, and the caller's stop |
//! | `trap` | how an instance that was ended is told to people |
//! | `capability` | what a guest may call, one file each |
//! | `policy`, `connect` | which hosts a body may reach, and how |
//! | `state`, `bindings`, `guest_json`, `stdio` | one guest's state, the contract in Rust, texts from guests, its output |

mod bindings;
mod cache;
mod capability;
mod compile;
mod connect;
mod drive;
mod engine;
mod fetch;
mod guest_json;
pub mod host;
mod import;
mod interrupt;
mod leg;
mod limiter;
mod load;
mod mapped;
mod module;
mod policy;
mod shared;
mod state;
mod stdio;
mod ticker;
mod trap;

pub use engine::{Engine, EngineError, EngineOptions, Instances};
pub use fetch::{FetchError, FetchRequest, FetchResponse, fetch};
pub use host::{AttemptTicket, LogLevel, RunHost, RunStart, StartCall, Stop};
pub use interrupt::Interrupt;
pub use leg::{Leg, LegEnd, LegStats, RunContext};
pub use load::LoadError;
pub use module::Module;
pub use policy::{HttpPolicy, InvalidPattern};
pub use trap::Trap;
