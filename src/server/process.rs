//! One nats-server process and its temporary folder: spawning, waiting, ending.
//! It knows nothing of JetStream; when a server is ready is in `ready`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::binary::{BinarySources, find_binary};
use super::error::{Attempt, ServerError};

const LOG_LINES: usize = 20;

/// A server that ends, and whose folder goes, when this value is dropped.
pub(super) struct Process {
    binary: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, String)>,
    child: Option<Child>,
    // Dropped after Drop has ended the child, so that nobody writes to it any more.
    files: TempDir,
}

impl Process {
    /// Prepares a folder for a server with the settings `config`; it does not run yet.
    pub(super) async fn prepare(
        config: &str,
        mut variables: Vec<(&'static str, String)>,
    ) -> Result<Self, ServerError> {
        let binary = binary().await?;
        let files = tempfile::Builder::new().prefix("cim-nats-").tempdir().map_err(|source| {
            ServerError::Files { what: "make a folder in", path: std::env::temp_dir(), source }
        })?;
        let path = files.path().join("server.conf");
        fs::write(&path, config).map_err(files_error("write", &path))?;
        variables.push(("CIM_STORE_DIR", quoted(&files.path().join("store"))));
        let mut process = Self { binary, arguments: Vec::new(), variables, child: None, files };
        process.argue(["-c".into(), path.into()]);
        process.argue(["-a".into(), "127.0.0.1".into()]);
        process.argue(["--ports_file_dir".into(), process.ports_folder().into()]);
        Ok(process)
    }

    /// Adds arguments of the command line, kept over restarts.
    pub(super) fn argue<const N: usize>(&mut self, arguments: [OsString; N]) {
        self.arguments.extend(arguments);
    }

    pub(super) fn store_folder(&self) -> PathBuf {
        self.files.path().join("store")
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it, on `port` or on one that the system chooses. Ends it first if it runs.
    pub(super) fn spawn(&mut self, port: Option<u16>) -> Result<(), ServerError> {
        self.kill();
        // A port file left by a killed server would name a server that is gone.
        let ports = self.ports_folder();
        if ports.exists() {
            fs::remove_dir_all(&ports).map_err(files_error("empty", &ports))?;
        }
        fs::create_dir(&ports).map_err(files_error("make", &ports))?;
        let log = self.log_file();
        let out = File::create(&log).map_err(files_error("write", &log))?;
        let err = out.try_clone().map_err(files_error("write", &log))?;
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .arg("-p")
            .arg(port.map_or("-1".to_owned(), |port| port.to_string()))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| ServerError::Spawn { binary: self.binary.clone(), source })?;
        self.child = Some(child);
        Ok(())
    }

    /// The port on which it takes clients, once it does.
    pub(super) async fn client_port(&mut self, within: Duration) -> Result<u16, ServerError> {
        let folder = self.ports_folder();
        self.until(within, || std::future::ready(client_port_in(&folder))).await
    }

    /// Repeats `attempt` until it succeeds, the server ends by itself, or `within` is over.
    pub(super) async fn until<T, F>(
        &mut self,
        within: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, ServerError>
    where
        F: Future<Output = Result<T, String>>,
    {
        let deadline = Instant::now() + within;
        let mut pause = Duration::from_millis(2);
        loop {
            self.check_alive()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let last = match timeout(left, attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(reason)) => reason,
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() + pause >= deadline {
                return Err(ServerError::NotReady { within, last, log: self.log_end() });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Ends it at once, as a crash would.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end in order, and ends it if it has not after five seconds.
    pub(super) async fn stop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        let asked = Command::new(&self.binary)
            .arg("--signal")
            .arg(format!("quit={}", child.id()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let deadline = Instant::now() + Duration::from_secs(5);
        while asked && Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(5)).await;
        }
        self.kill();
    }

    fn check_alive(&mut self) -> Result<(), ServerError> {
        let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) else {
            return Ok(());
        };
        self.child = None;
        let log = self.log_end();
        let taken = ["address already in use", "Only one usage of each socket address"];
        if taken.iter().any(|text| log.contains(text)) {
            return Err(ServerError::PortTaken { log });
        }
        Err(ServerError::Exited { status, log })
    }

    fn log_end(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        self.files.path().join("server.log")
    }

    fn ports_folder(&self) -> PathBuf {
        self.files.path().join("ports")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A value of the server's configuration language that it reads as one string.
pub(super) fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// A password nobody knows. It begins with a letter, else the server might read a number.
pub(super) fn password() -> String {
    format!("p{}", uuid::Uuid::new_v4().simple())
}

/// Found once in a process: asking a binary for its version takes longer than starting it.
async fn binary() -> Result<PathBuf, ServerError> {
    static FOUND: OnceCell<PathBuf> = OnceCell::const_new();
    FOUND
        .get_or_try_init(|| async {
            spawn_blocking(|| find_binary(&BinarySources::of_process())).await.unwrap_or_else(
                |error| {
                    Err(ServerError::NoBinary {
                        attempts: vec![Attempt::new("the search itself", error)],
                    })
                },
            )
        })
        .await
        .cloned()
}

/// The server writes one file when it listens, and not in one step: half a file is "not yet".
fn client_port_in(folder: &Path) -> Result<u16, String> {
    let not_yet = || "it does not listen for clients yet".to_owned();
    let file = fs::read_dir(folder)
        .map_err(|error| error.to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "ports"))
        .ok_or_else(not_yet)?;
    let text = fs::read(file).map_err(|error| error.to_string())?;
    serde_json::from_slice::<serde_json::Value>(&text)
        .ok()
        .and_then(|ports| ports["nats"][0].as_str()?.rsplit_once(':')?.1.parse().ok())
        .ok_or_else(not_yet)
}

fn files_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ServerError + use<'a> {
    move |source| ServerError::Files { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_server_that_ends_early_says_so_with_its_log() {
        let mut process = Process::prepare("nonsense {", Vec::new()).await.unwrap();
        process.spawn(None).unwrap();
        let error = process.client_port(SOON).await.unwrap_err();
        let text = error.to_string();
        let expected =
            "nats-server ended with exit status: 1 before it was ready; the end of its log:\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("Unexpected EOF processing map"), "{text}");
        assert_eq!(process.pid(), None);
    }

    #[tokio::test]
    async fn waiting_ends_in_time_with_the_last_answer_and_the_log() {
        let mut process = Process::prepare("", Vec::new()).await.unwrap();
        process.spawn(None).unwrap();
        process.client_port(SOON).await.unwrap();
        let within = Duration::from_millis(20);
        let attempt = || std::future::ready(Err::<(), _>("not today".to_owned()));
        let text = process.until(within, attempt).await.unwrap_err().to_string();
        let expected = "nats-server was not ready after 20ms: not today; the end of its log:\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("Server is ready"), "{text}");
    }

    #[tokio::test]
    async fn an_attempt_that_never_ends_is_ended() {
        let mut process = Process::prepare("", Vec::new()).await.unwrap();
        process.spawn(None).unwrap();
        let attempt = std::future::pending::<Result<(), String>>;
        let error = process.until(Duration::from_millis(20), attempt).await.unwrap_err();
        assert!(matches!(error, ServerError::NotReady { last, .. } if last == "no answer"));
    }

    #[tokio::test]
    async fn the_folder_goes_with_the_process() {
        let process = Process::prepare("", Vec::new()).await.unwrap();
        let folder = process.files.path().to_owned();
        assert!(folder.is_dir());
        drop(process);
        assert!(!folder.exists());
    }
}
