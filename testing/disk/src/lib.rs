//! A shim between a process and its disk: its power fails, or the disk does. And what is left of a directory afterwards.
//!
//! [`Shim`] adds it to a command. It is a shared object that is loaded before libc, of C, compiled when it is first asked for.
#![forbid(unsafe_code)]

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What is done to the process that a command starts.
pub struct Shim<'a> {
    /// The files that it stands before: all below this directory, by its real path.
    pub root: &'a Path,
    /// Where to note what is durable.
    pub shadow: Option<&'a Shadow>,
    /// A file that says what goes wrong while it is there: `full` (writes fail with ENOSPC), `eio` (fsync fails with EIO),
    /// `readonly` (opening for writing fails with EROFS), or `lie` (fsync says yes and does nothing).
    pub fault: Option<&'a Path>,
}

impl Shim<'_> {
    /// Adds the shim.
    ///
    /// # Panics
    /// Without a C compiler.
    pub fn stand_before(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("SHIM_ROOT", self.root);
        if let Some(shadow) = self.shadow {
            command.env("SHIM_SHADOW", &shadow.dir);
        }
        if let Some(fault) = self.fault {
            command.env("SHIM_FAULT", fault);
        }
    }
}

/// The shim as a shared object, compiled once per process. It stays in the temporary directory, for the next.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = include_str!("shim.c");
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let library = std::env::temp_dir().join(format!("dormouse-shim-{:016x}.so", hasher.finish()));
        // Another process may compile it at the same time.
        let begun = library.with_extension(std::process::id().to_string());
        let mut compiler = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-x", "c", "-", "-o",
            ])
            .arg(&begun)
            .args(["-ldl", "-lpthread"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("this test needs a C compiler, cc (Debian: apt install gcc)");
        let mut stdin = compiler.stdin.take().expect("piped");
        stdin.write_all(source.as_bytes()).expect("cc reads");
        drop(stdin);
        assert!(
            compiler.wait().expect("cc ends").success(),
            "cc could not compile the shim"
        );
        fs::rename(&begun, &library).expect("the shim is kept");
        library
    })
}

/// What would survive a power failure of one data directory.
pub struct Shadow {
    dir: PathBuf,
}

impl Shadow {
    /// A shadow of a directory in which everything is durable at the beginning. It is kept in `dir`, outside of that.
    ///
    /// # Panics
    /// When either cannot be read or written.
    pub fn of(data: &Path, dir: &Path) -> Shadow {
        let _ = fs::remove_dir_all(dir);
        for part in ["names", "bytes"] {
            fs::create_dir_all(dir.join(part)).expect("makes the shadow");
        }
        let shadow = Shadow { dir: dir.to_owned() };
        shadow.take(data);
        shadow
    }

    fn take(&self, dir: &Path) {
        let mut names = String::new();
        for entry in fs::read_dir(dir).expect("reads") {
            let entry = entry.expect("reads");
            let metadata = entry.metadata().expect("reads");
            let kind = if metadata.is_dir() { 'd' } else { 'f' };
            names += &format!(
                "{} {kind} {}\n",
                metadata.ino(),
                entry.file_name().to_string_lossy()
            );
            if metadata.is_dir() {
                self.take(&entry.path());
            } else {
                fs::copy(
                    entry.path(),
                    self.dir.join("bytes").join(metadata.ino().to_string()),
                )
                .expect("copies");
            }
        }
        fs::write(self.names(dir), names).expect("writes");
    }

    fn names(&self, dir: &Path) -> PathBuf {
        let inode = fs::metadata(dir).expect("is there").ino();
        self.dir.join("names").join(inode.to_string())
    }

    /// Builds in `to` what is left of `data`.
    ///
    /// # Panics
    /// When it cannot be read or written, or the shim's notes are none.
    pub fn restore(&self, data: &Path, to: &Path) {
        fs::create_dir_all(to).expect("makes a directory");
        self.restore_names(&self.names(data), to);
    }

    fn restore_names(&self, names: &Path, to: &Path) {
        // A directory that was never synced has lost its names.
        let names = fs::read_to_string(names).unwrap_or_default();
        for line in names.lines() {
            let mut parts = line.splitn(3, ' ');
            let (Some(inode), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
                panic!("the shim wrote {line:?}");
            };
            let path = to.join(name);
            if kind == "d" {
                fs::create_dir_all(&path).expect("makes a directory");
                self.restore_names(&self.dir.join("names").join(inode), &path);
                continue;
            }
            let bytes = self.dir.join("bytes").join(inode);
            if bytes.exists() {
                fs::copy(bytes, &path).expect("copies");
            } else {
                // Its name survived, its bytes did not.
                fs::write(&path, b"").expect("writes");
            }
        }
    }
}
