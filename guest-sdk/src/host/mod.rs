//! The contract from the guest's side, as plain functions: in a component the imports of `wit/dormouse.wit`, natively the
//! test harness. Everything above this module is the same in both.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;
#[cfg(target_family = "wasm")]
pub(crate) use wasm::*;

use crate::error::Failure;

/// The answer to `begin-run`.
pub(crate) enum RunStart {
    Recorded(Result<String, Failure>),
    Execute(Attempt),
    Deferred(Operation),
}
