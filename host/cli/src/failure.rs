//! How a command fails: what happened, where, what to do, and the exit code.
//!
//! Absent on purpose: error types of single commands. Nothing here is handled by other code, only shown.

use std::process::ExitCode;

use console::style;

use crate::terminal;

/// The exit codes. docs/guide/cli.md lists them; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The run failed, or a build did.
    RunFailed = 1,
    /// The command line or a local file is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The key is missing or its role is too small.
    NotAllowed = 4,
    /// No server answers, or it cannot serve now.
    Unavailable = 5,
    /// The server refused the request.
    Refused = 6,
    /// The wait was longer than `--timeout`.
    TimedOut = 7,
    /// A bug in Dormouse.
    Bug = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command ends with another code than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) place: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) help: Option<String>,
}

/// What every command answers.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            place: None,
            code: None,
            help: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Where it happened: a file, or a request.
    #[must_use]
    pub(crate) fn at(mut self, place: impl ToString) -> Failure {
        self.place = Some(place.to_string());
        self
    }

    /// What to do.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
        Failure::usage(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// The lines for stderr.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut first = format!("{} {}", style("error:").for_stderr().red().bold(), self.message);
        if let Some(code) = &self.code {
            first += &format!(" ({code})");
        }
        let mut lines = vec![first];
        let mut note = |word: &str, text: &Option<String>| {
            if let Some(text) = text {
                lines.push(format!("  {} {text}", style(word).for_stderr().bold()));
            }
        };
        note("at:", &self.place);
        note("help:", &self.help);
        lines
    }

    /// Tells the user and answers the process's exit code.
    pub(crate) fn report(&self) -> ExitCode {
        self.lines().iter().for_each(terminal::say);
        self.exit.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_where_and_what_to_do() {
        let mut failure = Failure::new(Exit::NotFound, "there is no module x")
            .at("GET /v1/modules/x")
            .help("deploy it");
        failure.code = Some("not-found".to_owned());
        let text = console::strip_ansi_codes(&failure.lines().join("\n")).into_owned();
        assert_eq!(
            text,
            "error: there is no module x (not-found)\n  at: GET /v1/modules/x\n  help: deploy it"
        );
    }
}
