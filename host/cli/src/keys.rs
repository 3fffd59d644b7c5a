//! `dormouse keys`: create, list, revoke: at a server, or at its database while none runs.

mod offline;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, Table, ago, text};
use crate::{terminal, units};

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key; prints it, this once
    ///
    /// Until there is an API key the server is open, on loopback addresses. The first one closes it, for good: it must have the
    /// role admin and not expire.
    #[command(after_help = "Examples:\n  dormouse keys create --name ada --role admin\n  \
                            dormouse keys create --name web --event\n  \
                            dormouse keys create --name ci --role deployer --module shop --expires 90d\n  \
                            dormouse keys create --name ada --role admin --data-dir /var/lib/dormouse")]
    Create(Create),
    /// List the keys, those that were revoked too
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Revoke a key: good for nothing from now on
    Revoke {
        /// Its id, as `keys list` shows it
        id: String,

        #[command(flatten)]
        place: Place,
    },
}

/// Without a server.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Do it in this data directory, whose server is stopped, instead of asking a server
    #[arg(long, value_name = "DIR", conflicts_with = "database_url")]
    data_dir: Option<PathBuf>,

    /// Do it in this database instead of asking a server
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

impl Place {
    fn is_offline(&self) -> bool {
        self.data_dir.is_some() || self.database_url.is_some()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Look
    Viewer,
    /// And start, cancel, rerun, wake, pause
    Operator,
    /// And upload, activate and delete versions
    Deployer,
    /// And make keys, and read the audit log
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Deployer => "deployer",
            Role::Admin => "admin",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What people call it
    #[arg(long)]
    name: String,

    /// An event key: it sends events and does nothing else
    #[arg(long, conflicts_with_all = ["role", "modules", "payloads"])]
    event: bool,

    /// What its holder may do
    #[arg(long, value_enum, required_unless_present = "event")]
    role: Option<Role>,

    /// Only with this module; may be given several times
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,

    /// Its holder sees event data, outputs, messages of errors, logs and journals; an admin always does
    #[arg(long)]
    payloads: bool,

    /// For how long it is good, as 12h or 90d; for ever when not given
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires: Option<Duration>,

    #[command(flatten)]
    place: Place,
}

/// Keys live for days, which other durations don't.
fn lifetime(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
        Some(days @ 1..=36_500) => Ok(Duration::from_secs(days * 86_400)),
        _ => units::duration(text),
    }
}

impl Keys {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Keys::Create(create) => create.run(global).await,
            Keys::List { place } => list(global, place).await,
            Keys::Revoke { id, place } => {
                let data = match place.is_offline() {
                    true => offline::revoke(place, &id).await?,
                    false => {
                        let client = Client::new(global, None)?;
                        let request = client.request(Method::DELETE, &["v1", "keys", &id]);
                        request.data().await?
                    }
                };
                let word = match data["changed"].as_bool() {
                    Some(false) => "was revoked before",
                    _ => "is revoked",
                };
                terminal::say(format!("key {id} ({}) {word}", text(&data, "name")));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, global: &Global) -> Outcome {
        let mut wanted = json!({
            "name": self.name,
            "kind": if self.event { "event" } else { "api" },
        });
        if let Some(role) = self.role {
            wanted["role"] = role.word().into();
        }
        if !self.modules.is_empty() {
            wanted["modules"] = self.modules.into();
        }
        if self.payloads {
            wanted["payloads"] = true.into();
        }
        if let Some(lifetime) = self.expires {
            let at = jiff::Timestamp::now()
                .checked_add(lifetime)
                .map_err(|error| Failure::usage(format!("--expires: {error}")))?;
            wanted["expires_at"] = format!("{at:.3}").into();
        }
        let data = match self.place.is_offline() {
            true => offline::create(self.place, wanted).await?,
            false => {
                let client = Client::new(global, None)?;
                let request = client.request(Method::POST, &["v1", "keys"]);
                request.json(&wanted).data().await?
            }
        };
        if global.output == Format::Table {
            let id = text(&data, "id");
            terminal::say(format!(
                "made key {id}; keep what is printed, nobody can show it again"
            ));
        }
        global.output.write(&data, || text(&data, "key"))
    }
}

async fn list(global: &Global, place: Place) -> Outcome {
    let data = match place.is_offline() {
        true => offline::list(place).await?,
        false => Client::new(global, None)?.get(&["v1", "keys"]).await?,
    };
    global.output.write(&data, || {
        let mut table = Table::new(&[
            "key", "name", "kind", "role", "modules", "payloads", "status", "created", "by", "expires",
        ]);
        for key in data.as_array().into_iter().flatten() {
            table.row([
                text(key, "id"),
                text(key, "name"),
                text(key, "kind"),
                text(key, "role"),
                modules(key),
                match key["payloads"].as_bool() {
                    Some(true) => "yes".to_owned(),
                    _ => String::new(),
                },
                text(key, "status"),
                ago(key, "created_at"),
                text(key, "created_by"),
                text(key, "expires_at"),
            ]);
        }
        table.text("no keys: the server is open, on loopback addresses")
    })
}

fn modules(key: &Value) -> String {
    let modules = key["modules"].as_array().into_iter().flatten();
    modules.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_live_for_days() {
        assert_eq!(lifetime("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(lifetime("12h"), Ok(Duration::from_secs(12 * 3_600)));
        for wrong in ["0d", "d", "-1d", "soon", "999999d"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
