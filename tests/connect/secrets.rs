//! Secrets are shown nowhere: not in what is printed of a configuration, a connection or an error, not in traces.

use std::fmt::Write as _;

use cim_persistence::backend::ConnectionConfig;
use tokio::net::TcpListener;

use super::support::{DURABLE, start, url_of};
use super::{accepted, refused, traces};

#[tokio::test]
async fn no_secret_is_ever_shown() {
    traces::start();
    let secret = "open-sesame";
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    let strict = DURABLE.replace("no_auth_user: app", "");
    let server = start(&strict).await;
    let files = tempfile::tempdir().unwrap();
    let creds = files.path().join("x.creds");
    std::fs::write(&creds, secret).unwrap();
    let port_of_none = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let configs = [
        ConnectionConfig::new(url_of(&server, &format!("app:{secret}"))),
        ConnectionConfig::new(url_of(&server, secret)),
        ConnectionConfig::new(server.url()).user_password("app", secret),
        ConnectionConfig::new(server.url())
            .user_password("app", secret)
            .url(url_of(&server, secret)),
        ConnectionConfig::new(server.url()).token(secret),
        ConnectionConfig::new(server.url()).nkey(secret),
        ConnectionConfig::new(server.url()).nkey(seed.clone()),
        ConnectionConfig::new(server.url()).credentials_file(creds),
        ConnectionConfig::new(format!("nats://app:{secret}@{port_of_none}")),
        ConnectionConfig::new(format!("nats://app:{secret}@{port_of_none}:1")),
        // The host was forgotten.
        ConnectionConfig::new(format!("nats://app:{secret}")),
    ];
    let mut shown = String::new();
    for config in configs {
        let error = refused(config.clone()).await;
        write!(shown, "{config:?} {config:#?} {error} {error:?} {error:#?} ").unwrap();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            write!(shown, "{error} {error:?} ").unwrap();
            source = error.source();
        }
    }
    // A right password is as secret as a wrong one.
    let config =
        DURABLE.replace("{user: app, password: app}", "{user: app, password: open-sesame}");
    let server = start(&config).await;
    let connection =
        accepted(ConnectionConfig::new(url_of(&server, &format!("app:{secret}")))).await;
    write!(shown, "{connection:?} {connection:#?} {}", traces::captured()).unwrap();
    assert!(
        shown.contains("message=establishing connection"),
        "the client's own traces are captured"
    );
    for secret in [secret, &*seed] {
        let place = shown.find(secret).map(|at| &shown[at.saturating_sub(300)..at]);
        assert_eq!(place, None);
    }
}
