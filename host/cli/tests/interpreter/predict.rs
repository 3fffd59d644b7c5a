//! What programs should come to, by walking them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::program::{Loser, Program, Task};

/// What tasks should come to in all, with everything that they send.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Prediction {
    /// What is added to each counter.
    pub(crate) counters: BTreeMap<u32, i64>,
    /// How many runs there are.
    pub(crate) runs: usize,
    /// How many bodies have an outcome.
    pub(crate) bodies: usize,
    /// The tasks that say that they are done.
    pub(crate) telling: BTreeSet<u64>,
    /// The tasks that must be cancelled if they have begun: at most one run for each, which `runs` does not count.
    pub(crate) doomed: BTreeSet<u64>,
}

impl Prediction {
    /// Adds a task.
    pub(crate) fn add(&mut self, task: &Task) {
        self.runs += 1;
        self.telling.extend(task.tells.map(|_| task.tag));
        for chapter in &task.chapters {
            self.walk(chapter);
        }
    }

    fn walk(&mut self, program: &Program) {
        match program {
            Program::Sleep { .. } | Program::Refused { .. } | Program::Lonely { .. } => {}
            Program::Run { .. } | Program::Fail { .. } => self.bodies += 1,
            Program::Sql { counter, by } => *self.counters.entry(*counter).or_default() += by,
            Program::Send { tasks } => tasks.iter().for_each(|task| self.add(task)),
            Program::Call { task, .. } | Program::Invoke { task } => self.add(task),
            Program::Join(parts) | Program::Sequence(parts) => parts.iter().for_each(|part| self.walk(part)),
            Program::Race { winner, loser, .. } => {
                match loser {
                    Loser::Send { tasks } => tasks.iter().for_each(|task| self.add(task)),
                    Loser::Abandon { task } => self.add(task),
                    Loser::Invoke { task } => drop(self.doomed.insert(task.tag)),
                    Loser::Sleep | Loser::Body | Loser::Wait => {}
                }
                self.walk(winner);
            }
        }
    }
}

/// A body whose outcome a run has used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Body {
    /// The step.
    pub(crate) step: String,
    /// What it gave or failed with.
    pub(crate) token: String,
    /// The first attempt that could have.
    pub(crate) attempts: u32,
}

/// What one run's output says it did, laid beside its task.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Account {
    /// Its bodies.
    pub(crate) bodies: Vec<Body>,
    /// What it added: step, counter, by how much.
    pub(crate) added: Vec<(String, u32, i64)>,
    /// The events that it sent and knows of, and what each asks for.
    pub(crate) sent: Vec<(String, Task)>,
    /// What it invoked, and what it was told that came of it.
    pub(crate) invoked: Vec<(Task, Value)>,
    /// What the losers of its races have sent, whose events it was not told of.
    pub(crate) sent_by_losers: Vec<Task>,
    /// What the losers of its races have invoked and abandoned.
    pub(crate) abandoned: Vec<Task>,
}

impl Account {
    /// Of a task and the output of its run.
    ///
    /// # Errors
    /// Where the output is not what the task comes to.
    pub(crate) fn of(task: &Task, output: &Value) -> Result<Account, String> {
        let chapters = list(&output["chapters"], task.chapters.len(), "the run")?;
        let mut account = Account::default();
        for (number, (chapter, value)) in task.chapters.iter().zip(chapters).enumerate() {
            account.walk(chapter, value, &Task::path(number))?;
        }
        Ok(account)
    }

    fn walk(&mut self, program: &Program, value: &Value, path: &str) -> Result<(), String> {
        let step = program.step(path);
        let wrong = || format!("{step} came to {value}");
        match program {
            Program::Sleep { .. } if value.is_null() => {}
            Program::Run { fails, pad } if value["pad"] == *pad => {
                let token = value["token"].as_str().ok_or_else(wrong)?.to_owned();
                let attempts = fails + 1;
                self.bodies.push(Body {
                    step,
                    token,
                    attempts,
                });
            }
            Program::Fail { attempts } => {
                let token = value["failed"].as_str().ok_or_else(wrong)?.to_owned();
                let attempts = *attempts;
                self.bodies.push(Body {
                    step,
                    token,
                    attempts,
                });
            }
            // One row for the counter, one that says so.
            Program::Sql { counter, by } if value["rows"] == 2 => self.added.push((step, *counter, *by)),
            Program::Refused { .. } if value["refused"] == "sql-error" => {}
            Program::Send { tasks } => {
                for (task, id) in tasks.iter().zip(list(&value["sent"], tasks.len(), &step)?) {
                    let id = id.as_str().ok_or_else(wrong)?.to_owned();
                    self.sent.push((id, task.clone()));
                }
            }
            Program::Call { task, .. } if value["answer"] == task.tag => {
                let id = list(&value["sent"], 1, &step)?[0].as_str().ok_or_else(wrong)?;
                self.sent.push((id.to_owned(), (**task).clone()));
            }
            Program::Invoke { task } => {
                let output = value.get("invoked").ok_or_else(wrong)?;
                self.invoked.push(((**task).clone(), output.clone()));
            }
            Program::Lonely { .. } if value.get("came") == Some(&Value::Null) => {}
            Program::Join(parts) | Program::Sequence(parts) => {
                for (number, (part, value)) in parts.iter().zip(list(value, parts.len(), &step)?).enumerate()
                {
                    self.walk(part, value, &Program::part(path, number))?;
                }
            }
            Program::Race { winner, loser, .. } => {
                match loser {
                    Loser::Send { tasks } => self.sent_by_losers.extend(tasks.iter().cloned()),
                    Loser::Abandon { task } => self.abandoned.push(task.clone()),
                    Loser::Invoke { .. } | Loser::Sleep | Loser::Body | Loser::Wait => {}
                }
                let won = value.get("won").ok_or_else(wrong)?;
                self.walk(winner, won, &Program::part(path, 0))?;
            }
            Program::Sleep { .. }
            | Program::Run { .. }
            | Program::Sql { .. }
            | Program::Refused { .. }
            | Program::Call { .. }
            | Program::Lonely { .. } => {
                return Err(wrong());
            }
        }
        Ok(())
    }
}

/// A list of so many.
fn list<'a>(value: &'a Value, length: usize, of: &str) -> Result<&'a [Value], String> {
    let list = value
        .as_array()
        .map(Vec::as_slice)
        .filter(|list| list.len() == length);
    list.ok_or_else(|| format!("{of} came to {value}, not to a list of {length}"))
}

mod tests {
    use serde_json::json;

    use super::super::generate::Shape;
    use super::super::program::Wait;
    use super::*;
    use crate::support::Dice;

    fn one(program: Program) -> Task {
        Task {
            tag: 0,
            tells: None,
            chapters: vec![program],
        }
    }

    /// Tells whoever waits for it.
    fn called() -> Task {
        Task {
            tag: 7,
            tells: Some(0),
            chapters: vec![sql(3, 2)],
        }
    }

    fn sql(counter: u32, by: i64) -> Program {
        Program::Sql { counter, by }
    }

    fn run(fails: u32) -> Program {
        Program::Run { fails, pad: 0 }
    }

    #[test]
    fn a_prediction_counts_what_is_sent_and_not_what_is_refused() {
        let sent = one(Program::Sequence(vec![sql(1, 5), run(0)]));
        let by_loser = one(sql(2, 7));
        let task = Task {
            tag: 0,
            tells: None,
            chapters: vec![
                Program::Join(vec![
                    sql(1, 1),
                    Program::Refused { counter: 1 },
                    Program::Send {
                        tasks: vec![sent.clone(), sent.clone()],
                    },
                    Program::Call {
                        task: Box::new(called()),
                        how: Wait::Back,
                    },
                ]),
                Program::Race {
                    winner: Box::new(Program::Sequence(vec![Program::Fail { attempts: 2 }, sql(2, 1)])),
                    loser: Loser::Send {
                        tasks: vec![by_loser],
                    },
                    loser_first: true,
                },
                Program::Race {
                    winner: Box::new(Program::Invoke {
                        task: Box::new(one(sql(1, 10))),
                    }),
                    loser: Loser::Abandon {
                        task: one(Program::Sequence(vec![
                            sql(2, 100),
                            Program::Race {
                                winner: Box::new(run(0)),
                                loser: Loser::Invoke {
                                    task: Task {
                                        tag: 9,
                                        ..one(sql(1, 1_000))
                                    },
                                },
                                loser_first: false,
                            },
                        ])),
                    },
                    loser_first: true,
                },
            ],
        };
        let mut prediction = Prediction::default();
        prediction.add(&task);
        assert_eq!(
            prediction,
            Prediction {
                counters: [(1, 21), (2, 108), (3, 2)].into(),
                runs: 7,
                bodies: 4,
                telling: [7].into(),
                doomed: [9].into(),
            }
        );
    }

    #[test]
    fn an_account_lays_an_output_beside_its_task() {
        let task = Task {
            tag: 0,
            tells: None,
            chapters: vec![
                Program::Sequence(vec![run(2), sql(3, 4), Program::Sleep { ms: 1 }]),
                Program::Race {
                    winner: Box::new(Program::Join(vec![
                        Program::Fail { attempts: 2 },
                        Program::Send {
                            tasks: vec![one(sql(0, 1))],
                        },
                    ])),
                    loser: Loser::Body,
                    loser_first: false,
                },
                Program::Race {
                    winner: Box::new(Program::Invoke {
                        task: Box::new(one(sql(5, 1))),
                    }),
                    loser: Loser::Abandon { task: called() },
                    loser_first: true,
                },
            ],
        };
        let output = json!({"chapters": [
            [{"token": "a", "pad": 0}, {"rows": 2}, null],
            {"won": [{"failed": "b"}, {"sent": ["event"]}]},
            {"won": {"invoked": {"chapters": []}}},
        ]});
        let body = |step: &str, token: &str, attempts| Body {
            step: step.to_owned(),
            token: token.to_owned(),
            attempts,
        };
        assert_eq!(
            Account::of(&task, &output),
            Ok(Account {
                bodies: vec![body("run 0.0", "a", 3), body("fail 1.0.0", "b", 2)],
                added: vec![("sql 0.1".to_owned(), 3, 4)],
                sent: vec![("event".to_owned(), one(sql(0, 1)))],
                invoked: vec![(one(sql(5, 1)), json!({"chapters": []}))],
                sent_by_losers: vec![],
                abandoned: vec![called()],
            })
        );
    }

    #[test]
    fn an_output_that_a_task_does_not_come_to_is_refused() {
        let send = Program::Send {
            tasks: vec![one(run(0))],
        };
        let call = || Program::Call {
            task: Box::new(called()),
            how: Wait::Look,
        };
        let race = Program::Race {
            winner: Box::new(run(0)),
            loser: Loser::Sleep,
            loser_first: true,
        };
        for (program, value) in [
            (run(0), json!({"token": "a", "pad": 1})),
            (run(0), json!({"pad": 0})),
            (Program::Fail { attempts: 1 }, json!({"token": "a", "pad": 0})),
            (sql(1, 1), json!({"rows": 1})),
            (sql(1, 1), json!(null)),
            (Program::Refused { counter: 1 }, json!({"refused": "sql-timeout"})),
            (Program::Sleep { ms: 1 }, json!(0)),
            (send.clone(), json!({"sent": []})),
            (send, json!({"sent": ["a", "b"]})),
            (call(), json!({"sent": ["a"], "answer": null})),
            (call(), json!({"sent": ["a"], "answer": 8})),
            (call(), json!({"sent": [], "answer": 7})),
            (
                Program::Invoke {
                    task: Box::new(called()),
                },
                json!({"answer": 7}),
            ),
            (Program::Lonely { ms: 1 }, json!({"came": "a"})),
            (Program::Lonely { ms: 1 }, json!(null)),
            (race, json!({"token": "a", "pad": 0})),
            (Program::Join(vec![run(0)]), json!([])),
            (Program::Sequence(vec![]), json!(null)),
        ] {
            let output = json!({ "chapters": [value] });
            assert!(
                Account::of(&one(program.clone()), &output).is_err(),
                "{program:?}: {value}"
            );
        }
        assert!(Account::of(&one(run(0)), &json!({"chapters": []})).is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_programs_and_every_kind_comes_up() {
        let shape = Shape {
            counters: 8,
            longest_sleep: 1_000,
        };
        let tasks = |seed| -> Vec<Task> {
            let mut dice = Dice::of(seed);
            (0..150).map(|_| shape.task(&mut dice)).collect()
        };
        assert_eq!(tasks(1), tasks(1));
        assert_ne!(tasks(1), tasks(2));
        let text = serde_json::to_string(&tasks(1)).expect("JSON");
        for kind in [
            "sleep", "run", "fail", "sql", "refused", "send", "call", "invoke", "lonely", "look", "match",
            "back", "join", "race", "sequence", "body", "wait",
        ] {
            assert!(text.contains(&format!("\"{kind}\"")), "there is no {kind}");
        }
        for part in [
            "\"pad\":71680",
            "\"fails\":3",
            "\"attempts\":3",
            "\"loser\":\"sleep\"",
            "\"loser\":{\"send\"",
            "\"loser\":{\"invoke\"",
            "\"loser\":{\"abandon\"",
        ] {
            assert!(text.contains(part), "there is no {part}");
        }
    }
}
