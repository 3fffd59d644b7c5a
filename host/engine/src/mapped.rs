//! The one place with unsafe code: taking compiled modules in.
#![allow(unsafe_code)]

use std::path::Path;

use wasmtime::component::Component;

/// Maps a compiled component in, so that its code is shared and paged in as it is used.
///
/// The caller (the cache) has just compared the file with the hash that was written beside it.
///
/// # Errors
/// When the file is not one of this engine's, or is cut short.
pub(crate) fn component(engine: &wasmtime::Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize_file` runs what the file says, and keeps it mapped. So the file must be what
    // `Component::serialize` of a compatible engine gave, and must not change afterwards. Both hold because
    // - the cache directory is the server's own (created with mode 0700), and nothing a guest says names a path in it;
    // - a file is written under another name, synced, and renamed into place: it is never seen half-written, and never
    //   written to again (removing it keeps the mapping alive);
    // - its SHA-256 stands in a file beside it and was compared before this call, so damage is noticed;
    // - its name carries a hash of `Engine::precompile_compatibility_hash`, and wasmtime checks its own header too.
    unsafe { Component::deserialize_file(engine, path) }
}

/// What was just compiled, as a component of the first engine that has room for its instances.
///
/// # Errors
/// What the second says: there is no room anywhere.
pub(crate) fn compiled(engines: [&wasmtime::Engine; 2], code: &[u8]) -> wasmtime::Result<Component> {
    let [first, second] = engines;
    // SAFETY: `deserialize` runs what the bytes say, so they must be what an engine of these settings has compiled: the
    // caller has just had them from `precompile_component` of one of these two, which differ only in where instances come
    // from.
    unsafe { Component::deserialize(first, code).or_else(|_| Component::deserialize(second, code)) }
}
