//! Components as files: `<dir>/modules/<hex>.wasm`. A file appears whole and durable, or not at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dormouse_core::Digest;

use crate::error::{Error, Result};

/// A file that nothing refers to is kept this long: its version may be about to be stored.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// The directory of components.
#[derive(Clone, Debug)]
pub(super) struct Components {
    dir: PathBuf,
}

impl Components {
    /// Opens the directory, making it if needed.
    pub(super) fn open(data_dir: &Path) -> Result<Components> {
        let dir = data_dir.join("modules");
        make_dir(&dir)?;
        Ok(Components { dir })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}.wasm", digest.hex()))
    }

    /// Stores bytes under their digest. Blocks.
    pub(super) fn put(&self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if Digest::of(bytes) != digest {
            return Err(Error::Corrupt(format!(
                "the component's bytes do not have the digest {digest}"
            )));
        }
        let path = self.path(digest);
        // Written anew even if it is there: a damaged file is repaired, and a young file is not an orphan.
        let temporary = self.dir.join(format!("{}.{}.tmp", digest.hex(), unique()));
        let written = write_durably(&temporary, &path, bytes).and_then(|()| sync_dir(&self.dir));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(|error| of_file(&path, &error))
    }

    /// The bytes, checked. Blocks.
    pub(super) fn get(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        match std::fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == digest => Ok(Some(bytes)),
            Ok(_) => Err(Error::Corrupt(format!(
                "{} is not what was stored: upload it again",
                path.display()
            ))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(of_file(&path, &error)),
        }
    }

    /// Removes files that no version refers to and what was left behind by a crash while writing. Blocks.
    pub(super) fn sweep(&self, needed: &HashSet<Digest>) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        let needed: HashSet<String> = needed
            .iter()
            .map(|digest| format!("{}.wasm", digest.hex()))
            .collect();
        for entry in entries.flatten() {
            let old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|at| {
                    SystemTime::now()
                        .duration_since(at)
                        .is_ok_and(|age| age > ORPHAN_AGE)
                });
            let name = entry.file_name().to_string_lossy().into_owned();
            if old && !needed.contains(&name) && (name.ends_with(".wasm") || name.ends_with(".tmp")) {
                tracing::debug!(file = %entry.path().display(), "removing a component that no version refers to");
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// A number that no other temporary file of this process has.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn write_durably(temporary: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory durable, with its parents.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(of_file(dir, &error)),
        _ => {}
    }
    let parent = dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync_dir(parent).map_err(|error| of_file(parent, &error))
}

/// What an error on a file means.
pub(super) fn of_file(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full(message),
        _ => Error::Unavailable(message),
    }
}
