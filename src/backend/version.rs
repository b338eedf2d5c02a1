//! Which nats-servers are new enough.

/// The oldest nats-server that has everything this crate stands on.
pub const MIN_SERVER_VERSION: &str = "2.15.1";

/// The version of a nats-server, ordered as releases are: what comes before a release (`-RC.1`) is older than the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion {
    numbers: [u64; 3],
    released: bool,
}

impl ServerVersion {
    /// `None` for what is no version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(text, _build)| text);
        let (numbers, released) = match text.split_once('-') {
            Some((numbers, _)) => (numbers, false),
            None => (text, true),
        };
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(Self { numbers, released })
    }

    /// Whether it is [`MIN_SERVER_VERSION`] or newer.
    pub(crate) fn is_enough(self) -> bool {
        Self::parse(MIN_SERVER_VERSION).is_some_and(|least| self >= least)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerVersion;

    #[test]
    fn a_version_is_new_enough_from_2_15_1_on() {
        let is_enough = |text| ServerVersion::parse(text).unwrap().is_enough();
        for old in ["2.15.1-RC.1", "2.15.0", "2.9.99", "1.99.99", "0.0.0", "2.15.0+9"] {
            assert!(!is_enough(old), "{old}");
        }
        for new in ["2.15.1", "2.15.1+9", "2.15.2-beta", "v2.100.0", "3.0.0-RC.1", "3.0.0"] {
            assert!(is_enough(new), "{new}");
        }
    }

    #[test]
    fn what_is_no_version_is_not_taken_for_one() {
        let too_large = "99999999999999999999.0.0";
        for text in ["", "2", "2.15", "2.15.1.0", "2.15.x", "-1.0.0", "dev", too_large] {
            assert_eq!(ServerVersion::parse(text), None, "{text}");
        }
    }
}
