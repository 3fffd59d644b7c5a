//! `dormouse build`: compiles a project to a component with cargo, whose own output is shown.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::failure::{Exit, Failure, Outcome};
use crate::project::Project;
use crate::terminal;
use crate::units::{show_bytes, show_duration};
use crate::wasm_target::{Compiler, TARGET, ask};

/// Build a project into a component; prints its path and size
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The project
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// A component that was built.
#[derive(Debug)]
pub(crate) struct Artefact {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

impl Build {
    pub(crate) fn run(self, global: &Global) -> Outcome {
        let project = Project::find(&self.path)?;
        let artefact = build(&project)?;
        let path = artefact.path.display().to_string();
        let data = json!({"module": project.module, "path": path, "bytes": artefact.bytes});
        global
            .output
            .write(&data, || format!("{path}  {}", show_bytes(artefact.bytes)))
    }
}

/// Builds a project. Cargo's progress and messages go to stderr, as cargo colours them.
pub(crate) fn build(project: &Project) -> Outcome<Artefact> {
    let started = Instant::now();
    ask("cargo", &["--version"], &project.directory)?;
    let compiler = Compiler::find(&project.directory)?;
    let mut cargo = compiler.cargo(&project.directory);
    cargo.args([
        "build",
        "--lib",
        "--release",
        "--target",
        TARGET,
        "--message-format",
        "json-render-diagnostics",
    ]);
    cargo.stdout(Stdio::piped());
    let cannot =
        |error: std::io::Error| Failure::new(Exit::Unavailable, format!("cargo cannot be run: {error}"));
    let mut running = cargo.spawn().map_err(cannot)?;
    let artefact = artefact(
        running.stdout.take().expect("stdout is a pipe"),
        &project.directory.join("Cargo.toml"),
    );
    let status = running.wait().map_err(cannot)?;
    if !status.success() {
        return Err(Failure::new(
            Exit::RunFailed,
            format!("building {} failed, see above", project.module),
        ));
    }
    let path = artefact.ok_or_else(|| {
        Failure::usage("the build made no component")
            .at(project.directory.join("Cargo.toml").display())
            .help("a module is a library of this kind:\n\n    [lib]\n    crate-type = [\"cdylib\"]\n")
    })?;
    let bytes = std::fs::metadata(&path)
        .map_err(|error| Failure::file("read", &path, &error))?
        .len();
    let took = jiff::SignedDuration::try_from(started.elapsed()).unwrap_or_default();
    terminal::say(format!("built {} in {}", project.module, show_duration(took)));
    Ok(Artefact { path, bytes })
}

/// The component that cargo says it made of this package: the last one, for there is one library in a package.
fn artefact(messages: impl Read, manifest: &std::path::Path) -> Option<PathBuf> {
    let mut found = None;
    for line in BufReader::new(messages).lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if message["reason"] != "compiler-artifact"
            || message["manifest_path"].as_str().map(PathBuf::from).as_deref() != Some(manifest)
        {
            continue;
        }
        let files = message["filenames"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        found = files
            .filter(|file| file.ends_with(".wasm"))
            .map(PathBuf::from)
            .next_back()
            .or(found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_what_cargo_says_of_this_package() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","filenames":["/t/other.wasm"]}"#,
            "\n",
            "not json\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","filenames":["/t/p.wasm","/t/p.d"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let manifest = std::path::Path::new("/p/Cargo.toml");
        assert_eq!(
            artefact(messages.as_bytes(), manifest),
            Some(PathBuf::from("/t/p.wasm"))
        );
        assert_eq!(artefact("{}".as_bytes(), manifest), None);
    }
}
