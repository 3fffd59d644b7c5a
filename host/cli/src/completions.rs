//! `dormouse completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Outcome;

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dormouse completions bash > ~/.local/share/bash-completion/completions/dormouse\n  \
                        dormouse completions zsh > \"${fpath[1]}/_dormouse\"\n  \
                        dormouse completions fish > ~/.config/fish/completions/dormouse.fish"
)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run<C: CommandFactory>(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut C::command(), "dormouse", &mut script);
        crate::output::write(String::from_utf8_lossy(&script).trim_end())
    }
}
