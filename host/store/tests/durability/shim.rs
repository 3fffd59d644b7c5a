//! Building the shim, and what is left of a data directory after its power failed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The shim as a shared object, compiled once per process.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"])
            .status()
            .expect("this test needs a C compiler, cc (Debian: apt install gcc)");
        assert!(status.success(), "cc could not compile {}", source.display());
        library
    })
}

/// What would survive a power failure of one data directory.
pub(crate) struct Shadow {
    dir: PathBuf,
}

impl Shadow {
    /// A shadow of a directory in which everything is durable at the beginning.
    pub(crate) fn of(data: &Path, dir: &Path) -> Shadow {
        let _ = fs::remove_dir_all(dir);
        for part in ["names", "bytes"] {
            fs::create_dir_all(dir.join(part)).expect("makes the shadow");
        }
        let shadow = Shadow { dir: dir.to_owned() };
        shadow.take(data);
        shadow
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
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
    pub(crate) fn restore(&self, data: &Path, to: &Path) {
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
