//! Three private servers that replicate to each other.

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::config::CLUSTER;
use super::error::ServerError;
use super::process::{Process, password};
use super::ready;

/// How long the cluster, or a server that comes back to it, may take. Elections take seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often other ports are chosen when another process took one in between.
const PORT_CHOICES: usize = 5;

/// One of the three servers of a [`PrivateCluster`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The server `cim-1`.
    One,
    /// The server `cim-2`.
    Two,
    /// The server `cim-3`.
    Three,
}

impl Node {
    /// All three.
    pub const ALL: [Self; 3] = [Self::One, Self::Two, Self::Three];

    /// Its name in what the servers report, for example as the leader of a stream.
    pub fn server_name(self) -> &'static str {
        match self {
            Self::One => "cim-1",
            Self::Two => "cim-2",
            Self::Three => "cim-3",
        }
    }
}

/// Three nats-servers of this process's own, on loopback, each with a temporary folder, running on
/// `nats-config/cluster.conf`.
///
/// Dropping it ends all three and removes their data; what [`PrivateServer`](super::PrivateServer)
/// says of dropping, ports and clients holds for each.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::server::{Node, PrivateCluster};
///
/// let mut cluster = PrivateCluster::start().await?;
/// let client = async_nats::connect(cluster.urls().as_slice()).await?;
/// cluster.kill(Node::Two);
/// cluster.restart(Node::Two).await?;
/// # Ok(())
/// # }
/// ```
pub struct PrivateCluster {
    members: [Member; 3],
    urls: [String; 3],
    system_password: String,
}

struct Member {
    process: Process,
    port: u16,
}

impl PrivateCluster {
    /// Starts three servers on free ports and waits until they have elected a leader and can hold a
    /// stream of three replicas. Takes about half a second.
    ///
    /// # Errors
    /// As [`PrivateServer::start`](super::PrivateServer::start), with 60 s to become ready.
    ///
    /// # Cancel safety
    /// Dropping the future ends the servers that it has started.
    pub async fn start() -> Result<Self, ServerError> {
        let mut choice = 1;
        loop {
            match Self::try_start().await {
                Err(ServerError::PortTaken { .. }) if choice < PORT_CHOICES => choice += 1,
                done => return done,
            }
        }
    }

    /// The addresses of the three servers, in the order of [`Node::ALL`], running or not.
    pub fn urls(&self) -> &[String; 3] {
        &self.urls
    }

    /// The address of one server.
    pub fn url(&self, node: Node) -> &str {
        &self.urls[node as usize]
    }

    /// The id of a server's process while it runs.
    pub fn pid(&self, node: Node) -> Option<u32> {
        self.members[node as usize].process.pid()
    }

    /// Ends one server at once, as a crash would, and keeps its data. Nothing happens if it has ended.
    pub fn kill(&mut self, node: Node) {
        self.members[node as usize].process.kill();
    }

    /// Starts one server again, on the same port with the same data. Waits until it has caught up with
    /// the others, or, as long as the other two are ended and there is nothing to catch up with, until
    /// it takes clients. A server that still runs is killed first. Takes one to eight seconds, most of
    /// them for elections.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`ServerError::PortTaken`] when another process listens on the port.
    ///
    /// # Cancel safety
    /// The server may run or not when the future was dropped; call it again.
    pub async fn restart(&mut self, node: Node) -> Result<(), ServerError> {
        let member = &mut self.members[node as usize];
        member.process.spawn(Some(member.port))?;
        member.process.client_port(READY_WITHIN).await?;
        let running = Node::ALL.into_iter().filter(|node| self.pid(*node).is_some());
        if running.count() >= 2 {
            self.wait_until_caught_up(node).await?;
        }
        Ok(())
    }

    async fn try_start() -> Result<Self, ServerError> {
        let system_password = password();
        let mut processes = prepare(&system_password).await?;
        for process in &mut processes {
            process.spawn(None)?;
        }
        let [mut one, mut two, mut three] = processes;
        let ports = [
            one.client_port(READY_WITHIN).await?,
            two.client_port(READY_WITHIN).await?,
            three.client_port(READY_WITHIN).await?,
        ];
        let member = |process, port| Member { process, port };
        let mut cluster = Self {
            members: [member(one, ports[0]), member(two, ports[1]), member(three, ports[2])],
            urls: ports.map(|port| format!("nats://127.0.0.1:{port}")),
            system_password,
        };
        for node in Node::ALL {
            cluster.wait_until_caught_up(node).await?;
        }
        let [url, ..] = &cluster.urls;
        let process = &mut cluster.members[0].process;
        process.until(READY_WITHIN, || ready::replicates(url)).await?;
        Ok(cluster)
    }

    async fn wait_until_caught_up(&mut self, node: Node) -> Result<(), ServerError> {
        let url = self.urls[node as usize].as_str();
        let password = self.system_password.as_str();
        let name = node.server_name();
        let process = &mut self.members[node as usize].process;
        process.until(READY_WITHIN, || ready::caught_up(url, name, password)).await?;
        process.until(READY_WITHIN, || ready::jetstream_answers(url)).await
    }
}

impl fmt::Debug for PrivateCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateCluster")
            .field("urls", &self.urls)
            .field("pids", &Node::ALL.map(|node| self.pid(node)))
            .finish_non_exhaustive()
    }
}

async fn prepare(system_password: &str) -> Result<[Process; 3], ServerError> {
    let password = password();
    let ports = free_ports()?;
    let routes = ports.map(|port| format!("nats://127.0.0.1:{port}"));
    let member = async |node: Node| {
        let variables = vec![
            ("CIM_SERVER_NAME", node.server_name().to_owned()),
            ("CIM_CLIENT_PORT", "-1".to_owned()),
            ("CIM_ROUTE_PORT", ports[node as usize].to_string()),
            ("CIM_ROUTES", serde_json::json!(routes).to_string()),
            ("CIM_SYS_PASSWORD", system_password.to_owned()),
            ("CIM_PASSWORD", password.clone()),
        ];
        Process::prepare(CLUSTER, variables).await
    };
    Ok([member(Node::One).await?, member(Node::Two).await?, member(Node::Three).await?])
}

/// Three ports that nobody uses now. Each server must know the others' before any of them runs, so
/// the system cannot choose them at the last moment as it does for clients.
fn free_ports() -> Result<[u16; 3], ServerError> {
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let choose = || {
        let held = [any()?, any()?, any()?];
        let [one, two, three] = held.each_ref().map(TcpListener::local_addr);
        Ok([one?.port(), two?.port(), three?.port()])
    };
    choose().map_err(|error: std::io::Error| ServerError::PortTaken {
        log: format!("no free port on 127.0.0.1: {error}"),
    })
}
