//! How an instance that was ended is told to people: a stable code, what the guest said last, where it was.

use dormouse_core::{Failure, Json, Retry, limit};
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, WasmBacktrace};

use crate::guest_json::cut_with_note;
use crate::stdio::Stdio;

/// How many frames a backtrace has at most; as many as that mean deep recursion.
pub(crate) const FRAMES_MAX: usize = 40;
/// How many of them are kept.
const FRAMES_KEPT: usize = 20;

/// Why an instance was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    /// A stable word, such as `cpu-limit` or `guest-panic`. Each has a page in docs/errors/.
    pub code: &'static str,
    /// For a person: what happened and what to do.
    pub message: String,
    /// The guest's own functions, innermost first, at most 20.
    pub frames: Vec<String>,
    /// The step whose body was open.
    pub step: Option<String>,
    /// It may not happen again elsewhere or later: a limit of CPU or wall time, or of the node.
    pub host_dependent: bool,
}

impl Trap {
    /// Whether another attempt of the body that was open makes sense. What breaks the contract stays broken.
    pub fn retryable_body(&self) -> bool {
        self.step.is_some() && !matches!(self.code, "nested-step" | "bad-call")
    }

    /// The same as a failure, with the frames in its details. Not retried unless it was a body's that may be.
    pub fn into_failure(self) -> Failure {
        let retry = if self.retryable_body() {
            Retry::Default
        } else {
            Retry::Never
        };
        let details = (!self.frames.is_empty())
            .then(|| Json::from_value(&serde_json::json!({ "frames": self.frames })).ok())
            .flatten();
        Failure {
            message: self.message,
            code: Some(self.code.to_owned()),
            details,
            retry,
        }
    }
}

/// The host ends the guest in the middle of a call or a computation.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct GuestTrap {
    code: &'static str,
    message: String,
    host_dependent: bool,
}

impl GuestTrap {
    /// Because of what the guest did.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> GuestTrap {
        GuestTrap {
            code,
            message: message.into(),
            host_dependent: false,
        }
    }

    /// Because of what this host can give now.
    pub(crate) fn of_host(code: &'static str, message: impl Into<String>) -> GuestTrap {
        GuestTrap {
            host_dependent: true,
            ..GuestTrap::new(code, message)
        }
    }

    /// As it is told.
    pub(crate) fn into_trap(self, step: Option<String>) -> Trap {
        Trap {
            code: self.code,
            message: self.message,
            frames: Vec::new(),
            step,
            host_dependent: self.host_dependent,
        }
    }
}

/// The run's host has said [`crate::Stop`].
#[derive(Debug, thiserror::Error)]
#[error("the host has ended the leg")]
pub(crate) struct StopLeg;

/// Reads what a call into a guest ended with. `None`: it was the host's own stop.
pub(crate) fn read(error: &wasmtime::Error, stdio: &Stdio, step: Option<String>) -> Option<Trap> {
    if error.is::<StopLeg>() {
        return None;
    }
    let frames = frames(error);
    let (code, message, host_dependent) = if let Some(trap) = error.downcast_ref::<GuestTrap>() {
        (trap.code, trap.message.clone(), trap.host_dependent)
    } else if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        let (code, message) = of_wasm(*trap, stdio, frames.len());
        (code, message, false)
    } else if let Some(ResourceTableError::Full) = error.downcast_ref() {
        let message = "the guest holds too many handles: streams, pollables or requests that it never drops";
        ("too-many-handles", message.to_owned(), false)
    } else if error.is::<PoolConcurrencyLimitError>() {
        ("engine-error", format!("no instance is free: {error:#}"), true)
    } else {
        // Bad handles, invalid strings and the like: the guest has broken the component model's rules.
        (
            "trap",
            format!("the guest was ended: {}", error.root_cause()),
            false,
        )
    };
    Some(Trap {
        code,
        message: cut_with_note(message, limit::FAILURE_MESSAGE_BYTES_MAX),
        frames: own(frames),
        step,
        host_dependent,
    })
}

fn of_wasm(trap: wasmtime::Trap, stdio: &Stdio, depth: usize) -> (&'static str, String) {
    use wasmtime::Trap as Wasm;
    const RECURSION: &str =
        "the guest's stack is full: it recurses too deeply, or keeps too much on the stack";
    match trap {
        Wasm::StackOverflow => ("stack-overflow", RECURSION.to_owned()),
        // Rust's own stack lies at the bottom of memory: running over it is an access out of bounds.
        Wasm::MemoryOutOfBounds if depth >= FRAMES_MAX => ("stack-overflow", RECURSION.to_owned()),
        Wasm::UnreachableCodeReached => match (stdio.panic_message(), stdio.last_error_line()) {
            (Some(message), _) => ("guest-panic", message),
            (None, Some(line)) if line.starts_with("memory allocation of ") => ("memory-limit", line),
            (None, Some(line)) => ("trap", format!("the guest aborted; the last it wrote: {line}")),
            (None, None) => ("trap", "the guest aborted without a message".to_owned()),
        },
        other => ("trap", format!("the guest was ended: {other}")),
    }
}

/// The guest's own frames, innermost first.
pub(crate) fn own_frames(error: &wasmtime::Error) -> Vec<String> {
    own(frames(error))
}

/// All frames, innermost first, demangled, with their line if the component carries it.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let name = |frame: &wasmtime::FrameInfo| {
        let function = match frame.func_name() {
            Some(name) => format!("{:#}", rustc_demangle::demangle(name)),
            None => format!("function {}", frame.func_index()),
        };
        let place = frame
            .symbols()
            .iter()
            .rev()
            .find_map(|symbol| Some(format!(" ({}:{})", symbol.file()?, symbol.line()?)));
        format!("{function}{}", place.unwrap_or_default())
    };
    backtrace.frames().iter().map(name).collect()
}

/// Without the language's own machinery around them; all, if nothing else is left.
fn own(mut frames: Vec<String>) -> Vec<String> {
    const MACHINERY: [&str; 14] = [
        "std::",
        "core::",
        "alloc::",
        "<core::",
        "<alloc::",
        "<std::",
        "rust_",
        "__rust",
        "__wasm",
        "wit_bindgen",
        "_start",
        "abort",
        "cabi_",
        "__libc",
    ];
    let is_own = |frame: &String| {
        // Adapters have no names, and exports the names of their interfaces.
        if frame.starts_with("function ") || frame.contains('#') {
            return false;
        }
        let bare = frame.trim_start_matches('_').trim_start_matches('<');
        !MACHINERY
            .iter()
            .any(|prefix| frame.starts_with(prefix) || bare.starts_with(prefix))
    };
    if frames.iter().any(is_own) {
        frames.retain(is_own);
    }
    frames.truncate(FRAMES_KEPT);
    frames
}
