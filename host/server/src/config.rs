//! The configuration file: what modules may use, limits, retention.
//!
//! It is read at start and on SIGHUP; an invalid one leaves the old in force. What concerns runs is stored as a
//! revision, and a run keeps the revision it started with. Absent on purpose: how the server itself is started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::secret::Secret;
use dormouse_core::limit::ModuleLimits;
use dormouse_core::{Json, name};
use serde::{Deserialize, Serialize};

/// A configuration file as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    modules: BTreeMap<String, FileModule>,
    limits: FileLimits,
    retention: FileRetention,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileModule {
    databases: BTreeMap<String, FileDatabase>,
    http: Vec<String>,
    secrets: BTreeMap<String, Secret>,
    config: BTreeMap<String, serde_json::Value>,
    limits: FileLimits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDatabase {
    url: String,
    migrations: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileLimits {
    memory_bytes: Option<usize>,
    cpu_ms: Option<u64>,
    stretch_ms: Option<u64>,
    body_cpu_ms: Option<u64>,
    body_ms: Option<u64>,
    stdio_bytes: Option<usize>,
}

impl FileLimits {
    fn over(self, base: ModuleLimits) -> ModuleLimits {
        ModuleLimits {
            memory_bytes: self.memory_bytes.unwrap_or(base.memory_bytes),
            cpu_ms: self.cpu_ms.unwrap_or(base.cpu_ms),
            stretch_ms: self.stretch_ms.unwrap_or(base.stretch_ms),
            body_cpu_ms: self.body_cpu_ms.unwrap_or(base.body_cpu_ms),
            body_ms: self.body_ms.unwrap_or(base.body_ms),
            stdio_bytes: self.stdio_bytes.unwrap_or(base.stdio_bytes),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileRetention {
    runs: Option<String>,
}

/// What concerns runs: the part that is kept as a revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Grants {
    /// For each module named in the file.
    pub modules: BTreeMap<String, ModuleGrants>,
    /// For modules that are not named, and where a module does not say.
    pub limits: ModuleLimits,
}

/// What one module may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModuleGrants {
    /// Application databases by name.
    pub databases: BTreeMap<String, Database>,
    /// Hosts that bodies may reach.
    pub http: Vec<String>,
    /// Where its secrets are, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Configuration values.
    pub config: BTreeMap<String, Json>,
    /// Its limits.
    pub limits: ModuleLimits,
}

/// An application database.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// `sqlite:` and an absolute path, or `postgres://…`, which may have a password.
    pub url: String,
    /// A directory of `NNNN_name.sql` files that are applied at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<PathBuf>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is before the last @ may have a password.
        let shown = match self.url.rsplit_once('@') {
            Some((_, place)) => format!("…@{place}"),
            None => self.url.clone(),
        };
        f.debug_struct("Database")
            .field("url", &shown)
            .field("migrations", &self.migrations)
            .finish()
    }
}

/// The configuration in force.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What runs keep.
    pub grants: Grants,
    /// For how long runs are kept after their end. None: for ever.
    pub retention: Option<Duration>,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Config {
    /// Reads a file; none is the empty configuration.
    ///
    /// # Errors
    /// What is wrong and where in the file.
    pub fn read(path: Option<&Path>) -> Result<Config, Invalid> {
        let Some(path) = path else {
            return Ok(Config::default());
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Invalid(format!(
                "the configuration file {} cannot be read: {error}",
                path.display()
            ))
        })?;
        let base = std::path::absolute(path)
            .ok()
            .and_then(|path| path.parent().map(Path::to_path_buf))
            .unwrap_or_default();
        Config::parse(&text, &base).map_err(|error| Invalid(format!("{}: {error}", path.display())))
    }

    /// Reads a text; relative paths in it are relative to `base`.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(text: &str, base: &Path) -> Result<Config, Invalid> {
        let file: File = toml::from_str(text).map_err(|error| Invalid(error.to_string()))?;
        let limits = file.limits.over(ModuleLimits::default());
        check_limits("limits", limits)?;
        let mut modules = BTreeMap::new();
        for (module, written) in file.modules {
            name::check(&module).map_err(|error| Invalid(format!("modules: {error}")))?;
            let grants = grants(&module, written, limits, base)?;
            modules.insert(module, grants);
        }
        let retention = match file.retention.runs {
            Some(text) => Some(parse_duration(&text).ok_or_else(|| {
                Invalid(format!(
                    "retention.runs: \"{text}\" is not a duration such as \"30d\", \"12h\" or \"90s\""
                ))
            })?),
            None => None,
        };
        Ok(Config {
            grants: Grants { modules, limits },
            retention,
        })
    }
}

impl Grants {
    /// What a module may use; nothing, when it is not named.
    pub fn module(&self, module: &str) -> ModuleGrants {
        match self.modules.get(module) {
            Some(grants) => grants.clone(),
            None => ModuleGrants {
                limits: self.limits,
                ..ModuleGrants::default()
            },
        }
    }
}

fn grants(
    module: &str,
    written: FileModule,
    limits: ModuleLimits,
    base: &Path,
) -> Result<ModuleGrants, Invalid> {
    let at = |what: &str| format!("modules.{module}.{what}");
    dormouse_engine::HttpPolicy::parse(&written.http)
        .map_err(|error| Invalid(format!("{}: {error}", at("http"))))?;
    let mut databases = BTreeMap::new();
    for (name, database) in written.databases {
        let place = at(&format!("databases.{name}.url"));
        let url = address(&database.url, base).map_err(|reason| Invalid(format!("{place}: {reason}")))?;
        let migrations = database.migrations.map(|directory| base.join(directory));
        databases.insert(name, Database { url, migrations });
    }
    let mut config = BTreeMap::new();
    for (key, value) in written.config {
        let json = Json::from_value(&value).map_err(|error| Invalid(format!("{}: {error}", at("config"))))?;
        config.insert(key, json);
    }
    let mut secrets = BTreeMap::new();
    for (name, secret) in written.secrets {
        let secret = match secret {
            Secret::Env(variable) if variable.is_empty() || variable.contains(['=', '\0']) => {
                let place = at(&format!("secrets.{name}.env"));
                return Err(Invalid(format!(
                    "{place}: \"{variable}\" is not the name of a variable"
                )));
            }
            Secret::File(path) => Secret::File(base.join(path)),
            env => env,
        };
        secrets.insert(name, secret);
    }
    let limits = written.limits.over(limits);
    check_limits(&at("limits"), limits)?;
    Ok(ModuleGrants {
        databases,
        http: written.http,
        secrets,
        config,
        limits,
    })
}

/// A database's address, its path absolute.
fn address(url: &str, base: &Path) -> Result<String, String> {
    if crate::sql::is_postgres(url) {
        return crate::sql::check_postgres(url).map(|()| url.to_owned());
    }
    match url.strip_prefix("sqlite:") {
        Some(path) => {
            let path = base.join(path.trim_start_matches("//"));
            Ok(format!("sqlite:{}", path.display()))
        }
        None => {
            let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
            Err(format!(
                "\"{scheme}\" is not supported: write sqlite:PATH or postgres://USER@HOST/DATABASE"
            ))
        }
    }
}

fn check_limits(place: &str, limits: ModuleLimits) -> Result<(), Invalid> {
    let zero = [
        ("memory_bytes", limits.memory_bytes == 0),
        ("cpu_ms", limits.cpu_ms == 0),
        ("stretch_ms", limits.stretch_ms == 0),
        ("body_cpu_ms", limits.body_cpu_ms == 0),
        ("body_ms", limits.body_ms == 0),
    ];
    match zero.into_iter().find(|(_, zero)| *zero) {
        Some((name, _)) => Err(Invalid(format!("{place}.{name} must be at least 1"))),
        None => Ok(()),
    }
}

/// Reads `90s`, `5m`, `12h` or `30d`.
fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grants_relative_to_the_file() {
        let text = r#"
            [modules.create-workflow]
            databases.app = { url = "sqlite:data/app.db", migrations = "migrations" }
            databases.big = { url = "postgres://app:unspoken@db.example/big?sslmode=require", migrations = "m" }
            http = ["127.0.0.1:9999"]
            secrets.key = { env = "KEY" }
            secrets.other = { file = "other" }
            config = { sink = "x", n = 3 }
            limits = { memory_bytes = 1000000 }
            [retention]
            runs = "30d"
        "#;
        let config = Config::parse(text, Path::new("/etc/dormouse")).expect("valid");
        let grants = config.grants.module("create-workflow");
        assert_eq!(grants.databases["app"].url, "sqlite:/etc/dormouse/data/app.db");
        let big = &grants.databases["big"];
        assert_eq!(big.url, "postgres://app:unspoken@db.example/big?sslmode=require");
        assert_eq!(big.migrations.as_deref(), Some(Path::new("/etc/dormouse/m")));
        let shown = format!("{grants:?}");
        assert!(
            shown.contains("…@db.example/big") && !shown.contains("unspoken"),
            "{shown}"
        );
        assert_eq!(grants.secrets["key"], Secret::Env("KEY".to_owned()));
        assert_eq!(
            grants.secrets["other"],
            Secret::File("/etc/dormouse/other".into())
        );
        assert_eq!(grants.config["n"].as_str(), "3");
        assert_eq!(grants.limits.memory_bytes, 1_000_000);
        assert_eq!(config.retention, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(config.grants.module("other").http, Vec::<String>::new());
    }

    #[test]
    fn refuses_what_it_does_not_know_by_name() {
        for (text, word) in [
            ("[modules.a]\nhttps = []", "https"),
            ("[modules.A]", "\"A\""),
            ("[modules.a]\ndatabases.x = { url = \"mysql:x\" }", "mysql"),
            (
                "[modules.a]\ndatabases.x = { url = \"postgres://u@h:port/x\" }",
                "modules.a.databases.x.url: invalid port",
            ),
            ("[modules.a.limits]\ncpu_ms = 0", "cpu_ms"),
            (
                "[modules.a]\nsecrets.k = { env = \"\" }",
                "modules.a.secrets.k.env",
            ),
            ("[modules.a]\nsecrets.k = { value = \"x\" }", "value"),
            ("[modules.a]\nsecrets.k = \"x\"", "secrets"),
            ("[retention]\nruns = \"soon\"", "soon"),
            ("[retention]\nruns = \"30ł\"", "30ł"),
            ("[retention]\nruns = \"\"", "duration"),
            ("nonsense", "expected"),
        ] {
            let error = Config::parse(text, Path::new("/")).expect_err(text);
            assert!(error.0.contains(word), "{text}: {error}");
        }
    }
}
