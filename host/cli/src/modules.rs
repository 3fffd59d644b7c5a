//! `dormouse modules`: list, versions, activate, delete.

use std::io::{BufRead, IsTerminal};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::Client;
use crate::deploy::{Policy, in_flight};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Format, Table, ago, short_digest, text};
use crate::terminal;
use crate::units::show_bytes;

#[derive(Debug, Subcommand)]
pub(crate) enum Modules {
    /// List the modules with their active versions
    List,
    /// List the versions of a module
    Versions {
        /// The module
        module: String,
    },
    /// Make a version the active one, to roll back or forth
    Activate(Activate),
    /// Delete a version that no run needs
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Activate {
    /// The module
    module: String,

    /// The version: its digest, or as much of its beginning as no other version shares
    version: String,

    /// What happens to runs in flight; when not given, `pin`, or what was said before where the version is active already
    #[arg(long, value_enum)]
    policy: Option<Policy>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The module
    module: String,

    /// The version: its digest, or as much of its beginning as no other version shares
    version: String,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Modules {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        match self {
            Modules::List => list(&client, global.output).await,
            Modules::Versions { module } => versions(&client, &module, global.output).await,
            Modules::Activate(activate) => activate.run(&client, global.output).await,
            Modules::Delete(delete) => delete.run(&client).await,
        }
    }
}

async fn list(client: &Client, format: Format) -> Outcome {
    let data = client.get(&["v1", "modules"]).await?;
    format.write(&data, || {
        let mut table = Table::new(&["module", "active version", "size", "uploaded", "functions"]);
        for module in data.as_array().into_iter().flatten() {
            let functions = module["functions"].as_array().into_iter().flatten();
            let functions: Vec<String> = functions.map(|function| text(function, "id")).collect();
            let version = text(module, "version");
            let version = short_digest(&version).to_owned();
            let size = size(module);
            table.row([
                text(module, "module"),
                version,
                size,
                ago(module, "uploaded_at"),
                functions.join(", "),
            ]);
        }
        table.text("no modules; upload one with `dormouse deploy`")
    })
}

async fn versions(client: &Client, module: &str, format: Format) -> Outcome {
    let data = client.get(&["v1", "modules", module, "versions"]).await?;
    format.write(&data, || {
        let mut table = Table::new(&["version", "", "size", "uploaded", "live runs", "message"]);
        for version in data.as_array().into_iter().flatten() {
            let digest = text(version, "version");
            let active = match (version["active"] == true, version["policy"].as_str()) {
                (false, _) => String::new(),
                (true, None | Some("pin")) => "active".to_owned(),
                (true, Some(policy)) => format!("active, {policy}"),
            };
            let (size, uploaded) = (size(version), ago(version, "uploaded_at"));
            let (runs, message) = (text(version, "live_runs"), text(version, "message"));
            table.row([short_digest(&digest), &active, &size, &uploaded, &runs, &message]);
        }
        table.text("no versions")
    })
}

impl Activate {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let version = resolve(client, &self.module, &self.version).await?;
        let body = json!({"version": version, "policy": self.policy.map(Policy::as_str)});
        let request = client.request(Method::POST, &["v1", "modules", &self.module, "activate"]);
        let data = request.json(&body).data().await?;
        let module = &self.module;
        format.write(&data, || {
            terminal::say(format!("{module} is now at {}", short_digest(&version)));
            terminal::say(in_flight(&data));
            version.clone()
        })
    }
}

impl Delete {
    async fn run(self, client: &Client) -> Outcome {
        let version = resolve(client, &self.module, &self.version).await?;
        if !self.yes {
            confirm(&format!(
                "delete {} of module {}, for ever?",
                short_digest(&version),
                self.module
            ))?;
        }
        let path = ["v1", "modules", &self.module, "versions", &version];
        client.request(Method::DELETE, &path).answer().await?;
        terminal::say(format!("deleted {version}"));
        Ok(())
    }
}

/// The one version whose digest begins as given.
pub(crate) async fn resolve(client: &Client, module: &str, given: &str) -> Outcome<String> {
    let data = client.get(&["v1", "modules", module, "versions"]).await?;
    let digests = data
        .as_array()
        .into_iter()
        .flatten()
        .map(|version| text(version, "version"));
    one_of(digests.collect(), module, given)
}

fn one_of(digests: Vec<String>, module: &str, given: &str) -> Outcome<String> {
    let begins = |digest: &&String| {
        digest.starts_with(given) || digest.trim_start_matches("sha256:").starts_with(given)
    };
    let matching: Vec<&String> = digests.iter().filter(begins).collect();
    let look = format!("see them with: dormouse modules versions {module}");
    match matching.as_slice() {
        _ if given.is_empty() => Err(Failure::usage("the version is empty").help(look)),
        [digest] => Ok((*digest).clone()),
        [] => Err(Failure::new(Exit::NotFound, format!("module {module} has no version {given}")).help(look)),
        many => {
            let message = format!("{} versions of module {module} begin with {given}", many.len());
            Err(Failure::usage(message).help(look))
        }
    }
}

/// Asks on a terminal; elsewhere refuses, because nobody can answer.
fn confirm(question: &str) -> Outcome {
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::usage("this cannot be undone, and nobody is there to confirm it").help("add --yes"),
        );
    }
    terminal::say(format!("{question} [y/N]"));
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::usage("not confirmed, so nothing was done"))
}

/// A version's size for people.
fn size(version: &Value) -> String {
    version["size"].as_u64().map(show_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_be_given_by_its_beginning() {
        let digests = || vec!["sha256:abc1".to_owned(), "sha256:abd2".to_owned()];
        for given in ["sha256:abc1", "sha256:abc", "abc"] {
            assert_eq!(one_of(digests(), "m", given).expect(given), "sha256:abc1");
        }
        assert_eq!(one_of(digests(), "m", "ab").expect_err("two").exit, Exit::Usage);
        assert_eq!(one_of(digests(), "m", "").expect_err("empty").exit, Exit::Usage);
        assert_eq!(
            one_of(digests(), "m", "ff").expect_err("none").exit,
            Exit::NotFound
        );
    }
}
