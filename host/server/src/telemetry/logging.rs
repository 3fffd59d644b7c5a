//! Log lines: to standard error, as text for people or as one JSON object per line for machines.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, such as `info,dormouse_server=debug`.
const FILTER_VARIABLE: &str = "DORMOUSE_LOG";

/// What is logged when the variable does not say.
const FILTER_DEFAULT: &str = "info";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("\"{other}\" is not a log format: text or json")),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("DORMOUSE_LOG is not a log filter such as \"info,dormouse_server=debug\": {0}")]
    Filter(String),
    /// Something else in this process logs already.
    #[error("logging is set up already in this process")]
    Installed,
}

/// Sends the process's log lines to standard error; `DORMOUSE_LOG` says which, `info` when it is not set.
///
/// # Errors
/// When the filter cannot be read, or logging was set up before: nothing has changed then.
pub fn init_logging(format: LogFormat) -> Result<(), LoggingError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(colour()).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    };
    installed.map_err(|_| LoggingError::Installed)
}

fn filter(text: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let text = text
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or(FILTER_DEFAULT);
    EnvFilter::try_new(text).map_err(|error| LoggingError::Filter(error.to_string()))
}

/// Colour is for terminals whose user has not said no.
fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_filter_is_named_and_an_empty_one_is_the_default() {
        assert_eq!(filter(None).expect("default").to_string(), "info");
        assert_eq!(filter(Some(" ")).expect("default").to_string(), "info");
        assert_eq!(filter(Some("warn,dormouse_server=trace")).map(|_| ()), Ok(()));
        let error = filter(Some("dormouse_server=loud")).expect_err("no such level");
        assert!(error.to_string().contains("DORMOUSE_LOG"), "{error}");
    }

    #[test]
    fn formats_are_read_by_their_words() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
