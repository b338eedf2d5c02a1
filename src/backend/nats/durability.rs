//! Whether the servers put on disk what they acknowledge: asked of the system account, answered by every server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde::Deserialize;

use super::Connection;
use crate::backend::{DurabilityReport, LooseServer};

/// Every server answers this with its JetStream settings, to accounts that import it.
const ASK: &str = "$SYS.REQ.SERVER.PING.JSZ";

/// When a question is repeated: servers that have only just met may not hear the first.
const AGAIN: Duration = Duration::from_millis(500);

impl Connection {
    /// Asks every JetStream server whether it puts a write on disk before it acknowledges it.
    ///
    /// The account must import `$SYS.REQ.SERVER.PING.JSZ`, which the system account must export with
    /// `response: stream`; otherwise nobody can tell. One round trip; at most the connection's timeout when a server is
    /// silent.
    pub async fn durability(&self) -> DurabilityReport {
        match self.ask_all().await {
            Ok(replies) => judge(replies),
            Err(reason) => DurabilityReport::Unverified { reason },
        }
    }

    async fn ask_all(&self) -> Result<Vec<Reply>, String> {
        let gone = |error: &dyn std::fmt::Display| format!("the servers cannot be asked: {error}");
        let inbox = self.client().new_inbox();
        let since = Instant::now();
        let mut answers =
            self.client().subscribe(inbox.clone()).await.map_err(|error| gone(&error))?;
        let late = tokio::time::sleep(self.timeout());
        tokio::pin!(late);
        let mut again = tokio::time::interval(AGAIN);
        let mut replies = HashMap::new();
        loop {
            let answer = tokio::select! {
                _ = again.tick() => {
                    let question = r#"{"config":true}"#.into();
                    let asked = self.client().publish_with_reply(ASK, inbox.clone(), question);
                    asked.await.map_err(|error| gone(&error))?;
                    continue;
                }
                answer = answers.next() => answer.ok_or_else(|| gone(&"the connection is closed"))?,
                text = self.refused(since, ASK) => return Err(denied(&text)),
                text = self.refused(since, &inbox) => return Err(denied(&text)),
                () = &mut late => break,
            };
            if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
                return Err(not_imported());
            }
            let reply: Reply = serde_json::from_slice(&answer.payload)
                .map_err(|error| format!("an answer on {ASK} makes no sense: {error}"))?;
            replies.insert(reply.server.id.clone(), reply);
            let (answered, expected) = counted(replies.values());
            if answered >= expected {
                break;
            }
        }
        Ok(replies.into_values().collect())
    }
}

fn denied(text: &str) -> String {
    format!("{text}; allow this user to publish to {ASK} and to receive answers")
}

fn not_imported() -> String {
    format!(
        "nothing answers on {ASK}; export that service from the system account with `response: stream` and import it \
         into this account"
    )
}

#[derive(Deserialize)]
struct Reply {
    server: Server,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Server {
    id: String,
    name: String,
}

#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    disabled: bool,
    config: Option<Config>,
    meta_cluster: Option<MetaCluster>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    sync_interval: u64,
    #[serde(default)]
    sync_always: bool,
}

#[derive(Deserialize)]
struct MetaCluster {
    #[serde(default)]
    cluster_size: usize,
}

impl Reply {
    fn holds_data(&self) -> bool {
        !self.data.disabled
    }

    /// How many servers hold data, as far as this one knows.
    fn cluster_size(&self) -> usize {
        self.data.meta_cluster.as_ref().map_or(1, |cluster| cluster.cluster_size.max(1))
    }
}

/// How many servers that hold data answered, and how many there are as far as any of these knows. What the others say
/// does not count: a server without JetStream knows of no cluster.
fn counted<'a>(replies: impl Iterator<Item = &'a Reply>) -> (usize, usize) {
    let sizes = replies.filter(|reply| reply.holds_data()).map(Reply::cluster_size);
    sizes.fold((0, 1), |(answered, expected), size| (answered + 1, expected.max(size)))
}

fn judge(replies: Vec<Reply>) -> DurabilityReport {
    let (answered, expected) = counted(replies.iter());
    let mut loose = Vec::new();
    let mut silent = expected.saturating_sub(answered);
    for reply in replies.iter().filter(|reply| reply.holds_data()) {
        match &reply.data.config {
            None => silent += 1,
            Some(config) if !config.sync_always => loose.push(LooseServer {
                name: reply.server.name.clone(),
                sync_interval: Duration::from_nanos(config.sync_interval),
            }),
            Some(_) => {}
        }
    }
    loose.sort_by(|a, b| a.name.cmp(&b.name));
    if !loose.is_empty() {
        return DurabilityReport::NotDurable { servers: loose };
    }
    if silent > 0 {
        let reason = format!(
            "{} of {expected} JetStream servers answered on {ASK}; start the others or remove them from the cluster",
            expected - silent.min(expected)
        );
        return DurabilityReport::Unverified { reason };
    }
    DurabilityReport::Durable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(name: &str, data: serde_json::Value) -> Reply {
        serde_json::from_value(
            serde_json::json!({"server": {"id": name, "name": name}, "data": data}),
        )
        .unwrap()
    }

    fn of_three(name: &str, always: bool) -> Reply {
        let config =
            serde_json::json!({"sync_interval": 120_000_000_000_u64, "sync_always": always});
        reply(name, serde_json::json!({"config": config, "meta_cluster": {"cluster_size": 3}}))
    }

    #[test]
    fn every_server_counts() {
        let all = |c| vec![of_three("a", true), of_three("b", true), of_three("c", c)];
        assert_eq!(judge(all(true)), DurabilityReport::Durable);
        let sync_interval = Duration::from_secs(120);
        let servers = vec![LooseServer { name: "c".into(), sync_interval }];
        assert_eq!(judge(all(false)), DurabilityReport::NotDurable { servers });
    }

    #[test]
    fn the_wait_goes_on_until_all_that_any_holder_knows_of_have_answered() {
        let without_data = || reply("d", serde_json::json!({"disabled": true}));
        let mut replies = vec![without_data()];
        assert_eq!(counted(replies.iter()), (0, 1));
        replies.extend([of_three("a", true), of_three("b", true), without_data()]);
        assert_eq!(counted(replies.iter()), (2, 3));
        replies.extend([of_three("c", true), without_data()]);
        assert_eq!(counted(replies.iter()), (3, 3));
        assert_eq!(judge(replies), DurabilityReport::Durable);
    }

    #[test]
    fn silence_proves_nothing() {
        let reason = "2 of 3 JetStream servers answered on $SYS.REQ.SERVER.PING.JSZ; start the others or remove them \
                      from the cluster";
        assert_eq!(
            judge(vec![of_three("a", true), of_three("b", true)]),
            DurabilityReport::Unverified { reason: reason.into() }
        );
        let without_data = reply("d", serde_json::json!({"disabled": true, "config": {}}));
        assert_eq!(
            judge(vec![of_three("a", true), of_three("b", true), without_data]),
            DurabilityReport::Unverified { reason: reason.into() }
        );
        let reason = "0 of 1 JetStream servers answered on $SYS.REQ.SERVER.PING.JSZ; start the others or remove them \
                      from the cluster";
        assert_eq!(judge(vec![]), DurabilityReport::Unverified { reason: reason.into() });
        assert_eq!(
            judge(vec![reply("a", serde_json::json!({}))]),
            DurabilityReport::Unverified { reason: reason.into() }
        );
    }
}
