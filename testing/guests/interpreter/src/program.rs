//! What an interpreter is told to do: the data of the event `test/program`.
//!
//! The host's test includes this file, so that who writes programs, who predicts them and who runs them agree on what
//! they are. Each part of a program has a path, which is in the names of its steps; so has nothing else.

use serde::{Deserialize, Serialize};

/// The event that starts an interpreter. Its data is a [`Task`].
pub const EVENT: &str = "test/program";

/// The event by which a task says that it is done: its `child` is the task's tag, its `tag` that of the one who waits.
pub const DONE: &str = "test/done";

/// An event that nobody sends.
pub const NEVER: &str = "test/never";

/// What one run does: its chapters one after the other, each with a journal of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What it is known by among all tasks.
    pub tag: u64,
    /// The tag of a task that waits for this one: at its end it says so by an event.
    pub tells: Option<u64>,
    /// At least one.
    pub chapters: Vec<Program>,
}

impl Task {
    /// The path of a chapter.
    pub fn path(chapter: usize) -> String {
        format!("{chapter}")
    }
}

/// A program, or a part of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Sleeps.
    Sleep {
        /// Milliseconds.
        ms: u64,
    },
    /// A body that tells the witness and succeeds once it has failed often enough.
    Run {
        /// How many attempts fail before.
        fails: u32,
        /// How many bytes its output has besides.
        pad: u32,
    },
    /// A body that tells the witness and fails for good; the program goes on.
    Fail {
        /// With which attempt it says that it is of no use.
        attempts: u32,
    },
    /// Adds to a counter in the application's database.
    Sql {
        /// Which counter.
        counter: u32,
        /// How much: above zero.
        by: i64,
    },
    /// Adds to a counter, in a transaction whose next statement the database refuses; the program goes on.
    Refused {
        /// Which counter.
        counter: u32,
    },
    /// Sends an event for each task, so that each is a run of its own.
    Send {
        /// The tasks.
        tasks: Vec<Task>,
    },
    /// Sends an event for a task and waits for the one by which that says that it is done.
    Call {
        /// The task, which tells.
        task: Box<Task>,
        /// How it waits.
        how: Wait,
    },
    /// Invokes the interpreter with a task and waits for its end.
    Invoke {
        /// The task.
        task: Box<Task>,
    },
    /// Waits for an event that nobody sends.
    Lonely {
        /// Until then: milliseconds.
        ms: u64,
    },
    /// All of them, interleaved.
    Join(Vec<Program>),
    /// A program against something that never ends: the program wins.
    Race {
        /// The program.
        winner: Box<Program>,
        /// What never ends.
        loser: Loser,
        /// Whether the loser is asked first, and so has begun for certain when the winner begins.
        loser_first: bool,
    },
    /// One after the other.
    Sequence(Vec<Program>),
}

/// How a call waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// The wait begins before the event is sent; it looks at each answer.
    Look,
    /// The same; it looks at the answers to its own run alone.
    Match,
    /// The wait begins after the event was sent, when the answer may have come, and looks back.
    Back,
}

/// What never ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loser {
    /// A sleep of an hour.
    Sleep,
    /// A body that fails, with an hour until its next attempt.
    Body,
    /// A wait for an event that nobody sends.
    Wait,
    /// Sends, then sleeps. What it sends is sent whatever becomes of it, when it is asked first.
    Send {
        /// The tasks.
        tasks: Vec<Task>,
    },
    /// Invokes the interpreter with a task that never ends. Given up, it is cancelled, if it has begun at all.
    Invoke {
        /// The task: one that only sleeps.
        task: Task,
    },
    /// Invokes the interpreter with a task that goes on alone, whatever becomes of this, when it is asked first.
    Abandon {
        /// The task.
        task: Task,
    },
}

impl Program {
    /// The path of a part: the number of a program in a list; 0 is the winner of a race, and 1 the loser.
    pub fn part(path: &str, number: usize) -> String {
        format!("{path}.{number}")
    }

    /// What the step of a part is called.
    pub fn step(&self, path: &str) -> String {
        let kind = match self {
            Program::Sleep { .. } => "sleep",
            Program::Run { .. } => "run",
            Program::Fail { .. } => "fail",
            Program::Sql { .. } => "sql",
            Program::Refused { .. } => "refused",
            Program::Send { .. } => "send",
            Program::Call { .. } => "call",
            Program::Invoke { .. } => "invoke",
            Program::Lonely { .. } => "lonely",
            Program::Join(_) => "join",
            Program::Race { .. } => "race",
            Program::Sequence(_) => "sequence",
        };
        format!("{kind} {path}")
    }
}

impl Loser {
    /// What the steps of a loser are called.
    pub fn step(&self, path: &str) -> String {
        let kind = match self {
            Loser::Sleep => "sleep",
            Loser::Body => "body",
            Loser::Wait => "wait",
            Loser::Send { .. } => "send",
            Loser::Invoke { .. } => "invoke",
            Loser::Abandon { .. } => "abandon",
        };
        format!("lost-{kind} {path}")
    }
}
