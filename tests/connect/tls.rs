//! TLS: with files, with an own certificate, first; and what is said when it cannot be agreed on.

use std::path::Path;

use cim_persistence::backend::{ConnectError, Tls, TlsIdentity};

use super::support::{DURABLE, start};
use super::{accepted, refused, required};

#[tokio::test]
async fn tls_with_files_and_tls_first() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name);
    Pem::new().write_into(files.path());
    let stranger = file("stranger.pem");
    std::fs::write(&stranger, Pem::new().ca).unwrap();
    let identity = TlsIdentity { cert_file: file("cert.pem"), key_file: file("key.pem") };
    let ca_file = Some(file("ca.pem"));
    for (extra, first) in [("", false), (", handshake_first: true", true)] {
        let server = start(&format!("{DURABLE}\n{}", server_tls(files.path(), extra))).await;
        let right = Tls { ca_file: ca_file.clone(), identity: Some(identity.clone()), first };
        accepted(required(server.url()).tls(right.clone())).await;

        let unproven =
            refused(required(server.url()).tls(Tls { identity: None, ..right.clone() })).await;
        assert!(matches!(unproven, ConnectError::Tls { .. }), "{unproven:?}");

        let distrusted = refused(
            required(server.url()).tls(Tls { ca_file: Some(stranger.clone()), ..right.clone() }),
        )
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
    let plain = start(DURABLE).await;
    let config = required(plain.url()).tls(Tls { ca_file, ..Tls::default() });
    let error = refused(config).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

fn server_tls(files: &Path, extra: &str) -> String {
    let file = |name: &str| serde_json::Value::from(files.join(name).to_str().unwrap());
    let (cert, key, ca) = (file("cert.pem"), file("key.pem"), file("ca.pem"));
    format!("tls {{ cert_file: {cert}, key_file: {key}, ca_file: {ca}, verify: true {extra} }}")
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

    fn write_into(&self, folder: &Path) {
        for (name, pem) in [("ca.pem", &self.ca), ("cert.pem", &self.cert), ("key.pem", &self.key)]
        {
            std::fs::write(folder.join(name), pem).unwrap();
        }
    }
}
