//! A network of the tests' own, in namespaces: a hub that leads to services of this machine, and nodes with an address and a
//! cable each. Whoever may not be root on the machine is in here.
//!
//! Between hub and node is the kernel's own TCP over a cable that can be pulled: what a node sends is then acknowledged by
//! nobody. A proxy (`proxy.rs`) cannot do that, since its own kernel acknowledges what it has received.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener};

use super::{DEADLINE, until};

/// The hub's address. Nodes have the next ones.
pub const HUB: &str = "10.99.0.1";

/// Listens at the hub for each pair of arguments: a port, and the Unix socket that leads on. Unlike networks, directories are
/// shared by all namespaces.
const SWITCHBOARD: &str = r#"
import asyncio, sys
async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def serve(port, path):
    async def connected(reader, writer):
        far_reader, far_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
    await asyncio.start_server(connected, sys.argv[1], port)
async def main():
    for port, path in zip(sys.argv[2::2], sys.argv[3::2]):
        await serve(int(port), path)
    print("listening", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"#;

/// The hub. Killed when dropped, and with it what leads to it.
pub struct Network {
    hub: Child,
    dir: TempDir,
    nodes: usize,
}

impl Network {
    /// One whose hub leads, at the same ports, to these of this machine.
    pub async fn to(ports: &[u16]) -> Network {
        let dir = TempDir::new().expect("a directory");
        let mut pairs = Vec::new();
        for port in ports {
            let path = dir.path().join(port.to_string());
            lead(UnixListener::bind(&path).expect("a socket"), *port);
            pairs.extend([PathBuf::from(port.to_string()), path]);
        }
        let log = std::fs::File::create(dir.path().join("log.txt")).expect("a log file");
        let up = format!("ip link set lo up && ip address add {HUB}/32 dev lo && exec \"$@\"");
        let hub = Command::new("unshare")
            .args(["--net", "--map-root-user", "sh", "-c", &up, "sh"])
            .args(["python3", "-c", SWITCHBOARD, HUB])
            .args(pairs)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .spawn()
            .expect("unshare, of util-linux");
        let mut network = Network { hub, dir, nodes: 0 };
        until("the hub listens", || {
            let ended = network.hub.try_wait().expect("our process");
            let log = std::fs::read_to_string(network.dir.path().join("log.txt")).unwrap_or_default();
            assert!(ended.is_none(), "the hub ended with {ended:?}: {log}");
            std::future::ready(log.contains("listening").then_some(()))
        })
        .await;
        network
    }

    /// A machine with a cable to the hub, on which nothing runs yet.
    pub fn machine(&mut self) -> Machine {
        self.nodes += 1;
        let number = self.nodes;
        // A namespace is there as long as a process is in it.
        let keeper = within(self.hub.id())
            .args(["unshare", "--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .expect("nsenter, of util-linux");
        let machine = Machine {
            dir: TempDir::new().expect("a directory"),
            keeper,
            node: None,
        };
        let deadline = Instant::now() + DEADLINE;
        // The keeper becomes what it is in three steps, and has a network of its own after the second.
        while !comm(machine.keeper.id()).starts_with("sleep") {
            assert!(Instant::now() < deadline, "the namespace never came");
            std::thread::sleep(Duration::from_millis(2));
        }
        let keeper = machine.keeper.id().to_string();
        let ends = ["type", "veth", "peer", "name", "cable", "netns", &keeper];
        self.ip(&[&["link", "add", &cable(number)], &ends[..]].concat());
        self.plug(number);
        machine.ip(&["link", "set", "lo", "up"]);
        machine.ip(&[
            "address",
            "add",
            &format!("{}/32", address(number)),
            "dev",
            "cable",
        ]);
        machine.ip(&["link", "set", "cable", "up"]);
        machine.ip(&["route", "add", HUB, "dev", "cable"]);
        machine
    }

    /// Pulls the cable of a machine, which are counted from 1: nobody is told, and what was under way is gone.
    pub fn pull(&self, number: usize) {
        self.ip(&["link", "set", &cable(number), "down"]);
    }

    /// Plugs it in again.
    pub fn plug(&self, number: usize) {
        self.ip(&["link", "set", &cable(number), "up"]);
        // A route ends with its link.
        self.ip(&["route", "replace", &address(number), "dev", &cable(number)]);
    }

    fn ip(&self, arguments: &[&str]) {
        ip(self.hub.id(), arguments);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        end(&mut self.hub);
    }
}

/// A namespace with an address and, at times, a node. Killed when dropped.
pub struct Machine {
    dir: TempDir,
    keeper: Child,
    node: Option<Child>,
}

impl Machine {
    /// Starts a node with this configuration and arguments, on its usual port, and waits until it answers.
    pub async fn start(&mut self, config: &str, arguments: &[&str]) {
        let file = self.dir.path().join("server.toml");
        std::fs::write(&file, config).expect("the configuration is written");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = log.expect("a log file");
        let node = within(self.keeper.id())
            .arg(env!("CARGO_BIN_EXE_dormouse"))
            .args(["start", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .arg("--config")
            .arg(file)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .spawn()
            .expect("nsenter, of util-linux");
        self.node = Some(node);
        until("the node answers", || {
            let ended = self.ended_by_itself();
            assert!(ended.is_none(), "the node ended with {ended:?}: {}", self.log());
            std::future::ready(self.try_ask(&["nodes", "list"]))
        })
        .await;
    }

    /// The exit code, once the node has ended by itself; -1 for a signal. Afterwards there is none.
    pub fn ended_by_itself(&mut self) -> Option<i32> {
        let status = self.node.as_mut()?.try_wait().expect("our process")?;
        self.node = None;
        Some(status.code().unwrap_or(-1))
    }

    /// What a command of the binary prints as JSON when it is given here; none when it fails.
    pub fn try_ask(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.command(arguments).output().expect("nsenter, of util-linux");
        let answer = output.status.success().then_some(output.stdout)?;
        Some(serde_json::from_slice(&answer).expect("JSON"))
    }

    /// The same, which must succeed.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).output().expect("nsenter, of util-linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.log());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = within(self.keeper.id());
        command
            .arg(env!("CARGO_BIN_EXE_dormouse"))
            .args(["--output", "json"])
            .args(arguments)
            .env("NO_COLOR", "1");
        command
    }

    /// What `/v1/nodes` says of this machine's node when another machine's is asked.
    pub fn listed_at(&self, other: &Machine) -> Option<Value> {
        let name = format!(":{}", self.node.as_ref()?.id());
        let nodes = other.try_ask(&["nodes", "list"])?;
        let mut nodes = nodes.as_array().expect("a list").iter();
        nodes
            .find(|node| {
                node["name"]
                    .as_str()
                    .is_some_and(|listed| listed.ends_with(&name))
            })
            .cloned()
    }

    /// What the node has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log.txt")
    }

    fn ip(&self, arguments: &[&str]) {
        ip(self.keeper.id(), arguments);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            end(&mut node);
        }
        end(&mut self.keeper);
        if std::thread::panicking() {
            eprintln!("--- the log of a machine ---\n{}", self.log());
        }
    }
}

fn address(number: usize) -> String {
    format!("10.99.0.{}", number + 1)
}

/// The hub's end of a machine's cable.
fn cable(number: usize) -> String {
    format!("cable{number}")
}

/// A command in the namespaces of a process. Each of its programs becomes the next, so that its id is the last one's.
fn within(process: u32) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--user", "--net", "--preserve-credentials", "--target"])
        .arg(process.to_string())
        .arg("--");
    command
}

fn ip(process: u32, arguments: &[&str]) {
    let output = within(process).arg("ip").args(arguments).output();
    let output = output.expect("nsenter, of util-linux");
    assert!(
        output.status.success(),
        "ip {arguments:?} (of iproute2): {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn comm(process: u32) -> String {
    std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("comm")).unwrap_or_default()
}

/// Leads whoever comes to a port of this machine.
fn lead(listener: UnixListener, port: u16) {
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                    // Either side may go away.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
}

fn end(process: &mut Child) {
    // It may have ended.
    let _ = process.kill();
    let _ = process.wait();
}
