//! What the tests of connecting and of provisioning share: a server with users of several rights.

use cim_persistence::server::PrivateServer;

/// A durable server whose account may ask about that. Users: `app` may do everything, `viewer` may only look at
/// streams, `mute` may not receive answers, `boxed` may receive them on `_BOX` only,
/// `clerk` may write order 1 only.
pub(crate) const DURABLE: &str = r#"
jetstream { store_dir: $CIM_STORE_DIR, sync_interval: always }
accounts {
  SYS { users: [{user: sys, password: sys}]
        exports: [{service: "$SYS.REQ.SERVER.PING.JSZ", response: stream}] }
  APP { jetstream: enabled
        users: [
          {user: app, password: app}
          {user: viewer, password: viewer, permissions: {publish: ["$JS.API.STREAM.INFO.>"], subscribe: ["_INBOX.>"]}}
          {user: clerk, password: clerk, permissions: {publish: ["$JS.API.>", "cim.events.sales.order.1"]}}
          {user: mute, password: mute, permissions: {publish: [">"], subscribe: {deny: ["_INBOX.>"]}}}
          {user: boxed, password: boxed, permissions: {publish: [">"], subscribe: ["_BOX.>"]}}
        ]
        imports: [{service: {account: SYS, subject: "$SYS.REQ.SERVER.PING.JSZ"}}] }
  PLAIN { users: [{user: plain, password: plain}] }
}
system_account: SYS
no_auth_user: app
"#;

/// A server with these settings.
pub(crate) async fn start(config: &str) -> PrivateServer {
    PrivateServer::start_with_config(config).await.unwrap()
}

/// Its address with something before the host.
pub(crate) fn url_of(server: &PrivateServer, user_info: &str) -> String {
    server.url().replace("nats://", &format!("nats://{user_info}@"))
}
