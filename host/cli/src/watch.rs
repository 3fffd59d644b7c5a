//! Watches one run until it ends: from the server's stream, across restarts of the server.
//!
//! On a terminal the view is redrawn in place, ten times a second so that sleeps count down; elsewhere each change is a
//! line. Both go to stderr, for the run's output is what belongs on stdout.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{self, Format};
use crate::run::Run;
use crate::sse::Stream;
use crate::terminal::{self, Screen};

/// How often a terminal is redrawn.
const FRAME: Duration = Duration::from_millis(100);
/// Between two attempts to reach a server that went away.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// After this long without a server there is no point in waiting.
const RECONNECT_MAX: Duration = Duration::from_secs(300);
/// A stream that was silent for this long is opened anew: the server may be gone without a word.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Watches until the run has ended; answers its JSON and what it says.
pub(crate) async fn watch(client: &Client, id: &str, format: Format) -> Outcome<(Value, Run)> {
    let mut view = View::new(format);
    let mut lost_at: Option<Instant> = None;
    loop {
        match follow(client, id, &mut view, &mut lost_at).await {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            // What is wrong from the start, or wrong with the request, will not mend itself.
            Err(failure) if !view.has_begun() || failure.exit != Exit::Unavailable => return Err(failure),
            Err(failure) if lost_at.is_some_and(|at| at.elapsed() > RECONNECT_MAX) => return Err(failure),
            Err(_) => {}
        }
        if lost_at.is_none() {
            lost_at = Some(Instant::now());
            view.notice("the connection to the server is lost; trying again until it is back");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Follows one connection. None: it ended before the run did.
async fn follow(
    client: &Client,
    id: &str,
    view: &mut View,
    lost_at: &mut Option<Instant>,
) -> Outcome<Option<(Value, Run)>> {
    let path = ["v1", "runs", id];
    let stream = client
        .request(Method::GET, &["v1", "runs", id, "stream"])
        .timeout(None);
    let mut stream = Stream::new(stream.send().await?);
    // Read after the stream is open, so that nothing falls between the two.
    let data = client.get(&path).await?;
    if lost_at.take().is_some() {
        view.notice("connected again");
    }
    if let Some(ended) = view.show(data)? {
        return Ok(Some(ended));
    }
    let mut frames = tokio::time::interval(FRAME);
    let mut heard = Instant::now();
    // What came since the last look is looked at together: a long run begins with a message for every step.
    let mut changed = false;
    loop {
        tokio::select! {
            message = stream.next() => {
                heard = Instant::now();
                let Some(message) = message else { return Ok(None) };
                let Ok(data) = serde_json::from_str::<Value>(&message.data) else { continue };
                match message.event.as_str() {
                    "log" => view.log(&data),
                    "done" => {
                        if let Some(ended) = view.show(data)? {
                            return Ok(Some(ended));
                        }
                    }
                    _ => changed = true,
                }
            }
            _ = frames.tick() => {
                let silent = heard.elapsed() > SILENCE_MAX;
                if std::mem::take(&mut changed) || silent {
                    if let Some(ended) = view.show(client.get(&path).await?)? {
                        return Ok(Some(ended));
                    }
                    if silent {
                        return Ok(None);
                    }
                }
                view.frame();
            }
        }
    }
}

/// What has been shown.
struct View {
    run: Option<Run>,
    screen: Option<Screen>,
    told: HashMap<usize, String>,
    told_state: String,
    next_line: u64,
    format: Format,
}

impl View {
    fn new(format: Format) -> View {
        let screen = terminal::is_live().then(Screen::new);
        View {
            run: None,
            screen,
            told: HashMap::new(),
            told_state: String::new(),
            next_line: 0,
            format,
        }
    }

    fn has_begun(&self) -> bool {
        self.run.is_some()
    }

    /// Shows the run as it is now; answers it when it has ended.
    fn show(&mut self, data: Value) -> Outcome<Option<(Value, Run)>> {
        let run = Run::parse(&data)?;
        if self.format == Format::Jsonl && self.run.as_ref() != Some(&run) {
            output::write(&data.to_string())?;
        }
        self.run = Some(run.clone());
        if self.screen.is_some() {
            self.frame();
        } else {
            self.tell(&run);
        }
        Ok(run.has_ended().then_some((data, run)))
    }

    /// Draws the terminal again, with what the clock says now.
    fn frame(&mut self) {
        if let (Some(screen), Some(run)) = (&mut self.screen, &self.run) {
            screen.draw(&run.lines(Timestamp::now()));
        }
    }

    /// A line for each step whose state is new, then the run's own.
    fn tell(&mut self, run: &Run) {
        let now = Timestamp::now();
        let width = run
            .steps
            .iter()
            .map(|step| step.name.chars().count())
            .max()
            .unwrap_or(0);
        for (index, step) in run.steps.iter().enumerate() {
            let state = format!("{} {}", step.word(), step.attempts.len());
            if self.told.get(&index) != Some(&state) {
                terminal::say(step.line(now, width));
                self.told.insert(index, state);
            }
        }
        let state = run.state();
        if self.told_state != state {
            if self.told_state.is_empty() || run.has_ended() || run.phase.as_deref() == Some("blocked") {
                terminal::say(&run.lines(now)[0]);
            }
            self.told_state = state;
        }
    }

    /// A log line, once: a stream that is opened anew tells them all again.
    fn log(&mut self, data: &Value) {
        let number = data["number"].as_u64().unwrap_or(self.next_line);
        if number < self.next_line {
            return;
        }
        self.next_line = number + 1;
        let step = data["step"]
            .as_str()
            .map(|step| format!(" [{step}]"))
            .unwrap_or_default();
        let level = data["level"].as_str().unwrap_or("info");
        let message = data["message"].as_str().unwrap_or_default();
        self.say(&format!("  {level}{step} {message}"));
    }

    fn notice(&mut self, text: &str) {
        self.say(&format!("  … {text}"));
    }

    fn say(&mut self, line: &str) {
        match &mut self.screen {
            Some(screen) => screen.say(line),
            None => terminal::say(line),
        }
        self.frame();
    }
}

/// Shows how the run ended: its output on stdout, or a failure.
pub(crate) fn conclude(data: &Value, run: &Run, format: Format) -> Outcome {
    match format {
        // A run that failed has no output; what went wrong is said by the failure.
        Format::Table if run.status != "Completed" => {}
        Format::Table => output::write(&run.output.to_string())?,
        Format::Json => output::write(&format!("{data:#}"))?,
        // Every state was a line already.
        Format::Jsonl => {}
    }
    run.check()
}

/// Waits for a run without showing its steps: a spinner on a terminal, nothing elsewhere.
pub(crate) async fn wait(client: &Client, id: &str, timeout: Duration) -> Outcome<(Value, Run)> {
    /// A poll that is longer than a proxy's patience would only be cut off.
    const POLL_MAX: Duration = Duration::from_secs(20);
    let deadline = Instant::now() + timeout;
    let spinner = indicatif::ProgressBar::new_spinner();
    spinner.set_message(format!("run {id}"));
    spinner.enable_steady_tick(FRAME);
    let mut seen = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let poll = left.min(if seen {
            POLL_MAX
        } else {
            Duration::from_millis(200)
        });
        let wait = format!("{}ms", poll.as_millis());
        let request = client
            .request(Method::GET, &["v1", "runs", id])
            .query("wait", Some(wait));
        match request.timeout(Some(poll + Duration::from_secs(10))).data().await {
            Ok(data) => {
                let run = Run::parse(&data)?;
                seen = true;
                spinner.set_message(format!("run {id} · {}", run.state()));
                if run.has_ended() {
                    spinner.finish_and_clear();
                    return Ok((data, run));
                }
            }
            // A server that restarts comes back to the run.
            Err(failure) if failure.exit != Exit::Unavailable => return Err(failure),
            Err(failure) if Instant::now() >= deadline => return Err(failure),
            Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
        }
        if Instant::now() >= deadline {
            spinner.finish_and_clear();
            let message = format!("run {id} has not ended after {}", show(timeout));
            return Err(Failure::new(Exit::TimedOut, message).help(format!(
                "it goes on without you; see how with: dormouse runs get {id} --watch"
            )));
        }
    }
}

fn show(duration: Duration) -> String {
    crate::units::show_duration(jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX))
}
