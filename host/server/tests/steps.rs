//! What steps ask of the host, in whole servers with a real guest and in virtual time: with instances that are dropped at
//! each wait, and with parked ones.

mod support;

#[path = "steps/logging.rs"]
mod logging;
#[path = "steps/sending.rs"]
mod sending;
#[path = "steps/setting.rs"]
mod setting;
#[path = "steps/signals.rs"]
mod signals;
#[path = "steps/triggers.rs"]
mod triggers;
#[path = "steps/waiting.rs"]
mod waiting;

use setting::*;
