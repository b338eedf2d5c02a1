//! Credentials files, on a server that trusts an operator and holds the accounts he signed in its memory.
//!
//! Who gets in and who does not; the JWTs are made here, as `nsc` makes them elsewhere.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cim_persistence::backend::nats::provision;
use cim_persistence::backend::{ConnectionConfig, Position};
use cim_persistence::event_log::{EventLog, NatsLog};
use cim_persistence::server::PrivateServer;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::start;
use super::{accepted, message, refused, required, topology};

/// The question whether servers are durable.
const PING: &str = "$SYS.REQ.SERVER.PING.JSZ";

#[tokio::test]
async fn the_user_of_a_credentials_file_gets_in_and_finds_jetstream() {
    let bench = Bench::start().await;
    let user = KeyPair::new_user();
    let path = bench.file("right", &user_jwt(&bench.app, &user), &user);
    // Durability is required, to see that an account made of JWTs can be given what a check of it takes.
    let connection = accepted(required(bench.server.url()).credentials_file(path)).await;
    provision(&connection, &topology()).await.unwrap();
    let log = NatsLog::open(&connection, "CIM-EVENTS-sales").await.unwrap();
    assert_eq!(log.publish(message("1")).await.unwrap(), Position::new(1));
}

#[tokio::test]
async fn a_user_whom_no_known_account_signed_is_refused() {
    let bench = Bench::start().await;
    let (stranger, user) = (KeyPair::new_account(), KeyPair::new_user());
    bench.refuses(bench.file("foreign", &user_jwt(&stranger, &user), &user)).await;
    // To name a known account as one's own takes one of that account's keys.
    let mut claims = user_claims();
    claims["issuer_account"] = bench.app.public_key().into();
    let pretended = token(&stranger, &user, json!({ "nats": claims }));
    bench.refuses(bench.file("pretended", &pretended, &user)).await;
}

#[tokio::test]
async fn a_jwt_without_the_seed_of_its_user_is_refused() {
    let bench = Bench::start().await;
    let (user, thief) = (KeyPair::new_user(), KeyPair::new_user());
    bench.refuses(bench.file("stolen", &user_jwt(&bench.app, &user), &thief)).await;
}

#[tokio::test]
async fn credentials_that_have_expired_are_refused() {
    let bench = Bench::start().await;
    let user = KeyPair::new_user();
    let expired = token(&bench.app, &user, json!({ "nats": user_claims(), "exp": 1 }));
    bench.refuses(bench.file("expired", &expired, &user)).await;
}

/// A server, its accounts' keys, and a folder for credentials files.
struct Bench {
    server: PrivateServer,
    /// The account that has JetStream.
    app: KeyPair,
    files: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let operator = KeyPair::new_operator();
        let (system, app) = (KeyPair::new_account(), KeyPair::new_account());
        let trusted = token(&operator, &operator, json!({ "nats": operator_claims(&system) }));
        let signed = |account, claims| token(&operator, account, json!({ "nats": claims }));
        let accounts = json!({
            system.public_key(): signed(&system, system_claims()),
            app.public_key(): signed(&app, app_claims(&system)),
        });
        let config = format!(
            "jetstream {{ store_dir: $CIM_STORE_DIR, sync_interval: always }}\n\
             operator: {trusted}\n\
             resolver: MEMORY\n\
             resolver_preload: {accounts}\n"
        );
        Self { server: start(&config).await, app, files: tempfile::tempdir().unwrap() }
    }

    /// A credentials file, as `nsc` writes them.
    fn file(&self, name: &str, jwt: &str, user: &KeyPair) -> PathBuf {
        let path = self.files.path().join(format!("{name}.creds"));
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             Whoever has the seed below is this user.\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n\n\
             *************************************************************\n",
            user.seed().unwrap()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Sees that the server refuses the user of a file, and that it is said whose file it is.
    async fn refuses(&self, path: PathBuf) {
        let config = ConnectionConfig::new(self.server.url()).credentials_file(&path);
        assert_eq!(
            refused(config).await.to_string(),
            format!(
                "the NATS server at {} refuses to authorize the user of {}; check the credentials",
                self.server.url(),
                path.display()
            )
        );
    }
}

/// What `issuer` says about `subject`, signed. `claims` are those that are not the same for all.
fn token(issuer: &KeyPair, subject: &KeyPair, mut claims: Value) -> String {
    claims["jti"] = uuid::Uuid::new_v4().to_string().into();
    claims["iat"] = 1.into();
    claims["iss"] = issuer.public_key().into();
    claims["sub"] = subject.public_key().into();
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn user_jwt(account: &KeyPair, user: &KeyPair) -> String {
    token(account, user, json!({ "nats": user_claims() }))
}

/// A user who may do everything in his account.
fn user_claims() -> Value {
    unlimited(json!({ "type": "user", "version": 2 }), ["subs", "data", "payload"])
}

fn operator_claims(system: &KeyPair) -> Value {
    json!({ "type": "operator", "version": 2, "system_account": system.public_key() })
}

/// The system account, which answers [`PING`] to whoever imports it.
fn system_claims() -> Value {
    let export =
        json!({ "name": "jsz", "subject": PING, "type": "service", "response_type": "Stream" });
    json!({ "type": "account", "version": 2, "limits": limits(), "exports": [export] })
}

/// An account that has JetStream and asks [`PING`].
fn app_claims(system: &KeyPair) -> Value {
    let from = system.public_key();
    let import = json!({ "name": "jsz", "subject": PING, "account": from, "type": "service" });
    let limits = unlimited(limits(), ["mem_storage", "disk_storage", "streams", "consumer"]);
    json!({ "type": "account", "version": 2, "limits": limits, "imports": [import] })
}

/// Of an account that has no JetStream and may do everything else.
fn limits() -> Value {
    let counted = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"];
    unlimited(json!({ "wildcards": true }), counted)
}

/// A limit that is left out would be 0.
fn unlimited<const N: usize>(mut claims: Value, limits: [&str; N]) -> Value {
    for limit in limits {
        claims[limit] = (-1).into();
    }
    claims
}
