//! `dormouse start`: the server, until SIGTERM or SIGINT.
//!
//! Only this file and `keys/offline` know the server crate; every other command talks HTTP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dormouse_server::{LogFormat, Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure, Outcome};
use crate::{terminal, units};

/// Where a server keeps its data.
pub(crate) const DATA_DIR_DEFAULT: &str = "./.dormouse";
/// Where a server listens.
const PORT_DEFAULT: u16 = 8288;

/// Start the server
///
/// It exits with 0 after SIGTERM or SIGINT, 2 when the configuration is wrong or the database is of a newer version,
/// 5 when the address, the database or the data directory is not available.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dormouse start\n  dormouse start --listen 127.0.0.1:9000 --data-dir /var/lib/dormouse \
                        --config /etc/dormouse.toml"
)]
pub(crate) struct Start {
    /// Where to listen; port 8288 of 127.0.0.1 and ::1 when not given. Others than loopback addresses need a first key
    #[arg(
        long,
        env = "DORMOUSE_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS:PORT",
        value_delimiter = ','
    )]
    #[arg(value_parser = listen)]
    listen: Vec<Listen>,

    /// Where the database, the modules and the caches are
    #[arg(long, env = "DORMOUSE_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT, value_name = "DIR")]
    data_dir: PathBuf,

    /// Another database than the one in the data directory
    #[arg(
        long,
        env = "DORMOUSE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    database_url: Option<String>,

    /// The configuration (TOML): grants, limits, retention; read again on SIGHUP
    #[arg(long, env = "DORMOUSE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// For how long a waiting instance stays in memory; 0 drops it at each suspension
    #[arg(long, value_parser = units::duration, default_value = "5s", value_name = "DURATION")]
    park_idle: Duration,

    /// How much memory waiting instances may take in all
    #[arg(long, value_parser = units::bytes, default_value = "32MiB", value_name = "SIZE")]
    park_memory: u64,

    /// How long runs may take to come to a place where they can be left, at shutdown
    #[arg(long, value_parser = units::duration, default_value = "10s", value_name = "DURATION")]
    drain_timeout: Duration,

    /// How log lines are written to stderr
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// One `--listen`: `localhost` is two addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listen(Vec<SocketAddr>);

impl Start {
    pub(crate) fn run(self) -> Outcome {
        dormouse_server::init_logging(match self.log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        })
        .map_err(|error| Failure::usage(error.to_string()))?;
        let listen = if self.listen.is_empty() {
            vec![Listen(loopback(PORT_DEFAULT))]
        } else {
            self.listen
        };
        let options = Options {
            listen: listen.into_iter().flat_map(|listen| listen.0).collect(),
            data_dir: self.data_dir,
            database_url: self.database_url,
            config: self.config,
            park_idle: self.park_idle,
            park_memory: self.park_memory,
            drain_timeout: self.drain_timeout,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start threads: {error}")))?;
        runtime.block_on(async {
            let shutdown = CancellationToken::new();
            tokio::spawn(stop_on_signal(shutdown.clone()));
            dormouse_server::serve(options, shutdown).await.map_err(|error| {
                let exit = if error.exit_code() == 2 {
                    Exit::Usage
                } else {
                    Exit::Unavailable
                };
                Failure::new(exit, error.to_string())
            })
        })
    }
}

/// The first signal asks the server to drain; the second ends the process.
async fn stop_on_signal(shutdown: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        terminal::say("warning: signals cannot be caught here; the server will not drain when it is stopped");
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    next().await;
    shutdown.cancel();
    next().await;
    terminal::say("stopped at once; what was under way goes on at the next start");
    std::process::exit(130);
}

/// Both loopback addresses; a machine without IPv6 has only the first.
fn loopback(port: u16) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
    addresses
}

fn listen(text: &str) -> Result<Listen, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(Listen(loopback(port)));
    }
    let address = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not an address such as 127.0.0.1:8288 or [::1]:8288"))?;
    Ok(Listen(vec![address]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        let one = listen("127.0.0.1:9000").expect("valid");
        assert_eq!(one.0, ["127.0.0.1:9000".parse().expect("valid")]);
        assert_eq!(listen("localhost:9000").expect("valid").0[0].port(), 9000);
        for wrong in ["", "8288", "localhost", "example.com:80", "127.0.0.1:99999"] {
            assert!(
                listen(wrong).expect_err(wrong).contains("is not an address"),
                "{wrong}"
            );
        }
    }
}
