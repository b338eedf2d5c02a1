//! Who leads a replicated stream.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use serde_json::{Value, json};

/// Lets the server that the client is connected to lead a stream. Whoever leads is chosen by chance, and the way to another
/// server would be a part of what only one of two sides takes.
pub async fn lead_here(client: &Client, stream: &str) {
    let (js, here) = (jetstream::new(client.clone()), client.server_info().server_name);
    for _ in 0..200 {
        let info = js.get_stream(stream).await.map(|stream| stream.cached_info().clone());
        let leader = info.ok().and_then(|info| info.cluster).and_then(|cluster| cluster.leader);
        match leader {
            Some(leader) if leader == here => return,
            // It is being elected.
            None => {}
            Some(_) => {
                let preferred = json!({ "placement": { "preferred": here } });
                // One that is refused is asked for again.
                let _: Result<Value, _> =
                    js.request(format!("STREAM.LEADER.STEPDOWN.{stream}"), &preferred).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{here} does not lead {stream}");
}
