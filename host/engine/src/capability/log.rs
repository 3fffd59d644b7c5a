//! `log`: lines of the run.

use dormouse_core::{Json, limit};
use wasmtime::Result;

use crate::bindings::log::{Host, Level};
use crate::guest_json::cut_with_note;
use crate::host::LogLevel;
use crate::state::HostState;

impl Host for HostState {
    fn write(&mut self, level: Level, message: String, fields: Option<String>) -> Result<()> {
        self.needs_run("log.write")?;
        self.flush_stdio(false);
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        let mut message = cut_with_note(message, limit::LOG_LINE_BYTES_MAX);
        // A line is worth more than its fields: bad ones are left out, and the line says so.
        let fields = match fields {
            None => None,
            Some(text) if text.len() > limit::LOG_LINE_BYTES_MAX => {
                message.push_str(" (fields left out: too large)");
                None
            }
            Some(text) => match Json::parse(&text) {
                Ok(json) if json.as_str().starts_with('{') => Some(json),
                _ => {
                    message.push_str(" (fields left out: not a JSON object)");
                    None
                }
            },
        };
        let in_body = self.step().is_some();
        self.host.log(level, message, fields, in_body);
        Ok(())
    }
}
