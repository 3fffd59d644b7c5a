//! `dormouse doctor`: what of the local tools and of the server is in order, and what to do about the rest.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Table, text};
use crate::start::DATA_DIR_DEFAULT;
use crate::wasm_target::{Compiler, TARGET, ask};

/// Check that this machine can build, and that the server answers
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The data directory of a server on this machine
    #[arg(long, env = "DORMOUSE_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT, value_name = "DIR")]
    data_dir: PathBuf,
}

/// What one check came to: a fact, or what is wrong.
type Finding = Result<String, Failure>;

impl Doctor {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let here = Path::new(".");
        let findings = [
            ("cargo", version("cargo", here)),
            ("rustc", version("rustc", here)),
            (TARGET, target(here)),
            ("data directory", data_dir(&self.data_dir)),
            ("server", server(global).await),
        ];
        let data = findings.iter().map(|(check, finding)| match finding {
            Ok(fact) => json!({"check": check, "ok": true, "message": fact}),
            Err(failure) => {
                json!({"check": check, "ok": false, "message": failure.message, "help": failure.help})
            }
        });
        let data: Value = data.collect();
        global.output.write(&data, || {
            let mut table = Table::new(&["check", "", "finding"]);
            for check in data.as_array().into_iter().flatten() {
                let state = if check["ok"] == true { "ok" } else { "error" };
                table.row([text(check, "check"), state.to_owned(), text(check, "message")]);
                if let Some(help) = check["help"].as_str() {
                    table.row(["", "", &format!("→ {help}")]);
                }
            }
            table.text("")
        })?;
        match findings.iter().filter(|(_, finding)| finding.is_err()).count() {
            0 => Ok(()),
            wrong => Err(Failure::new(
                Exit::Unavailable,
                format!("{wrong} of {} checks found something wrong", findings.len()),
            )),
        }
    }
}

fn version(tool: &str, directory: &Path) -> Finding {
    let output = ask(tool, &["--version"], directory)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn target(directory: &Path) -> Finding {
    Ok(match Compiler::find(directory)? {
        Compiler::Default => "the default toolchain has it".to_owned(),
        Compiler::Other(rustc) => format!("with {}", rustc.display()),
    })
}

/// What `start` wrote there, and whether this user can use it.
fn data_dir(path: &Path) -> Finding {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(format!(
            "{} is not there yet; `dormouse start` makes it",
            path.display()
        ));
    };
    let help = "choose another one with --data-dir";
    if !metadata.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", path.display())).help(help));
    }
    if metadata.permissions().readonly() {
        return Err(Failure::usage(format!("{} is read-only", path.display())).help(help));
    }
    let server = std::fs::read_to_string(path.join("server.json")).ok();
    let server: Option<Value> = server.and_then(|text| serde_json::from_str(&text).ok());
    Ok(match server {
        Some(server) => format!(
            "{}; last served by process {} at {}",
            path.display(),
            server["pid"],
            text(&server, "url")
        ),
        None => path.display().to_string(),
    })
}

async fn server(global: &Global) -> Finding {
    let client = Client::new(global, None)?;
    client.request(reqwest::Method::GET, &["health"]).send().await?;
    client.request(reqwest::Method::GET, &["ready"]).send().await?;
    Ok(format!("{} is ready", client.address()))
}
