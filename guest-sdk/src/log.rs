//! Log lines of the run, kept with it. A replay does not write them again.
//!
//! ```
//! # fn f(order: u32) {
//! dormouse::info!("packing");
//! dormouse::warn!(order, shelf = "B7"; "only {} left", 3);
//! # }
//! ```

use std::fmt;

use serde_json::{Map, Value};

use crate::host;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The finest.
    Trace,
    /// For the function's developers.
    Debug,
    /// For operators.
    Info,
    /// Something to look at.
    Warn,
    /// Something has failed.
    Error,
}

/// Writes a line with fields. The macros [`info!`](crate::info) and its sisters are the shorter way.
pub fn write(level: Level, message: fmt::Arguments<'_>, fields: Map<String, Value>) {
    let fields = (!fields.is_empty()).then(|| Value::Object(fields).to_string());
    let text;
    let message = match message.as_str() {
        Some(message) => message,
        None => {
            text = message.to_string();
            &text
        }
    };
    host::log(level, message, fields.as_deref());
}

/// Writes a log line: `log!(Level::Info, key = value, other; "text {}", argument)`; the fields and their `;` may be left
/// out. A field's value is anything [`serde_json::json!`] takes.
#[macro_export]
macro_rules! log {
    ($level:expr, $($key:ident $(= $value:expr)?),+ ; $($text:tt)+) => {{
        let fields = $crate::__private::json!({ $(stringify!($key): $crate::__field!($key $(= $value)?)),+ });
        let fields = match fields { $crate::__private::JsonValue::Object(fields) => fields, _ => ::core::default::Default::default() };
        $crate::log::write($level, ::core::format_args!($($text)+), fields)
    }};
    ($level:expr, $($text:tt)+) => {
        $crate::log::write($level, ::core::format_args!($($text)+), ::core::default::Default::default())
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field {
    ($key:ident = $value:expr) => {
        $value
    };
    ($key:ident) => {
        $key
    };
}

/// Writes a log line at level trace; see [`log!`](crate::log!).
#[macro_export]
macro_rules! trace { ($($line:tt)+) => { $crate::log!($crate::log::Level::Trace, $($line)+) }; }
/// Writes a log line at level debug; see [`log!`](crate::log!).
#[macro_export]
macro_rules! debug { ($($line:tt)+) => { $crate::log!($crate::log::Level::Debug, $($line)+) }; }
/// Writes a log line at level info; see [`log!`](crate::log!).
#[macro_export]
macro_rules! info { ($($line:tt)+) => { $crate::log!($crate::log::Level::Info, $($line)+) }; }
/// Writes a log line at level warn; see [`log!`](crate::log!).
#[macro_export]
macro_rules! warn { ($($line:tt)+) => { $crate::log!($crate::log::Level::Warn, $($line)+) }; }
/// Writes a log line at level error; see [`log!`](crate::log!).
#[macro_export]
macro_rules! error { ($($line:tt)+) => { $crate::log!($crate::log::Level::Error, $($line)+) }; }
