//! What a guest writes to its standard streams: lines for the run's log, and the end of standard error, where a
//! panic leaves its message.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::limit;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{OutputStream, StreamResult};

use crate::host::LogLevel;
use crate::shared::{Shared, lock};

/// How much of the end of standard error is kept for a panic's message.
const TAIL_BYTES: usize = 8 << 10;
/// How much a guest may write in one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// Both streams of one guest.
#[derive(Default)]
pub(crate) struct Stdio {
    out: Vec<u8>,
    err: Vec<u8>,
    tail: Vec<u8>,
    lines: Vec<(LogLevel, String)>,
    written: usize,
    max: usize,
    cut: bool,
}

impl Stdio {
    /// From here on the guest may write this much.
    pub(crate) fn allow(&mut self, max: usize) {
        self.max = max;
        self.written = 0;
        self.cut = false;
    }

    /// The finished lines. With `all`, also what has no line end yet.
    pub(crate) fn take(&mut self, all: bool) -> Vec<(LogLevel, String)> {
        if all {
            for (level, mut rest) in [
                (LogLevel::Info, std::mem::take(&mut self.out)),
                (LogLevel::Warn, std::mem::take(&mut self.err)),
            ] {
                push_line(&mut self.lines, level, &mut rest);
            }
        }
        std::mem::take(&mut self.lines)
    }

    /// The message of a panic, if standard error ends with one.
    pub(crate) fn panic_message(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let start = text.rfind("panicked at ")?;
        // Rust adds advice that does not apply to a guest.
        let message = text[start..].split("\nnote: ").next().unwrap_or_default();
        Some(message.trim_end().to_owned())
    }

    /// The last line of standard error.
    pub(crate) fn last_error_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.to_owned())
    }

    fn write(&mut self, level: LogLevel, bytes: &[u8]) {
        if level == LogLevel::Warn {
            self.tail
                .extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
            if self.tail.len() > 2 * TAIL_BYTES {
                self.tail.drain(..self.tail.len() - TAIL_BYTES);
            }
        }
        let fits = bytes.len().min(self.max.saturating_sub(self.written));
        self.written += fits;
        let stream = if level == LogLevel::Warn {
            &mut self.err
        } else {
            &mut self.out
        };
        for part in bytes[..fits].split_inclusive(|byte| *byte == b'\n') {
            stream.extend_from_slice(part);
            if part.last() == Some(&b'\n') || stream.len() >= limit::LOG_LINE_BYTES_MAX {
                push_line(&mut self.lines, level, stream);
            }
        }
        if fits < bytes.len() && !self.cut {
            self.cut = true;
            let note = format!(
                "standard output and error are cut here: {} bytes are the most",
                self.max
            );
            self.lines.push((LogLevel::Warn, note));
        }
    }
}

fn push_line(lines: &mut Vec<(LogLevel, String)>, level: LogLevel, line: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    if !text.is_empty() {
        lines.push((level, text));
    }
}

/// One of the two streams, as the guest holds it.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    level: LogLevel,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, level: LogLevel) -> Stream {
        Stream { shared, level }
    }
}

#[async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.shared.stdio).write(self.level, &bytes);
        self.shared.stdio_dirty.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_lines_and_cuts_what_is_too_much() {
        let mut stdio = Stdio::default();
        stdio.allow(20);
        stdio.write(LogLevel::Info, b"one\ntw");
        stdio.write(LogLevel::Info, b"o\nthree");
        assert_eq!(
            stdio.take(false),
            [
                (LogLevel::Info, "one".to_owned()),
                (LogLevel::Info, "two".to_owned())
            ]
        );
        stdio.write(LogLevel::Info, b" and so much more\n");
        let lines = stdio.take(true);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].1.contains("cut here"));
        assert_eq!(lines[1].1, "three and so");
    }

    #[test]
    fn finds_a_panic_behind_a_flood() {
        let mut stdio = Stdio::default();
        stdio.allow(10);
        for _ in 0..100 {
            stdio.write(LogLevel::Warn, &[b'x'; 1000]);
        }
        stdio.write(
            LogLevel::Warn,
            b"\nthread 'main' (1) panicked at src/lib.rs:3:5:\nno\nmilk\nnote: run with `RUST_BACKTRACE=1`\n",
        );
        assert_eq!(
            stdio.panic_message().as_deref(),
            Some("panicked at src/lib.rs:3:5:\nno\nmilk")
        );
    }
}
