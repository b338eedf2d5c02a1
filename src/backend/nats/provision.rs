//! Putting a topology on a server, and checking the one that is there. What exists is never changed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::Connection;
use crate::backend::{BackendError, StreamSettings, StreamSpec, Topology, TopologyError};

const NOT_FOUND: u64 = 10059;
/// The stream was made meanwhile, with other settings.
const NAME_IN_USE: u64 = 10058;
/// There is no place for all replicas.
const NO_PLACE: u64 = 10005;
/// How long one attempt waits: a cluster leaves requests about a stream unanswered while that is being made.
const ATTEMPT: Duration = Duration::from_secs(1);
/// The pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// More than one replica on a server that is no cluster.
const NOT_CLUSTERED: u64 = 10074;

/// Creates what is missing of a topology and checks what exists, like [`verify`].
///
/// Never alters a stream. Safe to repeat, and to run in several processes at once. One round trip per stream that
/// exists, two per stream that is made; what a cluster leaves unanswered, or has no place for while one of its servers is
/// away, is asked again until the connection's timeout.
/// Needs the right to publish to `STREAM.INFO` and `STREAM.CREATE` of the API.
/// When it fails or its future is dropped, some streams may have been made; repeat it.
///
/// # Errors
/// [`TopologyError`] for the first stream that cannot be used.
pub async fn provision(connection: &Connection, topology: &Topology) -> Result<(), TopologyError> {
    for spec in topology.streams() {
        let settings = match info(connection, spec).await? {
            Some(settings) => settings,
            None => {
                let wanted = serde_json::to_vec(spec.settings())
                    .expect("settings are strings, numbers and flags, which always become JSON");
                create(connection, spec, wanted.into()).await?
            }
        };
        check(spec, &settings)?;
    }
    Ok(())
}

/// Checks that everything of a topology is there and set so that nothing can be lost. Changes nothing.
///
/// Needs only the right to publish to `STREAM.INFO` of the API. One round trip per stream.
///
/// # Errors
/// [`TopologyError`] for the first stream that is missing or cannot be used.
pub async fn verify(connection: &Connection, topology: &Topology) -> Result<(), TopologyError> {
    for spec in topology.streams() {
        match info(connection, spec).await? {
            Some(settings) => check(spec, &settings)?,
            None => return Err(TopologyError::Missing { stream: spec.name().to_owned() }),
        }
    }
    Ok(())
}

/// The settings of a stream. One round trip.
pub(crate) async fn settings_of(
    connection: &Connection,
    spec: &StreamSpec,
) -> Result<StreamSettings, TopologyError> {
    let missing = || TopologyError::Missing { stream: spec.name().to_owned() };
    info(connection, spec).await?.ok_or_else(missing)
}

/// The settings of a stream; none when it is not there. One round trip.
pub(crate) async fn find_settings(
    connection: &Connection,
    spec: &StreamSpec,
) -> Result<Option<StreamSettings>, TopologyError> {
    info(connection, spec).await
}

/// Makes a stream with settings that are not only those of its specification.
pub(crate) async fn create_stream(
    connection: &Connection,
    spec: &StreamSpec,
    settings: &Value,
) -> Result<StreamSettings, TopologyError> {
    create(connection, spec, settings.to_string().into()).await
}

/// Changes those settings of a stream that differ, and leaves alone what is not known here. Two round trips.
pub(crate) async fn change_settings(
    connection: &Connection,
    spec: &StreamSpec,
    before: &StreamSettings,
    after: &StreamSettings,
) -> Result<(), TopologyError> {
    let as_json = |settings: &StreamSettings| {
        serde_json::to_value(settings)
            .expect("settings are strings, numbers and flags, which always become JSON")
    };
    let asked = ask::<Value>(connection, spec, "STREAM.INFO", Bytes::new()).await?;
    let mut wanted = asked.map_err(|error| refused(spec, error))?;
    let (before, after) = (as_json(before), as_json(after));
    let names = [&before, &after].into_iter().filter_map(Value::as_object).flatten();
    for (name, _) in names.filter(|(name, _)| before.get(name) != after.get(name)) {
        match after.get(name) {
            Some(value) => wanted[name] = value.clone(),
            // Left out of the JSON of the settings where it is not set.
            None => wanted[name] = Value::Null,
        }
    }
    let wanted = Bytes::from(wanted.to_string());
    let answer = ask::<StreamSettings>(connection, spec, "STREAM.UPDATE", wanted).await?;
    answer.map(drop).map_err(|error| refused(spec, error))
}

fn check(spec: &StreamSpec, settings: &StreamSettings) -> Result<(), TopologyError> {
    spec.check(settings)
        .map_err(|settings| TopologyError::Mismatch { stream: spec.name().to_owned(), settings })
}

async fn info(
    connection: &Connection,
    spec: &StreamSpec,
) -> Result<Option<StreamSettings>, TopologyError> {
    match ask(connection, spec, "STREAM.INFO", Bytes::new()).await? {
        Ok(settings) => Ok(Some(settings)),
        Err(error) if error.err_code == NOT_FOUND => Ok(None),
        Err(error) => Err(refused(spec, error)),
    }
}

async fn create(
    connection: &Connection,
    spec: &StreamSpec,
    wanted: Bytes,
) -> Result<StreamSettings, TopologyError> {
    match ask(connection, spec, "STREAM.CREATE", wanted).await? {
        Ok(settings) => {
            tracing::info!(stream = spec.name(), "created the stream");
            Ok(settings)
        }
        // Somebody else was faster: what is there now decides.
        Err(error) if error.err_code == NAME_IN_USE => {
            info(connection, spec).await?.ok_or_else(|| refused(spec, error))
        }
        Err(error) => Err(refused(spec, error)),
    }
}

/// Asks until somebody answers, at most as long as one request may take. Asking twice does no harm: an existing stream
/// is created again with the same settings as if it were new.
async fn ask<S: DeserializeOwned>(
    connection: &Connection,
    spec: &StreamSpec,
    verb: &str,
    payload: Bytes,
) -> Result<Result<S, ApiError>, TopologyError> {
    let subject = format!("{}.{verb}.{}", connection.api_prefix(), spec.name());
    // None when the timeout is so long that the clock has no name for its end.
    let deadline = Instant::now().checked_add(connection.timeout());
    loop {
        let outcome = ask_once(connection, &subject, payload.clone()).await;
        let again = match &outcome {
            Ok(Err(error)) => error.may_pass(),
            Ok(Ok(_)) => false,
            Err(error) => error.is_transient(),
        };
        let late = deadline.is_some_and(|deadline| Instant::now() + PAUSE >= deadline);
        if !again || late {
            return outcome.map_err(|error| failed(spec, error));
        }
        sleep(PAUSE).await;
    }
}

async fn ask_once<S: DeserializeOwned>(
    connection: &Connection,
    subject: &str,
    payload: Bytes,
) -> Result<Result<S, ApiError>, BackendError> {
    let answer =
        timeout(ATTEMPT, connection.request(subject, None, payload)).await.map_err(|_| {
            BackendError::unknown(format!("request on {subject}: none within {ATTEMPT:?}"))
        })??;
    let answer: Answer<S> = serde_json::from_slice(&answer.payload)
        .map_err(|error| BackendError::Corrupt { detail: error.to_string() })?;
    match (answer.config, answer.error) {
        (_, Some(error)) => Ok(Err(error)),
        (Some(settings), None) => Ok(Ok(settings)),
        (None, None) => Err(BackendError::Corrupt {
            detail: format!("an answer on {subject} without settings"),
        }),
    }
}

fn refused(spec: &StreamSpec, error: ApiError) -> TopologyError {
    failed(spec, error.into_backend_error(&format!("stream {}", spec.name())))
}

fn failed(spec: &StreamSpec, error: BackendError) -> TopologyError {
    let stream = spec.name().to_owned();
    match error {
        BackendError::Denied { subject, .. } => TopologyError::Denied { stream, subject },
        BackendError::NotFound { .. } => TopologyError::Missing { stream },
        source => TopologyError::Backend { stream, source },
    }
}

#[derive(Deserialize)]
struct Answer<S> {
    error: Option<ApiError>,
    config: Option<S>,
}

/// An error of the JetStream API.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    code: u64,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    description: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}

impl ApiError {
    /// Whether the same request may succeed a moment later.
    fn may_pass(&self) -> bool {
        // Only the words tell a server that is away, as one may seem in the first moments of a cluster, from one that will
        // never do (`selectPeerGroup` of nats-server).
        let is_away = self.err_code == NO_PLACE && self.description.contains("peer offline");
        self.code == 503 || is_away
    }

    /// What it means for `what` was asked about.
    pub(super) fn into_backend_error(self, what: &str) -> BackendError {
        let detail = self.to_string();
        match self {
            error if error.may_pass() => BackendError::unavailable(detail),
            Self { err_code: NOT_FOUND, .. } => BackendError::NotFound { what: what.to_owned() },
            Self { err_code: NOT_CLUSTERED, .. } => BackendError::Unsupported {
                detail: format!("{detail}; configure one replica or use a cluster"),
            },
            Self { code: 400..500, .. } => BackendError::Invalid { detail },
            _ => BackendError::unavailable(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Replicas;

    #[test]
    fn a_stream_that_is_gone_is_missing_whatever_was_asked_of_it() {
        let gone = || ApiError { code: 404, err_code: 10059, description: "not found".into() };
        let error = gone().into_backend_error("stream S");
        assert!(matches!(error, BackendError::NotFound { what } if what == "stream S"));
        let spec = StreamSpec::bucket("b", Replicas::One).unwrap();
        let error = refused(&spec, gone());
        assert!(matches!(error, TopologyError::Missing { stream } if stream == "KV_b"));
    }

    #[test]
    fn a_place_is_found_when_a_server_comes_back_and_not_when_none_will_do() {
        let because = |reason: &str| {
            let description = format!("no suitable peers for placement, {reason}");
            ApiError { code: 400, err_code: 10005, description }.into_backend_error("stream S")
        };
        assert!(because("peer offline").is_transient());
        assert!(matches!(because("insufficient storage"), BackendError::Invalid { .. }));
    }
}
