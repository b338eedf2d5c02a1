//! Server URLs: where a server is, and the secret that may stand in front of it.

use secrecy::SecretString;

use super::{Auth, ConfigError};

/// One server, taken apart.
pub(crate) struct ServerUrl {
    /// Scheme, host and port, without anything secret.
    pub(crate) address: String,
    /// Who connects, when the URL says so.
    pub(crate) auth: Auth,
}

impl ServerUrl {
    /// Reads `[nats://|tls://][user:password@|token@]host[:port]`.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |reason| ConfigError::Url { url: redact(text), reason };
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        if !matches!(scheme, "nats" | "tls") {
            return Err(wrong("the scheme must be nats or tls"));
        }
        let (auth, rest) = match rest.rsplit_once('@') {
            None => (Auth::None, rest),
            Some((user_info, rest)) => (auth_of(user_info).map_err(wrong)?, rest),
        };
        let place = rest.strip_suffix('/').unwrap_or(rest);
        check_place(place).map_err(wrong)?;
        Ok(Self { address: format!("{scheme}://{place}"), auth })
    }
}

/// The URL without what may be secret: fit to be shown. Only what can be a host and a port is kept, and the scheme: of
/// `nats://user:secret`, whose host was forgotten, nobody can tell otherwise what is what.
pub(crate) fn redact(text: &str) -> String {
    let is_word = |scheme: &str| scheme.chars().all(|c| c.is_ascii_lowercase());
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_word(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), text),
    };
    let (secret, place) = match rest.rsplit_once('@') {
        Some((_, place)) => ("***@", place),
        None => ("", rest),
    };
    match check_place(place.strip_suffix('/').unwrap_or(place)) {
        Ok(()) => format!("{scheme}{secret}{place}"),
        Err(_) => format!("{scheme}***"),
    }
}

fn auth_of(user_info: &str) -> Result<Auth, &'static str> {
    let (user, password) = match user_info.split_once(':') {
        None => (user_info, None),
        Some((user, password)) => (user, Some(password)),
    };
    if user.is_empty() {
        return Err("there is nothing before its @");
    }
    let user = percent_decode(user)?;
    Ok(match password {
        None => Auth::Token(user.into()),
        Some(password) => {
            Auth::UserPassword { user, password: SecretString::from(percent_decode(password)?) }
        }
    })
}

fn check_place(place: &str) -> Result<(), &'static str> {
    const MORE: &str = "only a host and a port may stand in it";
    if place.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#\\".contains(c)) {
        return Err(MORE);
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (address, port) = bracketed.split_once(']').ok_or("its [ is never closed")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("what stands in [ ] is not an IPv6 address");
            }
            (address, port)
        }
        None if !place.chars().all(|c| c.is_alphanumeric() || ".-_:".contains(c)) => {
            return Err(MORE);
        }
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits) if digits.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err("its port must be a number from 1 to 65535"),
    }
}

fn percent_decode(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "a % before its @ must start an escape of two hexadecimal digits";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(WRONG) };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| "what stands before its @ is not UTF-8")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn refused(text: &str) -> String {
        match ServerUrl::parse(text) {
            Ok(url) => panic!("{text} was read as {}", url.address),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn reads_hosts_ports_and_schemes() {
        for (text, address) in [
            ("nats://localhost:4222", "nats://localhost:4222"),
            ("localhost", "nats://localhost"),
            ("tls://db.example.org/", "tls://db.example.org"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
            ("nats://user:p@ss/word@host:1", "nats://host:1"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().address, address);
        }
    }

    #[test]
    fn takes_the_secret_out_of_the_address() {
        let url = ServerUrl::parse("nats://ann:s%40cret@host").unwrap();
        let Auth::UserPassword { user, password } = url.auth else { panic!() };
        assert_eq!((user.as_str(), password.expose_secret()), ("ann", "s@cret"));
        let url = ServerUrl::parse("nats://tok%2Fen@host").unwrap();
        let Auth::Token(token) = url.auth else { panic!() };
        assert_eq!(token.expose_secret(), "tok/en");
    }

    #[test]
    fn refuses_with_the_reason_and_without_the_secret() {
        for (text, wanted) in [
            (
                "http://host",
                r#"server URL "http://host" cannot be used: the scheme must be nats or tls"#,
            ),
            ("nats://u:secret@", r#"server URL "nats://***" cannot be used: it names no host"#),
            (
                "nats://u:secret@host:0",
                r#"server URL "nats://***" cannot be used: its port must be a number from 1 to 65535"#,
            ),
            (
                "nats://u:%zz@host",
                r#"server URL "nats://***@host" cannot be used: a % before its @ must start an escape of two hexadecimal digits"#,
            ),
            (
                "nats://:secret@host",
                r#"server URL "nats://***@host" cannot be used: there is nothing before its @"#,
            ),
            (
                "nats://host/path",
                r#"server URL "nats://***" cannot be used: only a host and a port may stand in it"#,
            ),
            ("nats://[::1", r#"server URL "nats://***" cannot be used: its [ is never closed"#),
            (
                "nats://[one]",
                r#"server URL "nats://***" cannot be used: what stands in [ ] is not an IPv6 address"#,
            ),
            (
                "user:secret://x@host:1:2",
                r#"server URL "***" cannot be used: the scheme must be nats or tls"#,
            ),
            (
                "nats://user:secret",
                r#"server URL "nats://***" cannot be used: its port must be a number from 1 to 65535"#,
            ),
            (
                "user:secret",
                r#"server URL "***" cannot be used: its port must be a number from 1 to 65535"#,
            ),
            (
                "nats://user:se@cret:x",
                r#"server URL "nats://***" cannot be used: its port must be a number from 1 to 65535"#,
            ),
            (
                "nats://user,secret",
                r#"server URL "nats://***" cannot be used: only a host and a port may stand in it"#,
            ),
        ] {
            assert_eq!(refused(text), wanted);
        }
    }
}
