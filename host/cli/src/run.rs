//! A run as the API shows it, and its lines for people: one for each step, with icon, word and duration.

use console::{Style, style};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::{Exit, Failure, Outcome};
use crate::units::show_duration;

/// A run, as far as the terminal shows it. Members that a server leaves out are empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) function_id: String,
    pub(crate) version: String,
    pub(crate) event_id: Option<String>,
    pub(crate) status: String,
    pub(crate) phase: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) queued_at: Option<Timestamp>,
    pub(crate) run_started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) output: Value,
    pub(crate) error: Option<RunError>,
    pub(crate) steps: Vec<Step>,
}

/// Why a run failed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct RunError {
    pub(crate) code: Option<String>,
    pub(crate) message: String,
    pub(crate) step: Option<String>,
    pub(crate) frames: Vec<Value>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) attempts: Vec<Attempt>,
}

/// One try of a step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Attempt {
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) error: Value,
}

impl Run {
    /// Reads the server's JSON.
    pub(crate) fn parse(data: &Value) -> Outcome<Run> {
        Run::deserialize(data).map_err(|error| {
            Failure::new(
                Exit::Refused,
                format!("this server's runs cannot be read: {error}"),
            )
            .help("use the dormouse of the server's version")
        })
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self.status.as_str(),
            "Completed" | "Failed" | "Cancelled" | "Skipped"
        )
    }

    /// Status and phase: `Running · sleeping`.
    pub(crate) fn state(&self) -> String {
        match &self.phase {
            Some(phase) if !self.has_ended() => format!("{} · {phase}", self.status),
            _ => self.status.clone(),
        }
    }

    /// How long it took, or has taken.
    pub(crate) fn duration(&self, now: Timestamp) -> Option<SignedDuration> {
        let start = self.run_started_at.or(self.queued_at)?;
        Some(self.ended_at.unwrap_or(now).duration_since(start))
    }

    /// Fails with exit code 1 unless it ended well.
    pub(crate) fn check(&self) -> Outcome {
        if self.status == "Completed" {
            return Ok(());
        }
        let run = &self.run_id;
        let message = match (&self.error, self.status.as_str()) {
            (Some(error), _) => {
                let step = error
                    .step
                    .as_deref()
                    .map(|step| format!(" in step \"{step}\""))
                    .unwrap_or_default();
                format!("run {run} failed{step}: {}", error.message)
            }
            (None, "Failed") => format!("run {run} failed"),
            (None, status) => format!("run {run} was {}", status.to_lowercase()),
        };
        let mut failure = Failure::new(Exit::RunFailed, message)
            .help(format!("see what it did with: dormouse runs get {run}"));
        failure.code = self.error.as_ref().and_then(|error| error.code.clone());
        Err(failure)
    }

    /// What is shown while it goes on: the run, then its steps.
    pub(crate) fn lines(&self, now: Timestamp) -> Vec<String> {
        let mark = Mark::of(if self.has_ended() {
            &self.status
        } else {
            self.phase.as_deref().unwrap_or("executing")
        });
        let took = self.duration(now).map(show_duration).unwrap_or_default();
        let mut lines = vec![format!(
            "{} {}  {}  {}",
            style(&self.function_id).for_stderr().bold(),
            style(&self.run_id).for_stderr().dim(),
            mark.style.clone().for_stderr().apply_to(self.state()),
            style(took).for_stderr().dim(),
        )];
        let width = self
            .steps
            .iter()
            .map(|step| console::measure_text_width(&step.name))
            .max()
            .unwrap_or(0)
            .min(48);
        lines.extend(self.steps.iter().map(|step| step.line(now, width)));
        // A sleep's line counts down already.
        let told = self.has_ended() || matches!(self.phase.as_deref(), Some("sleeping" | "backing-off"));
        if let Some(reason) = self.reason.as_deref().filter(|_| !told) {
            lines.push(format!("  {}", style(reason).for_stderr().dim()));
        }
        lines
    }
}

impl Step {
    /// Its line: icon, word, name, kind, and how long it took or will take.
    pub(crate) fn line(&self, now: Timestamp, width: usize) -> String {
        let mark = Mark::of(&self.status);
        let name = console::pad_str(&self.name, width, console::Alignment::Left, Some("…"));
        let paint = mark.style.clone().for_stderr();
        let head = paint.apply_to(format!("{} {:<11}", mark.icon, self.word()));
        format!("  {head} {name}  {:<6} {}", self.kind, self.time(now))
            .trim_end()
            .to_owned()
    }

    /// The state's word; `done` for what a server may call completed.
    pub(crate) fn word(&self) -> &str {
        match self.status.as_str() {
            "completed" | "Completed" => "done",
            "" => "running",
            word => word,
        }
    }

    fn is_over(&self) -> bool {
        matches!(Mark::of(&self.status).icon, "✔" | "✘" | "⊘")
    }

    /// `0.4 s left`, `1.0 s`, `2 tries, 3.1 s`.
    fn time(&self, now: Timestamp) -> String {
        if let (false, Some(wake_at)) = (self.is_over(), self.wake_at) {
            let left = wake_at.duration_since(now);
            return if left.is_positive() {
                format!("{} left", show_duration(left))
            } else {
                "due".to_owned()
            };
        }
        let started = self.attempts.first().and_then(|attempt| attempt.started_at);
        let ended = self.attempts.last().and_then(|attempt| attempt.ended_at);
        let tries = match self.attempts.len() {
            0 | 1 => String::new(),
            tries => format!("{tries} tries, "),
        };
        let ended = if self.is_over() { ended } else { Some(now) };
        match (started, ended) {
            (Some(started), Some(ended)) => {
                format!("{tries}{}", show_duration(ended.duration_since(started)))
            }
            _ => String::new(),
        }
    }
}

/// How a state looks: never by colour alone.
struct Mark {
    icon: &'static str,
    style: Style,
}

impl Mark {
    fn of(state: &str) -> Mark {
        let (icon, style) = match state.to_ascii_lowercase().as_str() {
            "completed" | "done" | "recorded" => ("✔", Style::new().green()),
            "failed" => ("✘", Style::new().red()),
            "cancelled" | "skipped" => ("⊘", Style::new().yellow()),
            "sleeping" | "waiting" => ("◔", Style::new().blue()),
            "backing-off" | "retrying" | "deferred" => ("↻", Style::new().yellow()),
            "blocked" | "paused" | "limited" => ("‖", Style::new().yellow()),
            "queued" | "scheduled" => ("·", Style::new().dim()),
            _ => ("▶", Style::new().cyan()),
        };
        Mark { icon, style }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run() -> Run {
        let data = json!({
            "run_id": "01R", "function_id": "m/f", "status": "Running", "phase": "sleeping",
            "reason": "\"rest\" until 10:00:03", "run_started_at": "2026-01-01T10:00:00Z", "ended_at": null, "output": null,
            "steps": [
                {"seq": 1, "name": "fetch video", "kind": "sleep", "status": "completed",
                 "attempts": [{"attempt": 1, "started_at": "2026-01-01T10:00:00Z", "ended_at": "2026-01-01T10:00:01Z"}]},
                {"seq": 2, "name": "call", "kind": "run", "status": "completed",
                 "attempts": [{"started_at": "2026-01-01T10:00:01Z", "ended_at": "2026-01-01T10:00:01.2Z", "error": {}},
                              {"started_at": "2026-01-01T10:00:01.5Z", "ended_at": "2026-01-01T10:00:01.7Z"}]},
                {"seq": 3, "name": "rest", "kind": "sleep", "status": "sleeping", "wake_at": "2026-01-01T10:00:03Z"},
            ],
        });
        Run::parse(&data).expect("valid")
    }

    #[test]
    fn a_sleeping_run_shows_what_was_and_what_is_left() {
        let now = "2026-01-01T10:00:02.4Z".parse().expect("valid");
        let text = console::strip_ansi_codes(&run().lines(now).join("\n")).into_owned();
        let expected = "m/f 01R  Running · sleeping  2.4 s\n\
                        \x20 ✔ done        fetch video  sleep  1.0 s\n\
                        \x20 ✔ done        call         run    2 tries, 700 ms\n\
                        \x20 ◔ sleeping    rest         sleep  600 ms left";
        assert_eq!(text, expected);
        let blocked = Run {
            phase: Some("blocked".to_owned()),
            reason: Some("no such version".to_owned()),
            ..run()
        };
        let lines = blocked.lines(now);
        assert_eq!(
            console::strip_ansi_codes(lines.last().expect("some")),
            "  no such version"
        );
    }

    #[test]
    fn only_a_completed_run_is_a_success() {
        let mut run = run();
        run.status = "Completed".to_owned();
        assert!(run.check().is_ok());
        run.status = "Cancelled".to_owned();
        assert_eq!(run.check().expect_err("cancelled").exit, Exit::RunFailed);
        run.status = "Failed".to_owned();
        let step = Some("call".to_owned());
        run.error = Some(RunError {
            code: Some("trap".to_owned()),
            message: "boom".to_owned(),
            step,
            ..Default::default()
        });
        let failure = run.check().expect_err("failed");
        assert_eq!(failure.message, "run 01R failed in step \"call\": boom");
        assert_eq!(failure.code.as_deref(), Some("trap"));
    }
}
