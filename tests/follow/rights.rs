//! Users who may not follow.

use cim_persistence::backend::nats::Connection;
use cim_persistence::backend::{BackendError, ConnectionConfig, Position, Start};
use cim_persistence::server::PrivateServer;
use tokio::time::timeout;

use crate::bench::Bench;

const CONFIG: &str = r#"
jetstream { store_dir: $CIM_STORE_DIR }
authorization { users: [
  {user: app, password: app}
  {user: reader, password: reader, permissions: {publish: {deny: ["$JS.API.CONSUMER.CREATE.>"]}}}
  {user: maker, password: maker, permissions: {publish: {deny: ["$JS.API.CONSUMER.MSG.NEXT.>"]}}}
] }
no_auth_user: app
"#;

#[tokio::test]
async fn whoever_may_not_make_or_ask_a_consumer_is_told_so() {
    let server = PrivateServer::start_with_config(CONFIG).await.unwrap();
    let bench = Bench::start(&[server.url()], 1).await;
    bench.fill(3).await;
    for (user, wanted) in [("reader", "CONSUMER.CREATE"), ("maker", "CONSUMER.MSG.NEXT")] {
        let config = ConnectionConfig::new(server.url()).user_password(user, user);
        let bench = bench.through(&Connection::connect(&config).await.unwrap()).await;
        let mut follower = bench.follow(Start::After(Position::START));
        let told = timeout(crate::bench::LONG, follower.step());
        match told.await.expect("it is told soon") {
            Some(BackendError::Denied { subject, .. }) => {
                assert!(subject.contains(wanted), "{user} on {subject}");
            }
            other => panic!("{user}: {other:?}"),
        }
    }
    bench.until_no_consumer_is_left().await;
}
