//! A process that ends with this one, however this one ends.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs what its arguments say until that ends, or until standard input does, which happens when the process at its
/// other end is no more; then it is stopped, and its directory removed.
const SCRIPT: &str = r#"
dir=$1 signal=$2; shift 2
exec 3<&0
"$@" 3<&- </dev/null &
pid=$!
( cat <&3 >/dev/null; : >"$dir/over"; kill -"$signal" "$pid" 2>/dev/null ) &
watch=$!
exec 3<&-
wait "$pid"
code=$?
if [ -e "$dir/over" ]; then rm -rf "$dir"; else kill "$watch" 2>/dev/null; fi
exit "$code"
"#;

/// A process and the shell that watches over it.
pub(crate) struct Watched {
    shell: Child,
}

impl Watched {
    /// Starts a command. It is stopped with `signal`, and `dir` is removed, when it is ended by the end of this process or by [`Watched::finish`].
    pub(crate) fn start(command: &Command, signal: &str, dir: &Path, log: &Path) -> Watched {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let mut shell = Command::new("sh");
        shell
            .args(["-c", SCRIPT, "watched"])
            .arg(dir)
            .arg(signal)
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            // What ends a group of processes (Ctrl-C, `timeout`) must not end who cleans up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        let shell = shell.spawn().expect("sh runs");
        Watched { shell }
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.shell.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) {
        // `wait` of the standard library closes standard input first, which would end it.
        let began = std::time::Instant::now();
        while !self.has_ended() {
            assert!(began.elapsed() < crate::PATIENCE, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Ends the process and removes its directory.
    pub(crate) fn finish(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
