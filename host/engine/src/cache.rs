//! Compiled modules on disk, keyed by the component's digest and by everything about the engine that changes code.
//!
//! A file that is missing, cut short, damaged or of another engine is as good as none: the component is compiled again.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dormouse_core::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

use crate::mapped;

/// The directory of compiled modules.
pub(crate) struct Cache {
    directory: PathBuf,
    /// Who may run what is kept, in the order in which they are asked.
    engines: [wasmtime::Engine; 2],
    /// Of the engine's settings: a part of every name.
    compatibility: String,
}

/// A component that was mapped in, and the size of its file.
pub(crate) struct Mapped {
    pub(crate) component: Component,
    pub(crate) size: u64,
}

impl Cache {
    /// Opens the directory, making it if it is missing, and clears away what a crash has left half-written.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub(crate) fn open(directory: &Path, engines: [&wasmtime::Engine; 2]) -> io::Result<Cache> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(path)?;
            }
        }
        let mut hasher = Stable(Sha256::new());
        engines[0].precompile_compatibility_hash().hash(&mut hasher);
        let digest = Digest::from_bytes(hasher.0.finalize().into());
        Ok(Cache {
            directory: directory.to_owned(),
            engines: engines.map(Clone::clone),
            compatibility: digest.hex()[..16].to_owned(),
        })
    }

    /// Maps a compiled module in, if there is a sound one, for the first engine that has room for its instances.
    pub(crate) fn load(&self, digest: Digest) -> Option<Mapped> {
        let (code, hash) = self.paths(digest);
        let expected = fs::read_to_string(&hash).ok()?;
        let bytes = fs::read(&code).ok()?;
        let size = bytes.len() as u64;
        if Digest::of(&bytes).to_string() != expected.trim() {
            tracing::warn!(path = %code.display(), "a compiled module is damaged; it is compiled again");
            self.remove(digest);
            return None;
        }
        let [first, second] = &self.engines;
        match mapped::component(first, &code).or_else(|_| mapped::component(second, &code)) {
            Ok(component) => Some(Mapped { component, size }),
            Err(error) => {
                tracing::warn!(path = %code.display(), "a compiled module is refused; it is compiled again: {error:#}");
                self.remove(digest);
                None
            }
        }
    }

    /// Keeps a compiled module.
    ///
    /// # Errors
    /// When it cannot be written. The cache is then as it was.
    pub(crate) fn store(&self, digest: Digest, compiled: &[u8]) -> io::Result<()> {
        let (code, hash) = self.paths(digest);
        // The hash first: code without its hash is not used.
        self.place(&hash, Digest::of(compiled).to_string().as_bytes())?;
        self.place(&code, compiled)
    }

    /// Forgets a module, for every engine.
    pub(crate) fn remove(&self, digest: Digest) {
        let (code, hash) = self.paths(digest);
        for path in [code, hash] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), "a compiled module cannot be removed: {error}");
            }
        }
    }

    fn paths(&self, digest: Digest) -> (PathBuf, PathBuf) {
        let stem = format!("{}-{}", digest.hex(), self.compatibility);
        (
            self.directory.join(format!("{stem}.cwasm")),
            self.directory.join(format!("{stem}.sha256")),
        )
    }

    fn place(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let part = self
            .directory
            .join(format!("{}-{number}.part", std::process::id()));
        let written = File::create(&part).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let placed = written.and_then(|()| fs::rename(&part, path));
        if placed.is_err() {
            let _ = fs::remove_file(&part);
        }
        placed
    }
}

/// A hasher that gives the same on every run: what the standard library's does is its own affair.
struct Stable(Sha256);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
