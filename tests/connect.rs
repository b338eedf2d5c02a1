//! Connecting to real servers: every way in, every refusal with its exact text, and no secret in any of it.

mod support;

use std::fmt::Write as _;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use cim_persistence::backend::nats::{Connection, verify};
use cim_persistence::backend::{
    BackendError, ConnectError, ConnectionConfig, Durability, DurabilityReport, Guard,
    JetStreamLocation, NewMessage, Replicas, Tls, TlsIdentity, Topology, TopologyError,
};
use cim_persistence::event::Headers;
use cim_persistence::event_log::{EventLog, NatsLog};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, Names, SubjectScheme};
use support::{DURABLE, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than anything here takes; only to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

async fn refused(config: ConnectionConfig) -> ConnectError {
    let outcome = timeout(PATIENCE, Connection::connect(&config)).await.expect("it must not hang");
    outcome.expect_err("it must be refused")
}

async fn accepted(config: ConnectionConfig) -> Connection {
    let outcome = timeout(PATIENCE, Connection::connect(&config)).await.expect("it must not hang");
    outcome.expect("it must be accepted")
}

fn required(url: impl Into<secrecy::SecretString>) -> ConnectionConfig {
    ConnectionConfig::new(url).durability(Durability::Required)
}

fn scheme() -> SubjectScheme {
    SubjectScheme::new(ContextName::new("sales").unwrap(), "cim.events", "cim.aggregates").unwrap()
}

fn topology() -> Topology {
    let scheme = scheme();
    Topology::new(&scheme, &Names::of(scheme.context()), Replicas::One).unwrap()
}

#[tokio::test]
async fn a_durable_server_is_accepted_where_durability_is_required() {
    let server = Server::start(DURABLE, &[]);
    let connection = accepted(required(server.url())).await;
    assert_eq!(connection.durability().await, DurabilityReport::Durable);
    let own = async_nats::connect(server.url()).await.unwrap();
    assert_eq!(Connection::from_client(own).durability().await, DurabilityReport::Durable);
}

#[tokio::test]
async fn a_server_that_syncs_now_and_then_is_refused_or_reported() {
    let config = DURABLE.replace("sync_interval: always", "");
    let server = Server::start(&format!("server_name: loose\n{config}"), &[]);
    assert_eq!(
        refused(required(server.url())).await.to_string(),
        "acknowledged writes are not durable: server loose syncs every 120s; set `sync_interval: always` in the server's \
         jetstream block"
    );
    start_capture();
    accepted(ConnectionConfig::new(server.url())).await;
    assert!(
        captured().contains("acknowledged writes are not durable: server loose syncs every 120s")
    );
}

#[tokio::test]
async fn durability_that_cannot_be_verified_is_refused_or_reported() {
    let alone = Server::start(r#"jetstream { store_dir: "{dir}/js", sync_interval: always }"#, &[]);
    assert_eq!(
        refused(required(alone.url())).await.to_string(),
        "whether acknowledged writes are durable cannot be verified: nothing answers on $SYS.REQ.SERVER.PING.JSZ; export \
         that service from the system account with `response: stream` and import it into this account"
    );
    accepted(ConnectionConfig::new(alone.url())).await;
    let server = Server::start(DURABLE, &[]);
    assert_eq!(
        refused(required(server.url_of("viewer:viewer"))).await.to_string(),
        "whether acknowledged writes are durable cannot be verified: Permissions Violation for Publish to \
         \"$SYS.REQ.SERVER.PING.JSZ\"; allow this user to publish to $SYS.REQ.SERVER.PING.JSZ and to receive answers"
    );
    accepted(ConnectionConfig::new(server.url_of("viewer:viewer"))).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_refused_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = ConnectionConfig::new(format!("nats://ann:hunter2@{address}"));
    assert_eq!(
        refused(config).await.to_string(),
        format!(
            "no NATS server can be reached at nats://{address}; is it running, and is the URL right?"
        )
    );
    let server = Server::start(DURABLE, &[]);
    accepted(ConnectionConfig::new(format!("nats://{address}")).url(server.url())).await;
}

#[tokio::test]
async fn a_first_connection_is_retried_where_that_is_configured() {
    let server = Server::start(DURABLE, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = server.address();
    tokio::spawn(async move {
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(upstream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let config = required(format!("nats://{address}")).retry_on_initial_connect(true);
    accepted(config).await;
}

#[tokio::test]
async fn a_refusal_is_not_retried() {
    let server = Server::start(DURABLE, &[]);
    let config = ConnectionConfig::new(server.url_of("app:hunter2")).retry_on_initial_connect(true);
    assert_eq!(
        refused(config).await.to_string(),
        format!(
            "the NATS server at {} refuses to authorize user \"app\"; check the credentials",
            server.url()
        )
    );
}

#[tokio::test]
async fn every_kind_of_identity_gets_in_and_a_wrong_one_does_not() {
    let user = nkeys::KeyPair::new_user();
    let other = nkeys::KeyPair::new_user();
    let seed = user.seed().unwrap();
    let nkey = Server::start(
        &format!(
            "jetstream {{ store_dir: \"{{dir}}/js\" }}\nauthorization {{ users: [{{nkey: {}}}] }}",
            user.public_key()
        ),
        &[],
    );
    accepted(ConnectionConfig::new(nkey.url()).nkey(seed)).await;
    assert_eq!(
        refused(ConnectionConfig::new(nkey.url()).nkey(other.seed().unwrap())).await.to_string(),
        format!(
            "the NATS server at {} refuses to authorize the nkey; check the credentials",
            nkey.url()
        )
    );
    let damaged = format!("SU{}", "A".repeat(56));
    assert_eq!(
        refused(ConnectionConfig::new(nkey.url()).nkey(damaged)).await.to_string(),
        "the nkey seed cannot be used; a user's seed starts with SU and has 58 characters of A-Z and 2-7"
    );

    let token = Server::start(
        "jetstream { store_dir: \"{dir}/js\" }\nauthorization { token: hunter2 }",
        &[("x.creds", "hunter2")],
    );
    accepted(ConnectionConfig::new(token.url()).token("hunter2")).await;
    accepted(ConnectionConfig::new(token.url_of("hunter2"))).await;
    for (config, who) in [
        (ConnectionConfig::new(token.url()).token("hunter3"), "the token"),
        (ConnectionConfig::new(token.url()), "a client without credentials"),
    ] {
        assert_eq!(
            refused(config).await.to_string(),
            format!(
                "the NATS server at {} refuses to authorize {who}; check the credentials",
                token.url()
            )
        );
    }

    let path = token.dir.join("x.creds");
    assert_eq!(
        refused(ConnectionConfig::new(token.url()).credentials_file(&path)).await.to_string(),
        format!(
            "{} is not a credentials file: it must hold a user JWT and its nkey seed",
            path.display()
        )
    );
    assert_eq!(
        refused(ConnectionConfig::new(token.url()).credentials_file("no/such.creds"))
            .await
            .to_string(),
        "credentials file no/such.creds cannot be read; check its path and its permissions"
    );
    // A token server pays no heed to a JWT, so what is shown here is that the file is read and sent.
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\neyJ0.eyJ1.c2ln\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        other.seed().unwrap()
    );
    std::fs::write(&path, creds).unwrap();
    assert_eq!(
        refused(ConnectionConfig::new(token.url()).credentials_file(&path)).await.to_string(),
        format!(
            "the NATS server at {} refuses to authorize the user of {}; check the credentials",
            token.url(),
            path.display()
        )
    );
}

#[tokio::test]
async fn tls_with_files_and_tls_first() {
    let pem = Pem::new();
    let files = pem.files();
    let tls = r#"tls { cert_file: "{dir}/cert.pem", key_file: "{dir}/key.pem", ca_file: "{dir}/ca.pem", verify: true FIRST }"#;
    let identity = |server: &Server| TlsIdentity {
        cert_file: server.dir.join("cert.pem"),
        key_file: server.dir.join("key.pem"),
    };
    for (extra, first) in [("", false), (", handshake_first: true", true)] {
        let server = Server::start(&format!("{DURABLE}\n{}", tls.replace("FIRST", extra)), &files);
        let ca_file = Some(server.dir.join("ca.pem"));
        let right = Tls { ca_file, identity: Some(identity(&server)), first };
        accepted(required(server.url()).tls(right.clone())).await;

        let unproven =
            refused(required(server.url()).tls(Tls { identity: None, ..right.clone() })).await;
        assert!(matches!(unproven, ConnectError::Tls { .. }), "{unproven:?}");

        let stranger = server.dir.join("stranger.pem");
        std::fs::write(&stranger, &Pem::new().ca).unwrap();
        let distrusted =
            refused(required(server.url()).tls(Tls { ca_file: Some(stranger), ..right.clone() }))
                .await;
        assert_eq!(
            distrusted.to_string(),
            format!(
                "no TLS with the NATS server at {}: invalid peer certificate: UnknownIssuer; check the CA file, the \
                 certificate, the host name and TLS first",
                server.url()
            )
        );
        let missing = Tls { ca_file: Some("no/ca.pem".into()), ..right };
        assert_eq!(
            refused(required(server.url()).tls(missing)).await.to_string(),
            "CA file no/ca.pem cannot be read; check its path and its permissions"
        );
    }
    let plain = Server::start(DURABLE, &files);
    let config = required(plain.url())
        .tls(Tls { ca_file: Some(plain.dir.join("ca.pem")), ..Tls::default() });
    let error = refused(config).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

/// An authority and one certificate of it, for the server and its clients alike.
struct Pem {
    ca: String,
    cert: String,
    key: String,
}

impl Pem {
    fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // A name of its own, so that the authority of another test is unknown rather than wrong.
        let name = uuid::Uuid::new_v4().to_string();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        Self { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() }
    }

    fn files(&self) -> [(&str, &str); 3] {
        [("ca.pem", &self.ca), ("cert.pem", &self.cert), ("key.pem", &self.key)]
    }
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let info = r#"{"server_id":"x","version":"2.12.4","headers":true,"max_payload":1048576,"jetstream":true}"#;
        socket.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let (read, mut write) = socket.split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == "PING" {
                write.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    });
    assert_eq!(
        refused(ConnectionConfig::new(format!("nats://{address}"))).await.to_string(),
        "nats-server 2.12.4 is too old; upgrade every server to 2.15.1 or later"
    );
}

#[tokio::test]
async fn jetstream_must_be_there() {
    const THEN: &str =
        "enable it for the server and the account, or correct the domain or API prefix";
    let without = Server::start("", &[]);
    assert_eq!(
        refused(ConnectionConfig::new(without.url())).await.to_string(),
        format!("JetStream is not enabled: nothing answers on $JS.API.INFO; {THEN}")
    );
    let server = Server::start(DURABLE, &[]);
    assert_eq!(
        refused(ConnectionConfig::new(server.url_of("plain:plain"))).await.to_string(),
        format!("JetStream is not enabled: JetStream not enabled for account (10039); {THEN}")
    );
    let hub = JetStreamLocation::Domain("hub".into());
    assert_eq!(
        refused(ConnectionConfig::new(server.url()).jetstream(hub.clone())).await.to_string(),
        format!("JetStream is not enabled: nothing answers on $JS.hub.API.INFO; {THEN}")
    );
    let there = Server::start(&DURABLE.replace("jetstream {", "jetstream { domain: hub,"), &[]);
    accepted(required(there.url()).jetstream(hub.clone())).await;
    let prefix = JetStreamLocation::ApiPrefix("$JS.hub.API".into());
    accepted(required(there.url()).jetstream(prefix)).await;
    let own = async_nats::connect(there.url()).await.unwrap();
    let own = Connection::from_client(own).with_jetstream(hub).unwrap();
    let missing = verify(&own, &topology()).await.unwrap_err();
    assert!(matches!(missing, TopologyError::Missing { .. }), "{missing:?}");
    let wrong = own.with_jetstream(JetStreamLocation::Domain("a b".into())).unwrap_err();
    assert!(wrong.to_string().starts_with("JetStream domain \"a b\" cannot stand in a subject"));
}

fn message() -> NewMessage {
    let subject =
        scheme().events_of(&AggregateType::new("order").unwrap(), &AggregateId::new("42").unwrap());
    let payload = bytes::Bytes::from_static(b"x");
    NewMessage { subject, headers: Headers::new(), payload, guard: Guard::Free }
}

#[tokio::test]
async fn a_refused_permission_is_said_at_once() {
    let server = Server::start(DURABLE, &[]);
    let app = accepted(ConnectionConfig::new(server.url())).await;
    cim_persistence::backend::nats::provision(&app, &topology()).await.unwrap();

    // The request would time out after PATIENCE * 2; `timeout` ends the test before.
    let config =
        ConnectionConfig::new(server.url_of("viewer:viewer")).request_timeout(PATIENCE * 2);
    let viewer = accepted(config).await;
    let log = NatsLog::open(&viewer, "CIM-EVENTS-sales").await.unwrap();
    let error = timeout(PATIENCE, log.publish(message())).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "permission denied on cim.events.sales.order.42: Permissions Violation for Publish to \
         \"cim.events.sales.order.42\""
    );
    assert_eq!(
        NatsLog::open(&app, "CIM-EVENTS-sales").await.unwrap().status().await.unwrap().messages,
        0
    );
}

#[tokio::test]
async fn whoever_may_not_receive_answers_is_told_so() {
    let server = Server::start(DURABLE, &[]);
    let config = ConnectionConfig::new(server.url_of("mute:mute")).request_timeout(PATIENCE * 2);
    let mute = accepted(config.clone()).await;
    let error = timeout(PATIENCE, NatsLog::open(&mute, "X")).await.unwrap().unwrap_err();
    let BackendError::Denied { subject, detail } = error else { panic!("{error:?}") };
    assert_eq!(subject, "$JS.API.STREAM.INFO.X");
    assert!(detail.starts_with("Permissions Violation for Subscription to \"_INBOX."), "{detail}");

    let boxed = |prefix: &str| required(server.url_of("boxed:boxed")).inbox_prefix(prefix);
    accepted(boxed("_BOX")).await;
    let error = refused(boxed("_OTHER").request_timeout(PATIENCE * 2)).await.to_string();
    assert!(error.contains("Permissions Violation for Subscription to \"_OTHER."), "{error}");
}

#[tokio::test]
async fn a_client_of_the_services_own_sees_a_refusal_as_silence() {
    let server = Server::start(DURABLE, &[]);
    let app = accepted(ConnectionConfig::new(server.url())).await;
    cim_persistence::backend::nats::provision(&app, &topology()).await.unwrap();
    let options =
        async_nats::ConnectOptions::with_user_and_password("viewer".into(), "viewer".into());
    let own = options.connect(server.url()).await.unwrap();
    let own = Connection::from_client(own).with_timeout(Duration::from_millis(300));
    let log = NatsLog::open(&own, "CIM-EVENTS-sales").await.unwrap();
    let error = log.publish(message()).await.unwrap_err();
    assert!(matches!(error, BackendError::Unknown { .. }), "{error:?}");
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    start_capture();
    let secret = "open-sesame";
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    let strict = DURABLE.replace("no_auth_user: app", "");
    let server = Server::start(&strict, &[("x.creds", secret)]);
    let port_of_none = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let configs = [
        ConnectionConfig::new(server.url_of(&format!("app:{secret}"))),
        ConnectionConfig::new(server.url_of(secret)),
        ConnectionConfig::new(server.url()).user_password("app", secret),
        ConnectionConfig::new(server.url()).user_password("app", secret).url(server.url_of(secret)),
        ConnectionConfig::new(server.url()).token(secret),
        ConnectionConfig::new(server.url()).nkey(secret),
        ConnectionConfig::new(server.url()).nkey(seed.clone()),
        ConnectionConfig::new(server.url()).credentials_file(server.dir.join("x.creds")),
        ConnectionConfig::new(format!("nats://app:{secret}@{port_of_none}")),
        ConnectionConfig::new(format!("nats://app:{secret}@{port_of_none}:1")),
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
    let server = Server::start(&config, &[]);
    let connection = accepted(ConnectionConfig::new(server.url_of(&format!("app:{secret}")))).await;
    write!(shown, "{connection:?} {connection:#?} {}", captured()).unwrap();
    assert!(
        shown.contains("message=establishing connection"),
        "the client's own traces are captured"
    );
    for secret in [secret, &*seed] {
        let place = shown.find(secret).map(|at| &shown[at.saturating_sub(300)..at]);
        assert_eq!(place, None);
    }
}

static LINES: Mutex<String> = Mutex::new(String::new());

/// Keeps what this process traces from now on, at every level.
fn start_capture() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Capture).unwrap());
}

fn captured() -> String {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Capture;

impl tracing::Subscriber for Capture {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Keep);
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Keep);
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Keep);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Keep;

impl tracing::field::Visit for Keep {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(lines, "{}={value:?}", field.name()).unwrap();
    }
}
