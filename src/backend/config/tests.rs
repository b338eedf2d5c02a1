//! Tests of the configuration in its three forms, and that no secret shows.

use std::collections::HashMap;
use std::env::VarError;

use super::*;

const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

fn from_env(variables: &[(&str, &str)]) -> Result<ConnectionConfig, ConfigError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    ConnectionConfig::from_variables(|name| {
        variables.get(name).map(|text| (*text).to_owned()).ok_or(VarError::NotPresent)
    })
}

fn from_json(text: &str) -> Result<ConnectionConfig, ConfigError> {
    let path = std::env::temp_dir().join(format!("cim-config-{}.json", uuid::Uuid::new_v4()));
    std::fs::write(&path, text).unwrap();
    let config = ConnectionConfig::from_file(&path);
    std::fs::remove_file(&path).unwrap();
    config
}

fn full() -> ConnectionConfig {
    ConnectionConfig::new("nats://a:1")
        .url("tls://b:2")
        .user_password("ann", "hunter2")
        .tls(Tls {
            ca_file: Some("ca.pem".into()),
            identity: Some(TlsIdentity {
                cert_file: "cert.pem".into(),
                key_file: "key.pem".into(),
            }),
            first: true,
        })
        .client_name("orders")
        .inbox_prefix("_INBOX_orders")
        .jetstream(JetStreamLocation::Domain("hub".into()))
        .connect_timeout(Duration::from_millis(1500))
        .request_timeout(Duration::from_millis(700))
        .retry_on_initial_connect(true)
        .durability(Durability::Required)
}

fn exposed(config: &ConnectionConfig) -> String {
    let secret = match &config.auth {
        Auth::None | Auth::CredentialsFile(_) => "",
        Auth::UserPassword { password, .. } => password.expose_secret(),
        Auth::Token(secret) | Auth::NKey(secret) => secret.expose_secret(),
    };
    format!("{config:?} {secret}")
}

#[test]
fn code_environment_and_file_say_the_same() {
    let env = from_env(&[
        ("NATS_URL", "nats://a:1, tls://b:2"),
        ("NATS_USER", "ann"),
        ("NATS_PASSWORD", "hunter2"),
        ("NATS_CA", "ca.pem"),
        ("NATS_CERT", "cert.pem"),
        ("NATS_KEY", "key.pem"),
        ("CIM_TLS_FIRST", "true"),
        ("CIM_CLIENT_NAME", "orders"),
        ("CIM_INBOX_PREFIX", "_INBOX_orders"),
        ("CIM_JETSTREAM_DOMAIN", "hub"),
        ("CIM_CONNECT_TIMEOUT_MS", "1500"),
        ("CIM_REQUEST_TIMEOUT_MS", "700"),
        ("CIM_RETRY_ON_INITIAL_CONNECT", "true"),
        ("CIM_DURABILITY", "required"),
    ])
    .unwrap();
    let file = from_json(
        r#"{"urls":["nats://a:1","tls://b:2"],"auth":{"user_password":{"user":"ann","password":"hunter2"}},
        "tls":{"ca_file":"ca.pem","identity":{"cert_file":"cert.pem","key_file":"key.pem"},"first":true},
        "client_name":"orders","inbox_prefix":"_INBOX_orders","jetstream":{"domain":"hub"},
        "connect_timeout_ms":1500,"request_timeout_ms":700,"retry_on_initial_connect":true,"durability":"required"}"#,
    )
    .unwrap();
    assert_eq!(exposed(&env), exposed(&full()));
    assert_eq!(exposed(&file), exposed(&full()));
}

#[test]
fn every_kind_of_identity_is_read_everywhere() {
    let code = ConnectionConfig::new("a");
    for (variable, json, config) in [
        (("NATS_TOKEN", "t0ken"), r#"{"token":"t0ken"}"#, code.clone().token("t0ken")),
        (
            ("NATS_NKEY_SEED", SEED),
            &*format!(r#"{{"nkey_seed":"{SEED}"}}"#),
            code.clone().nkey(SEED),
        ),
        (
            ("NATS_CREDS", "x.creds"),
            r#"{"credentials_file":"x.creds"}"#,
            code.clone().credentials_file("x.creds"),
        ),
        (("NATS_USER", ""), r#""none""#, code),
    ] {
        assert_eq!(exposed(&from_env(&[("NATS_URL", "a"), variable]).unwrap()), exposed(&config));
        let json = format!(r#"{{"urls":["a"],"auth":{json}}}"#);
        assert_eq!(exposed(&from_json(&json).unwrap()), exposed(&config));
    }
}

#[test]
fn another_prefix_of_the_api_is_read_everywhere() {
    let prefix = JetStreamLocation::ApiPrefix("JS.hub".into());
    let code = exposed(&ConnectionConfig::new("a").jetstream(prefix));
    let env = from_env(&[("NATS_URL", "a"), ("CIM_JETSTREAM_API_PREFIX", "JS.hub")]).unwrap();
    let file = from_json(r#"{"urls":["a"],"jetstream":{"api_prefix":"JS.hub"}}"#).unwrap();
    assert_eq!((exposed(&env), exposed(&file)), (code.clone(), code));
}

#[test]
fn wrong_environments_are_refused_by_name() {
    let url = ("NATS_URL", "a");
    for (variables, wanted) in [
        (
            vec![],
            "no server URL is given; name one such as nats://127.0.0.1:4222 in code, in NATS_URL or in the file's urls",
        ),
        (
            vec![url, ("NATS_USER", "u")],
            "NATS_USER is given without NATS_PASSWORD; give both or neither",
        ),
        (
            vec![url, ("NATS_PASSWORD", "p")],
            "NATS_PASSWORD is given without NATS_USER; give both or neither",
        ),
        (
            vec![url, ("NATS_CERT", "c")],
            "NATS_CERT is given without NATS_KEY; give both or neither",
        ),
        (vec![url, ("NATS_KEY", "k")], "NATS_KEY is given without NATS_CERT; give both or neither"),
        (
            vec![url, ("NATS_TOKEN", "t"), ("NATS_CREDS", "c")],
            "NATS_CREDS and NATS_TOKEN both say who connects; keep one of them",
        ),
        (
            vec![url, ("CIM_JETSTREAM_DOMAIN", "d"), ("CIM_JETSTREAM_API_PREFIX", "p")],
            "CIM_JETSTREAM_DOMAIN and CIM_JETSTREAM_API_PREFIX exclude each other; keep one of them",
        ),
        (
            vec![url, ("CIM_REQUEST_TIMEOUT_MS", "5s")],
            "environment variable CIM_REQUEST_TIMEOUT_MS must be a number of milliseconds",
        ),
        (
            vec![url, ("CIM_REQUEST_TIMEOUT_MS", "0")],
            "request timeout is zero; give at least a millisecond",
        ),
        (
            vec![url, ("CIM_CONNECT_TIMEOUT_MS", "0")],
            "connect timeout is zero; give at least a millisecond",
        ),
        (
            vec![url, ("CIM_TLS_FIRST", "yes")],
            "environment variable CIM_TLS_FIRST must be true or false",
        ),
        (
            vec![url, ("CIM_DURABILITY", "on")],
            "environment variable CIM_DURABILITY must be required or reported",
        ),
        (
            vec![url, ("NATS_NKEY_SEED", "SUsecret")],
            "the nkey seed cannot be used; a user's seed starts with SU and has 58 characters of A-Z and 2-7",
        ),
        (
            vec![url, ("CIM_INBOX_PREFIX", "a..b")],
            "inbox prefix \"a..b\" cannot stand in a subject: it must be tokens joined with single dots of printable \
             characters without spaces and wildcards",
        ),
        (
            vec![url, ("CIM_JETSTREAM_DOMAIN", "a.b")],
            "JetStream domain \"a.b\" cannot stand in a subject: it must be one token of printable characters without \
             spaces and wildcards",
        ),
        (
            vec![url, ("CIM_JETSTREAM_API_PREFIX", "$JS.*")],
            "JetStream API prefix \"$JS.*\" cannot stand in a subject: it must be tokens joined with single dots of \
             printable characters without spaces and wildcards",
        ),
    ] {
        assert_eq!(from_env(&variables).unwrap_err().to_string(), wanted);
    }
    let not_unicode = ConnectionConfig::from_variables(|_| Err(VarError::NotUnicode("x".into())));
    assert_eq!(not_unicode.unwrap_err().to_string(), "environment variable NATS_URL must be UTF-8");
}

#[test]
fn wrong_files_are_refused_by_place_and_never_quote_a_value() {
    for (json, wanted) in [
        (r#"{"urls":["a"],"ulrs":1}"#, "at line 1 column 20: unknown field `ulrs`"),
        ("{}", "at line 1 column 2: missing field `urls`"),
        (r#"{"urls":["a"],"urls":["#, "at line 1 column 20: duplicate field `urls`"),
        (r#"{"urls":["a"]"#, "at line 1 column 13: it ends too early"),
        (r#"{"urls":[a]}"#, "at line 1 column 10: it is not JSON"),
        (
            r#"{"urls":["a"],"auth":"hunter2"}"#,
            "at line 1 column 30: a value of another type or name is expected here",
        ),
        (
            "{\"urls\":[\"a\"],\n\"tls\":\"hunter2\"}",
            "at line 2 column 15: a value of another type or name is expected here",
        ),
        (r#"{"urls":["a"],"tls":{"identity":{"cert_file":"c"}}}"#, "missing field `key_file`"),
    ] {
        let text = from_json(json).unwrap_err().to_string();
        assert!(text.starts_with("configuration file ") && text.contains(wanted), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let missing = ConnectionConfig::from_file("no/such/file.json").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "configuration file no/such/file.json cannot be read; check its path and its permissions"
    );
}

#[test]
fn who_connects_is_said_once() {
    let both = ConnectionConfig::new("nats://u:hunter2@a").token("t");
    assert_eq!(
        both.check().unwrap_err().to_string(),
        "the configuration and a server URL both say who connects; keep one of them"
    );
    let differ = ConnectionConfig::new("nats://u:hunter2@a").url("nats://u:hunter3@b");
    assert_eq!(
        differ.check().unwrap_err().to_string(),
        "one server URL and another both say who connects; keep one of them"
    );
    let (addresses, auth) =
        ConnectionConfig::new("nats://u:p@a").url("nats://u:p@b").url("c").servers().unwrap();
    assert_eq!(addresses, ["nats://a", "nats://b", "nats://c"]);
    assert!(matches!(auth, Auth::UserPassword { user, .. } if user == "u"));
}

#[test]
fn debug_shows_everything_but_secrets() {
    let text = format!("{:?}", full().url("nats://bob:hunter2@c:3"));
    assert!(
        text.contains("ann") && text.contains("nats://***@c:3") && text.contains("hub"),
        "{text}"
    );
    assert!(!text.contains("hunter2") && !text.contains("bob"), "{text}");
    for config in [
        ConnectionConfig::new("a").token("hunter2"),
        ConnectionConfig::new("a").nkey("hunter2"),
        ConnectionConfig::new("nats://hunter2@a"),
    ] {
        assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
    }
}
