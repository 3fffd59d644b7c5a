//! Every limit by name, with its default and its reason. A limit without a name is a bug.
//!
//! The ones an operator may change per module are fields of [`ModuleLimits`]; the others are constants.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most entries a run's journal may have: a run that takes more is a loop; `continue-with` is for those.
pub const JOURNAL_ENTRIES_MAX: usize = 30_000;
/// The most steps (bodies and operations) a run may begin.
pub const STEPS_MAX: u32 = 10_000;
/// The most bytes a run's journal may hold.
pub const JOURNAL_BYTES_MAX: usize = 64 << 20;
/// The longest step name in bytes: it stands in lists, logs and links.
pub const STEP_NAME_BYTES_MAX: usize = 255;
/// A step's output, an operation's input and a function's output, in bytes of JSON.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// A failure's message; the rest is cut with a note.
pub const FAILURE_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// A failure's code.
pub const FAILURE_CODE_BYTES_MAX: usize = 64;
/// Log lines that a run may keep; later ones are dropped, with a last line that says so.
pub const LOG_LINES_MAX: u32 = 10_000;
/// One log line; the rest is cut with a note.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// The longest sleep: 366 days, as Inngest's.
pub const SLEEP_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
/// The most tries of one step: retries 0 to 20, as Inngest's, and the first.
pub const ATTEMPTS_MAX: u32 = 21;
/// How often a run may be claimed without a new entry before it is blocked as a crash loop.
pub const CLAIMS_WITHOUT_ENTRY_MAX: u32 = 5;
/// How often a leg that ran into a host-dependent limit (CPU, wall time) outside a body is tried in all.
pub const HOST_TRAP_TRIES_MAX: u32 = 4;
/// The most operations that may be open in a run at once.
pub const OPEN_OPERATIONS_MAX: usize = 1_000;

/// The most keys that are not revoked: each node holds all of them in memory.
pub const KEYS_MAX: usize = 1_000;

/// A component's size in bytes at upload: large language runtimes are some 20 MiB.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;
/// The most functions a module may have.
pub const FUNCTIONS_MAX: usize = 256;
/// A manifest's size in bytes.
pub const MANIFEST_BYTES_MAX: usize = 256 << 10;
/// The most kinds of events that may cancel a function's runs, as Inngest's.
pub const CANCEL_ON_MAX: usize = 5;
/// The most triggers a function may have, as Inngest's.
pub const TRIGGERS_MAX: usize = 10;

/// One event's size in bytes of JSON (Inngest's self-hosted limit).
pub const EVENT_BYTES_MAX: usize = 3 << 20;
/// The most events in one request (Inngest's).
pub const EVENTS_PER_REQUEST_MAX: usize = 5_000;
/// The most bytes in one request of events.
pub const EVENT_REQUEST_BYTES_MAX: usize = 16 << 20;
/// An event name's size in bytes (Inngest's at ingest).
pub const EVENT_NAME_BYTES_MAX: usize = 512;
/// An event's own id in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 512;
/// For how long an event id keeps a second run of the same function from starting.
pub const EVENT_DEDUPE: Duration = Duration::from_secs(24 * 3600);
/// A CEL expression's size in bytes.
pub const CONDITION_BYTES_MAX: usize = 4 << 10;
/// How deep parentheses, brackets, braces and conditionals may nest in a CEL expression.
pub const CONDITION_NESTING_MAX: u16 = 32;
/// How deep the tree of a CEL expression may be: a chain of operators or of members is a branch of it.
pub const CONDITION_DEPTH_MAX: usize = 64;
/// What evaluating a CEL expression may cost: one for each operation and each 64 bytes that it looks at. About a
/// millisecond; one that takes more does not hold.
pub const CONDITION_COST_MAX: u64 = 100_000;
/// A flow-control key's value as JSON, in bytes, that is stored as it is: longer ones are named by their digest.
pub const FLOW_KEY_BYTES_MAX: usize = 256;
/// The most runs that a rate may let start in its period.
pub const RATE_MAX: u32 = 1_000_000;
/// The shortest period of a rate (Inngest's).
pub const RATE_PERIOD_MS_MIN: u64 = 1_000;
/// The longest period of a rate limit (Inngest's).
pub const RATE_LIMIT_PERIOD_MS_MAX: u64 = 24 * 3600 * 1000;
/// The longest period of a throttle (Inngest's).
pub const THROTTLE_PERIOD_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// How much later than its turn a throttled run may start in it. After that it takes another: many that were held up
/// together, by a node that was down, must not start together.
pub const THROTTLE_LATE_MS_MAX: u64 = 1_000;
/// The shortest period of a debounce (Inngest's).
pub const DEBOUNCE_MS_MIN: u64 = 1_000;
/// The longest period of a debounce, and the longest by which it may put a run off in all (Inngest's).
pub const DEBOUNCE_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// The most events of a batch (Inngest's).
pub const BATCH_SIZE_MAX: u32 = 100;
/// The shortest time for which a batch waits for more events (Inngest's).
pub const BATCH_TIMEOUT_MS_MIN: u64 = 1_000;
/// The longest time for which a batch waits for more events (Inngest's).
pub const BATCH_TIMEOUT_MS_MAX: u64 = 60_000;
/// The most bytes that the events of a batch have together (Inngest's): one that would have more starts without the last.
pub const BATCH_BYTES_MAX: usize = 10 << 20;
/// How far ahead of others, or behind, a priority may put a run, in seconds (Inngest's).
pub const PRIORITY_SECONDS_MAX: i64 = 600;
/// The most runs that a concurrency limit may let execute at once (Inngest's).
pub const CONCURRENCY_MAX: u32 = 1_000;
/// The most concurrency limits of a function (Inngest's).
pub const CONCURRENCY_LIMITS_MAX: usize = 2;
/// A cron expression with its time zone, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// The least by which the ticks of a cron may be put off (Inngest's).
pub const CRON_JITTER_MS_MIN: u64 = 1_000;
/// The most by which the ticks of a cron may be put off (Inngest's).
pub const CRON_JITTER_MS_MAX: u64 = 300_000;
/// A tick that begins later than this was missed: a restart or a busy machine takes less.
pub const CRON_GRACE: Duration = Duration::from_secs(60);
/// A schedule that stands further ahead than the tick after this was moved by a wrong clock, and is set back.
pub const CRON_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// The most missed ticks of one schedule that are done afterwards, one upon the other.
pub const CRON_CATCH_UP_MAX: usize = 1_000;
/// A signal's name in bytes.
pub const SIGNAL_BYTES_MAX: usize = 512;
/// How many invokes may lead to a run, one out of the other: one that goes on without an end is a loop.
pub const INVOKE_DEPTH_MAX: u32 = 64;
/// The wall time of one try of a request that the host performs, when the step does not say,
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// and at most: longer than any server is silent that will still answer.
pub const FETCH_TIMEOUT_MAX: Duration = Duration::from_secs(900);
/// The body of its response in bytes: in base 64, with its head, it still is an output.
pub const FETCH_RESPONSE_BYTES_MAX: usize = 2 << 20;
/// How far back a wait may look for events that came before it.
pub const LOOKBACK_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// How many events, the latest first, a wait looks at that looks back.
pub const LOOKBACK_EVENTS_MAX: u32 = 1_000;
/// The path of a field that a wait matches by, in bytes.
pub const MATCH_PATH_BYTES_MAX: usize = 512;
/// How deep an event's JSON may nest, the event itself included, and a signal's data: what serde_json reads without being
/// told otherwise, and so what a guest can read.
pub const JSON_DEPTH_MAX: usize = 127;

/// What an operator may set for a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModuleLimits {
    /// Linear memory of one instance in bytes. Growing past it traps.
    pub memory_bytes: usize,
    /// CPU time between two calls into the host outside a body, in milliseconds.
    pub cpu_ms: u64,
    /// Wall time of a stretch outside bodies, in milliseconds: what the guest may take between two waits.
    pub stretch_ms: u64,
    /// CPU time of one body, in milliseconds.
    pub body_cpu_ms: u64,
    /// Wall time of one body, in milliseconds, when the step does not say.
    pub body_ms: u64,
    /// What a body may write to standard output and error, in bytes.
    pub stdio_bytes: usize,
}

impl Default for ModuleLimits {
    fn default() -> ModuleLimits {
        ModuleLimits {
            memory_bytes: 64 << 20,
            cpu_ms: 1_000,
            stretch_ms: 10_000,
            body_cpu_ms: 60_000,
            body_ms: 300_000,
            stdio_bytes: 64 << 10,
        }
    }
}
