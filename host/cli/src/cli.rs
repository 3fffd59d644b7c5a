//! The command line: what the words are, and which file does what they say.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::{Exit, Outcome};
use crate::output::Format;
use crate::{
    audit, build, cancellations, completions, deploy, doctor, events, functions, invoke, keys, modules, new,
    nodes, runs, schedules, start, terminal,
};

/// What scripts rely on.
const EXIT_CODES: &str = "\
Exit codes:
  0 ok                    1 the run or the build failed    2 usage
  3 not found             4 not allowed                    5 unavailable
  6 refused               7 --wait timed out              70 a bug in dormouse";

/// Write a function as if it never crashes. Compile it to Wasm, upload it, send events.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

/// What every client command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The server's address; http://127.0.0.1:8288 when not given
    #[arg(
        long,
        global = true,
        env = "DORMOUSE_URL",
        value_name = "URL",
        help_heading = "Global options"
    )]
    #[arg(hide_env_values = true)]
    pub(crate) url: Option<String>,

    /// The API key, or the event key for `events send`; better given as DORMOUSE_KEY
    #[arg(
        long,
        global = true,
        env = "DORMOUSE_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    #[arg(help_heading = "Global options")]
    pub(crate) key: Option<String>,

    /// How data is written to stdout
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server
    Start(start::Start),
    /// Make a project with a first function
    New(new::New),
    /// Build a project into a component
    Build(build::Build),
    /// Upload a module and make it the active version
    Deploy(deploy::Deploy),
    /// Start a run of one function
    Invoke(invoke::Invoke),
    /// Send and list events
    #[command(subcommand)]
    Events(events::Events),
    /// Look at runs, cancel them, wake them, pause them
    #[command(subcommand)]
    Runs(runs::Runs),
    /// End many runs with one command
    #[command(subcommand)]
    Cancellations(cancellations::Cancellations),
    /// Look at modules and their versions, choose and delete versions
    #[command(subcommand)]
    Modules(modules::Modules),
    /// Look at functions, pause them
    #[command(subcommand)]
    Functions(functions::Functions),
    /// Look at when functions start by the clock
    #[command(subcommand)]
    Schedules(schedules::Schedules),
    /// Make keys, list and revoke them
    #[command(subcommand)]
    Keys(keys::Keys),
    /// See who asked for what
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Look at nodes
    #[command(subcommand)]
    Nodes(nodes::Nodes),
    /// Check that this machine can build, and that the server answers
    Doctor(doctor::Doctor),
    /// Print the completions for a shell
    Completions(completions::Completions),
}

/// The whole program.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    // The panic's message and place are on stderr by then.
    match std::panic::catch_unwind(AssertUnwindSafe(|| dispatch(cli))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.report(),
        Err(_) => {
            terminal::say("error: this is a bug in dormouse; please report it with what is above");
            Exit::Bug.into()
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Start(start) => start.run(),
        Command::New(new) => new.run(),
        Command::Build(build) => build.run(global),
        Command::Completions(completions) => completions.run::<Cli>(),
        Command::Deploy(deploy) => client(deploy.run(global)),
        Command::Invoke(invoke) => client(invoke.run(global)),
        Command::Events(events) => client(events.run(global)),
        Command::Runs(runs) => client(runs.run(global)),
        Command::Cancellations(cancellations) => client(cancellations.run(global)),
        Command::Modules(modules) => client(modules.run(global)),
        Command::Functions(functions) => client(functions.run(global)),
        Command::Schedules(schedules) => client(schedules.run(global)),
        Command::Keys(keys) => client(keys.run(global)),
        Command::Audit(audit) => client(audit.run(global)),
        Command::Nodes(nodes) => client(nodes.run(global)),
        Command::Doctor(doctor) => client(doctor.run(global)),
    }
}

/// Runs a client command: one thread is enough for talking to one server.
fn client(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a thread's own runtime needs nothing that could be missing")
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
