//! A `dormouse start` process on a directory and a port of its own, and what it takes of the machine.
//!
//! Absent on purpose: the kernel's own work that nobody is charged for (write-back, interrupts).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};

use crate::Bench;
use crate::client::Client;
use crate::database::Database;

/// How long a server may take to answer or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one tick of the processor times in /proc is, on every Linux of today's architectures.
const TICK: Duration = Duration::from_millis(10);

/// The process. Killed when dropped; its directory goes with the bench's.
pub(crate) struct Server {
    binary: PathBuf,
    dir: PathBuf,
    extra: Vec<String>,
    address: SocketAddr,
    process: Option<Child>,
    /// Further nodes on the same database: started and stopped with this one, their processor time counted with its.
    others: Vec<Server>,
    /// Whose turn it is to be connected to.
    turn: AtomicUsize,
    /// The database, if it is Postgres.
    database: Option<Database>,
}

impl Server {
    /// Starts one on an empty directory, or on a copy of the bench's, and waits until it is ready.
    pub(crate) async fn start(bench: &Bench, extra: &[&str]) -> Result<Server> {
        let mut extra = extra.to_vec();
        let database = match (&bench.postgres, &bench.database_url) {
            (Some(cluster), _) => Some(Database::at(cluster.database())),
            (None, Some(url)) => Some(Database::beside(url)?),
            (None, None) => None,
        };
        if let Some(database) = &database {
            extra.extend(["--database-url", database.url()]);
        }
        let mut server = Server::one(bench, &extra).await?;
        for _ in 1..bench.nodes {
            server.others.push(Server::one(bench, &extra).await?);
        }
        server.database = database;
        Ok(server)
    }

    async fn one(bench: &Bench, extra: &[&str]) -> Result<Server> {
        let dir = tempfile::Builder::new()
            .prefix("data-")
            .tempdir_in(&bench.dir)?
            .keep();
        if let Some(template) = &bench.template {
            copy(template, &dir.join("data"))?;
        }
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let extra = extra.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Server {
            binary: bench.server.clone(),
            dir,
            extra,
            address,
            process: None,
            others: Vec::new(),
            turn: AtomicUsize::new(0),
            database: None,
        };
        server.boot().await?;
        Ok(server)
    }

    /// The same with the module `bench` deployed.
    pub(crate) async fn with_bench(bench: &Bench, extra: &[&str]) -> Result<Server> {
        let server = Server::start(bench, extra).await?;
        server.deploy("bench", bench.guest("bench")?).await?;
        Ok(server)
    }

    /// Uploads a module.
    pub(crate) async fn deploy(&self, module: &str, component: Vec<u8>) -> Result<()> {
        let mut client = self.client().await?;
        client
            .send(Method::PUT, &format!("/v1/modules/{module}"), component.into())
            .await
            .map(drop)
    }

    /// Starts the process on its directory; the time from there until it says that it is ready.
    pub(crate) async fn boot(&mut self) -> Result<Duration> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log.txt"))?;
        let mut command = Command::new(&self.binary);
        command
            .arg("start")
            .args(["--listen", &self.address.to_string(), "--data-dir"])
            .arg(self.data_dir())
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // The server is measured as it comes, whatever the shell says.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DORMOUSE_"))
        {
            command.env_remove(name);
        }
        let began = Instant::now();
        self.process = Some(command.spawn()?);
        loop {
            if let Ok(mut client) = Client::connect(self.address).await
                && client
                    .ask(Method::GET, "/ready", Bytes::new())
                    .await
                    .is_ok_and(|(status, _)| status.is_success())
            {
                return Ok(began.elapsed());
            }
            if let Some(status) = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().ok().flatten())
            {
                bail!("the server ended with {status}:\n{}", self.log());
            }
            if began.elapsed() > PATIENCE {
                bail!("the server is never ready:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("no process")?;
        kill_process(pid(&process)?, Signal::TERM)?;
        let began = Instant::now();
        while process.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                process.kill()?;
                bail!("the server does not end:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("no process")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// A connection to it; with several nodes, to each in turn.
    pub(crate) async fn client(&self) -> Result<Client> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (1 + self.others.len());
        let node = turn.checked_sub(1).map_or(self, |other| &self.others[other]);
        Client::connect(node.address).await
    }

    /// A connection to each node.
    pub(crate) async fn clients(&self) -> Result<Vec<Client>> {
        let mut clients = vec![Client::connect(self.address).await?];
        for node in &self.others {
            clients.push(Client::connect(node.address).await?);
        }
        Ok(clients)
    }

    /// The database, if it is Postgres.
    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        1 + self.others.len()
    }

    /// Where its data are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time it has taken so far, user's and system's, of all its threads that ever were; of all nodes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut all = self.cpu_of_one()?;
        for node in &self.others {
            all += node.cpu_of_one()?;
        }
        Ok(all)
    }

    fn cpu_of_one(&self) -> Result<Duration> {
        let text = self.proc("stat")?;
        // The name, in parentheses, may hold anything; after it, utime is the 12th field and stime the next.
        let fields = text.rsplit_once(')').context("no name in stat")?.1;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse::<u32>)
            .sum::<Result<u32, _>>()?;
        Ok(TICK * ticks)
    }

    /// Memory it has resident, in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let text = self.proc("status")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let id = self.process.as_ref().context("no process")?.id();
        Ok(std::fs::read_to_string(
            Path::new("/proc").join(id.to_string()).join(file),
        )?)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log.txt")).unwrap_or_default()
    }
}

/// Copies a directory and what is below it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn pid(process: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(process.id())?).context("a process without an id")
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            // It is ours and nobody waits for it any more; a failure means that it has ended.
            let _ = self.kill();
        }
        // The disk is the next measurement's.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
