//! Holds what happened against what was predicted. All that is wrong is told, not only the first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::application::Application;
use super::predict::{Account, Body, Prediction};
use super::program::{DONE, EVENT, Task};
use crate::support::fleet::Client;

/// The event of a run that was invoked. Its data is the task too.
const INVOKED: &str = "dormouse/function.invoked";

/// For how long after it went on a node that had stood still may tell of bodies that another has finished meanwhile: it
/// stood between its last look at its lease and the body.
const STALE_FOR: Duration = Duration::from_secs(5);
/// How many wrongs are told in full,
const TOLD_MAX: usize = 20;
/// and of how many runs the journals.
const JOURNALS_MAX: usize = 3;

/// All that is wrong.
#[derive(Default)]
struct Wrongs {
    told: Vec<String>,
    runs: BTreeSet<String>,
}

impl Wrongs {
    fn push(&mut self, wrong: String) {
        self.told.push(wrong);
    }

    /// Of a run, whose journal may say more.
    fn of_run(&mut self, run: &str, wrong: impl std::fmt::Display) {
        self.runs.insert(run.to_owned());
        self.told.push(format!("run {run}{wrong}"));
    }

    /// # Panics
    /// When anything is wrong.
    async fn none(self, client: &Client) {
        if self.told.is_empty() {
            return;
        }
        let mut told = format!(
            "{} things are not as predicted:\n{}",
            self.told.len(),
            self.told[..self.told.len().min(TOLD_MAX)].join("\n")
        );
        for run in self.runs.iter().take(JOURNALS_MAX) {
            told.push_str(&client.journal(run).await);
        }
        panic!("{told}");
    }
}

/// A task whose run is to be looked at, and what the run that asked for it knows of that.
struct Open {
    task: Task,
    asked: Asked,
}

/// How a run was asked for.
enum Asked {
    /// By an event whose sender was not told its id.
    Unknown,
    /// By the event of this id.
    Event(String),
    /// By a run that was not told what came of it.
    Abandoned(String),
    /// By a run, which was told that this came of it.
    Invoked(String, Value),
}

impl Asked {
    /// # Errors
    /// The run or its output is not what was asked for.
    fn fits(&self, run: &Value) -> Result<(), String> {
        let (event, parent, output) = match self {
            Asked::Unknown => (None, None, None),
            Asked::Event(event) => (Some(event), None, None),
            Asked::Abandoned(parent) => (None, Some(parent), None),
            Asked::Invoked(parent, output) => (None, Some(parent), Some(output)),
        };
        if event.is_some_and(|event| run["event_id"] != **event) {
            return Err(format!("event {event:?} was sent, and did not start it"));
        }
        if run["parent_run_id"].as_str() != parent.map(String::as_str) {
            return Err(format!("{parent:?} should have invoked it"));
        }
        match output.filter(|output| run["output"] != **output) {
            Some(output) => Err(format!("whoever invoked it was told {output}")),
            None => Ok(()),
        }
    }
}

/// A line that the witness heard.
struct Line {
    at: Instant,
    attempt: u32,
    build: String,
    token: String,
}

/// The runs of one storm, as they should be and as they are.
pub(crate) struct Verdict<'a> {
    /// Who can be asked.
    pub(crate) client: &'a Client,
    /// The module.
    pub(crate) module: &'a str,
    /// What acknowledged events asked for.
    pub(crate) roots: &'a [Task],
    /// The component of each version: its digest and what it calls itself.
    pub(crate) builds: &'a HashMap<String, &'static str>,
    /// When nodes that had been stopped went on.
    pub(crate) woken: &'a [Instant],
}

impl Verdict<'_> {
    /// Fails when anything is not as predicted. What there was, for people.
    ///
    /// # Panics
    /// With all that is wrong.
    pub(crate) async fn pass(self, application: &Application, lines: Vec<(Instant, String)>) -> String {
        let mut wrong = Wrongs::default();
        let mut prediction = Prediction::default();
        for task in self.roots {
            prediction.add(task);
        }
        let mut told = by_step(lines);
        let runs = self.runs_by_task().await;
        let (doomed, meant): (Vec<_>, Vec<_>) =
            runs.iter().partition(|(tag, _)| prediction.doomed.contains(tag));
        for (tag, runs) in &doomed {
            if runs.len() > 1 || runs.iter().any(|run| run["status"] != "Cancelled") {
                wrong.push(format!(
                    "task {tag} was given up, and not cancelled once: {runs:?}"
                ));
            }
        }
        let number: usize = meant.iter().map(|(_, runs)| runs.len()).sum();
        if number != prediction.runs {
            wrong.push(format!(
                "there are {number} runs, predicted were {}",
                prediction.runs
            ));
        }

        let mut expected = BTreeMap::new();
        let (mut bodies, mut stale, mut invoked) = (0, 0, 0);
        let by_event = |task: &Task| Open {
            task: task.clone(),
            asked: Asked::Unknown,
        };
        let mut open: Vec<Open> = self.roots.iter().map(by_event).collect();
        while let Some(Open { task, asked }) = open.pop() {
            let of_task = runs.get(&task.tag).map(Vec::as_slice).unwrap_or_default();
            let [run] = of_task else {
                wrong.push(format!(
                    "{} runs are there for {task:?}: {of_task:?}",
                    of_task.len()
                ));
                continue;
            };
            let id = run["run_id"].as_str().unwrap_or_default().to_owned();
            let (whole, _) = self.client.get(&format!("/v1/runs/{id}")).await;
            if let Err(error) = asked.fits(&whole) {
                wrong.of_run(&id, format_args!(": {error}: {whole}"));
            }
            let account = match self.account(&task, &whole) {
                Ok(account) => account,
                Err(error) => {
                    wrong.of_run(&id, format_args!(": {error}: {whole}"));
                    continue;
                }
            };
            for (step, counter, by) in account.added {
                expected.insert((id.clone(), step), (counter, by));
            }
            for body in &account.bodies {
                bodies += 1;
                let lines = told.remove(&(id.clone(), body.step.clone())).unwrap_or_default();
                match self.body(body, &lines, &whole) {
                    Ok(again) => stale += again,
                    Err(error) => wrong.of_run(&id, format_args!(", {}: {error}", body.step)),
                }
            }
            let sent = account.sent.into_iter().map(|(event, task)| Open {
                task,
                asked: Asked::Event(event),
            });
            invoked += account.invoked.len() + account.abandoned.len();
            let by_invoking = account.invoked.into_iter().map(|(task, output)| Open {
                task,
                asked: Asked::Invoked(id.clone(), output),
            });
            let abandoned = account.abandoned.into_iter().map(|task| Open {
                task,
                asked: Asked::Abandoned(id.clone()),
            });
            open.extend(sent.chain(by_invoking).chain(abandoned));
            open.extend(account.sent_by_losers.iter().map(by_event));
        }
        if bodies != prediction.bodies {
            wrong.push(format!(
                "{bodies} bodies have an outcome, predicted were {}",
                prediction.bodies
            ));
        }
        // What is left are bodies that lost: an hour was to pass before their second attempt.
        for ((run, step), lines) in &told {
            if !step.starts_with("lost-body ") || lines.iter().any(|line| line.attempt != 1) {
                let lines = lines.len();
                wrong.of_run(
                    run,
                    format_args!(", {step}: nothing asked for this body, {lines} lines"),
                );
            }
        }
        let done = self.client.pages(&format!("/v1/events?name={DONE}")).await;
        tellings(&done, &prediction, &mut wrong);
        let added = Added {
            ledger: application.ledger(),
            counters: application.counters(),
        };
        added.judge(&prediction, &expected, &mut wrong);
        wrong.none(self.client).await;
        format!(
            "{} runs of {} programs, {} more invoked and cancelled, {bodies} bodies, {stale} told again by nodes that had \
             stood still, {} additions to {} counters, {} calls, {invoked} invokes",
            prediction.runs,
            self.roots.len(),
            doomed.len(),
            expected.len(),
            prediction.counters.len(),
            prediction.telling.len()
        )
    }

    /// The runs by the tags of their tasks.
    async fn runs_by_task(&self) -> HashMap<u64, Vec<Value>> {
        let mut events = self.client.pages(&format!("/v1/events?name={EVENT}")).await;
        events.extend(self.client.pages(&format!("/v1/events?name={INVOKED}")).await);
        let tag = |event: &Value| event["data"]["tag"].as_u64();
        // A sender that had no answer has sent again: the event is stored twice then, and starts one run.
        let tags: HashMap<&str, u64> = events
            .iter()
            .filter_map(|event| Some((event["internal_id"].as_str()?, tag(event)?)))
            .collect();
        let mut by_task: HashMap<u64, Vec<Value>> = HashMap::new();
        for run in self.client.runs(self.module, "").await {
            let event = run["event_id"].as_str().unwrap_or_default();
            let tag = tags
                .get(event)
                .unwrap_or_else(|| panic!("event {event} is not listed: {run}"));
            by_task.entry(*tag).or_default().push(run);
        }
        by_task
    }

    /// What a run did, when it has completed on one version and its output is what the task comes to.
    fn account(&self, task: &Task, run: &Value) -> Result<Account, String> {
        if run["status"] != "Completed" {
            return Err(format!("it is {}", run["status"]));
        }
        let version = run["version"].as_str().unwrap_or_default();
        let build = self.builds.get(version).ok_or("its version was never deployed")?;
        if run["output"]["build"] != *build {
            return Err(format!(
                "it ended on {}, its version is {build}",
                run["output"]["build"]
            ));
        }
        Account::of(task, &run["output"])
    }

    /// Whether a body's outcome is that of the last attempt that was told of. How often it was told again by a node that
    /// had stood still.
    fn body(&self, body: &Body, lines: &[Line], run: &Value) -> Result<usize, String> {
        let heard = || {
            let heard = lines
                .iter()
                .map(|line| format!("{}:{}", line.attempt, line.token));
            heard.collect::<Vec<_>>().join(" ")
        };
        let Some(at) = lines.iter().position(|line| line.token == body.token) else {
            return Err(format!(
                "nobody has heard of its outcome {}: {}",
                body.token,
                heard()
            ));
        };
        let (before, after) = (&lines[..=at], &lines[at + 1..]);
        let is_stale = |line: &Line| {
            let mut woken = self.woken.iter();
            woken.any(|woken| line.at >= *woken && line.at.duration_since(*woken) < STALE_FOR)
        };
        if let Some(again) = after
            .iter()
            .find(|line| line.token != body.token && !is_stale(line))
        {
            return Err(format!(
                "it ran again ({}) after its outcome {} was recorded: {}",
                again.token,
                body.token,
                heard()
            ));
        }
        let of_owner: Vec<&Line> = before.iter().filter(|line| !is_stale(line)).collect();
        let recorded = lines[at].attempt;
        if recorded < body.attempts {
            return Err(format!(
                "attempt {recorded} has its outcome, it could not before {}: {}",
                body.attempts,
                heard()
            ));
        }
        if let Some(pair) = of_owner.windows(2).find(|pair| pair[1].attempt < pair[0].attempt) {
            return Err(format!(
                "attempt {} came after {}: {}",
                pair[1].attempt,
                pair[0].attempt,
                heard()
            ));
        }
        if let Some(missing) =
            (1..=recorded).find(|attempt| before.iter().all(|line| line.attempt != *attempt))
        {
            return Err(format!("attempt {missing} never was: {}", heard()));
        }
        if let Some(line) = lines
            .iter()
            .find(|line| run["output"]["build"] != line.build.as_str())
        {
            return Err(format!(
                "it ran on {}, another version than the run's",
                line.build
            ));
        }
        Ok(after.len())
    }
}

/// Each task that should say that it is done has said so once.
fn tellings(done: &[Value], prediction: &Prediction, wrong: &mut Wrongs) {
    let mut told: BTreeMap<u64, usize> = prediction.telling.iter().map(|tag| (*tag, 0)).collect();
    for event in done {
        match event["data"]["child"].as_u64() {
            Some(tag) => *told.entry(tag).or_default() += 1,
            None => wrong.push(format!("a strange event: {event}")),
        }
    }
    for (tag, times) in told {
        if times != 1 || !prediction.telling.contains(&tag) {
            wrong.push(format!("task {tag} has said {times} times that it is done"));
        }
    }
}

/// What the application's database holds.
struct Added {
    /// Run, step, counter, amount.
    ledger: Vec<(String, String, u32, i64)>,
    counters: BTreeMap<u32, i64>,
}

impl Added {
    /// Each addition is there once, and each counter is as predicted.
    fn judge(
        self,
        prediction: &Prediction,
        expected: &BTreeMap<(String, String), (u32, i64)>,
        wrong: &mut Wrongs,
    ) {
        let mut noted: BTreeMap<(String, String), Vec<(u32, i64)>> = BTreeMap::new();
        for (run, step, counter, by) in self.ledger {
            noted.entry((run, step)).or_default().push((counter, by));
        }
        for ((run, step), added) in &noted {
            match expected.get(&(run.clone(), step.clone())) {
                Some(one) if added == &[*one] => {}
                one => wrong.of_run(
                    run,
                    format_args!(", {step}: added {added:?}, predicted was {one:?}"),
                ),
            }
        }
        for ((run, step), one) in expected {
            if !noted.contains_key(&(run.clone(), step.clone())) {
                wrong.of_run(run, format_args!(", {step}: {one:?} was never added"));
            }
        }
        let all = prediction.counters.keys().chain(self.counters.keys());
        for counter in all.collect::<BTreeSet<_>>() {
            let (is, should) = (self.counters.get(counter), prediction.counters.get(counter));
            if is != should {
                wrong.push(format!("counter {counter} is {is:?}, predicted was {should:?}"));
            }
        }
    }
}

/// What the witness heard, by run and step, in order; what it heard twice, once.
fn by_step(lines: Vec<(Instant, String)>) -> HashMap<(String, String), Vec<Line>> {
    let mut told: HashMap<(String, String), Vec<Line>> = HashMap::new();
    for (at, line) in lines {
        let words: Vec<&str> = line.split('\t').collect();
        let [run, step, attempt, build, token] = words[..] else {
            panic!("a strange line: {line}")
        };
        let lines = told.entry((run.to_owned(), step.to_owned())).or_default();
        if lines.iter().all(|line| line.token != token) {
            lines.push(Line {
                at,
                attempt: attempt.parse().unwrap_or_else(|error| panic!("{line}: {error}")),
                build: build.to_owned(),
                token: token.to_owned(),
            });
        }
    }
    told
}

mod tests;
