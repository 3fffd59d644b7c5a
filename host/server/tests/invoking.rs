//! What steps ask of the host, in whole servers with a real guest and in virtual time: other functions. A program of its own:
//! each server maps much memory, and only so much can be mapped in one process.

mod support;

#[path = "steps/commanding.rs"]
mod commanding;
#[path = "steps/invoking.rs"]
mod invoking;
#[path = "steps/setting.rs"]
mod setting;

use setting::*;
