//! Where things are: binaries, directories, ports, and as whom a server runs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The user that servers run as when the tests run as root, whom they refuse.
const SERVER_USER: &str = "postgres";

/// The directory that has `initdb`, `postgres`, `pg_ctl` and `psql`: what `pg_config` says, what PATH has, or where
/// Debian puts them, the newest first.
pub(crate) fn server_binaries() -> PathBuf {
    let mut candidates = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        candidates.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    candidates.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let mut of_debian: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let version = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            (version, entry.path().join("bin"))
        })
        .collect();
    of_debian.sort();
    candidates.extend(of_debian.into_iter().rev().map(|(_, path)| path));
    let has_all = |dir: &PathBuf| {
        ["initdb", "postgres", "pg_ctl", "psql"]
            .iter()
            .all(|name| dir.join(name).is_file())
    };
    candidates.into_iter().find(has_all).unwrap_or_else(|| {
        panic!("Postgres (initdb, postgres, pg_ctl, psql) is not installed: make deps, or apt-get install postgresql")
    })
}

/// A program of the system, from PATH or where administrators' programs are.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: make deps, or apt-get install {package}"))
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
}

/// A command as the user that servers run as.
pub(crate) fn command(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            SERVER_USER,
            "--regid",
            SERVER_USER,
            "--clear-groups",
            "--",
        ])
        .arg(program)
        .current_dir("/");
    command
}

/// Makes a file or directory the server's.
pub(crate) fn give(path: &Path) {
    if is_root() {
        let mut chown = Command::new("chown");
        chown.arg(format!("{SERVER_USER}:{SERVER_USER}")).arg(path);
        crate::output(chown);
    }
}

/// A new directory that is the server's.
pub(crate) fn directory(what: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // A short name: a socket's path has room for a hundred bytes.
    let dir = std::env::temp_dir().join(format!("dm-{what}-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("permissions are set");
    give(&dir);
    dir
}

/// A port on loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// The sum of the first `times` of a process's processor times: its own as user and in the kernel, then the same of its
/// children that have ended. None when there is no such process.
pub(crate) fn processor_ticks(process: &str, times: usize) -> Option<u64> {
    let fields = stat(process)?;
    fields
        .get(11..11 + times)?
        .iter()
        .map(|ticks| ticks.parse::<u64>().ok())
        .sum()
}

/// The processes whose parent is this one.
pub(crate) fn children(parent: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|process| process.parse::<u32>().is_ok())
        .filter(|process| stat(process).is_some_and(|fields| fields.get(1).is_some_and(|of| of == parent)))
        .collect()
}

/// What /proc says of a process, from its state on.
fn stat(process: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields = text.rsplit_once(')')?.1;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
