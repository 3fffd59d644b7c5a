//! What the server tells its operators: log lines and metrics.
//!
//! Absent on purpose: what is logged or counted, which stands where it happens. Here is only where it goes and, for
//! the metrics, what each number means.

mod logging;
mod metrics;

pub use logging::{LogFormat, LoggingError, init_logging};
pub use metrics::Metrics;
