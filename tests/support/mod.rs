//! A private nats-server with any configuration, on a free port, ended on drop.
//!
//! The binary is `NATS_SERVER`, or `nats-server` of the PATH.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// Its folder.
    pub(crate) dir: PathBuf,
    port: u16,
}

impl Server {
    /// Starts a server with this configuration; `{dir}` stands for a folder of its own, which `files` are put into.
    pub(crate) fn start(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("cim-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let config = config.replace("{dir}", dir.to_str().unwrap());
        let path = dir.join("server.conf");
        std::fs::write(&path, format!("listen: 127.0.0.1:-1\n{config}\n")).unwrap();
        let binary = std::env::var_os("NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let mut child = Command::new(&binary)
            .arg("-c")
            .arg(&path)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{binary:?} must be a nats-server: {error}"));
        let port = wait_until_ready(&mut child);
        Self { child, dir, port }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where it listens, with something before the host.
    pub(crate) fn url_of(&self, user_info: &str) -> String {
        format!("nats://{user_info}@{}", self.address())
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Reads the server's log up to the line that says it is ready, and drains the rest, so that the server never blocks.
fn wait_until_ready(child: &mut Child) -> u16 {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let mut port = None;
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some((_, address)) = line.split_once("Listening for client connections on ") {
            port = address.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok());
        }
        if line.contains("Server is ready") {
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return port.expect("a server that is ready has said where it listens");
        }
        log.push_str(&line);
        log.push('\n');
    }
    panic!("the server did not start:\n{log}");
}

/// A durable server whose account may ask about that. Users: `app` may do everything, `viewer` may only look at
/// streams, `mute` may not receive answers, `boxed` may receive them on `_BOX` only.
pub(crate) const DURABLE: &str = r#"
jetstream { store_dir: "{dir}/js", sync_interval: always }
accounts {
  SYS { users: [{user: sys, password: sys}]
        exports: [{service: "$SYS.REQ.SERVER.PING.JSZ", response: stream}] }
  APP { jetstream: enabled
        users: [
          {user: app, password: app}
          {user: viewer, password: viewer, permissions: {publish: ["$JS.API.STREAM.INFO.>"], subscribe: ["_INBOX.>"]}}
          {user: mute, password: mute, permissions: {publish: [">"], subscribe: {deny: ["_INBOX.>"]}}}
          {user: boxed, password: boxed, permissions: {publish: [">"], subscribe: ["_BOX.>"]}}
        ]
        imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ"}}] }
  PLAIN { users: [{user: plain, password: plain}] }
}
system_account: SYS
no_auth_user: app
"#;
