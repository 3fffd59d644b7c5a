//! `dormouse deploy`: builds a project, or takes a component, and uploads it.

mod plan;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::stream;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method};
use serde_json::Value;

use crate::build;
use crate::cli::Global;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::{short_digest, text};
use crate::project::{self, Project};
use crate::terminal;

/// The server compiles before it answers, and one compiles at a time.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(300);
/// How much is handed to the connection at a time: what the progress bar moves by.
const PIECE_BYTES: usize = 64 << 10;

/// What happens to runs in flight when another version becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// They end on the version that they have
    Pin,
    /// They go over to the new version with the next thing they do, where it agrees with their journals
    Migrate,
    /// They begin again on the new version
    Restart,
}

impl Policy {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Policy::Pin => "pin",
            Policy::Migrate => "migrate",
            Policy::Restart => "restart",
        }
    }
}

/// Upload a module and make it the active version; prints the version
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dormouse deploy\n  dormouse deploy target/wasm32-wasip2/release/hello.wasm --module hello"
)]
pub(crate) struct Deploy {
    /// A project, which is built first, or a component
    #[arg(default_value = ".", value_name = "PATH|FILE.wasm")]
    path: PathBuf,

    /// The module's name, instead of the project's or the file's
    #[arg(long, value_name = "NAME")]
    module: Option<String>,

    /// What happens to runs in flight; when not given, `pin`, or what was said before where the version is active already
    #[arg(long, value_enum)]
    policy: Option<Policy>,

    /// A note for people, kept with the version
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,

    /// Show what the version would do to runs in flight, and change nothing
    #[arg(long)]
    plan: bool,
}

impl Deploy {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let (file, name, url) = if self.path.is_file() {
            (self.path.clone(), name_of_file(&self.path), None)
        } else {
            let project = Project::find(&self.path)?;
            (build::build(&project)?.path, project.module, project.url)
        };
        let module = self.module.clone().unwrap_or(name);
        project::check_name(&module)
            .map_err(|failure| failure.help("give the module's name with --module"))?;
        let client = Client::new(global, url.as_deref())?;
        let component = std::fs::read(&file).map_err(|error| Failure::file("read", &file, &error))?;

        let data = self.upload(&client, &module, component).await?;
        if self.plan {
            global.output.write(&data, || plan::tell(&data))?;
            return plan::outcome(&data);
        }
        global.output.write(&data, || tell(&data, &module, &client))
    }

    async fn upload(&self, client: &Client, module: &str, component: Vec<u8>) -> Outcome<Value> {
        let size = component.len() as u64;
        let bar = progress(module, size);
        let request = if self.plan {
            client.request(Method::POST, &["v1", "modules", module, "preflight"])
        } else {
            client.request(Method::PUT, &["v1", "modules", module])
        };
        let request = request.query("policy", self.policy.map(Policy::as_str));
        let message = match &self.message {
            Some(text) => Some(HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
                Failure::usage("the message has characters that a header cannot carry")
                    .help("write it in one line")
            })?),
            None => None,
        };
        let body = Body::wrap_stream(pieces(component, bar.clone()));
        let answer = request
            .timeout(Some(DEPLOY_TIMEOUT))
            .with(|mut builder| {
                if let Some(message) = message {
                    builder = builder.header("x-dormouse-message", message);
                }
                builder
                    .header(CONTENT_TYPE, "application/wasm")
                    .header(CONTENT_LENGTH, size)
                    .body(body)
            })
            .data()
            .await;
        bar.finish_and_clear();
        answer
    }
}

/// A component in pieces, which move the bar as they are taken.
fn pieces(
    component: Vec<u8>,
    bar: ProgressBar,
) -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    let count = component.len().div_ceil(PIECE_BYTES);
    stream::iter((0..count).map(move |index| {
        let start = index * PIECE_BYTES;
        let piece = component[start..component.len().min(start + PIECE_BYTES)].to_vec();
        bar.inc(piece.len() as u64);
        if index + 1 == count {
            bar.set_message("checking and compiling");
        }
        Ok(piece)
    }))
}

/// A bar on a terminal, nothing elsewhere.
fn progress(module: &str, size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size);
    let style = ProgressStyle::with_template("{spinner} {prefix} [{bar:24}] {bytes}/{total_bytes} {msg}");
    bar.set_style(style.expect("the template is right").progress_chars("=> "));
    bar.set_prefix(module.to_owned());
    bar.set_message("uploading");
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Says what became of it; answers what goes to stdout.
fn tell(data: &Value, module: &str, client: &Client) -> String {
    let version = text(data, "version");
    let previous = text(data, "previous");
    let short = short_digest(&version);
    terminal::say(match previous.as_str() {
        _ if data["new"] == false => format!("{module} is at {short}, which was uploaded before"),
        "" => format!("{module} is at {short}"),
        previous => format!(
            "{module} is at {short}; before it was at {}",
            short_digest(previous)
        ),
    });
    terminal::say(in_flight(data));
    for function in data["functions"].as_array().into_iter().flatten() {
        let id = function
            .as_str()
            .map(str::to_owned)
            .unwrap_or_else(|| text(function, "id"));
        let id = if id.contains('/') {
            id
        } else {
            format!("{module}/{id}")
        };
        terminal::say(format!("  {id}  start it with: dormouse invoke {id} --wait"));
    }
    terminal::say(format!("  {}/modules", client.address()));
    version
}

/// What becomes of runs in flight, as the server has answered.
pub(crate) fn in_flight(data: &Value) -> &'static str {
    match data["policy"].as_str() {
        Some("migrate") => {
            "  runs in flight go over to it with the next thing they do, where it agrees with their journals"
        }
        Some("restart") => "  runs in flight begin again on it",
        _ => "  runs in flight end on the version that they have",
    }
}

/// `hello_world.wasm` is the module `hello-world`.
fn name_of_file(file: &Path) -> String {
    file.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[test]
    fn the_pieces_are_the_whole() {
        let component: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|index| index as u8).collect();
        let bar = ProgressBar::hidden();
        let pieces = futures::executor::block_on(pieces(component.clone(), bar.clone()).collect::<Vec<_>>());
        let pieces: Vec<Vec<u8>> = pieces
            .into_iter()
            .map(|piece| piece.expect("in memory"))
            .collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces.concat(), component);
        assert_eq!(bar.position(), component.len() as u64);
    }
}
