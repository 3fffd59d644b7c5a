//! What steps ask of the host, in whole servers with a real guest and in virtual time: requests. A program of its own:
//! each server maps much memory, and only so much can be mapped in one process.

mod support;

#[path = "steps/fetching.rs"]
mod fetching;
#[path = "steps/setting.rs"]
mod setting;

use setting::*;
