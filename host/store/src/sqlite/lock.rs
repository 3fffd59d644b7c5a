//! One process per data directory. The lock is the kernel's, so it ends with the process however that ends; the file's
//! content only names who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::error::{Error, Result};

/// Holds the data directory until it is dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock at `<dir>/lock`.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process, or another store of this one, has it; [`Error::Unavailable`] when the
    /// file cannot be made or written.
    pub(super) fn take(dir: &Path) -> Result<DirectoryLock> {
        let path = dir.join("lock");
        let unavailable = |error: std::io::Error| Error::Unavailable(format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(Error::InUse {
                    pid: text.trim().parse().unwrap_or(0),
                });
            }
            Err(TryLockError::Error(error)) => return Err(unavailable(error)),
        }
        file.set_len(0).map_err(unavailable)?;
        file.seek(SeekFrom::Start(0)).map_err(unavailable)?;
        writeln!(file, "{}", std::process::id()).map_err(unavailable)?;
        Ok(DirectoryLock { _file: file })
    }
}
