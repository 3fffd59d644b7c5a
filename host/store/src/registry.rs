//! Modules, their versions, and which one is active. One number, the generation, moves with every change, so that
//! nothing is decided on what was true before.

use dormouse_core::swap::Policy;
use dormouse_core::{Digest, FunctionName, Json, Timestamp};

/// A version to store.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVersion {
    /// The module.
    pub module: String,
    /// The component's digest.
    pub digest: Digest,
    /// The manifest, as the component described itself.
    pub manifest: Json,
    /// The component's size in bytes.
    pub size: u64,
    /// Who uploaded it.
    pub uploaded_by: String,
    /// What they said about it.
    pub message: Option<String>,
    /// Whether it becomes the active version in the same commit.
    pub activate: bool,
    /// What becomes of runs in flight then. None: as with [`Store::activate`](crate::Store::activate).
    pub policy: Option<Policy>,
    /// The time.
    pub now: Timestamp,
}

/// What came of storing a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The module did not have this version before.
    pub new: bool,
    /// It is now active and was not before, or runs in flight are now under another policy.
    pub activated: bool,
    /// The generation after it.
    pub generation: i64,
}

/// A version as the store knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The module.
    pub module: String,
    /// The component's digest.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Json,
    /// The component's size in bytes.
    pub size: u64,
    /// Who uploaded it.
    pub uploaded_by: String,
    /// What they said about it.
    pub message: Option<String>,
    /// When.
    pub uploaded_at: Timestamp,
    /// Whether new runs use it.
    pub active: bool,
    /// Since when, if it is active.
    pub activated_at: Option<Timestamp>,
    /// What becomes of runs of the module's other versions, if it is active; `pin` if it is not.
    pub policy: Policy,
    /// Runs on it that have not ended.
    pub live_runs: u64,
}

/// The active versions, all that matching events needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// The generation.
    pub generation: i64,
    /// The active version of each module, by module name. `live_runs` is not filled in here.
    pub active: Vec<Version>,
    /// The functions that are paused, in order of their names. What is newer than the generation may be among it.
    pub paused: Vec<FunctionName>,
}

/// What came of activating or deleting a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Done; the generation is now this.
    Done(i64),
    /// It was so already.
    Unchanged(i64),
    /// There is no such version of the module.
    NotFound,
    /// Runs that have not ended need it (this many), or it is active (0).
    Needed(u64),
}
