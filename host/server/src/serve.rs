//! The life of a server process: open what is on disk, take over what a former life left, listen, and leave in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_engine::{Engine, EngineOptions};
use dormouse_store::schedule::{Incarnation, NewNode};
use dormouse_store::{Store, postgres, sqlite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::access::Keys;
use crate::app::{App, Inner};
use crate::clock::{Clock, SharedClock, SystemClock};
use crate::config::Config;
use crate::feed::Feed;
use crate::listen;
use crate::options::{Options, StartError};
use crate::registry::Registry;
use crate::router::{Router, random};
use crate::scheduler::Scheduler;
use crate::sql::{Databases, Unmigrated};
use crate::worker::{Parking, Verify, Worker};

/// How often runs past their retention are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How often application databases are looked through for what is as old.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// How many are deleted in one commit.
const PRUNE_BATCH: u32 = 500;

/// What tests and the development loop set and operators don't.
#[derive(Clone)]
pub struct Tuning {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Verify replay after every body.
    pub verify_bodies: bool,
    /// The share of suspensions at which replay is verified, 0 to 1.
    pub verify_share: f64,
    /// Another store than the one of the options.
    pub store: Option<Arc<dyn Store>>,
    /// The release that it says it is.
    pub release: String,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            clock: Arc::new(SystemClock),
            verify_bodies: false,
            verify_share: 0.01,
            store: None,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A server that has started: it drives runs and has its addresses.
pub struct Server {
    app: App,
    options: Options,
    config_path: Option<PathBuf>,
    databases: Databases,
    scheduler: Scheduler,
    /// Kept here alone: what drives runs ends with the server.
    _worker: Worker,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    retention: Arc<std::sync::Mutex<Option<Duration>>>,
    fatal: oneshot::Receiver<String>,
    asked_to_drain: oneshot::Receiver<()>,
}

/// Runs a server until told to stop.
///
/// # Errors
/// Why it did not start, or had to stop.
pub async fn serve(options: Options, shutdown: CancellationToken) -> Result<(), StartError> {
    Server::start(options, Tuning::default())
        .await?
        .run(shutdown)
        .await
}

impl Server {
    /// Starts: when this returns, runs of a former life go on and the addresses are bound.
    ///
    /// # Errors
    /// What is wrong with the options, the addresses or the data directory.
    pub async fn start(options: Options, tuning: Tuning) -> Result<Server, StartError> {
        let config = Config::read(options.config.as_deref())
            .map_err(|error| StartError::Configuration(error.to_string()))?;
        // What is counted before there is someone to count it is lost.
        crate::telemetry::Metrics::install();
        if tuning.store.is_none() && !may_have_keys(&options) {
            loopback_only(&options.listen)?;
        }
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &options.listen {
            let listener = listen::bind(*address).await?;
            addresses.push(listener.local_addr().unwrap_or(*address));
            listeners.push(listener);
        }
        let store = match tuning.store {
            Some(store) => store,
            None => open_store(&options).await?,
        };
        let clock = SharedClock::new(tuning.clock);
        let keys = Keys::open(Arc::clone(&store), Arc::new(clock.clone())).await?;
        if !keys.closed() {
            loopback_only(&options.listen)?;
        }
        let engine = Engine::new(EngineOptions::new(options.data_dir.join("cache")))
            .map_err(|error| StartError::Unavailable(error.to_string()))?;
        let node = Incarnation(random());
        let asked = clock.ask();
        let standing = store
            .join(
                NewNode {
                    incarnation: node,
                    name: node_name(),
                    release: tuning.release.clone(),
                    url: addresses
                        .first()
                        .map(|address| format!("http://{address}"))
                        .unwrap_or_default(),
                },
                asked.given(),
            )
            .await?;
        clock.correct(asked, standing.now);
        let now = clock.now();

        let databases = Databases::new();
        migrate(&databases, &config).await?;
        let registry = Arc::new(Registry::new(Arc::clone(&store), engine.clone()));
        registry.put_grants(config.grants.clone(), now).await?;
        registry.refresh().await?;

        let (fatal_sender, fatal) = oneshot::channel();
        let feed = Feed::new();
        let (drain_sender, asked_to_drain) = oneshot::channel();
        let scheduler = Scheduler::new(
            Arc::clone(&store),
            clock.clone(),
            feed.clone(),
            node,
            tuning.release,
            fatal_sender,
            drain_sender,
        );
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let worker = Worker::new(crate::worker::Inner {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            engine: engine.clone(),
            registry: Arc::clone(&registry),
            scheduler: scheduler.clone(),
            feed: feed.clone(),
            databases: databases.clone(),
            parking: Parking::new(options.park_idle, options.park_memory),
            verify: Verify {
                bodies: tuning.verify_bodies,
                share: tuning.verify_share,
            },
        });
        scheduler.start(&worker);
        let router = Router::new(Arc::clone(&store), Arc::clone(&registry), scheduler.clone(), node);
        let app = App::new(Inner {
            store,
            clock,
            registry,
            router,
            scheduler: scheduler.clone(),
            feed,
            engine,
            keys,
            draining: AtomicBool::new(false),
            preflights: tokio::sync::Mutex::default(),
        });
        let server = Server {
            app,
            config_path: options.config.clone(),
            retention: Arc::new(std::sync::Mutex::new(config.retention)),
            options,
            databases,
            scheduler,
            _worker: worker,
            listeners,
            addresses,
            fatal,
            asked_to_drain,
        };
        server.write_server_json()?;
        Ok(server)
    }

    /// The commands.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The addresses it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address for clients on this machine.
    pub fn url(&self) -> String {
        self.addresses
            .first()
            .map_or_else(String::new, |address| format!("http://{address}"))
    }

    /// Serves until told to stop, or until durability or ownership is lost.
    ///
    /// # Errors
    /// Why it had to stop.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StartError> {
        let routes = crate::api::routes(self.app.clone()).merge(crate::ui::routes(self.app.clone()));
        let stop = CancellationToken::new();
        let connections: Vec<_> = std::mem::take(&mut self.listeners)
            .into_iter()
            .map(|listener| tokio::spawn(listen::serve(listener, routes.clone(), stop.clone())))
            .collect();
        let upkeep = tokio::spawn(prune(self.app.clone(), Arc::clone(&self.retention)));
        let forgetting = tokio::spawn(forget_operations(self.app.clone(), self.databases.clone()));
        let reloading = tokio::spawn(reload_on_hangup(
            self.app.clone(),
            self.databases.clone(),
            self.config_path.clone(),
            Arc::clone(&self.retention),
        ));
        tracing::info!(url = self.url(), data_dir = %self.options.data_dir.display(), "serving");
        let stopped = tokio::select! {
            () = shutdown.cancelled() => None,
            _ = &mut self.asked_to_drain => None,
            reason = &mut self.fatal => Some(reason.unwrap_or_else(|_| "the scheduler ended".to_owned())),
        };
        upkeep.abort();
        forgetting.abort();
        reloading.abort();
        self.app.inner().draining.store(true, Ordering::Relaxed);
        tracing::info!("draining");
        let timeout = if stopped.is_some() {
            Duration::ZERO
        } else {
            self.options.drain_timeout
        };
        let ended = self.scheduler.drain(timeout).await;
        if ended > 0 {
            tracing::warn!(
                ended,
                "legs were ended at the drain timeout: their runs go on after the next start"
            );
        }
        stop.cancel();
        for connection in connections {
            let _ = connection.await;
        }
        if stopped.is_none() {
            let store = self.app.store();
            if let Err(error) = store.leave(self.scheduler.node(), self.app.now()).await {
                tracing::warn!(%error, "the node could not be taken off the list");
            }
            store.close().await;
        }
        // Whoever reads it must not find a server that is gone.
        let _ = std::fs::remove_file(self.options.data_dir.join("server.json"));
        match stopped {
            None => Ok(()),
            Some(reason) => Err(StartError::Stopped(reason)),
        }
    }

    /// Leaves a note of where this server is: for scripts, and for people who look into the directory.
    fn write_server_json(&self) -> Result<(), StartError> {
        let note = serde_json::json!({
            "pid": std::process::id(),
            "url": self.url(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let path = self.options.data_dir.join("server.json");
        let temporary = path.with_extension("json.tmp");
        std::fs::write(&temporary, format!("{note}\n"))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| unusable(&path, &error))
    }
}

/// Whether there is a database that could have keys: one that is not there yet need not be made to know.
fn may_have_keys(options: &Options) -> bool {
    match options.database_url.as_deref() {
        None => options.data_dir.join("dormouse.db").exists(),
        Some(url) => url
            .strip_prefix("sqlite:")
            .is_none_or(|path| Path::new(path.trim_start_matches("//")).exists()),
    }
}

/// Without keys, whoever reaches the server may do anything.
fn loopback_only(addresses: &[SocketAddr]) -> Result<(), StartError> {
    match addresses.iter().find(|address| !address.ip().is_loopback()) {
        None => Ok(()),
        Some(address) => Err(StartError::Configuration(format!(
            "{address} can be reached from other machines, and this server has no API keys to tell friends from others: \
             make the first with `dormouse keys create --role admin --name NAME` and --data-dir or --database-url as for \
             start, or listen on 127.0.0.1 or [::1]"
        ))),
    }
}

pub(crate) async fn open_store(options: &Options) -> Result<Arc<dyn Store>, StartError> {
    // Caches and server.json are this node's own, whatever the database is.
    std::fs::create_dir_all(&options.data_dir).map_err(|error| unusable(&options.data_dir, &error))?;
    let Some(url) = options.database_url.as_deref() else {
        return open_sqlite(&options.data_dir).await;
    };
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => {
            let store = postgres::PostgresStore::open(postgres::Options::new(url)).await?;
            Ok(Arc::new(store))
        }
        Some(("sqlite", path)) => {
            let path = Path::new(path.trim_start_matches("//"));
            if path.file_name() != Some("dormouse.db".as_ref()) {
                return Err(StartError::Configuration(format!(
                    "the database URL \"{url}\" does not name a file dormouse.db: a SQLite database keeps that name, since \
                     modules and a lock stand beside it; choose its directory, as in sqlite:/var/lib/dormouse/dormouse.db"
                )));
            }
            open_sqlite(path.parent().unwrap_or(Path::new("."))).await
        }
        _ => Err(StartError::Configuration(format!(
            "the database URL \"{url}\" is neither sqlite:PATH/dormouse.db nor postgres://USER:PASSWORD@HOST/DATABASE; leave \
             --database-url out to use SQLite in the data directory"
        ))),
    }
}

async fn open_sqlite(dir: &Path) -> Result<Arc<dyn Store>, StartError> {
    std::fs::create_dir_all(dir).map_err(|error| unusable(dir, &error))?;
    let store = sqlite::SqliteStore::open(sqlite::Options::new(dir)).await?;
    Ok(Arc::new(store))
}

fn unusable(path: &Path, error: &std::io::Error) -> StartError {
    StartError::Unavailable(format!("{} cannot be used: {error}", path.display()))
}

async fn migrate(databases: &Databases, config: &Config) -> Result<(), StartError> {
    for (module, grants) in &config.grants.modules {
        for (name, database) in &grants.databases {
            databases.migrate(database).await.map_err(|error| {
                let message = format!("modules.{module}.databases.{name}: {error}");
                match error {
                    Unmigrated::Refused(_) => StartError::Configuration(message),
                    Unmigrated::Unavailable(_) => StartError::Unavailable(message),
                }
            })?;
        }
    }
    Ok(())
}

/// Reads the configuration anew on SIGHUP; one that is invalid leaves the old in force.
async fn reload_on_hangup(
    app: App,
    databases: Databases,
    path: Option<PathBuf>,
    retention: Arc<std::sync::Mutex<Option<Duration>>>,
) {
    let Ok(mut hangups) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) else {
        return;
    };
    while hangups.recv().await.is_some() {
        let reloaded = async {
            let config = Config::read(path.as_deref()).map_err(|error| error.to_string())?;
            migrate(&databases, &config)
                .await
                .map_err(|error| error.to_string())?;
            let registry = &app.inner().registry;
            registry
                .put_grants(config.grants, app.now())
                .await
                .map_err(|error| error.to_string())?;
            *retention
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = config.retention;
            Ok::<(), String>(())
        };
        match reloaded.await {
            Ok(()) => tracing::info!("the configuration was read anew; runs that start from now on keep it"),
            Err(error) => tracing::error!(error, "the configuration is invalid: the old one stays in force"),
        }
    }
}

/// Deletes runs past their retention, a batch at a time.
async fn prune(app: App, retention: Arc<std::sync::Mutex<Option<Duration>>>) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        let keep = *retention
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(keep) = keep else { continue };
        loop {
            match app.store().prune(app.now().before(keep), PRUNE_BATCH).await {
                Ok(PRUNE_BATCH) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old runs could not be deleted");
                    break;
                }
            }
        }
    }
}

/// Deletes from the application databases what nobody will ask for again.
async fn forget_operations(app: App, databases: Databases) {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        let grants = app.inner().registry.current_grants();
        for (module, grants) in &grants.modules {
            for (name, database) in &grants.databases {
                let pruned = crate::sql::prune(&databases, database, app.store(), app.now()).await;
                if let Err(reason) = pruned {
                    tracing::warn!(
                        module,
                        database = name,
                        reason,
                        "old rows of operations could not be deleted"
                    );
                }
            }
        }
    }
}

fn node_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
