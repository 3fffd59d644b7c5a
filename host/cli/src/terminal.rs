//! What the terminal can do: whether anyone looks, how wide it is, whether to colour. And talk, which goes to stderr.
//!
//! `NO_COLOR` and `CLICOLOR_FORCE` are read by the `console` crate.

use std::io::{IsTerminal, Write};

use console::Term;

/// Says a line on stderr. A stderr that is gone is nobody's loss.
pub(crate) fn say(line: impl AsRef<str>) {
    // In one write, so that lines of several processes don't run into each other.
    let _ = std::io::stderr().write_all(format!("{}\n", line.as_ref()).as_bytes());
}

/// Whether stderr is a terminal that can be redrawn.
pub(crate) fn is_live() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The width of stderr's terminal in columns.
pub(crate) fn width() -> usize {
    usize::from(Term::stderr().size().1).max(20)
}

/// The part of the screen that is drawn over again, at the end of stderr.
pub(crate) struct Screen {
    drawn: usize,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { drawn: 0 }
    }

    /// Replaces what was drawn. Lines are cut at the terminal's width, because a wrapped line could not be undone.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        let width = width();
        let height = usize::from(Term::stderr().size().0).max(4) - 1;
        // Of what does not fit, the end matters: that is where it moves.
        let hidden = lines.len().saturating_sub(height);
        let mut text = self.undo();
        for line in &lines[hidden..] {
            text += &console::truncate_str(line, width, "…");
            text.push('\n');
        }
        self.drawn = lines.len() - hidden;
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Says a line above what is drawn, where it stays.
    pub(crate) fn say(&mut self, line: &str) {
        let text = self.undo() + line + "\n";
        self.drawn = 0;
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn undo(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}
